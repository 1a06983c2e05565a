//! The task slots of this process, and the jobs that wait for some: first come, first served.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Called once with the slots of who has asked for them.
type Given = Box<dyn FnOnce() + Send>;

/// Slots, given out and given back.
pub struct Slots(Mutex<Inner>);

struct Inner {
    total: u32,
    free: u32,
    waiting: VecDeque<(String, u32, Given)>,
}

impl Slots {
    /// So many, all free.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self(Mutex::new(Inner { total, free: total, waiting: VecDeque::new() }))
    }

    /// How many there are, and how many of them are free.
    #[must_use]
    pub fn count(&self) -> (u32, u32) {
        let inner = self.lock();
        (inner.total, inner.free)
    }

    /// From now on there are so many at least.
    pub fn at_least(&self, total: u32) {
        {
            let mut inner = self.lock();
            let more = total.saturating_sub(inner.total);
            inner.total += more;
            inner.free += more;
        }
        self.serve();
    }

    /// A job waits for so many. `given` is called, in any thread, when it has them.
    pub fn ask(&self, job: &str, needed: u32, given: impl FnOnce() + Send + 'static) {
        self.lock().waiting.push_back((job.to_owned(), needed, Box::new(given)));
        self.serve();
    }

    /// A job does not wait any more. Whether it did.
    pub fn forget(&self, job: &str) -> bool {
        let before = {
            let mut inner = self.lock();
            let before = inner.waiting.len();
            inner.waiting.retain(|(other, ..)| other != job);
            before - inner.waiting.len()
        };
        // Who waits behind it may be served now.
        self.serve();
        before > 0
    }

    /// So many are free again.
    pub fn give_back(&self, number: u32) {
        self.lock().free += number;
        self.serve();
    }

    /// What a job waits for, in words; none = it does not.
    #[must_use]
    pub fn waits_for(&self, job: &str) -> Option<String> {
        let inner = self.lock();
        let before = inner.waiting.iter().position(|(other, ..)| other == job)?;
        let (_, needed, _) = &inner.waiting[before];
        let (total, free) = (inner.total, inner.free);
        Some(match before {
            _ if *needed > total => format!("it needs {needed} slots, and there are {total}"),
            0 => format!("it needs {needed} slots, and {free} of {total} are free"),
            n => format!("it needs {needed} slots, {free} of {total} are free, and {n} jobs wait before it"),
        })
    }

    fn serve(&self) {
        loop {
            let given = {
                let mut inner = self.lock();
                // One that can never be served holds nobody back.
                let total = inner.total;
                let next = inner.waiting.iter().position(|(_, needed, _)| *needed <= total);
                match next.map(|at| (at, inner.waiting[at].1)) {
                    Some((at, needed)) if needed <= inner.free => {
                        inner.free -= needed;
                        inner.waiting.remove(at)
                    }
                    _ => return,
                }
            };
            if let Some((_, _, given)) = given {
                given();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_comes_first_is_served_first_and_who_never_can_holds_nobody_back() {
        let slots = Slots::new(4);
        let served: Arc<Mutex<Vec<&str>>> = Arc::default();
        let ask = |job: &'static str, needed: u32| {
            let served = Arc::clone(&served);
            slots.ask(job, needed, move || served.lock().unwrap().push(job));
        };
        ask("a", 3);
        ask("b", 2);
        ask("huge", 5);
        ask("c", 1);
        assert_eq!(*served.lock().unwrap(), ["a"]);
        assert_eq!(slots.waits_for("b").unwrap(), "it needs 2 slots, and 1 of 4 are free");
        assert_eq!(slots.waits_for("huge").unwrap(), "it needs 5 slots, and there are 4");
        assert!(slots.waits_for("c").unwrap().contains("2 jobs wait before it"));
        assert!(slots.forget("b") && !slots.forget("b"));
        assert_eq!(*served.lock().unwrap(), ["a", "c"]);
        slots.give_back(3);
        assert_eq!(slots.count(), (4, 3));
        assert_eq!(slots.waits_for("a"), None);
        slots.at_least(2);
        assert_eq!(slots.count(), (4, 3));
        slots.at_least(6);
        assert_eq!((slots.count(), slots.waits_for("huge")), ((6, 0), None));
    }
}
