//! Blocking work, done elsewhere: a pool of threads, or, in simulation, a list from which the
//! scheduler chooses. Results arrive in an inbox, and wake whoever waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::Random;
use crate::thread::spawn_thread;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads the pool has at most.
const THREADS_MAX: usize = 8;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// Where blocking work runs. Cloning shares it. Who submits bounds how much it has under way.
#[derive(Clone)]
pub struct IoPool(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    simulated: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IoPool {
    /// A pool of threads, started as they are needed.
    #[must_use]
    pub fn threads() -> Self {
        Self::new(false)
    }

    /// A pool without threads: jobs run when [`run_one`](Self::run_one) says so.
    #[must_use]
    pub fn simulated() -> Self {
        Self::new(true)
    }

    fn new(simulated: bool) -> Self {
        Self(Arc::new(Shared { queue: Mutex::default(), more: Condvar::new(), simulated }))
    }

    /// Runs `job` soon; its result goes to `inbox`, whose waker is woken.
    pub fn submit<T: Send + 'static>(&self, inbox: &Inbox<T>, job: impl FnOnce() -> T + Send + 'static) {
        let inbox = inbox.clone();
        let mut queue = lock(&self.0.queue);
        queue.jobs.push_back(Box::new(move || inbox.put(job())));
        if self.0.simulated {
            return;
        }
        if queue.idle == 0 && queue.threads < THREADS_MAX {
            queue.threads += 1;
            let shared = Arc::clone(&self.0);
            let name = format!("io-{}", queue.threads);
            drop(queue);
            spawn_thread(name, move || shared.work());
        } else {
            drop(queue);
            self.0.more.notify_one();
        }
    }

    /// Simulation: runs one waiting job, chosen by `random`. False if there is none.
    #[must_use]
    pub fn run_one(&self, random: &mut Random) -> bool {
        let mut queue = lock(&self.0.queue);
        if queue.jobs.is_empty() {
            return false;
        }
        let chosen = random.below(queue.jobs.len() as u64);
        let job = queue.jobs.remove(usize::try_from(chosen).unwrap_or(0));
        drop(queue);
        if let Some(job) = job {
            job();
        }
        true
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let queue = lock(&self.0.queue);
        queue.jobs.is_empty() && queue.idle == queue.threads
    }

    /// Simulation: the process has ended, and what waits is never done.
    pub fn forget(&self) {
        if self.0.simulated {
            // They may hold what, dropped, would clean up.
            std::mem::forget(std::mem::take(&mut lock(&self.0.queue).jobs));
        }
    }

    /// Simulation: how many jobs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.0.queue).jobs.len()
    }
}

impl Shared {
    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = lock(&self.queue);
                continue;
            }
            queue.idle += 1;
            let (guard, timeout) =
                self.more.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

/// Where results of blocking work, or of other threads, arrive. Cloning shares it.
pub struct Inbox<T>(Arc<InboxShared<T>>);

struct InboxShared<T> {
    items: Mutex<Items<T>>,
    waker: Waker,
}

struct Items<T> {
    queue: VecDeque<T>,
    /// Nobody takes anything out any more.
    is_closed: bool,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Inbox<T> {
    /// An empty inbox that wakes `waker` when something arrives.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        let items = Items { queue: VecDeque::new(), is_closed: false };
        Self(Arc::new(InboxShared { items: Mutex::new(items), waker }))
    }

    /// Puts something in, and wakes. What is put into one that is [closed](Self::close) is dropped.
    pub fn put(&self, item: T) {
        let mut items = lock(&self.0.items);
        if items.is_closed {
            drop(items);
            drop(item);
            return;
        }
        items.queue.push_back(item);
        drop(items);
        self.0.waker.wake_by_ref();
    }

    /// Nothing is taken out any more: what is in it is dropped, and so is what comes.
    pub fn close(&self) {
        let left = {
            let mut items = lock(&self.0.items);
            items.is_closed = true;
            std::mem::take(&mut items.queue)
        };
        drop(left);
    }

    /// Takes the oldest thing out, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        lock(&self.0.items).queue.pop_front()
    }

    /// How many things are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0.items).queue.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped() {
        let inbox = Inbox::new(Waker::noop().clone());
        let item = Arc::new(());
        inbox.put(Arc::clone(&item));
        assert_eq!((inbox.len(), Arc::strong_count(&item)), (1, 2));
        inbox.close();
        inbox.clone().put(Arc::clone(&item));
        assert_eq!((inbox.len(), Arc::strong_count(&item)), (0, 1));
    }

    #[test]
    fn results_arrive_from_threads() {
        let (pool, inbox) = (IoPool::threads(), Inbox::new(Waker::noop().clone()));
        for i in 0..100 {
            pool.submit(&inbox, move || i);
        }
        let mut got = Vec::new();
        while got.len() < 100 {
            got.extend(inbox.take());
        }
        got.sort_unstable();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_pool_is_quiet_when_all_is_done() {
        let (pool, inbox) = (IoPool::threads(), Inbox::new(Waker::noop().clone()));
        assert!(pool.is_quiet());
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
        pool.submit(&inbox, move || assert!(wait.recv().is_ok()));
        assert!(!pool.is_quiet());
        go.send(()).unwrap();
        while !pool.is_quiet() {
            std::thread::yield_now();
        }
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn simulated_work_waits_and_its_order_is_the_seeds() {
        let order = |seed| {
            let (pool, inbox) = (IoPool::simulated(), Inbox::new(Waker::noop().clone()));
            (0..20).for_each(|i| pool.submit(&inbox, move || i));
            assert!(inbox.is_empty());
            let mut random = Random::of_seed(seed);
            while pool.run_one(&mut random) {}
            std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
