//! Keyed state larger than memory: what is in use lies in memory, the rest in an ordered store on disk.
//!
//! A key is either near, with all it has, or far. Looking keys up ([`Backend::prefetch`]) numbers them and takes
//! those that are far out of the store; when memory is full, [`Backend::rest`] puts away keys that have not been
//! used for longest (CLOCK, Corbató 1968). The store is read and written by one job at a time, in order, in the
//! I/O pool: so what was put away is found by whatever is asked for after it, and no step waits for a disk.
//! Rows are encoded and decoded there, too. Into memory and out of it they go a few at a time, so that the subtask
//! can be left in between.
//!
//! A key that an operator learns of only when it has read another is read within the step
//! ([`Backend::ids`]), from the store and from what is on its way to it.
//!
//! A snapshot is the near state's, and the store [frozen](OrderedStore::freeze) at its place in that order. What
//! was on its way out of the store when the snapshot was sealed goes to the snapshot as it comes. Snapshots build one
//! upon the other as those in memory do, a key that is put away having gone for the near part; of the store they have
//! the files, which never change, so that each is written once.

mod in_memory;
mod layout;
mod reader;
mod rocks;
mod store;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::task::Waker;

use arrow_array::{ArrayRef, Int64Array, new_empty_array};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{ArrowError, DataType};
use model::job_graph::{State, StateKind, TimeDomain};
use platform::{Inbox, IoPool};

use crate::backend::{
    Backend, Extent, FrozenFiles, Held, NotSealed, Rest, StateChunk, StateTable, Sweep, Ticket, TimerChange,
};
use crate::chunks::Chunks;
use crate::entry_table::{EntryChange, EntryPage, Riders};
use crate::key_index::KeyId;
use crate::memory::MemoryBackend;
use crate::timers::Due;
use crate::value_table::StoreError;
use layout::{FarRows, Layout, NearRows};

pub use in_memory::{IN_MEMORY, InMemoryStore};
pub use reader::{StoreFiles, StoreReader};
pub use rocks::{ROCKS, Rocks, RocksStore, Scratch};
pub use store::{OrderedStore, Row, StoreFailure, StoreFile, Write};

/// The keyed state of an operator's subtask, in memory as far as it is used, and in a store.
pub struct TieredBackend {
    near: MemoryBackend,
    layout: Arc<Layout>,
    store: Arc<dyn OrderedStore>,
    /// How many bytes the near state may take.
    budget: Box<dyn Fn() -> usize + Send>,
    io: IoPool,
    waker: Waker,
    /// By number: [`NEAR`], [`ASKED`], [`USED`].
    flags: Chunks<u8>,
    /// Where keys that may be put away are looked for next.
    hand: usize,
    /// Jobs that wait for the one before.
    waiting: VecDeque<Job>,
    is_under_way: bool,
    done: Inbox<Done>,
    /// What a job has taken out of the store, and is not in memory yet. The job ends with it.
    arriving: VecDeque<NearRows>,
    /// What may not be in the store yet, the oldest first.
    pending: VecDeque<Arc<Outgoing>>,
    /// How many jobs have been made, and have ended.
    asked: u64,
    ended: u64,
    /// Whether anything has ever been put away.
    is_used: bool,
    /// By domain: no timer of the store's is due before.
    far_timers: [Option<i64>; 2],
    /// Timers that are due are being read.
    is_taking_due: bool,
    /// Keys, encoded, that have been fetched since.
    fetched: BTreeSet<Vec<u8>>,
    /// They have been, and are to be taken before their keys are put away again.
    has_due: bool,
    sealed: Option<Sealed>,
    pages: Inbox<Result<Page, StoreFailure>>,
    failure: Option<StoreFailure>,
    /// Of every state no row.
    types: Vec<StateChunk>,
    /// Deliberate fault of the tests: what is on its way out of the store when a snapshot is sealed is not in it.
    #[cfg(test)]
    pub(crate) forgets_what_is_under_way: bool,
}

/// A snapshot under way.
struct Sealed {
    epoch: u64,
    extent: Extent,
    /// The job that freezes the store; none = nothing was ever in it.
    job: Option<u64>,
    /// It, frozen.
    frozen: Option<Arc<dyn OrderedStore>>,
    /// Its files, which have not been given.
    files: Vec<StoreFile>,
    /// The near part has been given.
    is_near_done: bool,
    /// The store's rows up to this have been given.
    after: Option<Vec<u8>>,
    is_page_asked: bool,
    /// Chunks that have been read.
    read: VecDeque<StateChunk>,
    is_far_done: bool,
}

/// Rows of a frozen store.
struct Page {
    chunks: Vec<StateChunk>,
    /// The last one's key; none = there are no more.
    last: Option<Vec<u8>>,
}

/// What goes to the store, encoded by whoever needs it first: the pool, as a rule.
struct Outgoing {
    writes: LazyLock<Result<Vec<Write>, StoreFailure>, Encode>,
    /// By domain: the earliest timer.
    first_timers: [Option<i64>; 2],
}

type Encode = Box<dyn FnOnce() -> Result<Vec<Write>, StoreFailure> + Send>;

impl Outgoing {
    fn writes(&self) -> Result<&[Write], StoreFailure> {
        (*self.writes).as_deref().map_err(Clone::clone)
    }
}

/// What is done with the store, in order.
enum Job {
    Write(Arc<Outgoing>),
    Take(Vec<Vec<u8>>),
    ReadDue { domain: usize, now: i64 },
    Freeze(u64),
}

/// What became of a job.
enum Done {
    Written(Result<(), StoreFailure>),
    Taken(Result<Vec<NearRows>, StoreFailure>),
    Due { domain: usize, read: Result<(FarRows, Option<i64>), StoreFailure> },
    Frozen(Result<(Arc<dyn OrderedStore>, Vec<StoreFile>), StoreFailure>),
}

/// The key has all that it has in memory.
const NEAR: u8 = 1;
/// It is being looked for in the store.
const ASKED: u8 = 2;
/// It was used since the hand came by.
const USED: u8 = 4;
/// How many keys are put away in one go.
const PUT_AWAY: usize = 256;
/// How many bytes, about.
const PUT_AWAY_BYTES: usize = 1 << 20;
/// How many numbers are looked at for that.
const LOOKED_AT: usize = 64 * PUT_AWAY;
/// How often that may be done ahead of the store.
const AHEAD: usize = 8;
/// How many rows come into memory in one go, about; all of a key's come at once.
const AT_A_TIME: usize = if cfg!(test) { 3 } else { 256 };
/// How many timers are taken out of the store in one go.
const DUE_TIMERS: usize = 256;
/// Rows and bytes of a page of a frozen store.
const PAGE: (usize, usize) = (1_024, 1 << 20);
/// All is near.
const AT_ONCE: Ticket = Ticket(0);

/// Of every state no row.
fn types_of(key_types: &[DataType], states: &[State]) -> Vec<StateChunk> {
    let empty = |of: &DataType| new_empty_array(of);
    let of_state = |(place, state): (u32, &State)| {
        let own: Vec<ArrayRef> = match state.kind {
            StateKind::Sequence => vec![empty(&DataType::Int64)],
            _ => state.key.fields().iter().map(|field| empty(field.data_type())).collect(),
        };
        let is_broadcast = state.kind == StateKind::Broadcast;
        let table = match state.kind {
            StateKind::Value => StateTable::Values(place),
            _ => StateTable::Entries(place),
        };
        StateChunk {
            table,
            keys: if is_broadcast { Vec::new() } else { key_types.iter().map(empty).collect() },
            columns: own.into_iter().chain([empty(state.value.field(0).data_type())]).collect(),
            touched: state.ttl.map(|_| Int64Array::from(Vec::<i64>::new())),
        }
    };
    (0u32..).zip(states).map(of_state).collect()
}

/// The place of a clock among two.
fn place_of(domain: TimeDomain) -> usize {
    usize::from(domain == TimeDomain::ProcessingTime)
}

/// Rows that are not as the layout has them.
fn not_laid_out(error: &dyn std::fmt::Display) -> StoreFailure {
    StoreFailure { place: "its rows".to_owned(), why: error.to_string() }
}

impl From<StoreFailure> for ArrowError {
    fn from(failure: StoreFailure) -> Self {
        Self::ExternalError(Box::new(failure))
    }
}

impl TieredBackend {
    /// No key yet, over an empty store. `budget` says how many bytes may be in memory; `waker` is the subtask's.
    ///
    /// # Errors
    /// If keys or states of these types cannot be kept.
    pub fn new(
        key_types: &[DataType],
        states: &[State],
        seed: u64,
        store: Arc<dyn OrderedStore>,
        budget: Box<dyn Fn() -> usize + Send>,
        (io, waker): (IoPool, &Waker),
    ) -> Result<Self, ArrowError> {
        Ok(Self {
            near: MemoryBackend::new(key_types, states, seed)?,
            layout: Arc::new(Layout::new(key_types, states)?),
            store,
            budget,
            io,
            waker: waker.clone(),
            flags: Chunks::new(1),
            hand: 0,
            waiting: VecDeque::new(),
            is_under_way: false,
            done: Inbox::new(waker.clone()),
            arriving: VecDeque::new(),
            pending: VecDeque::new(),
            asked: 0,
            ended: 0,
            is_used: false,
            far_timers: [None; 2],
            is_taking_due: false,
            fetched: BTreeSet::new(),
            has_due: false,
            sealed: None,
            pages: Inbox::new(waker.clone()),
            failure: None,
            types: types_of(key_types, states),
            #[cfg(test)]
            forgets_what_is_under_way: false,
        })
    }

    /// Takes note of new numbers: those that are to be looked for in the store.
    fn note(&mut self, ids: &[KeyId]) -> Vec<KeyId> {
        self.flags.grow_to(self.near.bound(), 0);
        let mut new = Vec::new();
        for id in ids {
            let flags = self.flags.element_mut(*id as usize, 0);
            if *flags & (NEAR | ASKED) == 0 {
                *flags = if self.is_used { ASKED } else { NEAR };
                new.extend(self.is_used.then_some(*id));
            }
            *flags |= USED;
        }
        new
    }

    /// Whether one of these is being looked for.
    fn is_far(&self, ids: &[KeyId]) -> bool {
        self.ended < self.asked
            && ids
                .iter()
                .any(|id| self.flags.element(*id as usize, 0).is_some_and(|flags| flags & ASKED != 0))
    }

    /// The ticket of all that has been asked for till now.
    fn ticket(&self, ids: &[KeyId]) -> Ticket {
        if self.is_far(ids) { Ticket(self.asked) } else { AT_ONCE }
    }

    fn ask(&mut self, job: Job) -> u64 {
        self.asked += 1;
        self.waiting.push_back(job);
        self.start();
        self.asked
    }

    fn write(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            let writes = LazyLock::new(Box::new(|| Ok(writes)) as Encode);
            self.send(Outgoing { writes, first_timers: [None; 2] });
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        let outgoing = Arc::new(outgoing);
        self.pending.push_back(Arc::clone(&outgoing));
        self.ask(Job::Write(outgoing));
    }

    /// Brings keys near that nobody has asked for, at once: an operator could not know them before.
    fn fetch(&mut self, ids: &[KeyId]) -> Result<(), ArrowError> {
        let keys = self.near.keys(ids)?;
        let mut keys = self.layout.encode_keys(&keys, ids.len())?;
        if self.is_taking_due {
            self.fetched.extend(keys.iter().cloned());
        }
        let pending = self.pending.iter().map(|outgoing| outgoing.writes()).collect::<Result<Vec<_>, _>>();
        let on_the_way = layout::read_pending(pending?.into_iter(), &mut keys);
        self.bring_all_near(&on_the_way)?;
        let read = self.layout.read(&*self.store, keys);
        let rows = self.check(read)?;
        self.bring_all_near(&rows)?;
        // In the order of all else: a snapshot that is sealed, and not frozen yet, has them there.
        self.write(on_the_way.gone().into_iter().chain(rows.gone()).collect());
        Ok(())
    }

    fn start(&mut self) {
        if self.is_under_way {
            return;
        }
        let Some(job) = self.waiting.pop_front() else { return };
        self.is_under_way = true;
        let (store, layout) = (Arc::clone(&self.store), Arc::clone(&self.layout));
        self.io.submit(&self.done, move || match job {
            Job::Write(outgoing) => Done::Written(outgoing.writes().and_then(|writes| store.write(writes))),
            Job::Take(keys) => Done::Taken(
                layout
                    .take(&*store, keys)
                    .and_then(|rows| layout.decode(&rows, AT_A_TIME).map_err(|error| not_laid_out(&error))),
            ),
            Job::ReadDue { domain, now } => {
                Done::Due { domain, read: layout.read_due(&*store, domain, now, DUE_TIMERS) }
            }
            Job::Freeze(epoch) => Done::Frozen(store.freeze(epoch).and_then(|frozen| {
                let files = frozen.files()?;
                Ok((frozen, files))
            })),
        });
    }

    /// Takes in what jobs have given: of what has been taken out of the store a part; if there is more, the subtask
    /// is woken.
    fn advance(&mut self) -> Result<(), ArrowError> {
        let mut has_brought = false;
        loop {
            if let Some(rows) = self.arriving.pop_front_if(|_| !has_brought) {
                has_brought = true;
                let is_sealed = self.is_before_freezing();
                self.bring_near(rows, is_sealed)?;
                self.ended += u64::from(self.arriving.is_empty());
            } else if !self.arriving.is_empty() {
                self.waker.wake_by_ref();
                break;
            } else if let Some(done) = self.done.take() {
                self.take_in(done)?;
            } else {
                break;
            }
        }
        match &self.failure {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }

    /// What a job has given, with which it has ended but for what arrives.
    fn take_in(&mut self, done: Done) -> Result<(), ArrowError> {
        self.is_under_way = false;
        match done {
            Done::Written(written) => {
                self.check(written)?;
                self.pending.pop_front();
            }
            Done::Taken(taken) => {
                self.arriving = self.check(taken)?.into();
                if !self.arriving.is_empty() {
                    self.start();
                    return Ok(());
                }
            }
            Done::Due { domain, read } => {
                let (rows, next) = self.check(read)?;
                self.take_in_due(domain, rows, next)?;
            }
            Done::Frozen(frozen) => {
                let (frozen, files) = self.check(frozen)?;
                if let Some(sealed) = &mut self.sealed {
                    (sealed.frozen, sealed.files) = (Some(frozen), files);
                }
            }
        }
        self.ended += 1;
        self.start();
        Ok(())
    }

    /// Takes in keys with timers that are due.
    fn take_in_due(&mut self, domain: usize, mut rows: FarRows, next: Option<i64>) -> Result<(), ArrowError> {
        let fetched = std::mem::take(&mut self.fetched);
        rows.leave_out(|key| fetched.contains(key));
        // What a job behind this one takes out comes with that.
        let (mut ids, keys) = (Vec::new(), self.layout.keys(&rows.keys)?);
        self.near.ids(&keys, rows.keys.len(), &mut ids)?;
        self.flags.grow_to(self.near.bound(), 0);
        let is_asked = ids.iter().zip(&rows.keys).filter(|(id, _)| self.is_far(&[**id]));
        let asked: BTreeSet<Vec<u8>> = is_asked.map(|(_, key)| key.clone()).collect();
        rows.leave_out(|key| asked.contains(key));
        self.bring_all_near(&rows)?;
        // In the order of all else, as with what is fetched.
        self.write(rows.gone());
        (self.is_taking_due, self.has_due) = (false, true);
        // What has been put away meanwhile may be due earlier: it comes after in the order.
        let written = self.waiting.iter().filter_map(|job| match job {
            Job::Write(outgoing) => outgoing.first_timers[domain],
            _ => None,
        });
        let later = self.far_timers[domain].filter(|_| !asked.is_empty());
        self.far_timers[domain] = written.chain(next).chain(later).min();
        Ok(())
    }

    fn check<T>(&mut self, result: Result<T, StoreFailure>) -> Result<T, StoreFailure> {
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    /// Whether the job that ends next was asked for before a snapshot was sealed whose store is not frozen yet.
    fn is_before_freezing(&self) -> bool {
        #[cfg(test)]
        if self.forgets_what_is_under_way {
            return false;
        }
        self.sealed.as_ref().and_then(|sealed| sealed.job).is_some_and(|freezing| self.ended + 1 < freezing)
    }

    /// Puts what was taken out of the store into memory; the keys that were looked for, with or without anything,
    /// are near then. `is_sealed`: a snapshot under way has not been given it.
    fn bring_near(&mut self, rows: NearRows, is_sealed: bool) -> Result<(), ArrowError> {
        let mut ids = Vec::new();
        self.near.ids(&rows.keys, rows.count, &mut ids)?;
        self.flags.grow_to(self.near.bound(), 0);
        for id in ids {
            *self.flags.element_mut(id as usize, 0) = NEAR | USED;
        }
        for chunk in rows.chunks {
            let put = self.near.put_back(chunk, is_sealed).map_err(|error| not_laid_out(&error));
            self.check(put)?;
        }
        Ok(())
    }

    /// The same at once, of what a snapshot under way has in its store.
    fn bring_all_near(&mut self, rows: &FarRows) -> Result<(), ArrowError> {
        self.layout.decode(rows, usize::MAX)?.into_iter().try_for_each(|rows| self.bring_near(rows, false))
    }

    /// Numbers of keys that have not been used for long, at most so many.
    fn unused(&mut self, most: usize) -> Vec<KeyId> {
        let bound = self.flags.len();
        let mut ids = Vec::with_capacity(most);
        for _ in 0..LOOKED_AT.min(2 * bound) {
            self.hand = (self.hand + 1) % bound;
            let flags = self.flags.element_mut(self.hand, 0);
            if *flags & NEAR != 0 && *flags & USED == 0 {
                *flags = 0;
                // As many as there are numbers, of 32 bits.
                ids.push(self.hand as KeyId);
                if ids.len() == most {
                    break;
                }
            }
            *flags &= !USED;
        }
        ids
    }

    /// Takes keys out of memory: what is to be written to the store.
    fn put_away(&mut self, ids: Vec<KeyId>) -> Result<Outgoing, ArrowError> {
        let taken = self.near.take_out(&ids)?;
        let mut first_timers = [None; 2];
        for (_, domain, time) in &taken.timers {
            let first = &mut first_timers[place_of(*domain)];
            *first = first.map_or(Some(*time), |first: i64| Some(first.min(*time)));
        }
        for (far, first) in self.far_timers.iter_mut().zip(first_timers) {
            *far = first.into_iter().chain(*far).min();
        }
        self.is_used |= !ids.is_empty();
        let layout = Arc::clone(&self.layout);
        let encode = move || layout.writes(&ids, taken).map_err(|error| not_laid_out(&error));
        Ok(Outgoing { writes: LazyLock::new(Box::new(encode)), first_timers })
    }

    fn is_over_budget(&self) -> bool {
        self.near.memory() > (self.budget)()
    }

    /// Goes on with the part of a snapshot that lies in the store.
    fn sweep_far(&mut self) -> Result<Sweep, ArrowError> {
        let Some(sealed) = &mut self.sealed else { return Ok(Sweep::Idle) };
        if let Some(chunk) = sealed.read.pop_front() {
            return Ok(Sweep::Rows(chunk));
        }
        if sealed.is_far_done || sealed.job.is_none() {
            let epoch = sealed.epoch;
            self.sealed = None;
            return Ok(Sweep::Done(epoch));
        }
        let Some(frozen) = &sealed.frozen else { return Ok(Sweep::Waiting) };
        if sealed.extent != Extent::Apart {
            sealed.is_far_done = true;
            let files = std::mem::take(&mut sealed.files);
            let (store, types) = (Arc::clone(frozen), self.types.clone());
            return Ok(Sweep::Files(FrozenFiles { store, files, types }));
        }
        if !sealed.is_page_asked {
            sealed.is_page_asked = true;
            let (frozen, after) = (Arc::clone(frozen), sealed.after.take());
            let layout = Arc::clone(&self.layout);
            self.io.submit(&self.pages, move || {
                let rows = layout::page(&*frozen, after.as_deref(), PAGE)?;
                let chunks = layout.chunks(&rows).map_err(|error| not_laid_out(&error))?;
                Ok(Page { chunks, last: rows.last().map(|(key, _)| key.clone()) })
            });
            return Ok(Sweep::Waiting);
        }
        let Some(page) = self.pages.take() else { return Ok(Sweep::Waiting) };
        let page = page.inspect_err(|failure| self.failure = Some(failure.clone()))?;
        sealed.is_page_asked = false;
        sealed.is_far_done = page.last.is_none();
        (sealed.after, sealed.read) = (page.last, page.chunks.into());
        Ok(Sweep::Nothing)
    }
}

fn far() -> ArrowError {
    ArrowError::ComputeError("state is used that is not near yet".to_owned())
}

impl Backend for TieredBackend {
    fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, ArrowError> {
        self.advance()?;
        let mut ids = Vec::new();
        self.near.ids(keys, rows, &mut ids)?;
        let new = self.note(&ids);
        if !new.is_empty() {
            let keys = self.near.keys(&new)?;
            let keys = self.layout.encode_keys(&keys, new.len())?;
            self.ask(Job::Take(keys));
        }
        Ok(self.ticket(&ids))
    }

    fn prefetch_known(&mut self, ids: &[KeyId]) -> Ticket {
        self.ticket(ids)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        // What has failed is told by the call that needs it.
        self.advance().is_err() || self.ended >= ticket.0
    }

    fn ids(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        self.advance()?;
        self.near.ids(keys, rows, ids)?;
        if self.is_far(ids) {
            return Err(far());
        }
        let new = self.note(ids);
        if !new.is_empty() {
            self.fetch(&new)?;
        }
        Ok(())
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
        let flags = &self.flags;
        let is_near = |id: KeyId| flags.element(id as usize, 0).is_some_and(|flags| flags & NEAR != 0);
        for id in self.near.forget_some(ids, is_near) {
            *self.flags.element_mut(id as usize, 0) = 0;
        }
    }

    fn rest(&mut self) -> Result<Rest, ArrowError> {
        self.advance()?;
        let (used, budget) = (self.near.memory(), (self.budget)());
        if used <= budget || self.is_taking_due || self.has_due {
            return Ok(Rest::Done);
        }
        // What is being written is in memory, too.
        if self.pending.len() >= AHEAD {
            return Ok(if used > budget + budget / 4 { Rest::Waiting } else { Rest::Done });
        }
        let of_a_key = used / self.near.len().max(1);
        let ids = self.unused((PUT_AWAY_BYTES / of_a_key.max(1)).clamp(1, PUT_AWAY));
        if ids.is_empty() {
            return Ok(Rest::Done);
        }
        let outgoing = self.put_away(ids)?;
        self.send(outgoing);
        Ok(if self.near.memory() > budget { Rest::More } else { Rest::Done })
    }

    fn value_bytes(&self, ids: &[KeyId]) -> usize {
        self.near.value_bytes(ids)
    }

    fn load(&mut self, state: u32, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
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
        self.near.clear_entries(state, id, max)
    }

    fn entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<ArrayRef, ArrowError> {
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
        self.near.scan(state, ids, after, limit, now)
    }

    fn version(&self, state: u32) -> u64 {
        self.near.version(state)
    }

    fn change_timers(&mut self, changes: &[TimerChange]) -> Result<(), ArrowError> {
        self.near.change_timers(changes)
    }

    fn timers_of(&self, key: KeyId, domain: TimeDomain) -> Vec<i64> {
        Backend::timers_of(&self.near, key, domain)
    }

    fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.near.next_timer(domain).into_iter().chain(self.far_timers[place_of(domain)]).min()
    }

    fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError> {
        self.advance()?;
        let place = place_of(domain);
        let first_far = self.far_timers[place].filter(|first| *first <= now);
        // In order: none that is near before one that is far and earlier.
        let mut due = self.near.take_due(domain, first_far.unwrap_or(now), max)?;
        self.has_due = false;
        for (_, id) in &due.timers {
            *self.flags.element_mut(*id as usize, 0) |= USED;
        }
        if due.timers.is_empty() && first_far.is_some() && !due.is_partial {
            (due.is_partial, due.is_waiting) = (true, true);
            if !std::mem::replace(&mut self.is_taking_due, true) {
                self.ask(Job::ReadDue { domain: place, now });
            }
        }
        Ok(due)
    }

    fn seal(&mut self, epoch: u64, extent: Extent) -> Result<Extent, NotSealed> {
        if let Some(sealed) = &self.sealed {
            return Err(NotSealed(sealed.epoch));
        }
        let extent = self.near.seal(epoch, extent)?;
        let job = self.is_used.then(|| self.ask(Job::Freeze(epoch)));
        self.sealed = Some(Sealed {
            epoch,
            extent,
            job,
            frozen: None,
            files: Vec::new(),
            is_near_done: false,
            after: None,
            is_page_asked: false,
            read: VecDeque::new(),
            is_far_done: false,
        });
        Ok(extent)
    }

    fn sweep(&mut self) -> Result<Sweep, ArrowError> {
        self.advance()?;
        let Some(sealed) = &mut self.sealed else { return Ok(Sweep::Idle) };
        if sealed.is_near_done {
            return self.sweep_far();
        }
        // What is on its way out of the store is given with what is near.
        if sealed.job.is_some() && sealed.frozen.is_none() {
            return Ok(Sweep::Waiting);
        }
        match self.near.sweep()? {
            Sweep::Done(_) => {
                sealed.is_near_done = true;
                Ok(Sweep::Nothing)
            }
            swept => Ok(swept),
        }
    }

    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        let is_keyed = !(matches!(chunk.table, StateTable::Entries(_)) && chunk.keys.is_empty());
        if is_keyed {
            // Before any call: nothing else waits for the store.
            self.near.ids(&chunk.keys, chunk.rows(), &mut ids)?;
            let new = self.note(&ids);
            if !new.is_empty() {
                let keys = self.near.keys(&new)?;
                let keys = self.layout.encode_keys(&keys, new.len())?;
                let rows = self.layout.take(&*self.store, keys).map_err(ArrowError::from)?;
                self.bring_all_near(&rows)?;
            }
        }
        for id in self.near.take_in(chunk, false)? {
            *self.flags.element_mut(id as usize, 0) = 0;
        }
        while self.is_over_budget() {
            let ids = self.unused(PUT_AWAY);
            if ids.is_empty() {
                break;
            }
            let outgoing = self.put_away(ids)?;
            outgoing.writes().and_then(|writes| self.store.write(writes)).map_err(ArrowError::from)?;
        }
        Ok(())
    }
}
