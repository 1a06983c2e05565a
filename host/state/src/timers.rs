//! Timers by key, of event time and of processing time.
//!
//! A key has at most one timer of a domain for an instant. Each domain keeps its keys in the order
//! of their next timers; a key's further timers, which few keys have, lie apart. So setting,
//! deleting and firing take the logarithm of the number of keys, however many timers one key has.

use std::collections::{BTreeMap, BTreeSet};

use model::job_graph::TimeDomain;

use crate::key_index::KeyId;

/// The timers of a function's subtask.
#[derive(Default)]
pub struct Timers {
    event_time: Domain,
    processing_time: Domain,
}

#[derive(Default)]
struct Domain {
    /// Each key's next timer, the earliest first.
    next: BTreeSet<(i64, KeyId)>,
    /// The same by key.
    of_key: Vec<Option<i64>>,
    /// A key's other timers, all after its next.
    more: BTreeMap<KeyId, BTreeSet<i64>>,
    length: usize,
}

impl Timers {
    /// Sets a key's timer for an instant, in milliseconds since the epoch; if there is one, it stays.
    pub fn set(&mut self, domain: TimeDomain, key: KeyId, time: i64) {
        self.of(domain).set(key, time);
    }

    /// Deletes a key's timer for an instant, if there is one.
    pub fn delete(&mut self, domain: TimeDomain, key: KeyId, time: i64) {
        self.of(domain).delete(key, time);
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next(&self, domain: TimeDomain) -> Option<i64> {
        let domain = match domain {
            TimeDomain::EventTime => &self.event_time,
            TimeDomain::ProcessingTime => &self.processing_time,
        };
        domain.next.first().map(|(time, _)| *time)
    }

    /// Takes timers that are due by `now`: the next one of each key, the earliest first, at most
    /// `max`. They are gone then; a key's further ones come with the next call.
    pub fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Vec<(i64, KeyId)> {
        let domain = self.of(domain);
        let mut due = Vec::new();
        while due.len() < max
            && let Some(first) = domain.next.first().filter(|(time, _)| *time <= now)
        {
            due.push(*first);
            domain.next.pop_first();
        }
        // Only now: a key's next timer does not come in the same round.
        for (_, key) in &due {
            domain.follow(*key);
        }
        domain.length -= due.len();
        due
    }

    /// How many timers there are, of both domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.event_time.length + self.processing_time.length
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of(&mut self, domain: TimeDomain) -> &mut Domain {
        match domain {
            TimeDomain::EventTime => &mut self.event_time,
            TimeDomain::ProcessingTime => &mut self.processing_time,
        }
    }
}

impl Domain {
    fn set(&mut self, key: KeyId, time: i64) {
        let at = key as usize;
        if at >= self.of_key.len() {
            self.of_key.resize(at + 1, None);
        }
        let added = match self.of_key[at] {
            Some(next) if next == time => false,
            Some(next) if next < time => self.more.entry(key).or_default().insert(time),
            earlier => {
                if let Some(next) = earlier {
                    self.next.remove(&(next, key));
                    self.more.entry(key).or_default().insert(next);
                }
                self.of_key[at] = Some(time);
                self.next.insert((time, key))
            }
        };
        self.length += usize::from(added);
    }

    fn delete(&mut self, key: KeyId, time: i64) {
        let Some(Some(next)) = self.of_key.get(key as usize).copied() else { return };
        if next == time {
            self.next.remove(&(time, key));
            self.follow(key);
            self.length -= 1;
        } else if self.take_more(key, Some(time)).is_some() {
            self.length -= 1;
        }
    }

    /// The key's next timer is gone: the one after it is the next.
    fn follow(&mut self, key: KeyId) {
        let following = self.take_more(key, None);
        self.of_key[key as usize] = following;
        if let Some(following) = following {
            self.next.insert((following, key));
        }
    }

    /// Takes one of the key's further timers, by its time or the first.
    fn take_more(&mut self, key: KeyId, time: Option<i64>) -> Option<i64> {
        let times = self.more.get_mut(&key)?;
        let taken = match time {
            Some(time) => times.take(&time),
            None => times.pop_first(),
        };
        if times.is_empty() {
            self.more.remove(&key);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Deed {
        Set(KeyId, i64),
        Delete(KeyId, i64),
        Take(i64, usize),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let time = prop_oneof![4 => 0i64..20, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
        prop_oneof![
            4 => (0u32..6, time.clone()).prop_map(|(key, at)| Deed::Set(key, at)),
            2 => (0u32..6, time.clone()).prop_map(|(key, at)| Deed::Delete(key, at)),
            1 => (time, 1usize..5).prop_map(|(now, max)| Deed::Take(now, max)),
        ]
    }

    proptest! {
        /// Against a plain set of all timers.
        #[test]
        fn as_a_plain_set(deeds in proptest::collection::vec(deed(), 0..200)) {
            let mut timers = Timers::default();
            let mut plain: BTreeSet<(i64, KeyId)> = BTreeSet::new();
            let domain = TimeDomain::EventTime;
            for deed in deeds {
                match deed {
                    Deed::Set(key, time) => {
                        timers.set(domain, key, time);
                        plain.insert((time, key));
                    }
                    Deed::Delete(key, time) => {
                        timers.delete(domain, key, time);
                        plain.remove(&(time, key));
                    }
                    Deed::Take(now, max) => {
                        let mut expected: Vec<(i64, KeyId)> = Vec::new();
                        for (time, key) in &plain {
                            if *time <= now && expected.len() < max && expected.iter().all(|(_, k)| k != key) {
                                expected.push((*time, *key));
                            }
                        }
                        expected.iter().for_each(|timer| { plain.remove(timer); });
                        prop_assert_eq!(timers.take_due(domain, now, max), expected);
                    }
                }
                prop_assert_eq!(timers.len(), plain.len());
                prop_assert_eq!(timers.next(domain), plain.first().map(|(time, _)| *time));
                prop_assert_eq!(timers.next(TimeDomain::ProcessingTime), None);
            }
        }
    }
}
