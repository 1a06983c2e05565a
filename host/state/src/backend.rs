//! What keeps the keyed state of an operator's subtask.
//!
//! One trait for every backend. State is asked for by batches of keys, and a backend may take time to
//! bring it near ([`Backend::prefetch`]), so that no step waits for a disk. A barrier
//! [seals](Backend::seal) the state; the snapshot is then [written on](Backend::sweep) bit by bit
//! while the state changes.

#[cfg(test)]
mod tests;

use std::ops::{AddAssign, Range};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use arrow_select::filter::filter;
use model::job_graph::{State, TimeDomain};
use model::key::{hash_keys, key_group};

use crate::entry_table::{EntryChange, EntryPage, Riders};
use crate::key_index::KeyId;
use crate::tiered::{OrderedStore, StoreFile};
use crate::timers::Due;
use crate::value_table::StoreError;

/// What is being brought near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// How much is kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Keys.
    pub keys: usize,
    /// Their timers.
    pub timers: usize,
    /// What all takes, in bytes, about.
    pub bytes: usize,
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.keys += other.keys;
        self.timers += other.timers;
        self.bytes += other.bytes;
    }
}

/// A change of a key's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerChange {
    /// Whose.
    pub key: KeyId,
    /// Of which clock.
    pub domain: TimeDomain,
    /// In milliseconds since the epoch.
    pub time: i64,
    /// Set, or deleted.
    pub set: bool,
}

/// The keyed state of an operator's subtask: its keys, each with a number; states (named by their
/// places in the function) by these numbers; timers.
///
/// Times are processing times, in milliseconds since the epoch.
pub trait Backend: Send {
    /// Begins to bring near what calls with rows of these keys need. These calls come when the ticket
    /// is ready, at once or after a few with other tickets' keys.
    ///
    /// # Errors
    /// If the keys cannot be encoded.
    fn prefetch(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, ArrowError>;
    /// The same for a call with timers of these keys.
    fn prefetch_known(&mut self, ids: &[KeyId]) -> Ticket;
    /// Whether it is near. If not, the backend wakes the subtask when it is.
    fn is_ready(&mut self, ticket: Ticket) -> bool;

    /// The number of each row's key, new keys numbered on. `ids` is cleared first.
    ///
    /// # Errors
    /// If keys cannot be encoded, or are too many.
    fn ids(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError>;
    /// All numbers are below this.
    fn bound(&self) -> usize;
    /// How much it keeps in memory.
    fn held(&self) -> Held;
    /// The keys of these numbers, as columns.
    ///
    /// # Errors
    /// If the columns cannot be made.
    fn keys(&self, ids: &[KeyId]) -> Result<Vec<ArrayRef>, ArrowError>;
    /// Forgets those of these keys, and of others that have lost theirs meanwhile, that have neither
    /// state nor timer left; their numbers will be others'.
    fn forget_empty(&mut self, ids: &[KeyId]);

    /// No number that it has given out is used any more, until it gives it out again: it may put keys away, a
    /// few at a time.
    ///
    /// # Errors
    /// If columns cannot be made, or state on disk cannot be written.
    fn rest(&mut self) -> Result<Rest, ArrowError> {
        Ok(Rest::Done)
    }

    /// The bytes that the values of these keys take in a call, about.
    fn value_bytes(&self, ids: &[KeyId]) -> usize;
    /// The values of these keys in a state by value, one row each, null where there is none.
    ///
    /// # Errors
    /// If the column cannot be made.
    fn load(&mut self, state: u32, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError>;
    /// Writes a value for each of these keys, none of them twice: `(row of values, key)`; null removes
    /// it.
    ///
    /// # Errors
    /// If one is too large, or the values are not of the state's type; then nothing is written.
    fn store(
        &mut self,
        state: u32,
        written: &[(usize, KeyId)],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError>;

    /// The bytes of the entries that rows of these keys name by these own keys, at most.
    ///
    /// # Errors
    /// If the own keys are not of the state's types.
    fn entry_bytes(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef]) -> Result<usize, ArrowError>;
    /// The entries that rows of these keys name by these own keys, each once.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    fn ride(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<Riders, ArrowError>;
    /// Writes the entries of these keys with these own keys, those whose bits are set in `written`
    /// (none = all); null removes.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn store_entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        written: Option<&BooleanBuffer>,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError>;
    /// Applies changes of entries in their order.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn change_entries(
        &mut self,
        state: u32,
        changes: (&[EntryChange], &[KeyId]),
        keys: &[ArrayRef],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError>;
    /// Removes the first entries of a key, at most so many; how many they were.
    ///
    /// # Errors
    /// If the columns cannot be made, for a snapshot.
    fn clear_entries(&mut self, state: u32, id: KeyId, max: usize) -> Result<usize, ArrowError>;
    /// The entries of these keys with these own keys, one row each, null where there is none.
    ///
    /// # Errors
    /// If the own keys are not of the state's types, or the entries are too many.
    fn entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<ArrayRef, ArrowError>;
    /// A page of the entries of each of these keys, from the first, or after an own key, on.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    fn scan(
        &mut self,
        state: u32,
        ids: &[KeyId],
        after: Option<&[ArrayRef]>,
        limit: usize,
        now: i64,
    ) -> Result<EntryPage, ArrowError>;
    /// A number that changes with every change of a state's entries.
    fn version(&self, state: u32) -> u64;

    /// Changes timers, in this order. Setting one that is there, and deleting one that is not, does
    /// nothing.
    ///
    /// # Errors
    /// If their keys' columns cannot be made, for a snapshot.
    fn change_timers(&mut self, changes: &[TimerChange]) -> Result<(), ArrowError>;
    /// A key's timers of a clock, the earliest first.
    fn timers_of(&self, key: KeyId, domain: TimeDomain) -> Vec<i64>;
    /// When to look for due timers again: when the next one is due, or before.
    fn next_timer(&self, domain: TimeDomain) -> Option<i64>;
    /// Takes timers that are due by `now`: the next one of each key, the earliest first, about `max`
    /// at most.
    ///
    /// # Errors
    /// As [`change_timers`](Self::change_timers).
    fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError>;

    /// The states, which were `old`, are `new` from now on: those of equal names go on, values of another type
    /// [mapped](crate::evolve) when they are touched; others are dropped, or begin empty. A snapshot under way is given
    /// up, and the next is to have all of the state.
    ///
    /// # Errors
    /// If the backend cannot do that, or values of a type cannot be kept; then nothing has changed.
    fn evolve(&mut self, old: &[State], new: &[State]) -> Result<(), ArrowError> {
        let same = old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| (&old.name, &old.value) == (&new.name, &new.value));
        match same {
            true => Ok(()),
            false => Err(ArrowError::NotYetImplemented("other states in what lies on disk".into())),
        }
    }

    /// What is there now belongs to the snapshot of this epoch, whatever changes before it is written.
    /// At once. How much of it the snapshot will have: what is asked for, or more.
    ///
    /// # Errors
    /// If the snapshot before it has not been written to its end.
    fn seal(&mut self, epoch: u64, extent: Extent) -> Result<Extent, NotSealed>;
    /// Goes on writing the snapshot: about 1,000 rows.
    ///
    /// # Errors
    /// If columns cannot be made.
    fn sweep(&mut self) -> Result<Sweep, ArrowError>;
    /// Puts rows of a snapshot back, before any call: those of a whole one, in any order; then of each snapshot of
    /// changes upon it first the keys that had gone, then the others.
    ///
    /// # Errors
    /// If they are not of this operator's types.
    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError>;
    /// All rows of a snapshot, and of those that it builds upon, have been put back, and no others: the next one may
    /// build upon it. Whether that can be.
    fn build_upon(&mut self) -> bool {
        false
    }
}

/// How far a backend has come with making room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is room.
    Done,
    /// Not yet: call again before anything else.
    More,
    /// Not yet, and what was put away has to be written first; the backend wakes the subtask.
    Waiting,
}

/// How much of the state a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it; the next one may build upon it.
    Whole,
    /// What has changed since the last one that can be built upon ([`layers`](crate::layers)); the next may build
    /// upon it.
    Changes,
    /// All of it, and none builds upon it.
    Apart,
}

/// A snapshot that cannot begin yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of epoch {0} is still being written")]
pub struct NotSealed(pub u64);

/// What a step of writing a snapshot gave.
#[derive(Clone, Debug)]
pub enum Sweep {
    /// Some of it.
    Rows(StateChunk),
    /// There was none in what was looked at.
    Nothing,
    /// Beside the rows it has all that is in the files of a store. Not in a snapshot [apart](Extent::Apart).
    Files(FrozenFiles),
    /// It is being read; the backend wakes the subtask.
    Waiting,
    /// The snapshot of this epoch has been given whole.
    Done(u64),
    /// There is no snapshot under way.
    Idle,
}

/// The files of a store, as they were when a snapshot was sealed.
#[derive(Clone)]
pub struct FrozenFiles {
    /// Reads them.
    pub store: Arc<dyn OrderedStore>,
    /// All of them.
    pub files: Vec<StoreFile>,
    /// Of every state no row: the types of what they hold.
    pub types: Vec<StateChunk>,
}

impl std::fmt::Debug for FrozenFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrozenFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Of which table rows of a snapshot are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateTable {
    /// A state by value. Columns: the value.
    Values(u32),
    /// A state of many entries. Columns: the entry's own key (of a sequence: its place), the entry.
    Entries(u32),
    /// Columns: the domain (0 = event time, 1 = processing time), the instant in milliseconds. Of changes: a row
    /// without them goes before a key's others; the key has none but these.
    Timers,
    /// Of a snapshot of changes: keys that have nothing any more. Columns: one that says nothing.
    Gone,
}

/// Rows of a snapshot: their keys, and what these have in one table.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChunk {
    /// Which table.
    pub table: StateTable,
    /// The key's columns; none where the rows have no key.
    pub keys: Vec<ArrayRef>,
    /// The table's columns.
    pub columns: Vec<ArrayRef>,
    /// When each row was touched last, where it has a time to live.
    pub touched: Option<Int64Array>,
}

impl StateChunk {
    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.len())
    }

    /// Bytes of memory that the columns take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let columns = self.keys.iter().chain(&self.columns);
        columns.map(|column| column.get_buffer_memory_size()).sum::<usize>()
            + self.touched.as_ref().map_or(0, |touched| touched.len() * size_of::<i64>())
    }

    /// The rows whose keys are in these key groups: what a subtask that owns them imports. The stream's
    /// key is the first `key_columns` columns of the state's (windows and joins have more behind them). Rows
    /// without a key (of a broadcast state) are everybody's.
    ///
    /// # Errors
    /// If the columns cannot be cut.
    pub fn of_key_groups(
        &self,
        groups: &Range<u32>,
        max_parallelism: u32,
        key_columns: usize,
    ) -> Result<Self, ArrowError> {
        if self.keys.is_empty() || key_columns == 0 {
            return Ok(self.clone());
        }
        let mut hashes = Vec::new();
        hash_keys(&self.keys[..key_columns].iter().collect::<Vec<_>>(), self.rows(), &mut hashes);
        let is_in = |hash: &u64| groups.contains(&u32::from(key_group(*hash, max_parallelism).0));
        let wanted: BooleanArray = hashes.iter().map(|hash| Some(is_in(hash))).collect();
        let cut = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>, ArrowError> {
            columns.iter().map(|column| filter(column, &wanted)).collect()
        };
        let touched = self.touched.as_ref().map(|touched| filter(touched, &wanted)).transpose()?;
        Ok(Self {
            table: self.table,
            keys: cut(&self.keys)?,
            columns: cut(&self.columns)?,
            touched: touched.map(|touched| Int64Array::from(touched.to_data())),
        })
    }
}
