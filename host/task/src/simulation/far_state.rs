//! A backend that is not ready at once, around one that is: what a disk does to an operator.
//!
//! What is asked for comes near when the simulation lets blocking work end. An operator that uses
//! keys that it has asked for and that are not near yet is found out.

use std::collections::{BTreeMap, HashSet};
use std::task::Waker;

use arrow_array::ArrayRef;
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use model::job_graph::{State, TimeDomain};
use model::key::{KeyHash, hash_keys};
use platform::{Inbox, IoPool, Random};
use state::backend::{Extent, Held, NotSealed, Rest, Ticket};
use state::key_index::KeyId;
use state::timers::Due;
use state::{Backend, EntryChange, EntryPage, Riders, StateChunk, StoreError, Sweep, TimerChange};

/// State that comes near after a while.
pub(super) struct FarState {
    near: Box<dyn Backend>,
    io: IoPool,
    arrived: Inbox<u64>,
    random: Random,
    /// The ticket that was given last.
    last: u64,
    under_way: BTreeMap<u64, Asked>,
    /// The deliberate fault: it says that all is near.
    says_ready: bool,
}

/// What has been asked for.
enum Asked {
    Rows(HashSet<KeyHash>),
    Known(HashSet<KeyId>),
}

/// What is near when it is asked for.
const AT_ONCE: Ticket = Ticket(0);

impl FarState {
    /// Around this one. `waker` is the subtask's.
    pub(super) fn new(near: Box<dyn Backend>, io: IoPool, waker: Waker, seed: u64, says_ready: bool) -> Self {
        Self {
            near,
            io,
            arrived: Inbox::new(waker),
            random: Random::of_seed(seed),
            last: AT_ONCE.0,
            under_way: BTreeMap::new(),
            says_ready,
        }
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        if self.random.one_in(2) {
            return AT_ONCE;
        }
        self.last += 1;
        let number = self.last;
        self.under_way.insert(number, asked);
        self.io.submit(&self.arrived, move || number);
        Ticket(number)
    }

    fn used(&self, ids: &[KeyId]) -> Result<(), ArrowError> {
        let is_far =
            |asked: &Asked| matches!(asked, Asked::Known(known) if ids.iter().any(|id| known.contains(id)));
        far(self.under_way.values().any(is_far))
    }
}

fn far(is_far: bool) -> Result<(), ArrowError> {
    match is_far {
        true => Err(ArrowError::ComputeError("state is used that is not near yet".to_owned())),
        false => Ok(()),
    }
}

fn hashes(keys: &[ArrayRef], rows: usize) -> Vec<KeyHash> {
    let mut hashes = Vec::new();
    hash_keys(&keys.iter().collect::<Vec<_>>(), rows, &mut hashes);
    hashes
}

impl Backend for FarState {
    fn evolve(&mut self, old: &[State], new: &[State]) -> Result<(), ArrowError> {
        self.near.evolve(old, new)
    }
    fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, ArrowError> {
        Ok(self.ask(Asked::Rows(hashes(keys, rows).into_iter().collect())))
    }

    fn prefetch_known(&mut self, ids: &[KeyId]) -> Ticket {
        self.ask(Asked::Known(ids.iter().copied().collect()))
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        while let Some(number) = self.arrived.take() {
            self.under_way.remove(&number);
        }
        self.says_ready || !self.under_way.contains_key(&ticket.0)
    }

    fn ids(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        if !self.under_way.is_empty() {
            let used = hashes(keys, rows);
            let is_far = |asked: &Asked| matches!(asked, Asked::Rows(rows) if used.iter().any(|hash| rows.contains(hash)));
            far(self.under_way.values().any(is_far))?;
        }
        self.near.ids(keys, rows, ids)
    }

    fn bound(&self) -> usize {
        self.near.bound()
    }

    fn held(&self) -> Held {
        self.near.held()
    }

    fn keys(&self, ids: &[KeyId]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.near.keys(ids)
    }

    fn forget_empty(&mut self, ids: &[KeyId]) {
        self.near.forget_empty(ids);
    }

    fn rest(&mut self) -> Result<Rest, ArrowError> {
        self.near.rest()
    }

    fn value_bytes(&self, ids: &[KeyId]) -> usize {
        self.near.value_bytes(ids)
    }

    fn load(&mut self, state: u32, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        self.used(ids)?;
        self.near.load(state, ids, now)
    }

    fn store(
        &mut self,
        state: u32,
        written: &[(usize, KeyId)],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.near.store(state, written, values, now)
    }

    fn entry_bytes(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef]) -> Result<usize, ArrowError> {
        self.near.entry_bytes(state, ids, keys)
    }

    fn ride(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<Riders, ArrowError> {
        self.used(ids)?;
        self.near.ride(state, ids, keys, now)
    }

    fn store_entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        written: Option<&BooleanBuffer>,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.near.store_entries(state, ids, keys, written, values, now)
    }

    fn change_entries(
        &mut self,
        state: u32,
        changes: (&[EntryChange], &[KeyId]),
        keys: &[ArrayRef],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.near.change_entries(state, changes, keys, values, now)
    }

    fn clear_entries(&mut self, state: u32, id: KeyId, max: usize) -> Result<usize, ArrowError> {
        self.used(&[id])?;
        self.near.clear_entries(state, id, max)
    }

    fn entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<ArrayRef, ArrowError> {
        self.used(ids)?;
        self.near.entries(state, ids, keys, now)
    }

    fn scan(
        &mut self,
        state: u32,
        ids: &[KeyId],
        after: Option<&[ArrayRef]>,
        limit: usize,
        now: i64,
    ) -> Result<EntryPage, ArrowError> {
        self.used(ids)?;
        self.near.scan(state, ids, after, limit, now)
    }

    fn version(&self, state: u32) -> u64 {
        self.near.version(state)
    }

    fn change_timers(&mut self, changes: &[TimerChange]) -> Result<(), ArrowError> {
        self.near.change_timers(changes)
    }

    fn timers_of(&self, key: KeyId, domain: TimeDomain) -> Vec<i64> {
        self.near.timers_of(key, domain)
    }

    fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.near.next_timer(domain)
    }

    fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError> {
        self.near.take_due(domain, now, max)
    }

    fn seal(&mut self, epoch: u64, extent: Extent) -> Result<Extent, NotSealed> {
        self.near.seal(epoch, extent)
    }

    fn sweep(&mut self) -> Result<Sweep, ArrowError> {
        self.near.sweep()
    }

    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError> {
        self.near.import(chunk)
    }

    fn build_upon(&mut self) -> bool {
        self.near.build_upon()
    }
}
