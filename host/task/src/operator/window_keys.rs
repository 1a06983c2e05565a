//! Keys of windows: what follows the stream's key in a function's state, and which windows they are.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use model::job_graph::{State, StateKind};
use state::Backend;
use state::key_index::KeyId;
use window::assigner::{WindowClock, instants};
use window::session_index::Touched;

/// What of a window follows the stream's key in the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyedBy {
    /// Its start and end.
    Window,
    /// Those of a slice of it.
    Slice,
    /// The id of a session.
    Session,
}

/// That keys are of windows, and which those of the call at hand are.
pub(crate) struct OfWindows {
    pub(super) clock: WindowClock,
    /// The state that has the window's start and end, where the key's last column is a session's id; none
    /// = they are the key's last two columns.
    pub(super) extents: Option<u32>,
    /// The guest is not called for a window without a value.
    pub(super) merges: bool,
    /// By itself a window sets no timers.
    pub(super) is_slice: bool,
    /// Slices of the call that had no value before it.
    pub(super) new_slices: Vec<KeyId>,
    /// By group: the window's start and end.
    pub(super) of_groups: Vec<(i64, i64)>,
    /// By group: this is the window's last call. Empty where rows are called with.
    pub(super) is_last: Vec<bool>,
}

/// What is to be done with due timers of windows.
#[derive(Default)]
pub(crate) struct Sorted {
    /// The guest is called with these.
    pub(crate) called: Vec<(i64, KeyId)>,
    /// Then all that is kept for these goes.
    pub(crate) cleared: Vec<KeyId>,
}

/// Sessions that rows have come to, and the keys of all that they were.
pub(crate) struct Meeting {
    /// The key's columns and the session's id: of each session, then of those that it has taken in.
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) sessions: Vec<Touched>,
}

/// Sessions that have met.
#[derive(Default)]
pub(crate) struct Met {
    /// Which has become which, those of one side by side, in order of time.
    pub(crate) merged: Vec<(KeyId, KeyId)>,
}

impl Meeting {
    /// `keys` are those of the rows.
    pub(crate) fn new(keys: &[ArrayRef], sessions: Vec<Touched>) -> Result<Self, ArrowError> {
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for session in &sessions {
            ids.push(session.now.id);
            ids.extend(session.before.iter().skip(1).map(|before| before.id));
            rows.resize(ids.len(), session.row);
        }
        let mut keys = keys.iter().map(|key| model::gather(key, &rows)).collect::<Result<Vec<_>, _>>()?;
        keys.push(instants(ids));
        Ok(Self { keys, sessions })
    }

    pub(crate) fn rows(&self) -> usize {
        self.keys.last().map_or(0, |ids| ids.len())
    }
}

impl OfWindows {
    /// Whether a change of the guest's is made: the windows' own timers stay as they are, and nothing
    /// outlives a window.
    pub(super) fn takes(&self, change: &guest::TimerChange) -> bool {
        let group = change.group as usize;
        let (_, end) = self.of_groups[group];
        if self.is_slice || self.is_last.get(group) == Some(&true) {
            return false;
        }
        change.domain != self.clock.domain()
            || (change.time <= self.clock.cleared_at(end) && (change.set || change.time != end - 1))
    }
}

/// The windows of keys, whose last two columns are made to be these. One without time: it is gone.
pub(super) fn windows_of(
    extents: Option<u32>,
    backend: &mut dyn Backend,
    ids: &[KeyId],
    keys: &mut Vec<ArrayRef>,
    now: i64,
) -> Result<Vec<(i64, i64)>, ArrowError> {
    if let Some(extents) = extents {
        keys.pop();
        let loaded = backend.load(extents, ids, now)?;
        let of = loaded.as_struct();
        for column in [0, 1].map(|at| of.column(at).as_primitive::<Int64Type>()) {
            let value = |row| if of.is_valid(row) { column.value(row) } else { 0 };
            keys.push(instants((0..ids.len()).map(value).collect()));
        }
    }
    let [.., starts, ends] = &keys[..] else { return Ok(Vec::new()) };
    Ok(times(starts).iter().copied().zip(times(ends).iter().copied()).collect())
}

/// The instants of a column.
pub(super) fn times(column: &ArrayRef) -> &[i64] {
    column.as_primitive::<TimestampMillisecondType>().values()
}

/// The fields of a session's extent.
pub(super) fn extent_fields() -> Fields {
    ["start", "end"].map(|name| Field::new(name, DataType::Int64, true)).to_vec().into()
}

/// The type of a session's extent.
pub(super) fn extent_type() -> DataType {
    DataType::Struct(extent_fields())
}

/// Columns of extents.
pub(super) fn extent_columns(extents: Vec<(i64, i64)>) -> Vec<ArrayRef> {
    let (starts, ends): (Vec<i64>, Vec<i64>) = extents.into_iter().unzip();
    vec![Arc::new(Int64Array::from(starts)), Arc::new(Int64Array::from(ends))]
}

/// The state that has the extents of sessions.
pub(crate) fn extent_state() -> State {
    let value = Arc::new(Schema::new(vec![Field::new("window", extent_type(), true)]));
    State { name: "window".into(), kind: StateKind::Value, key: Arc::new(Schema::empty()), value, ttl: None }
}
