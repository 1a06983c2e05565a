//! One function of a chain: whole columns in, whole columns out.

use std::borrow::Cow;

use millstream_sys::bindings::millstream::job::calls::{
    EntryChanges, KeyedBatch, Moment, StateUpdate, TimerChanges,
};
use millstream_sys::bindings::millstream::job::graph::TimeDomain;
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values};
use millstream_sys::host;

use crate::emit::{Carried, Emit, Emits, Made};
use crate::error::Error;
use crate::record::{Builder, Cursor, Record, Row, finish_rows, reader_of};
use crate::task::TaskInfo;

/// A call of a stateless function.
pub(crate) struct Frame<'a> {
    pub(crate) input: u32,
    pub(crate) rows: Cow<'a, Batch>,
    /// rows to leave out
    pub(crate) skip: Option<&'a [bool]>,
    /// whether it is wanted which row an output row is of
    pub(crate) origins: bool,
}

/// A call of a keyed function: with rows, or with timers, of which group i has the i-th.
pub(crate) struct KeyedFrame<'a> {
    pub(crate) now: Moment,
    pub(crate) call: &'a KeyedBatch,
    pub(crate) timers: Option<(TimeDomain, &'a [i64])>,
    pub(crate) skip: Option<&'a [bool]>,
    pub(crate) origins: bool,
}

/// What a function makes of a batch.
#[derive(Default)]
pub(crate) struct Outcome {
    /// by port
    pub(crate) made: Vec<(u32, Made)>,
    /// rows that failed, with the message
    pub(crate) failures: Vec<(u32, String)>,
    pub(crate) updates: Vec<StateUpdate>,
    pub(crate) entries: Vec<EntryChanges>,
    pub(crate) timers: Option<TimerChanges>,
}

/// A function, its row type erased: one dynamic call a batch.
pub(crate) enum Stage {
    Stateless(Box<dyn FnMut(Frame<'_>) -> Outcome>),
    Keyed(Box<dyn KeyedCode>),
}

/// The code of a keyed function.
pub(crate) trait KeyedCode {
    /// Begins an instance.
    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        let _ = task;
        Ok(())
    }

    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome;

    /// Makes one value of the state of each of `count` pairs: of two windows that are one.
    fn merge(&mut self, count: u32, left: &[Column], right: &[Column]) -> Vec<Column> {
        let _ = (count, left, right);
        host::abort("the values of windows of this function cannot be merged")
    }
}

impl<F: FnMut(KeyedFrame<'_>) -> Outcome> KeyedCode for F {
    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome {
        self(frame)
    }
}

impl Stage {
    /// Begins an instance.
    pub(crate) fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        match self {
            Stage::Stateless(_) => Ok(()),
            Stage::Keyed(code) => code.open(task),
        }
    }
}

/// One stage for rows of the first input, and one for those of the second.
pub(crate) fn of_two(first: Stage, second: Stage) -> Stage {
    let (Stage::Stateless(mut first), Stage::Stateless(mut second)) = (first, second) else {
        host::abort("a keyed function has its own two inputs")
    };
    Stage::Stateless(Box::new(move |frame| if frame.input == 0 { first(frame) } else { second(frame) }))
}

/// Runs a closure for each row. A row that fails leaves nothing.
pub(crate) fn each_row<T: Record, E: Emits + 'static>(
    function: impl for<'a> Fn(T::Ref<'a>, &mut E) -> Result<(), Error> + 'static,
) -> Stage {
    let mut emits = E::default();
    Stage::Stateless(Box::new(move |frame| {
        let rows = &*frame.rows;
        let carried = Carried::of(rows, frame.origins);
        let mut failures = Vec::new();
        if frame.skip.is_none() && !carried.is_needed() {
            let reader = reader_of::<T>(rows);
            for row in 0..rows.length as usize {
                let before = emits.lengths();
                if let Err(error) = function(T::get(&reader, row), &mut emits) {
                    emits.truncate(before);
                    failures.push((row as u32, error.to_string()));
                }
            }
        } else {
            let reader = reader_of::<T>(rows);
            for row in 0..rows.length as usize {
                let before = emits.lengths();
                if frame.skip.is_none_or(|skip| !skip[row])
                    && let Err(error) = function(T::get(&reader, row), &mut emits)
                {
                    emits.truncate(before);
                    failures.push((row as u32, error.to_string()));
                }
                emits.mark();
            }
        }
        Outcome { made: emits.finish(&carried), failures, ..Outcome::default() }
    }))
}

/// Leaves the rows for which a closure says so; a batch of which all are left passes as it is.
pub(crate) fn filtered<T: Record>(
    predicate: impl for<'a> Fn(T::Ref<'a>) -> Result<bool, Error> + 'static,
) -> Stage {
    let mut emit = Emit::<T>::default();
    let mut keep: Vec<bool> = Vec::new();
    Stage::Stateless(Box::new(move |frame| {
        let mut failures = Vec::new();
        let mut kept = 0;
        keep.clear();
        {
            let reader = reader_of::<T>(&frame.rows);
            for row in 0..frame.rows.length as usize {
                let is_kept = if frame.skip.is_some_and(|skip| skip[row]) {
                    false
                } else {
                    predicate(T::get(&reader, row)).unwrap_or_else(|error| {
                        failures.push((row as u32, error.to_string()));
                        false
                    })
                };
                keep.push(is_kept);
                kept += usize::from(is_kept);
            }
        }
        if kept == keep.len() && kept > 0 {
            let origins = frame.origins.then(|| (0..frame.rows.length).collect());
            let made = vec![(0, Made { rows: frame.rows.into_owned(), origins })];
            return Outcome { made, ..Outcome::default() };
        }
        let carried = Carried::of(&frame.rows, frame.origins);
        let reader = reader_of::<T>(&frame.rows);
        let is_marked = carried.is_needed();
        for (row, is_kept) in keep.iter().enumerate() {
            if *is_kept {
                emit.emit(T::get(&reader, row));
            }
            if is_marked {
                emit.mark();
            }
        }
        Outcome { made: emit.finish(&carried), failures, ..Outcome::default() }
    }))
}

/// Adds the column of a custom partitioner.
pub(crate) fn partitioned<T: Record>(choose: impl for<'a> Fn(T::Ref<'a>) -> u32 + 'static) -> Stage {
    Stage::Stateless(Box::new(move |frame| {
        let mut chosen = Vec::with_capacity(frame.rows.length as usize);
        {
            let reader = reader_of::<T>(&frame.rows);
            for row in 0..frame.rows.length as usize {
                // The host takes it modulo the parallelism; the sign bit stays out of that.
                chosen.push(match frame.skip {
                    Some(skip) if skip[row] => 0,
                    _ => (choose(T::get(&reader, row)) & i32::MAX as u32) as i32,
                });
            }
        }
        let origins = frame.origins.then(|| (0..frame.rows.length).collect());
        let mut rows = frame.rows.into_owned();
        rows.columns.push(Column { values: Values::Int32(chosen), validity: None });
        let length = rows.length;
        let made = if length == 0 { Vec::new() } else { vec![(0, Made { rows, origins })] };
        Outcome { made, ..Outcome::default() }
    }))
}

/// Folds the rows of each key into one, and emits it as it becomes.
///
/// The state is one optional `T` a key.
pub(crate) fn reduced<T: Record>(
    combine: impl for<'a, 'b> Fn(T::Ref<'a>, T::Ref<'b>) -> Result<T, Error> + 'static,
) -> Stage {
    let mut emit = Emit::<T>::default();
    Stage::Keyed(Box::new(move |frame: KeyedFrame<'_>| {
        let call = frame.call;
        let Some(input) = call.inputs.first() else { host::abort("this function sets no timers") };
        let rows = &input.rows;
        let carried = Carried::of(rows, frame.origins);
        let is_marked = carried.is_needed();
        let mut failures = Vec::new();
        let before = Option::<T>::read(&mut Cursor::new(&call.state, false));
        let mut after: Vec<Option<T>> = Vec::new();
        after.resize_with(call.group_count as usize, || None);
        let reader = reader_of::<T>(rows);
        for (row, group) in input.groups.iter().enumerate() {
            let group = *group as usize;
            if frame.skip.is_none_or(|skip| !skip[row]) {
                let one = T::get(&reader, row);
                let reduced = match &after[group] {
                    Some(so_far) => combine(so_far.as_row(), one),
                    None => match Option::<T>::get(&before, group) {
                        Some(so_far) => combine(so_far, one),
                        None => Ok(T::from_row(one)),
                    },
                };
                match reduced {
                    Ok(value) => {
                        emit.emit(value.as_row());
                        after[group] = Some(value);
                    }
                    Err(error) => failures.push((row as u32, error.to_string())),
                }
            }
            if is_marked {
                emit.mark();
            }
        }
        let update = state_update(&after);
        Outcome { made: emit.finish(&carried), failures, updates: vec![update], ..Outcome::default() }
    }))
}

/// The new values of the groups that have one.
fn state_update<T: Record>(after: &[Option<T>]) -> StateUpdate {
    let mut builder = <Option<T> as Record>::Builder::default();
    let mut written = vec![0u8; after.len().div_ceil(8)];
    for (group, value) in after.iter().enumerate() {
        match value {
            Some(value) => {
                written[group >> 3] |= 1 << (group & 7);
                Row::<Option<T>>::append_to(Some(value.as_row()), &mut builder);
            }
            None => builder.push_empty(),
        }
    }
    let all = after.iter().all(Option::is_some);
    let columns = finish_rows::<Option<T>>(&mut builder);
    StateUpdate { state: 0, written: (!all).then_some(written), columns }
}
