//! The join of rows with the version of a table that is valid at their time.
//!
//! The right rows of a key are versions, by the event time at which each begins; left rows wait, in the
//! order of their times, until the watermark has reached them. Then both are read side by side, a page
//! at a time, and what is behind goes: left rows with their version, and versions older than the one
//! that is valid at the watermark. All of it lies in the state, so a step may end after any page. A key
//! has one timer, at the first time for which it has something to do.
//!
//! A left row that is later than the watermark is not dropped: it waits for the next watermark, and
//! meets what versions there still are then. A right row that is later is a version like others; where
//! the key has been deleted meanwhile, and the delete forgotten, it is there again.
//!
//! Source: Flink, `TemporalRowTimeJoinOperator`, `TemporalProcessTimeJoinOperator`.

mod processing_time;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray, UInt32Array, new_null_array};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use arrow_select::take::take;
use model::Batch;
use model::batch::RowKind;
use model::job_graph::{JoinSides, StateKind, TimeDomain};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, EntryChange, EntryPage, Grouping, TimerChange};

use super::output::{Output, gather_all};
use super::{Coming, LEFT, RIGHT, side_of, whole_keys};
use crate::AggregateError;
use crate::changes::is_taken_back;
use crate::keys::key_columns;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{state, store_all, value_state};
use crate::timers::{Due, DueTimers};

/// The temporal join by this clock.
pub(super) fn operator(
    sides: JoinSides,
    time: TimeDomain,
    setting: Setting<'_>,
) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    Ok(match time {
        TimeDomain::EventTime => Box::new(TemporalJoin::new(sides, setting)?),
        TimeDomain::ProcessingTime => Box::new(processing_time::ProcessingTimeJoin::new(sides, setting)?),
    })
}

/// A temporal join by event time, in one subtask.
struct TemporalJoin {
    output: Output,
    keys: Vec<Vec<usize>>,
    /// What a kept row is made of, by side.
    fields: [Fields; 2],
    backend: Box<dyn Backend>,
    grouping: Grouping,
    coming: Option<Coming>,
    due: DueTimers,
    work: Option<Work>,
}

/// Keys that are due.
struct Work {
    ids: Vec<KeyId>,
    /// So many rows of each are read in a step.
    limit: usize,
}

/// Left rows that wait: by their time, then by the number of their arrival.
const WAITING: u32 = 0;
/// The right rows by their time; a delete is a version without a row.
const VERSIONS: u32 = 1;
/// The number of the next left row.
const NEXT: u32 = 2;
/// When the key's timer is set.
const TIMER: u32 = 3;

/// Keys that are taken up at once.
const KEYS_MAX: usize = 256;
/// Rows of a side that are read in a step, about.
const STEP_ROWS: usize = 2 * 1024;
/// So many rows of a key are read at first: most have no more.
const FEW_ROWS: usize = 8;

impl TemporalJoin {
    fn new(sides: JoinSides, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let fields = kept_fields(&setting);
        let time = || Field::new("time", DataType::Int64, false);
        let left_key = Schema::new(vec![time(), Field::new("arrival", DataType::Int64, false)]);
        let left = DataType::Struct(fields[LEFT].clone());
        let states = [
            state("waiting", StateKind::Dictionary(Vec::new()), left_key, left),
            state(
                "versions",
                StateKind::Dictionary(Vec::new()),
                Schema::new(vec![time()]),
                DataType::Struct(version_fields(&fields[RIGHT])),
            ),
            value_state("next", DataType::Int64),
            value_state("timer", DataType::Int64),
        ];
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            output: Output::new(sides, &setting),
            keys: setting.keys.to_vec(),
            fields,
            backend,
            grouping: Grouping::default(),
            coming: None,
            due: DueTimers::default(),
            work: None,
        })
    }

    /// Goes on with the rows that have come.
    fn advance(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some(mut coming) = self.coming.take() else { return Ok(Fired::Done) };
        let side = coming.side;
        let (rows, is_last) = coming.next();
        self.coming = (!is_last).then_some(coming);
        let rows = admit(&self.output, &self.keys[side], side, rows, emit)?;
        self.keep(side, &rows, now.processing_time)?;
        Ok(if is_last { Fired::Done } else { Fired::More })
    }

    /// Keeps rows until their time has come.
    fn keep(&mut self, side: usize, rows: &Batch, now: i64) -> Result<(), AggregateError> {
        let times = rows.event_times().ok_or(AggregateError::NoTime)?;
        if times.is_empty() {
            return Ok(());
        }
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.backend.ids(&key_columns(rows, &self.keys[side]), times.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let time_column: ArrayRef = Arc::new(Int64Array::new(times.clone(), None));
        let kept = rows_of(&self.fields[side], rows, side == RIGHT)?;
        if side == LEFT {
            let arrivals = self.number(&groups, &bases, now)?;
            self.backend.store_entries(WAITING, &ids, &[time_column, arrivals], None, &kept, now)?;
        } else {
            let version: ArrayRef =
                Arc::new(StructArray::try_new(version_fields(&self.fields[RIGHT]), vec![kept], None)?);
            self.backend.store_entries(VERSIONS, &ids, &[time_column], None, &version, now)?;
        }
        let mut firsts = vec![i64::MAX; bases.len()];
        for (group, time) in groups.iter().zip(times) {
            let first = &mut firsts[*group as usize];
            *first = (*first).min(*time);
        }
        self.wake(&bases, &firsts, now)
    }

    /// Numbers the left rows of each key on.
    fn number(&mut self, groups: &[u32], bases: &[KeyId], now: i64) -> Result<ArrayRef, AggregateError> {
        let next = self.backend.load(NEXT, bases, now)?;
        let mut next: Vec<i64> =
            next.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect();
        let number = |group: &u32| {
            let next = &mut next[*group as usize];
            *next += 1;
            *next - 1
        };
        let arrivals: Vec<i64> = groups.iter().map(number).collect();
        let next: ArrayRef = Arc::new(Int64Array::from(next));
        store_all(&mut *self.backend, NEXT, bases, &next, now)?;
        Ok(Arc::new(Int64Array::from(arrivals)))
    }

    /// Moves the timers of keys that have something to do before them.
    fn wake(&mut self, bases: &[KeyId], firsts: &[i64], now: i64) -> Result<(), AggregateError> {
        let before = self.backend.load(TIMER, bases, now)?;
        let before = before.as_primitive::<Int64Type>();
        let (mut changes, mut written) = (Vec::new(), Vec::new());
        for (at, (key, first)) in bases.iter().zip(firsts).enumerate() {
            let is_set = before.is_valid(at);
            if is_set && before.value(at) <= *first {
                continue;
            }
            let change = |time, set| TimerChange { key: *key, domain: TimeDomain::EventTime, time, set };
            if is_set {
                changes.push(change(before.value(at), false));
            }
            changes.push(change(*first, true));
            written.push((at, *key));
        }
        let firsts: ArrayRef = Arc::new(Int64Array::from(firsts.to_vec()));
        self.backend.store(TIMER, &written, &firsts, now)?;
        Ok(self.backend.change_timers(&changes)?)
    }

    /// Goes on with keys that are due, a page of each.
    fn step(&mut self, work: Work, now: Now, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (ids, clock) = (&work.ids, now.processing_time);
        let lefts = self.backend.scan(WAITING, ids, None, work.limit, clock)?;
        let versions = self.backend.scan(VERSIONS, ids, None, work.limit, clock)?;
        let beyond = self.beyond(ids, &versions, clock)?;
        let page = Page::new(&lefts, &versions);
        let mut met = Met::default();
        let mut pending = Vec::new();
        let mut done = Done::default();
        for (at, id) in ids.iter().enumerate() {
            match page.meet(at, beyond[at], now.watermark, &mut met) {
                Some(next) => done.push(*id, next),
                None => pending.push(*id),
            }
        }
        self.give(&lefts, &versions, &met, emit)?;
        self.remove(ids, &lefts, &versions, &met, clock)?;
        self.end(&done, clock)?;
        if !pending.is_empty() {
            let limit = (4 * work.limit).min(STEP_ROWS / pending.len()).max(FEW_ROWS);
            self.work = Some(Work { ids: pending, limit });
        }
        Ok(())
    }

    /// When the second version of a key begins, where the first is so large that it came alone.
    fn beyond(
        &mut self,
        ids: &[KeyId],
        versions: &EntryPage,
        now: i64,
    ) -> Result<Vec<Option<i64>>, AggregateError> {
        let mut beyond = vec![None; ids.len()];
        let is_alone =
            |at: &usize| versions.more[*at] && versions.offsets[*at + 1] == versions.offsets[*at] + 1;
        let alone: Vec<usize> = (0..ids.len()).filter(is_alone).collect();
        if alone.is_empty() {
            return Ok(beyond);
        }
        let of_alone: Vec<KeyId> = alone.iter().map(|at| ids[*at]).collect();
        let firsts: Vec<u32> = alone.iter().map(|at| versions.offsets[*at]).collect();
        let after = gather_all(&versions.keys, &firsts)?;
        let page = self.backend.scan(VERSIONS, &of_alone, Some(&after), 1, now)?;
        let times = page.keys[0].as_primitive::<Int64Type>();
        for (place, at) in alone.into_iter().enumerate() {
            let (from, to) = (page.offsets[place] as usize, page.offsets[place + 1] as usize);
            beyond[at] = (from..to).next().map(|entry| times.value(entry));
        }
        Ok(beyond)
    }

    /// Left rows leave, with their versions.
    fn give(
        &self,
        lefts: &EntryPage,
        versions: &EntryPage,
        met: &Met,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let (mut rows, mut partners) = (Vec::new(), Vec::new());
        for (row, partner) in &met.lefts {
            if partner.is_some() || self.output.without_partner(LEFT) {
                rows.push(*row);
                partners.push(*partner);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let times = lefts.keys[0].as_primitive::<Int64Type>();
        let times: ScalarBuffer<i64> = rows.iter().map(|row| times.value(*row as usize)).collect();
        let columns = gather_all(lefts.values.as_struct().columns(), &rows)?;
        let of_versions = versions.values.as_struct().column(0).as_struct();
        let partners = take_all(of_versions.columns(), &UInt32Array::from(partners))?;
        emit(0, self.output.pairs(LEFT, columns, partners, rows.len(), Some(times), None)?);
        Ok(())
    }

    /// Left rows that have left go, and versions that no row meets any more.
    fn remove(
        &mut self,
        ids: &[KeyId],
        lefts: &EntryPage,
        versions: &EntryPage,
        met: &Met,
        now: i64,
    ) -> Result<(), AggregateError> {
        let left: Vec<u32> = met.lefts.iter().map(|(row, _)| *row).collect();
        for (state, page, gone) in [(WAITING, lefts, &left), (VERSIONS, versions, &met.old)] {
            if gone.is_empty() {
                continue;
            }
            // Places of a key lie side by side, and go in their order.
            let mut key = 0;
            let mut owner = |place: &u32| {
                while page.offsets[key + 1] <= *place {
                    key += 1;
                }
                ids[key]
            };
            let owners: Vec<KeyId> = gone.iter().map(&mut owner).collect();
            let keys = gather_all(&page.keys, gone)?;
            let nothing = new_null_array(page.values.data_type(), gone.len());
            let changes = vec![EntryChange::Remove; gone.len()];
            self.backend.change_entries(state, (&changes, &owners), &keys, &nothing, now)?;
        }
        Ok(())
    }

    /// Keys have nothing to do any more until their next time.
    fn end(&mut self, done: &Done, now: i64) -> Result<(), AggregateError> {
        if done.ids.is_empty() {
            return Ok(());
        }
        let timers: ArrayRef = Arc::new(Int64Array::from(done.timers.clone()));
        store_all(&mut *self.backend, TIMER, &done.ids, &timers, now)?;
        let changes = done.ids.iter().zip(&done.timers).filter_map(|(key, time)| {
            let time = (*time)?;
            Some(TimerChange { key: *key, domain: TimeDomain::EventTime, time, set: true })
        });
        self.backend.change_timers(&changes.collect::<Vec<_>>())?;
        let none = new_null_array(&DataType::Int64, done.idle.len());
        store_all(&mut *self.backend, NEXT, &done.idle, &none, now)?;
        self.backend.forget_empty(&done.ids);
        Ok(())
    }
}

/// The first left rows and versions of some keys.
struct Page<'a> {
    left_times: &'a [i64],
    version_times: &'a [i64],
    /// Which versions have a row.
    rows: Option<&'a NullBuffer>,
    lefts: &'a EntryPage,
    versions: &'a EntryPage,
}

/// What has met, by places in a page.
#[derive(Default)]
struct Met {
    /// Left rows that leave, with their versions.
    lefts: Vec<(u32, Option<u32>)>,
    /// Versions that go.
    old: Vec<u32>,
}

/// Keys for which there is nothing left to do.
#[derive(Default)]
struct Done {
    ids: Vec<KeyId>,
    timers: Vec<Option<i64>>,
    /// Those of whose left rows none waits.
    idle: Vec<KeyId>,
}

/// What a key has still to do: when, and whether a left row waits.
struct Next {
    timer: Option<i64>,
    is_idle: bool,
}

impl Done {
    fn push(&mut self, id: KeyId, next: Next) {
        self.ids.push(id);
        self.timers.push(next.timer);
        if next.is_idle {
            self.idle.push(id);
        }
    }
}

impl<'a> Page<'a> {
    fn new(lefts: &'a EntryPage, versions: &'a EntryPage) -> Self {
        Self {
            left_times: lefts.keys[0].as_primitive::<Int64Type>().values(),
            version_times: versions.keys[0].as_primitive::<Int64Type>().values(),
            rows: versions.values.as_struct().column(0).nulls(),
            lefts,
            versions,
        }
    }

    /// Lets left rows of the key at `at` meet their versions as far as the page tells; `beyond`: when
    /// the version after the page begins, if that is known. Gives what is next once all that is due by
    /// the watermark is done.
    fn meet(&self, at: usize, beyond: Option<i64>, watermark: i64, met: &mut Met) -> Option<Next> {
        let of = |page: &EntryPage| page.offsets[at] as usize..page.offsets[at + 1] as usize;
        let (lefts, versions) = (of(self.lefts), of(self.versions));
        let (left_times, version_times) =
            (&self.left_times[lefts.clone()], &self.version_times[versions.clone()]);
        let has_more = self.versions.more[at];
        // The last time at which it is known what is valid.
        let known = match (has_more, beyond, version_times.last()) {
            (false, ..) => i64::MAX,
            (true, Some(next), _) => next.saturating_sub(1),
            (true, None, Some(last)) => *last,
            (true, None, None) => return None,
        };
        let due = left_times.partition_point(|time| *time <= watermark);
        let is_rest_due = due == left_times.len() && self.lefts.more[at];
        let (mut taken, mut valid) = (0, 0);
        while taken < due && left_times[taken] <= known {
            while valid < version_times.len() && version_times[valid] <= left_times[taken] {
                valid += 1;
            }
            let version = valid.checked_sub(1).map(|version| versions.start + version);
            let partner = version.filter(|version| self.has_row(*version)).map(|version| version as u32);
            met.lefts.push(((lefts.start + taken) as u32, partner));
            taken += 1;
        }
        let is_done = taken == due && !is_rest_due;
        // No left row before this time needs a version any more.
        let reached = match taken.checked_sub(1) {
            _ if is_done => watermark,
            _ if taken < due => left_times[taken].min(known.max(beyond.unwrap_or(i64::MIN))),
            Some(last) => left_times[last],
            None => return None,
        };
        let passed = version_times.partition_point(|time| *time <= reached);
        let is_last_old = beyond.is_some_and(|next| next <= reached);
        let next_version = version_times.get(passed).copied().or(beyond.filter(|next| *next > reached));
        let is_whole = is_done && (!has_more || next_version.is_some());
        let mut old = if is_last_old { passed } else { passed.saturating_sub(1) };
        if is_whole && old < passed && !self.has_row(versions.start + old) {
            // Nothing is valid, which is as if there were no version.
            old = passed;
        }
        met.old.extend((versions.start..versions.start + old).map(|version| version as u32));
        is_whole.then(|| {
            let next_left = left_times.get(due).copied();
            let timer = [next_left, next_version].into_iter().flatten().min();
            Next { timer, is_idle: next_left.is_none() }
        })
    }

    fn has_row(&self, version: usize) -> bool {
        self.rows.is_none_or(|rows| rows.is_valid(version))
    }
}

/// What the kept rows of each side are made of.
fn kept_fields(setting: &Setting<'_>) -> [Fields; 2] {
    [LEFT, RIGHT].map(|side| {
        let fields = setting.inputs[side].fields().iter();
        fields.map(|field| field.as_ref().clone().with_nullable(true)).collect()
    })
}

fn version_fields(row: &Fields) -> Fields {
    Fields::from(vec![Field::new("row", DataType::Struct(row.clone()), true)])
}

/// Rows as they are kept; where `has_deletes`, nothing in the place of one that is deleted.
fn rows_of(fields: &Fields, rows: &Batch, has_deletes: bool) -> Result<ArrayRef, AggregateError> {
    let nulls = rows.kinds().filter(|_| has_deletes).map(|kinds| {
        let is_there: Vec<bool> = kinds.iter().map(|kind| !is_taken_back(*kind)).collect();
        NullBuffer::from(is_there)
    });
    let columns = rows.rows().columns().to_vec();
    Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows.num_rows())?))
}

/// Rows that can have a partner, or be one: those whose key has no null, and of the right side's not what
/// an update was before. A left row that cannot leaves alone, where it does.
fn admit(
    output: &Output,
    keys: &[usize],
    side: usize,
    rows: Batch,
    emit: &mut Emit<'_>,
) -> Result<Batch, AggregateError> {
    let whole = whole_keys(&key_columns(&rows, keys));
    let kinds = rows.kinds().filter(|_| side == RIGHT);
    if whole.is_none() && kinds.is_none() {
        return Ok(rows);
    }
    let is_whole = |row: &u32| whole.as_ref().is_none_or(|whole| whole.is_valid(*row as usize));
    let is_version =
        |row: &u32| kinds.is_none_or(|kinds| kinds[*row as usize] != RowKind::UpdateBefore as u8);
    let (admitted, strangers): (Vec<u32>, Vec<u32>) =
        (0..rows.num_rows() as u32).filter(is_version).partition(is_whole);
    if side == LEFT && output.without_partner(LEFT) && !strangers.is_empty() {
        let alone = rows.take(&strangers)?;
        let times = alone.event_times().cloned();
        emit(0, output.alone(LEFT, alone.rows().columns().to_vec(), strangers.len(), times, None)?);
    }
    Ok(rows.take(&admitted)?)
}

/// Rows of columns at these places; null where there is none.
fn take_all(columns: &[ArrayRef], places: &UInt32Array) -> Result<Vec<ArrayRef>, AggregateError> {
    Ok(columns.iter().map(|column| take(column, places, None)).collect::<Result<_, _>>()?)
}

impl KeyedOperator for TemporalJoin {
    fn prefetch(&mut self, input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        rows.event_times().ok_or(AggregateError::NoTime)?;
        Ok(self.backend.prefetch(&key_columns(rows, &self.keys[side_of(input)]), rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn process(
        &mut self,
        input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.coming = Some(Coming::new(side_of(input), rows));
        self.advance(now, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(now, emit)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if let Some(work) = self.work.take() {
            self.step(work, now, emit)?;
            return Ok(Fired::More);
        }
        match self.due.next(&mut *self.backend, TimeDomain::EventTime, now.watermark, KEYS_MAX)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(timers) => {
                let ids = timers.iter().map(|(_, id)| *id).collect();
                self.work = Some(Work { ids, limit: FEW_ROWS });
                Ok(Fired::More)
            }
        }
    }
}

#[cfg(test)]
mod tests;
