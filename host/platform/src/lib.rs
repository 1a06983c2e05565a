//! All that the engine asks of the world: clock, randomness, named threads and tasks, wake-ups,
//! the I/O pool, the disk, stores; and faults of these on demand. Nothing else may ask; so simulation moves time and chooses every order.
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod faults;
pub mod io;
pub mod network;
pub mod random;
pub mod ready;
pub mod store;
pub mod thread;

pub use clock::Clock;
pub use disk::Disk;
pub use faults::Faults;
pub use io::{Inbox, IoPool};
pub use network::spawn_task;
pub use random::Random;
pub use ready::ReadySet;
pub use store::Store;
pub use thread::{available_parallelism, spawn_thread, thread_cpu_time};

/// The world as one job sees it. Cloning shares it.
#[derive(Clone)]
pub struct Platform {
    /// The time.
    pub clock: Clock,
    /// Where blocking work runs.
    pub io: IoPool,
    /// What fails on purpose.
    pub faults: Faults,
}

impl Platform {
    /// The real world.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), io: IoPool::threads(), faults: Faults::none() }
    }

    /// A world in which time stands still and blocking work waits until it is told to run.
    #[must_use]
    pub fn simulated() -> Self {
        Self { clock: Clock::simulated(), io: IoPool::simulated(), faults: Faults::none() }
    }
}
