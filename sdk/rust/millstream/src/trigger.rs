//! When windows are emitted, by code of the user's.

use millstream_sys::bindings::millstream::job::calls::{Moment, TimerChanges};

use crate::process::{DELETE, PROCESSING_TIME, SET};
use crate::record::Record;
use crate::task::TaskInfo;
use crate::window_function::Window;

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TriggerResult {
    /// nothing
    Continue,
    /// it is emitted
    Fire,
    /// what it has is forgotten; the trigger's state stays
    Purge,
    /// it is emitted, and then what it has is forgotten
    FireAndPurge,
}

impl TriggerResult {
    pub(crate) fn fires(self) -> bool {
        matches!(self, TriggerResult::Fire | TriggerResult::FireAndPurge)
    }

    pub(crate) fn purges(self) -> bool {
        matches!(self, TriggerResult::Purge | TriggerResult::FireAndPurge)
    }
}

/// Says when a window of rows of `In` is emitted: Flink's `Trigger`. For
/// [`Windowed::trigger`](crate::Windowed::trigger).
///
/// The end of a window is a timer that every window has, at its
/// [`max_timestamp`](Window::max_timestamp), by the windows' own clock; it comes again after rows that came
/// later than that. What a trigger is asked then decides like any other answer; unless it says otherwise, the
/// window is emitted.
///
/// ```
/// use millstream::prelude::*;
///
/// /// Emits a window when it is over, and before at each number above a hundred.
/// struct AtLarge;
///
/// impl Trigger<(String, i64)> for AtLarge {
///     type State = bool;
///
///     fn on_row(
///         &self,
///         (_, number): (&str, i64),
///         _: &Window,
///         _: &mut TriggerContext<'_, bool>,
///     ) -> TriggerResult {
///         if number > 100 { TriggerResult::Fire } else { TriggerResult::Continue }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no trigger of windows of `{In}`",
    label = "not a `Trigger<{In}>`"
)]
pub trait Trigger<In: Record>: Sized + 'static {
    /// What is kept for each key and window, by the host; `bool` where nothing is.
    type State: Record;

    /// Whether it is for [`Session`](crate::Session) windows: then [`merge`](Self::merge) makes one state of
    /// those of two that meet.
    const MERGES: bool = false;

    /// Asks after a row, which is in the window already.
    fn on_row(
        &self,
        row: In::Ref<'_>,
        window: &Window,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult;

    /// Asks at a timer of event time: the window's end, or one that the trigger has set.
    fn on_event_time(
        &self,
        time: i64,
        window: &Window,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult {
        let _ = context;
        at_end(time, window)
    }

    /// Asks at a timer of processing time.
    fn on_processing_time(
        &self,
        time: i64,
        window: &Window,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult {
        let _ = context;
        at_end(time, window)
    }

    /// Makes one state of two, of which `into` is the earlier window's. Timers that were set for either are
    /// gone then: the row that made them meet comes next, to the window that they are.
    ///
    /// # Panics
    /// Unless it is written: `MERGES` says that it is.
    fn merge(&self, into: &mut Self::State, other: <Self::State as Record>::Ref<'_>) {
        let _ = (into, other);
        panic!("the trigger says that it `MERGES`, and has no `merge`")
    }

    /// Begins an instance.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> crate::Result<()> {
        let _ = task;
        Ok(())
    }
}

fn at_end(time: i64, window: &Window) -> TriggerResult {
    if time == window.max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
}

/// What a trigger can do: its state for the window, timers, the time. Times are in milliseconds since 1970.
pub struct TriggerContext<'t, S: Record> {
    pub(crate) state: &'t mut Option<S>,
    pub(crate) is_touched: &'t mut bool,
    pub(crate) timers: &'t mut TimerChanges,
    pub(crate) group: u32,
    pub(crate) now: Moment,
    pub(crate) timestamp: Option<i64>,
}

impl<S: Record> TriggerContext<'_, S> {
    /// Its state for the window.
    pub fn state(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// Its state, to be changed in place; if there is none, its type's default.
    pub fn state_or_default(&mut self) -> &mut S
    where
        S: Default,
    {
        *self.is_touched = true;
        self.state.get_or_insert_default()
    }

    /// Sets its state.
    pub fn set_state(&mut self, state: S) {
        *self.is_touched = true;
        *self.state = Some(state);
    }

    /// Takes its state out: there is none then.
    pub fn take_state(&mut self) -> Option<S> {
        *self.is_touched = true;
        self.state.take()
    }

    /// The event time of the row, or of the event-time timer; none where there is none.
    pub fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    /// The watermark: all rows up to this time have come, as far as is known. None before the first;
    /// `i64::MAX` at the end of the input.
    pub fn watermark(&self) -> Option<i64> {
        (self.now.watermark != i64::MIN).then_some(self.now.watermark)
    }

    /// The machine's time; it stands still during a call.
    pub fn processing_time(&self) -> i64 {
        self.now.processing_time
    }

    /// Sets a timer of event time for this window. Setting it twice is setting it once.
    pub fn set_timer(&mut self, time: i64) {
        self.change(time, SET);
    }

    /// Deletes the window's timer of event time for this time, if there is one; but not its end.
    pub fn delete_timer(&mut self, time: i64) {
        self.change(time, DELETE);
    }

    /// Sets a timer of processing time for this window.
    pub fn set_processing_timer(&mut self, time: i64) {
        self.change(time, SET + PROCESSING_TIME);
    }

    /// Deletes the window's timer of processing time for this time, if there is one; but not its end.
    pub fn delete_processing_timer(&mut self, time: i64) {
        self.change(time, DELETE + PROCESSING_TIME);
    }

    fn change(&mut self, time: i64, change: u8) {
        self.timers.groups.push(self.group);
        self.timers.times.push(time);
        self.timers.changes.push(change);
    }
}

/// The triggers that need no code: at the end; also before, each so long; each so many rows.
///
/// They answer as the host does for native aggregates.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct ReadyTrigger {
    pub(crate) when: When,
    /// by the rows' time, not the machine's
    pub(crate) by_event_time: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    AtEnd,
    /// in milliseconds
    Early(i64),
    Rows(i64),
}

/// The state of an early trigger whose timer may be gone.
const UNSURE: i64 = i64::MIN;

impl ReadyTrigger {
    /// The first early result of a window after an instant: the last instants of so many steps from its
    /// start.
    fn next_early(&self, window: &Window, each: i64, after: i64) -> Option<i64> {
        let start = if window.start == i64::MIN { 0 } else { window.start };
        let passed = after.saturating_sub(start).max(0) / each;
        let time = start.saturating_add(each.checked_mul(passed + 1)?).saturating_sub(1);
        let time = if time <= after { time.saturating_add(each) } else { time };
        (time < window.max_timestamp()).then_some(time)
    }

    fn on_timer(&self, time: i64, window: &Window, context: &mut TriggerContext<'_, i64>) -> TriggerResult {
        match self.when {
            When::AtEnd => at_end(time, window),
            When::Rows(_) => TriggerResult::Continue,
            When::Early(_) => {
                // The next row sets the next timer: a window that has not changed is not emitted again.
                if context.state() == Some(&time) {
                    context.take_state();
                    return TriggerResult::Fire;
                }
                at_end(time, window)
            }
        }
    }
}

impl<In: Record> Trigger<In> for ReadyTrigger {
    type State = i64;
    const MERGES: bool = true;

    fn on_row(
        &self,
        _: In::Ref<'_>,
        window: &Window,
        context: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        match self.when {
            When::AtEnd => {}
            When::Rows(rows) => {
                let count = context.state().map_or(0, |count| *count) + 1;
                if count >= rows {
                    context.take_state();
                    return TriggerResult::Fire;
                }
                context.set_state(count);
            }
            When::Early(each) => {
                if context.state().is_some_and(|time| *time != UNSURE) {
                    return TriggerResult::Continue;
                }
                let now = context.now;
                let now = if self.by_event_time { now.watermark } else { now.processing_time };
                if let Some(time) = self.next_early(window, each, now) {
                    context.set_state(time);
                    let domain = if self.by_event_time { 0 } else { PROCESSING_TIME };
                    context.change(time, SET + domain);
                }
            }
        }
        TriggerResult::Continue
    }

    fn on_event_time(
        &self,
        time: i64,
        window: &Window,
        context: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        self.on_timer(time, window, context)
    }

    fn on_processing_time(
        &self,
        time: i64,
        window: &Window,
        context: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        self.on_timer(time, window, context)
    }

    fn merge(&self, into: &mut i64, other: i64) {
        *into = match self.when {
            When::Rows(_) => into.saturating_add(other),
            When::AtEnd | When::Early(_) => UNSURE,
        };
    }
}
