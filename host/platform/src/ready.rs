//! Which of a worker's subtasks have something to do: a bitmap, and one parker.
//!
//! Who makes work sets the subtask's bit and unparks the worker if it is parked; the worker
//! takes the set bits, and parks when there are none. Nothing spins, nothing polls. No wake-up is
//! lost: the waker sets the bit before it reads `parked`, the worker sets `parked` before it reads
//! the bits, all sequentially consistent, so one of them sees the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::Clock;

/// The ready subtasks of one worker.
pub struct ReadySet {
    words: Box<[AtomicU64]>,
    parked: AtomicBool,
    worker: OnceLock<Thread>,
}

struct Bit {
    set: Arc<ReadySet>,
    index: usize,
}

impl Wake for Bit {
    fn wake(self: Arc<Self>) {
        self.set.mark(self.index);
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.set.mark(self.index);
    }
}

impl ReadySet {
    /// For so many subtasks, none ready.
    #[must_use]
    pub fn new(subtasks: usize) -> Arc<Self> {
        Arc::new(Self {
            words: (0..subtasks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            parked: AtomicBool::new(false),
            worker: OnceLock::new(),
        })
    }

    /// A waker that makes subtask `index` ready.
    #[must_use]
    pub fn waker(self: &Arc<Self>, index: usize) -> Waker {
        Waker::from(Arc::new(Bit { set: Arc::clone(self), index }))
    }

    /// Makes a subtask ready.
    pub fn mark(&self, index: usize) {
        let bit = 1 << (index % 64);
        if self.words[index / 64].fetch_or(bit, Ordering::SeqCst) & bit == 0
            && self.parked.swap(false, Ordering::SeqCst)
            && let Some(worker) = self.worker.get()
        {
            worker.unpark();
        }
    }

    /// Takes the ready subtasks: appends them to `ready`, in order, and clears their bits.
    pub fn take(&self, ready: &mut Vec<usize>) {
        for (w, word) in self.words.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                ready.push(w * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Whether a subtask is ready.
    #[must_use]
    pub fn any(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Sleeps until a subtask is ready, or for `timeout`. Always from the same thread, the worker's.
    ///
    /// A waker that finds the worker parked unparks it after the worker may already have seen the
    /// bit; that token then ends the *next* sleep early, which is why this loops.
    pub fn park(&self, timeout: Option<Duration>) {
        self.worker.get_or_init(std::thread::current);
        let asleep = Clock::system();
        loop {
            self.parked.store(true, Ordering::SeqCst);
            if self.any() {
                break;
            }
            match timeout.map(|timeout| timeout.saturating_sub(asleep.now())) {
                None => std::thread::park(),
                Some(Duration::ZERO) => break,
                Some(left) => std::thread::park_timeout(left),
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn_thread;

    #[test]
    fn takes_what_was_marked_once() {
        let set = ReadySet::new(200);
        for i in [199, 3, 64, 3] {
            set.waker(i).wake();
        }
        let mut ready = Vec::new();
        set.take(&mut ready);
        assert_eq!(ready, [3, 64, 199]);
        assert!(!set.any());
    }

    /// The token of an earlier wake-up does not pass for a new one.
    #[test]
    fn a_stale_token_does_not_end_the_sleep() {
        let set = ReadySet::new(1);
        std::thread::current().unpark();
        let waker = set.waker(0);
        let later = spawn_thread("later", move || {
            Clock::system().sleep(Duration::from_millis(50));
            waker.wake();
        });
        set.park(Some(Duration::from_secs(30)));
        assert!(set.any());
        later.join().unwrap();
    }

    /// Two threads hand a token to and fro a great many times; a lost wake-up would hang.
    #[test]
    fn no_wake_up_is_lost() {
        let (here, there) = (ReadySet::new(1), ReadySet::new(1));
        let rounds = 20_000;
        let echo = {
            let (waker, set) = (here.waker(0), Arc::clone(&there));
            spawn_thread("echo", move || {
                let (mut seen, mut ready) = (0, Vec::new());
                while seen < rounds {
                    set.park(None);
                    set.take(&mut ready);
                    if !ready.is_empty() {
                        ready.clear();
                        seen += 1;
                        waker.wake_by_ref();
                    }
                }
            })
        };
        let (waker, mut ready) = (there.waker(0), Vec::new());
        for _ in 0..rounds {
            waker.wake_by_ref();
            while ready.is_empty() {
                here.park(None);
                here.take(&mut ready);
            }
            ready.clear();
        }
        echo.join().unwrap();
    }
}
