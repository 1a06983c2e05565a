//! What windows keep that have a state each: their aggregates, and the results that they gave last.
//!
//! A window's key is the stream's key, with the window's end where it has one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef, StructArray, new_null_array};
use arrow_schema::{DataType, Field, Fields};
use arrow_select::concat::concat;
use model::Batch;
use model::job_graph::{Assigner, State, Trigger, Window};
use state::Backend;
use state::backend::Ticket;
use state::key_index::KeyId;

use super::{Frame, instants};
use crate::aggregates::{Aggregates, as_structure};
use crate::change_aggregate::Multiset;
use crate::changes::{Change, changelog};
use crate::grid::WindowGrid;
use crate::operator::{Emit, Now, Setting};
use crate::states::{store_all, value_state};
use crate::{AggregateError, Timing};

/// The states of windows, in one subtask.
pub(super) struct Kept {
    pub(super) frame: Frame,
    /// None: there is one window for all rows of a key.
    pub(super) grid: Option<WindowGrid>,
    pub(super) aggregates: Aggregates,
    pub(super) backend: Box<dyn Backend>,
    /// What has been given is forgotten.
    pub(super) purging: bool,
    /// Of distinct aggregates, by their places.
    multisets: Vec<(usize, Multiset)>,
    /// A column of the operator's own, then the aggregates' state.
    fields: Fields,
    /// The results that were given last, where they have to be taken back.
    shown: Option<Fields>,
    /// Results are kept until the end: then the last of each window is given.
    withheld: bool,
}

/// Rows whose state has been asked for: once for each window that a row is in.
pub(super) struct Prepared {
    pub(super) rows: Batch,
    /// The windows' ends; none where they have none.
    pub(super) ends: Vec<i64>,
    /// The windows' keys.
    pub(super) keys: Vec<ArrayRef>,
    late: Option<(Batch, Vec<u32>)>,
    /// What the clock said then.
    pub(super) passed: i64,
}

/// Results on their way out, in their order.
pub(super) struct Given<'a> {
    /// Their windows; one may have several.
    pub(super) ids: &'a [KeyId],
    /// The windows' keys.
    pub(super) keys: &'a [ArrayRef],
    pub(super) results: Vec<ArrayRef>,
    /// Their event times: of windows that have no ends.
    pub(super) times: Option<Vec<i64>>,
}

/// The places of the states.
const WINDOWS: u32 = 0;
const SHOWN: u32 = 1;

impl Kept {
    /// `own` is the column that the operator keeps besides the aggregates, `repeats` whether a window may
    /// give results more than once, by these times or others.
    pub(super) fn new(
        window: &Window,
        setting: Setting<'_>,
        own: Field,
        repeats: bool,
        withheld: bool,
    ) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let frame = Frame::new(window, &setting);
        let aggregates = setting.aggregates(&window.aggregates)?;
        let mut fields = vec![own];
        fields.extend(aggregates.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        let shown = (frame.changes && repeats).then(|| -> Fields {
            let results = aggregates.outputs().enumerate();
            results.map(|(at, (data_type, _))| Field::new(format!("r{at}"), data_type, true)).collect()
        });
        let nothing = Fields::empty();
        let mut states: Vec<State> = vec![
            value_state("windows", DataType::Struct(fields.clone())),
            value_state("shown", DataType::Struct(shown.as_ref().unwrap_or(&nothing).clone())),
        ];
        if shown.is_none() {
            states.pop();
        }
        let mut multisets = Vec::new();
        for (place, accumulator) in aggregates.list.iter().enumerate().filter(|(_, a)| a.is_distinct()) {
            let Some(column) = accumulator.column() else { continue };
            // An operator has few states.
            let multiset = Multiset::new(states.len() as u32, column, accumulator, input)?;
            states.push(multiset.state(place));
            multisets.push((place, multiset));
        }
        let (grid, types) = match &window.assigner {
            Assigner::Everything => (None, frame.key_types.clone()),
            assigner => (Some(WindowGrid::new(assigner)?), frame.timed_key_types()),
        };
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            withheld: withheld && shown.is_some(),
            purging: window.purging,
            frame,
            grid,
            aggregates,
            backend,
            multisets,
            fields,
            shown,
        })
    }

    /// Puts rows into their windows, and asks for these.
    pub(super) fn prepare(&mut self, rows: &Batch, now: Now) -> Result<(Ticket, Prepared), AggregateError> {
        let passed = self.frame.passed(now);
        if self.grid.is_none() {
            let keys = self.frame.key_columns(rows);
            let ticket = self.backend.prefetch(&keys, rows.num_rows())?;
            let prepared = Prepared { rows: rows.clone(), ends: Vec::new(), keys, late: None, passed };
            return Ok((ticket, prepared));
        }
        let (places, ends, late) = self.assign(&self.frame.times(rows, now)?, passed);
        let is_whole = late.is_empty() && places.len() == rows.num_rows();
        let kept = if is_whole { rows.clone() } else { rows.take(&places)? };
        let mut keys = self.frame.key_columns(&kept);
        keys.push(instants(ends.clone()));
        let ticket = self.backend.prefetch(&keys, kept.num_rows())?;
        let late = (!late.is_empty()).then(|| (rows.clone(), late));
        Ok((ticket, Prepared { rows: kept, ends, keys, late, passed }))
    }

    /// Each row once for every window that it is in and that is not over: places and the windows' ends.
    /// Then the rows that are in none.
    fn assign(&self, times: &[i64], passed: i64) -> (Vec<u32>, Vec<i64>, Vec<u32>) {
        match &self.grid {
            Some(grid) => {
                grid.assign(times, |end| self.frame.lateness.clock().takes(end, passed), |_, end| end)
            }
            None => Default::default(),
        }
    }

    /// Gives the late ones among these rows to their port, or counts them.
    pub(super) fn on_late(&mut self, prepared: &Prepared, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        match &prepared.late {
            Some((rows, places)) => self.frame.on_late(rows, places, emit),
            None => Ok(()),
        }
    }

    /// Takes other times over.
    pub(super) fn change(&mut self, timing: &Timing, now: Now) {
        self.purging = timing.purging;
        self.frame.change(timing, now);
    }

    /// The same where no rows are counted. Whether it can: windows that count have other state.
    pub(super) fn change_uncounted(&mut self, timing: &Timing, now: Now) -> bool {
        let is_kept_so = !matches!(timing.trigger, Trigger::Count(_));
        if is_kept_so {
            self.change(timing, now);
        }
        is_kept_so
    }

    /// When something is due by processing time.
    pub(super) fn next_timer(&self) -> Option<i64> {
        self.frame.next_timer(&*self.backend)
    }

    /// When the state of the window of this end goes.
    pub(super) fn cleared_at(&self, end: i64) -> i64 {
        self.frame.lateness.clock().cleared_at(end)
    }

    /// The states of windows, null where there is none; their aggregates are loaded.
    pub(super) fn load(&mut self, ids: &[KeyId], now: i64) -> Result<ArrayRef, AggregateError> {
        let loaded = self.state(ids, now)?;
        let members = self.aggregates_of(&loaded)?;
        self.aggregates.load(&members)?;
        Ok(loaded)
    }

    /// The states of windows, null where there is none.
    pub(super) fn state(&mut self, ids: &[KeyId], now: i64) -> Result<ArrayRef, AggregateError> {
        Ok(self.backend.load(WINDOWS, ids, now)?)
    }

    /// The aggregates' part of states.
    pub(super) fn aggregates_of(&self, loaded: &ArrayRef) -> Result<StructArray, AggregateError> {
        let state = as_structure(loaded);
        self.aggregates.part(state, state.nulls().cloned())
    }

    /// Whether results are kept until the end.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld
    }

    /// Whether there are aggregates that keep their values apart.
    pub(super) fn has_multisets(&self) -> bool {
        !self.multisets.is_empty()
    }

    /// Adds rows to the windows that are loaded, of these numbers.
    pub(super) fn absorb(
        &mut self,
        ids: &[KeyId],
        groups: &[u32],
        rows: &Batch,
        now: i64,
    ) -> Result<(), AggregateError> {
        if self.multisets.is_empty() {
            return self.aggregates.absorb(groups, rows);
        }
        let count = self.aggregates.groups();
        for (place, accumulator) in self.aggregates.list.iter_mut().enumerate() {
            let column = accumulator.column().map(|column| rows.column(column));
            match (self.multisets.iter_mut().find(|(of, _)| *of == place), column) {
                (Some((_, multiset)), Some(column)) => {
                    let of = (ids, groups, count);
                    multiset.take_rows(&mut *self.backend, accumulator, of, column, None, now)?;
                }
                _ => accumulator.absorb(groups, count, column)?,
            }
        }
        Ok(())
    }

    /// Keeps the aggregates as they are loaded, with the operator's own column.
    pub(super) fn store(&mut self, ids: &[KeyId], own: ArrayRef, now: i64) -> Result<(), AggregateError> {
        let aggregates = self.aggregates.state_columns()?;
        self.store_columns(ids, own, aggregates, now)
    }

    /// Keeps these columns of aggregates.
    pub(super) fn store_columns(
        &mut self,
        ids: &[KeyId],
        own: ArrayRef,
        aggregates: Vec<ArrayRef>,
        now: i64,
    ) -> Result<(), AggregateError> {
        let mut columns = vec![own];
        columns.extend(aggregates);
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?);
        Ok(store_all(&mut *self.backend, WINDOWS, ids, &values, now)?)
    }

    /// Gives results, taking back those that were given before.
    pub(super) fn show(
        &mut self,
        given: Given<'_>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let Given { ids, keys, results, times } = given;
        let rows = self.rows(keys, results.clone(), times)?;
        let Some(shown) = &self.shown else {
            emit(0, rows);
            return Ok(());
        };
        let loaded = self.backend.load(SHOWN, ids, now)?;
        // Where a window is here several times, each follows the one before.
        let mut last: HashMap<KeyId, u32> = HashMap::with_capacity(ids.len());
        let (mut places, mut changes) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        let length = ids.len() as u32;
        for (at, id) in (0u32..).zip(ids) {
            let before = last.insert(*id, at);
            places.push(before.map_or(at, |before| length + before));
            let is_there = before.is_some() || loaded.is_valid(at as usize);
            changes.push((at, if is_there { Change::Updated } else { Change::Inserted }));
        }
        let is_once = last.len() == ids.len();
        let mut before_results = as_structure(&loaded).columns().to_vec();
        if !is_once {
            for (before, after) in before_results.iter_mut().zip(&results) {
                *before = model::gather(&concat(&[before.as_ref(), after.as_ref()])?, &places)?;
            }
        }
        let before_results = self.frame.fitted(before_results)?;
        let after = rows.rows().columns().to_vec();
        let mut before = after[..after.len() - before_results.len()].to_vec();
        before.extend(before_results);
        let times = rows.event_times().map(|times| &times[..]);
        if !self.withheld {
            emit(0, changelog(&self.frame.output, &before, &after, &changes, times)?);
        }
        let values: ArrayRef = Arc::new(StructArray::try_new(shown.clone(), results, None)?);
        if is_once {
            return Ok(store_all(&mut *self.backend, SHOWN, ids, &values, now)?);
        }
        let mut written: Vec<(usize, KeyId)> = last.into_iter().map(|(id, at)| (at as usize, id)).collect();
        written.sort_unstable();
        Ok(self.backend.store(SHOWN, &written, &values, now)?)
    }

    /// Gives the results that have been withheld of these windows.
    pub(super) fn show_withheld(
        &mut self,
        ids: &[KeyId],
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        if !self.withheld || ids.is_empty() {
            return Ok(());
        }
        let loaded = self.backend.load(SHOWN, ids, now)?;
        let places: Vec<u32> = (0u32..).take(ids.len()).filter(|at| loaded.is_valid(*at as usize)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let ids: Vec<KeyId> = places.iter().map(|at| ids[*at as usize]).collect();
        let keys = self.backend.keys(&ids)?;
        let loaded = model::gather(&loaded, &places)?;
        let rows = self.rows(&keys, as_structure(&loaded).columns().to_vec(), None)?;
        emit(0, rows);
        Ok(())
    }

    /// The rows that leave.
    fn rows(
        &self,
        keys: &[ArrayRef],
        results: Vec<ArrayRef>,
        times: Option<Vec<i64>>,
    ) -> Result<Batch, AggregateError> {
        let of_keys = keys[..self.frame.keys.len()].to_vec();
        let Some(grid) = &self.grid else {
            return self.frame.results_without_ends(of_keys, results, times);
        };
        let ends = ends_of(keys);
        let starts = ends.iter().map(|end| grid.window_start(*end)).collect();
        self.frame.results(of_keys, starts, &ends, results)
    }

    /// Forgets windows; of those that have a timer left their keys stay.
    pub(super) fn clear(&mut self, ids: &[KeyId], now: i64) -> Result<(), AggregateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let nothing = new_null_array(&DataType::Struct(self.fields.clone()), ids.len());
        store_all(&mut *self.backend, WINDOWS, ids, &nothing, now)?;
        if let Some(shown) = &self.shown {
            let nothing = new_null_array(&DataType::Struct(shown.clone()), ids.len());
            store_all(&mut *self.backend, SHOWN, ids, &nothing, now)?;
        }
        for (_, multiset) in &self.multisets {
            multiset.clear(&mut *self.backend, ids, now)?;
        }
        self.backend.forget_empty(ids);
        Ok(())
    }
}

/// The windows' ends, which are the last of their keys' columns.
pub(super) fn ends_of(keys: &[ArrayRef]) -> Vec<i64> {
    let ends = keys.last().map(|ends| ends.as_primitive::<TimestampMillisecondType>());
    ends.map_or_else(Vec::new, |ends| ends.values().to_vec())
}
