//! Timers by key, of event time and of processing time.
//!
//! A key has at most one timer of a domain for an instant. Each key's next timer is found by its
//! number, its further ones, which few keys have, lie apart; a queue has the keys in the order of
//! their next timers, and is looked at only when timers are due. So a timer that is deleted, or moved
//! on as sessions move theirs, costs the queue nothing: the key stays where it is, and goes to its
//! place when its turn has come.

mod queue;
mod times;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use model::job_graph::TimeDomain;

use crate::chunks::Chunks;
use crate::key_index::KeyId;
use queue::Queue;
use times::Times;

/// The timers of a function's subtask.
#[derive(Default)]
pub struct Timers {
    event_time: Domain,
    processing_time: Domain,
}

/// Timers that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Instants in milliseconds since the epoch and keys; the earliest first, those of an instant by
    /// key unless there are very many.
    pub timers: Vec<(i64, KeyId)>,
    /// Where there are none: some may be due that would take too long to reach in one call.
    pub is_partial: bool,
    /// They are being read; the backend wakes the subtask.
    pub is_waiting: bool,
}

/// A key's timers of a domain.
#[derive(Clone, Copy, Default, PartialEq)]
struct OfKey {
    next: i64,
    /// Where the key is in the queue: at or before its next timer.
    queued: i64,
}

/// Which fields of [`OfKey`] say something.
const NEXT: u8 = 1;
const QUEUED: u8 = 2;

struct Domain {
    of_key: Chunks<OfKey>,
    flags: Chunks<u8>,
    /// A key's other timers, all after its next.
    more: HashMap<KeyId, Times, FixedState>,
    queue: Queue,
    /// Entries of the queue that are no key's place any more, or were not for a time.
    stale: usize,
    length: usize,
}

impl Default for Domain {
    fn default() -> Self {
        Self {
            of_key: Chunks::new(1),
            flags: Chunks::new(1),
            // Numbers that the host has given out: nobody chooses them.
            more: HashMap::with_hasher(FixedState::with_seed(0)),
            queue: Queue::default(),
            stale: 0,
            length: 0,
        }
    }
}

/// What a timer takes in the queue, about.
const TIMER_BYTES: usize = 32;
/// So many stale entries need not be cleared away.
const STALE_FEW: usize = 1_024;

impl Timers {
    /// Sets a key's timer for an instant, in milliseconds since the epoch; if there is one, it stays.
    pub fn set(&mut self, domain: TimeDomain, key: KeyId, time: i64) {
        self.of_mut(domain).set(key, time);
    }

    /// Deletes a key's timer for an instant, if there is one.
    pub fn delete(&mut self, domain: TimeDomain, key: KeyId, time: i64) {
        self.of_mut(domain).delete(key, time);
    }

    /// When to look for due timers again: when the next one is due, or before.
    #[must_use]
    pub fn next(&self, domain: TimeDomain) -> Option<i64> {
        let domain = self.of(domain);
        (domain.length > 0).then(|| domain.queue.next()).flatten()
    }

    /// Takes timers that are due by `now`: the next one of each key, the earliest first, about `max`
    /// at most. They are gone then; a key's further ones come with the next call.
    pub fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Due {
        self.of_mut(domain).take_due(now, max)
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

    /// Whether a key has one.
    #[must_use]
    pub fn has(&self, key: KeyId) -> bool {
        [&self.event_time, &self.processing_time].iter().any(|domain| domain.next_of(key).is_some())
    }

    /// A key's timers of a domain, the earliest first.
    pub fn of_key(&self, domain: TimeDomain, key: KeyId) -> impl Iterator<Item = i64> + '_ {
        let domain = self.of(domain);
        let next = domain.next_of(key);
        // Only who has a next has more.
        let more = next.and_then(|_| domain.more.get(&key));
        next.into_iter().chain(more.into_iter().flat_map(Times::iter))
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> usize {
        let of = |domain: &Domain| domain.of_key.memory() + domain.flags.memory();
        of(&self.event_time) + of(&self.processing_time) + self.len() * TIMER_BYTES
    }

    /// Keys with timers are below this.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.event_time.flags.len().max(self.processing_time.flags.len())
    }

    fn of(&self, domain: TimeDomain) -> &Domain {
        match domain {
            TimeDomain::EventTime => &self.event_time,
            TimeDomain::ProcessingTime => &self.processing_time,
        }
    }

    fn of_mut(&mut self, domain: TimeDomain) -> &mut Domain {
        match domain {
            TimeDomain::EventTime => &mut self.event_time,
            TimeDomain::ProcessingTime => &mut self.processing_time,
        }
    }
}

impl Domain {
    fn next_of(&self, key: KeyId) -> Option<i64> {
        let flags = self.flags.element(key as usize, 0)?;
        (flags & NEXT != 0).then(|| self.of_key.element(key as usize, 0)).flatten().map(|of| of.next)
    }

    fn set(&mut self, key: KeyId, time: i64) {
        let at = key as usize;
        self.of_key.grow_to(at + 1, OfKey { next: 0, queued: 0 });
        self.flags.grow_to(at + 1, 0);
        let added = match self.next_of(key) {
            Some(next) if next == time => false,
            Some(next) if next < time => self.more.entry(key).or_default().insert(time),
            earlier => {
                if let Some(next) = earlier {
                    self.more.entry(key).or_default().insert(next);
                }
                self.set_next(key, time);
                true
            }
        };
        self.length += usize::from(added);
    }

    /// The key's next timer is this; the queue has the key there, or before.
    fn set_next(&mut self, key: KeyId, time: i64) {
        let of = self.of_key.element_mut(key as usize, 0);
        let flags = self.flags.element_mut(key as usize, 0);
        of.next = time;
        if *flags & QUEUED == 0 || of.queued > time {
            self.stale += usize::from(*flags & QUEUED != 0);
            of.queued = time;
            self.queue.push(time, key);
        }
        *flags = NEXT | QUEUED;
        if self.stale > STALE_FEW + self.queue.len() / 2 {
            let (of_key, flags) = (&self.of_key, &self.flags);
            self.queue.retain(|time, key| is_place(of_key, flags, time, key));
            self.stale = 0;
        }
    }

    fn delete(&mut self, key: KeyId, time: i64) {
        let Some(next) = self.next_of(key) else { return };
        if next == time {
            self.length -= 1;
            self.follow(key);
        } else if self.take_more(key, Some(time)).is_some() {
            self.length -= 1;
        }
    }

    /// The key's next timer is gone: the one after it is the next.
    fn follow(&mut self, key: KeyId) {
        match self.take_more(key, None) {
            Some(following) => self.set_next(key, following),
            None => *self.flags.element_mut(key as usize, 0) &= !NEXT,
        }
    }

    /// Takes one of the key's further timers, by its time or the first.
    fn take_more(&mut self, key: KeyId, time: Option<i64>) -> Option<i64> {
        let Entry::Occupied(mut times) = self.more.entry(key) else { return None };
        let taken = match time {
            Some(time) => times.get_mut().take(time),
            None => times.get_mut().pop_first(),
        };
        if times.get().is_empty() {
            times.remove();
        }
        taken
    }

    fn take_due(&mut self, now: i64, max: usize) -> Due {
        if self.length == 0 {
            return Due::default();
        }
        let (of_key, flags, stale) = (&mut self.of_key, &mut self.flags, &mut self.stale);
        // What an entry of the queue has become.
        let place = |time: i64, key: KeyId| -> Option<i64> {
            if !is_place(of_key, flags, time, key) {
                *stale = stale.saturating_sub(1);
                return None;
            }
            let (of, flags) = (of_key.element_mut(key as usize, 0), flags.element_mut(key as usize, 0));
            if *flags & NEXT == 0 {
                *flags = 0;
                return None;
            }
            of.queued = of.next;
            Some(of.next)
        };
        let (timers, is_partial) = self.queue.take(now, max, place);
        for (_, key) in &timers {
            *self.flags.element_mut(*key as usize, 0) = 0;
        }
        self.length -= timers.len();
        if !self.more.is_empty() {
            // Only now: a key's next timer does not come in the same round.
            timers.iter().for_each(|(_, key)| self.follow(*key));
        }
        Due { timers, is_partial, is_waiting: false }
    }
}

/// Whether the queue has the key for this instant.
fn is_place(of_key: &Chunks<OfKey>, flags: &Chunks<u8>, time: i64, key: KeyId) -> bool {
    let (of, flags) = (of_key.element(key as usize, 0), flags.element(key as usize, 0));
    flags.is_some_and(|flags| flags & QUEUED != 0) && of.is_some_and(|of| of.queued == time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Deed {
        Set(KeyId, i64),
        Delete(KeyId, i64),
        /// Deletes the key's first timer and sets another.
        Move(KeyId, i64),
        Take(i64, usize),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let time = prop_oneof![
            8 => 0i64..20,
            4 => -100_000i64..100_000,
            1 => any::<i64>(),
            1 => Just(i64::MIN),
            1 => Just(i64::MAX),
        ];
        prop_oneof![
            4 => (0u32..6, time.clone()).prop_map(|(key, at)| Deed::Set(key, at)),
            2 => (0u32..6, time.clone()).prop_map(|(key, at)| Deed::Delete(key, at)),
            2 => (0u32..6, time.clone()).prop_map(|(key, at)| Deed::Move(key, at)),
            1 => (time, 1usize..5).prop_map(|(now, max)| Deed::Take(now, max)),
        ]
    }

    /// The timers of a whole round.
    fn round(timers: &mut Timers, now: i64, max: usize) -> Vec<(i64, KeyId)> {
        loop {
            let due = timers.take_due(TimeDomain::EventTime, now, max);
            if !due.is_partial {
                return due.timers;
            }
            assert!(due.timers.is_empty());
        }
    }

    proptest! {
        /// Against a plain set of all timers.
        #[test]
        fn as_a_plain_set(deeds in proptest::collection::vec(deed(), 0..300)) {
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
                    Deed::Move(key, time) => {
                        if let Some(first) = plain.iter().copied().find(|timer| timer.1 == key) {
                            timers.delete(domain, key, first.0);
                            plain.remove(&first);
                        }
                        timers.set(domain, key, time);
                        plain.insert((time, key));
                    }
                    Deed::Take(now, max) => {
                        let mut expected: Vec<(i64, KeyId)> = Vec::new();
                        for (time, key) in &plain {
                            if *time <= now && expected.len() < max && expected.iter().all(|(_, k)| k != key) {
                                expected.push((*time, *key));
                            }
                        }
                        expected.iter().for_each(|timer| { plain.remove(timer); });
                        prop_assert_eq!(round(&mut timers, now, max), expected);
                    }
                }
                prop_assert_eq!(timers.len(), plain.len());
                let next = timers.next(domain);
                prop_assert_eq!(next.is_some(), !plain.is_empty());
                prop_assert!(next.is_none_or(|next| Some(next) <= plain.first().map(|(time, _)| *time)));
                prop_assert_eq!(timers.next(TimeDomain::ProcessingTime), None);
                for key in 0..6 {
                    let of_key: Vec<i64> = timers.of_key(domain, key).collect();
                    let expected: Vec<i64> =
                        plain.iter().filter(|timer| timer.1 == key).map(|timer| timer.0).collect();
                    prop_assert_eq!(timers.has(key), !of_key.is_empty());
                    prop_assert_eq!(of_key, expected);
                }
            }
        }
    }

    #[test]
    fn timers_that_move_leave_nothing_in_the_queue() {
        let domain = TimeDomain::EventTime;
        let mut timers = Timers::default();
        // On, as sessions do, and back.
        for step in 0..200_000i64 {
            let key = (step % 10) as KeyId;
            for time in timers.of_key(domain, key).collect::<Vec<_>>() {
                timers.delete(domain, key, time);
            }
            timers.set(domain, key, if step < 100_000 { step } else { -step });
        }
        assert_eq!(timers.len(), 10);
        assert!(timers.event_time.queue.len() < 3 * STALE_FEW, "{}", timers.event_time.queue.len());
        assert_eq!(round(&mut timers, i64::MAX, 100).len(), 10);
        assert!(timers.is_empty());
    }

    #[test]
    fn many_timers_come_in_their_order_bit_by_bit() {
        let domain = TimeDomain::EventTime;
        let mut timers = Timers::default();
        let time = |key: u32| i64::from(key.wrapping_mul(2_654_435_769) >> 4) - 100_000_000;
        let count = 300_000u32;
        (0..count).for_each(|key| timers.set(domain, key, time(key)));
        let mut expected: Vec<(i64, KeyId)> = (0..count).map(|key| (time(key), key)).collect();
        expected.sort_unstable();
        let (mut came, mut partial) = (Vec::new(), 0);
        for now in [-99_000_000, 0, 1_000_000, i64::MAX] {
            loop {
                let due = timers.take_due(domain, now, 10_000);
                assert!(due.timers.len() <= 10_000);
                partial += usize::from(due.is_partial);
                if due.timers.is_empty() && !due.is_partial {
                    break;
                }
                came.extend(due.timers);
            }
            assert!(came.last().is_none_or(|(time, _)| *time <= now));
        }
        assert_eq!(came, expected);
        assert!(partial > 0, "no step was cut");
    }
}
