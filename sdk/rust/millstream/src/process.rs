//! Functions by key with state and timers.

use std::time::Duration;

use millstream_sys::bindings::millstream::job::calls::{Moment, TimerChanges};
use millstream_sys::bindings::millstream::job::graph;

use crate::changes::RowKind;
use crate::emit::Emit;
use crate::error::Result;
use crate::record::{Record, Row};
use crate::run::Cells;
use crate::state::States;
use crate::task::TaskInfo;

/// A function that is called for each row and each timer of a key, with the key's state: what
/// [`KeyedStream::process`](crate::KeyedStream::process) takes.
///
/// It keeps nothing in itself: what it remembers is the key's state, which the host holds. A row or
/// timer that fails leaves nothing: no row, no state, no timer.
///
/// ```
/// use millstream::prelude::*;
///
/// /// Emits a key's number of rows when nothing has come for a minute.
/// struct CountThenQuiet;
///
/// impl ProcessFunction for CountThenQuiet {
///     type In = (String, Timestamp);
///     type Key = String;
///     type State = (i64, i64);
///     type Out = (String, i64);
///
///     fn process(&self, _row: (&str, Timestamp), context: &mut Context<'_, Self>) -> Result<()> {
///         let now = context.timestamp().unwrap_or(0);
///         let (count, quiet) = context.take_state().unwrap_or((0, 0));
///         context.delete_timer(quiet);
///         context.set_timer(now + 60_000);
///         context.set_state((count + 1, now + 60_000));
///         Ok(())
///     }
///
///     fn on_timer(&self, _timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
///         if let Some((count, _)) = context.take_state() {
///             context.emit((context.key(), count));
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// `S` is the type of a side output's rows, for
/// [`side_output`](crate::KeyedStream::side_output); without it there is none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function of this stream",
    label = "not a `ProcessFunction`",
    note = "a function with a side output implements `ProcessFunction<S>`, and is used after `.side_output(\"…\")`"
)]
pub trait ProcessFunction<S: Side = NoSide>: Sized + 'static {
    /// The rows that come.
    type In: Record;
    /// The key: as `key_by` gives it, a tuple of its fields; for one field also the field's type.
    type Key: Record;
    /// What is kept for each key, by the host.
    type State: Record;
    /// The rows that leave.
    type Out: Record;

    /// Takes a row.
    ///
    /// # Errors
    /// If the row cannot be taken: the failure policy says what becomes of it.
    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self, S>) -> Result<()>;

    /// Takes a timer that is due; it is gone already. A key's timers come in their order.
    ///
    /// # Errors
    /// As for a row; a timer that fails is dropped, unless the policy is to fail.
    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self, S>) -> Result<()> {
        let _ = (timer, context);
        Ok(())
    }

    /// Declares named states, beside `State`: values, maps, lists.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// const SEEN: MapState<i64, Timestamp> = MapState::new("seen");
    ///
    /// /// Lets an item of a user pass once an hour.
    /// struct Once;
    ///
    /// impl ProcessFunction for Once {
    ///     type In = (String, i64);
    ///     type Key = String;
    ///     type State = bool;
    ///     type Out = (String, i64);
    ///
    ///     fn states(&self, states: &mut States<Self::In>) {
    ///         let hour = std::time::Duration::from_secs(3_600);
    ///         // The entry of a row's item comes with the row.
    ///         states.map(SEEN).by(F1).ttl(Ttl::after_write(hour));
    ///     }
    ///
    ///     fn process(&self, (user, item): (&str, i64), context: &mut Context<'_, Self>) -> Result<()> {
    ///         let now = context.processing_time();
    ///         if context.entry(SEEN).get().is_none() {
    ///             context.entry(SEEN).set(Timestamp(now));
    ///             context.emit((user, item));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    fn states(&self, states: &mut States<Self::In>) {
        let _ = states;
    }

    /// Begins an instance, before its first row: what is made here (a compiled pattern, a table) is a
    /// cache, of which no result may depend.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        let _ = task;
        Ok(())
    }

    /// Whether its rows have a key, and so state and timers.
    #[doc(hidden)]
    const IS_KEYED: bool = true;

    /// How long `State` lives; without it, until it is cleared.
    fn state_ttl(&self) -> Option<Ttl> {
        None
    }
}

/// What a side output's rows can be: any record, or [`NoSide`].
pub trait Side: 'static {
    /// The rows.
    #[doc(hidden)]
    type Rows: Record;
}

impl<T: Record> Side for T {
    type Rows = T;
}

/// Says that a process function has no side output.
#[derive(Clone, Copy, Debug)]
pub enum NoSide {}

impl Side for NoSide {
    type Rows = bool;
}

/// A key `Self` of a stream that is keyed by the fields `K`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the key of this stream",
    label = "the key is `{K}`",
    note = "`type Key` is the tuple of the fields of `key_by`; for one field also the field's type alone"
)]
pub trait KeyOf<K>: Record {}

impl<A: Record> KeyOf<(A,)> for A {}
impl<A: Record> KeyOf<(A,)> for (A,) {}
impl<A: Record, B: Record> KeyOf<(A, B)> for (A, B) {}
impl<A: Record, B: Record, C: Record> KeyOf<(A, B, C)> for (A, B, C) {}
impl<A: Record, B: Record, C: Record, D: Record> KeyOf<(A, B, C, D)> for (A, B, C, D) {}

/// Which clock a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// The rows': a timer fires when the watermark has reached its time.
    EventTime,
    /// The machine's.
    ProcessingTime,
}

/// A timer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// which clock it follows
    pub domain: TimeDomain,
    /// the time that it was set for, in milliseconds since 1970
    pub time: i64,
}

/// How long a key's state lives, in processing time: Flink's `StateTtlConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    after: Duration,
    on_read: bool,
}

impl Ttl {
    /// State is gone so long after it was last written.
    pub fn after_write(after: Duration) -> Ttl {
        Ttl { after, on_read: false }
    }

    /// State is gone so long after its key last had a row or a timer.
    pub fn after_use(after: Duration) -> Ttl {
        Ttl { after, on_read: true }
    }

    pub(crate) fn contract(self) -> graph::Ttl {
        graph::Ttl { after: millis(self.after), on_read: self.on_read }
    }
}

/// A length of time as the contract has it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A key's state while a call runs.
pub(crate) struct Slot<T> {
    pub(crate) value: Option<T>,
    pub(crate) is_loaded: bool,
    /// written in this call
    pub(crate) is_written: bool,
    /// may have been changed by the row that runs
    pub(crate) is_touched: bool,
}

impl<T> Slot<T> {
    pub(crate) fn empty() -> Slot<T> {
        Slot { value: None, is_loaded: false, is_written: false, is_touched: false }
    }
}

/// What a process function can do beside looking at its row: the key, its state, its timers, the
/// time, the outputs. Times are in milliseconds since 1970.
pub struct Context<'c, F: ProcessFunction<S>, S: Side = NoSide> {
    pub(crate) keys: <F::Key as Record>::Reader<'c>,
    pub(crate) slots: &'c mut [Slot<F::State>],
    pub(crate) cells: &'c mut Cells,
    pub(crate) emits: &'c mut (Emit<F::Out>, Emit<S::Rows>),
    pub(crate) timers: &'c mut TimerChanges,
    pub(crate) now: Moment,
    pub(crate) group: usize,
    /// the row's place in the call
    pub(crate) row: usize,
    pub(crate) timestamp: Option<i64>,
    pub(crate) kind: RowKind,
}

/// The numbers of the contract's timer changes: those of processing time are two more.
pub(crate) const SET: u8 = 0;
pub(crate) const DELETE: u8 = 1;
pub(crate) const PROCESSING_TIME: u8 = 2;

impl<'c, F: ProcessFunction<S>, S: Side> Context<'c, F, S> {
    /// The key, borrowed.
    #[inline]
    pub fn key(&self) -> <F::Key as Record>::Ref<'c> {
        F::Key::get(&self.keys, self.group)
    }

    /// The event time of the row, or of the event-time timer; none where there is none.
    #[inline]
    pub fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    /// What the row does to the table that its stream describes; an insert, but in a changelog.
    #[inline]
    pub fn row_kind(&self) -> RowKind {
        self.kind
    }

    /// The watermark: all rows up to this time have come, as far as is known. None before the first;
    /// `i64::MAX` at the end of the input.
    #[inline]
    pub fn watermark(&self) -> Option<i64> {
        (self.now.watermark != i64::MIN).then_some(self.now.watermark)
    }

    /// The machine's time; it stands still during a call.
    #[inline]
    pub fn processing_time(&self) -> i64 {
        self.now.processing_time
    }

    /// The key's state.
    #[inline]
    pub fn state(&self) -> Option<&F::State> {
        self.slots[self.group].value.as_ref()
    }

    /// The key's state, to be changed in place.
    #[inline]
    pub fn state_mut(&mut self) -> Option<&mut F::State> {
        self.slot().value.as_mut()
    }

    /// The key's state, to be changed in place; if there is none, its type's default.
    #[inline]
    pub fn state_or_default(&mut self) -> &mut F::State
    where
        F::State: Default,
    {
        self.slot().value.get_or_insert_default()
    }

    /// Sets the key's state.
    #[inline]
    pub fn set_state(&mut self, state: F::State) {
        self.slot().value = Some(state);
    }

    /// Takes the key's state out: there is none then.
    #[inline]
    pub fn take_state(&mut self) -> Option<F::State> {
        self.slot().value.take()
    }

    /// Removes the key's state.
    #[inline]
    pub fn clear_state(&mut self) {
        self.slot().value = None;
    }

    #[inline]
    fn slot(&mut self) -> &mut Slot<F::State> {
        let slot = &mut self.slots[self.group];
        (slot.is_written, slot.is_touched) = (true, true);
        slot
    }

    /// Sets a timer of event time for this key: once the watermark has reached it, `on_timer` is
    /// called; at once after this call if it has already. Setting it twice is setting it once.
    #[inline]
    pub fn set_timer(&mut self, time: i64) {
        self.change(time, SET);
    }

    /// Deletes the key's timer of event time for this time, if there is one.
    #[inline]
    pub fn delete_timer(&mut self, time: i64) {
        self.change(time, DELETE);
    }

    /// Sets a timer of processing time for this key.
    #[inline]
    pub fn set_processing_timer(&mut self, time: i64) {
        self.change(time, SET + PROCESSING_TIME);
    }

    /// Deletes the key's timer of processing time for this time, if there is one.
    #[inline]
    pub fn delete_processing_timer(&mut self, time: i64) {
        self.change(time, DELETE + PROCESSING_TIME);
    }

    #[inline]
    fn change(&mut self, time: i64, change: u8) {
        // A call has fewer groups than 2^32: it has that many keys at most.
        self.timers.groups.push(self.group as u32);
        self.timers.times.push(time);
        self.timers.changes.push(change);
    }

    /// Emits a row. It has the event time of the row or timer that it is made of.
    #[inline]
    pub fn emit(&mut self, row: impl Row<F::Out>) {
        self.emits.0.emit(row);
    }
}

impl<F: ProcessFunction<S>, S: Record> Context<'_, F, S> {
    /// Emits a row to the side output.
    #[inline]
    pub fn emit_side(&mut self, row: impl Row<S>) {
        self.emits.1.emit(row);
    }
}
