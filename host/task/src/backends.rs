//! Which backend keeps the keyed state of a job's subtasks, and the memory that they share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use arrow_schema::{ArrowError, DataType};
use model::job_graph::State;
use platform::{IoPool, Platform};
use state::tiered::{Rocks, TieredBackend};
use state::{Backend, MemoryBackend};

/// Where keyed state lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateBackend {
    /// In memory, all of it.
    #[default]
    HashMap,
    /// In memory what is in use, the rest in RocksDB.
    RocksDb {
        /// A folder of this machine: each job makes one of its own in it, which goes with the job.
        folder: PathBuf,
        /// Bytes of memory that the state of a slot may take.
        slot_bytes: usize,
    },
}

/// What a backend is made of.
pub(crate) struct NewBackend<'a> {
    pub(crate) key_types: &'a [DataType],
    pub(crate) states: &'a [State],
    /// Of its hash tables.
    pub(crate) seed: u64,
    /// The subtask's.
    pub(crate) waker: &'a Waker,
}

impl NewBackend<'_> {
    /// In memory.
    pub(crate) fn in_memory(&self) -> Result<Box<dyn Backend>, ArrowError> {
        Ok(Box::new(MemoryBackend::new(self.key_types, self.states, self.seed)?))
    }
}

/// Makes the backends of a job.
pub(crate) enum Maker {
    InMemory,
    Rocks { rocks: Rocks, io: IoPool, shares: Arc<Shares> },
}

/// How the memory of near state is shared: evenly.
pub(crate) struct Shares {
    bytes: usize,
    backends: AtomicUsize,
}

impl Maker {
    /// For a job of so many slots.
    pub(crate) fn new(backend: &StateBackend, slots: usize, platform: &Platform) -> Result<Self, ArrowError> {
        let StateBackend::RocksDb { folder, slot_bytes } = backend else { return Ok(Self::InMemory) };
        // Half for what is near as rows, half for the store's blocks and what is on its way to it.
        let half = slot_bytes * slots / 2;
        let rocks = Rocks::new(folder, half, slots, &platform.faults)?;
        let shares = Arc::new(Shares { bytes: half, backends: AtomicUsize::new(0) });
        Ok(Self::Rocks { rocks, io: platform.io.clone(), shares })
    }

    pub(crate) fn make(&mut self, new: &NewBackend<'_>) -> Result<Box<dyn Backend>, ArrowError> {
        let Self::Rocks { rocks, io, shares } = self else { return new.in_memory() };
        let shares = Arc::clone(shares);
        // The more there are, the less each may take.
        shares.backends.fetch_add(1, Ordering::Relaxed);
        let budget = move || shares.bytes / shares.backends.load(Ordering::Relaxed);
        let store = Arc::new(rocks.store()?);
        let pool = (io.clone(), new.waker);
        let made = TieredBackend::new(new.key_types, new.states, new.seed, store, Box::new(budget), pool)?;
        Ok(Box::new(made))
    }
}
