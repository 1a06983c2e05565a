//! A backend that two hold: the operator that uses it, and whoever takes its snapshots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::ArrayRef;
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use model::job_graph::{State, TimeDomain};

use crate::backend::{Backend, Extent, Held, NotSealed, Rest, StateChunk, Sweep, Ticket, TimerChange};
use crate::entry_table::{EntryChange, EntryPage, Riders};
use crate::key_index::KeyId;
use crate::timers::Due;
use crate::value_table::StoreError;

/// A backend behind a lock, which one thread takes at a time and holds for one call. Cloning shares it.
#[derive(Clone)]
pub struct SharedBackend(Arc<Mutex<Box<dyn Backend>>>);

impl SharedBackend {
    /// Of this one.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self(Arc::new(Mutex::new(backend)))
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Backend>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for SharedBackend {
    fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, ArrowError> {
        self.lock().prefetch(keys, rows)
    }
    fn prefetch_known(&mut self, ids: &[KeyId]) -> Ticket {
        self.lock().prefetch_known(ids)
    }
    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.lock().is_ready(ticket)
    }
    fn ids(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        self.lock().ids(keys, rows, ids)
    }
    fn bound(&self) -> usize {
        self.lock().bound()
    }
    fn held(&self) -> Held {
        self.lock().held()
    }
    fn keys(&self, ids: &[KeyId]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.lock().keys(ids)
    }
    fn forget_empty(&mut self, ids: &[KeyId]) {
        self.lock().forget_empty(ids);
    }
    fn rest(&mut self) -> Result<Rest, ArrowError> {
        self.lock().rest()
    }
    fn evolve(&mut self, old: &[State], new: &[State]) -> Result<(), ArrowError> {
        self.lock().evolve(old, new)
    }
    fn value_bytes(&self, ids: &[KeyId]) -> usize {
        self.lock().value_bytes(ids)
    }
    fn load(&mut self, state: u32, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        self.lock().load(state, ids, now)
    }
    fn store(
        &mut self,
        state: u32,
        written: &[(usize, KeyId)],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.lock().store(state, written, values, now)
    }
    fn entry_bytes(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef]) -> Result<usize, ArrowError> {
        self.lock().entry_bytes(state, ids, keys)
    }
    fn ride(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<Riders, ArrowError> {
        self.lock().ride(state, ids, keys, now)
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
        self.lock().store_entries(state, ids, keys, written, values, now)
    }
    fn change_entries(
        &mut self,
        state: u32,
        changes: (&[EntryChange], &[KeyId]),
        keys: &[ArrayRef],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.lock().change_entries(state, changes, keys, values, now)
    }
    fn clear_entries(&mut self, state: u32, id: KeyId, max: usize) -> Result<usize, ArrowError> {
        self.lock().clear_entries(state, id, max)
    }
    fn entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<ArrayRef, ArrowError> {
        self.lock().entries(state, ids, keys, now)
    }
    fn scan(
        &mut self,
        state: u32,
        ids: &[KeyId],
        after: Option<&[ArrayRef]>,
        limit: usize,
        now: i64,
    ) -> Result<EntryPage, ArrowError> {
        self.lock().scan(state, ids, after, limit, now)
    }
    fn version(&self, state: u32) -> u64 {
        self.lock().version(state)
    }
    fn change_timers(&mut self, changes: &[TimerChange]) -> Result<(), ArrowError> {
        self.lock().change_timers(changes)
    }
    fn timers_of(&self, key: KeyId, domain: TimeDomain) -> Vec<i64> {
        self.lock().timers_of(key, domain)
    }
    fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.lock().next_timer(domain)
    }
    fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError> {
        self.lock().take_due(domain, now, max)
    }
    fn seal(&mut self, epoch: u64, extent: Extent) -> Result<Extent, NotSealed> {
        self.lock().seal(epoch, extent)
    }
    fn sweep(&mut self) -> Result<Sweep, ArrowError> {
        self.lock().sweep()
    }
    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError> {
        self.lock().import(chunk)
    }
    fn build_upon(&mut self) -> bool {
        self.lock().build_upon()
    }
}
