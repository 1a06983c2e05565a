//! The join of rows of equal keys in the same window, at the window's end.
//!
//! Rows are kept by key and slice, once however many windows they are in; a window joins the slices
//! that it is made of. Windows are found by timers of their last instants, the next of a key only; a
//! slice goes with its last window.
//!
//! Source: Flink, `WindowJoinOperator`; slices as in `SliceAssigners`.

use arrow_array::ArrayRef;
use model::Batch;
use model::job_graph::{Assigner, JoinSides, TimeDomain};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::cross::PAGE_ROWS;
use super::final_join::Final;
use super::output::{Output, gather_all};
use super::store::{Position, RowStore, Run};
use super::{Coming, LEFT, RIGHT, side_of, whole_keys};
use crate::AggregateError;
use crate::grid::WindowGrid;
use crate::keys::key_columns;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::timers::{Due, DueTimers};

/// A window join, in one subtask.
pub(super) struct WindowJoin {
    output: Output,
    keys: Vec<Vec<usize>>,
    store: RowStore,
    grid: WindowGrid,
    grouping: Grouping,
    coming: Option<Coming>,
    closing: Option<Closing>,
    late: usize,
    due: DueTimers,
}

/// Windows that end.
struct Closing {
    keys: Vec<ArrayRef>,
    /// Whose timer each was, and its end.
    windows: Vec<(KeyId, i64)>,
    /// The next window whose slices are looked up, and how many of these have been.
    at: (usize, usize),
    runs: [Vec<Run>; 2],
    joining: Option<Final>,
    /// What goes then, by side.
    gone: [Vec<Run>; 2],
    removed: [Position; 2],
}

/// The bucket that a key's timers are at, where windows have several slices.
const TIMERS: i64 = i64::MIN;
/// Slices that are looked up in one step.
const SLICES_MAX: usize = 1024;
/// Windows that end in one step.
const WINDOWS_MAX: usize = 128;

impl WindowJoin {
    pub(super) fn new(
        sides: JoinSides,
        assigner: &Assigner,
        setting: Setting<'_>,
    ) -> Result<Self, AggregateError> {
        let output = Output::new(sides, &setting);
        let keys = setting.keys.to_vec();
        let store = RowStore::new(setting, true, [None, None], false, None)?;
        let grid = WindowGrid::new(assigner)?;
        Ok(Self {
            output,
            keys,
            store,
            grid,
            grouping: Grouping::default(),
            coming: None,
            closing: None,
            late: 0,
            due: DueTimers::default(),
        })
    }

    fn slices(&self, rows: &Batch) -> Result<Vec<i64>, AggregateError> {
        let times = rows.event_times().ok_or(AggregateError::NoTime)?;
        if let Some(time) = times.iter().find(|time| !self.grid.holds(**time)) {
            return Err(AggregateError::TooFar(*time));
        }
        let mut slices = Vec::new();
        self.grid.slice_ends(times, &mut slices);
        Ok(slices)
    }

    /// Rows that are not late, and their slices; without those of keys with a null that never leave.
    fn admit(
        &mut self,
        side: usize,
        rows: &Batch,
        watermark: i64,
    ) -> Result<(Batch, Vec<i64>), AggregateError> {
        let slices = self.slices(rows)?;
        let stays = !self.output.without_partner(side);
        let whole = whole_keys(&key_columns(rows, &self.keys[side])).filter(|_| stays);
        // Neighbours are mostly in one slice.
        let mut known = (i64::MIN, false);
        let mut late = 0;
        let mut admitted: Vec<u32> = Vec::with_capacity(slices.len());
        for (row, slice) in (0u32..).zip(&slices) {
            if known.0 != *slice {
                known = (*slice, self.grid.last_window_end(*slice).saturating_sub(1) <= watermark);
            }
            if known.1 {
                late += 1;
            } else if whole.as_ref().is_none_or(|whole| whole.is_valid(row as usize)) {
                admitted.push(row);
            }
        }
        self.late += late;
        if admitted.len() == slices.len() {
            return Ok((rows.clone(), slices));
        }
        let slices = admitted.iter().map(|row| slices[*row as usize]).collect();
        Ok((rows.take(&admitted)?, slices))
    }

    /// The end of the first window of a slice, after this one, that has not passed.
    fn next_end(&self, slice: i64, after: i64, watermark: i64) -> Option<i64> {
        let mut ends = self.grid.windows_of_slice(slice).map(|window| window.1);
        ends.find(|end| *end > after && *end - 1 > watermark)
    }

    fn take_rows(
        &mut self,
        side: usize,
        rows: &Batch,
        slices: &[i64],
        now: Now,
    ) -> Result<(), AggregateError> {
        let clock = now.processing_time;
        let keys = key_columns(rows, &self.keys[side]);
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.store.ids(&keys, slices, vec![0; slices.len()], &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let mut counts = self.store.counts(side, &bases, clock)?;
        let mut last = vec![0u32; bases.len()];
        (0u32..).zip(&groups).for_each(|(row, group)| last[*group as usize] = row);
        let fresh: Vec<usize> = (0..bases.len()).filter(|group| counts[*group] == 0).collect();
        self.set_timers(&keys, slices, &fresh, &bases, &last, now.watermark)?;
        self.store.append(side, rows, (&keys, slices), (&groups, &bases), &mut counts, clock)?;
        Ok(())
    }

    fn set_timers(
        &mut self,
        keys: &[ArrayRef],
        slices: &[i64],
        fresh: &[usize],
        bases: &[KeyId],
        last: &[u32],
        watermark: i64,
    ) -> Result<(), AggregateError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = fresh.iter().map(|group| last[*group]).collect();
        let mut at: Vec<KeyId> = fresh.iter().map(|group| bases[*group]).collect();
        if self.grid.slices_a_window() > 1 {
            let keys = gather_all(keys, &rows)?;
            self.store.ids(&keys, &vec![TIMERS; rows.len()], vec![0; rows.len()], &mut at)?;
        }
        let timer = |(key, row): (KeyId, u32)| {
            let end = self.next_end(slices[row as usize], i64::MIN, watermark)?;
            Some(TimerChange { key, domain: TimeDomain::EventTime, time: end - 1, set: true })
        };
        let timers: Vec<TimerChange> = at.into_iter().zip(rows).filter_map(timer).collect();
        Ok(self.store.backend.change_timers(&timers)?)
    }

    /// Goes on with the rows that have come.
    fn advance(&mut self, now: Now) -> Result<Fired, AggregateError> {
        let Some(mut coming) = self.coming.take() else { return Ok(Fired::Done) };
        let side = coming.side;
        let (rows, is_last) = coming.next();
        self.coming = (!is_last).then_some(coming);
        let (rows, slices) = self.admit(side, &rows, now.watermark)?;
        if !slices.is_empty() {
            self.take_rows(side, &rows, &slices, now)?;
        }
        Ok(if is_last { Fired::Done } else { Fired::More })
    }

    fn take_due(&mut self, watermark: i64) -> Result<Fired, AggregateError> {
        let timers =
            match self.due.next(&mut *self.store.backend, TimeDomain::EventTime, watermark, WINDOWS_MAX)? {
                Due::None(fired) => return Ok(fired),
                Due::Timers(timers) => timers,
            };
        let windows: Vec<(KeyId, i64)> = timers.iter().map(|(time, id)| (*id, time + 1)).collect();
        let ids: Vec<KeyId> = windows.iter().map(|window| window.0).collect();
        let mut keys = self.store.backend.keys(&ids)?;
        // The place, and the bucket.
        keys.truncate(keys.len().saturating_sub(2));
        self.closing = Some(Closing {
            keys,
            windows,
            at: (0, 0),
            runs: [Vec::new(), Vec::new()],
            joining: None,
            gone: [Vec::new(), Vec::new()],
            removed: [Position::default(); 2],
        });
        Ok(Fired::More)
    }

    /// Looks up the next slices of the windows that end.
    fn look_up(&mut self, closing: &mut Closing, now: i64) -> Result<(), AggregateError> {
        let (mut rows, mut slices): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
        while slices.len() < SLICES_MAX
            && let Some((_, end)) = closing.windows.get(closing.at.0)
        {
            let before = slices.len();
            let left = SLICES_MAX - before;
            slices.extend(self.grid.slices_of_window(*end).skip(closing.at.1).take(left));
            rows.resize(slices.len(), closing.at.0 as u32);
            closing.at = match slices.len() - before < left {
                true => (closing.at.0 + 1, 0),
                false => (closing.at.0, closing.at.1 + left),
            };
        }
        let mut ids = Vec::new();
        let keys = gather_all(&closing.keys, &rows)?;
        self.store.ids(&keys, &slices, vec![0; rows.len()], &mut ids)?;
        let counts = [self.store.counts(LEFT, &ids, now)?, self.store.counts(RIGHT, &ids, now)?];
        let mut vain = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let of_sides = [counts[LEFT][at], counts[RIGHT][at]];
            if of_sides == [0, 0] {
                vain.push(*id);
            }
            for side in [LEFT, RIGHT].into_iter().filter(|side| of_sides[*side] > 0) {
                let (key, bucket, count) = (rows[at], slices[at], of_sides[side]);
                closing.runs[side].push(Run { id: *id, key, bucket, count, group: key });
            }
        }
        self.store.backend.forget_empty(&vain);
        Ok(())
    }

    /// All slices are there: what is joined, what goes then, and when the keys' next windows end.
    fn begin_join(&mut self, closing: &mut Closing) -> Result<(), AggregateError> {
        let mut timers: Vec<TimerChange> = Vec::new();
        for side in [LEFT, RIGHT] {
            for run in &closing.runs[side] {
                let (key, end) = closing.windows[run.group as usize];
                match self.next_end(run.bucket, end, i64::MIN) {
                    None => closing.gone[side].push(*run),
                    Some(next) => {
                        timers.push(TimerChange {
                            key,
                            domain: TimeDomain::EventTime,
                            time: next - 1,
                            set: true,
                        });
                    }
                }
            }
        }
        timers.dedup();
        self.store.backend.change_timers(&timers)?;
        let times = closing.windows.iter().map(|window| window.1 - 1).collect();
        let runs = std::mem::take(&mut closing.runs);
        let groups = closing.windows.len();
        closing.joining = Some(Final::new(closing.keys.clone(), runs, groups, Some(times), [false, false]));
        Ok(())
    }

    fn close(&mut self, mut closing: Closing, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        if closing.at.0 < closing.windows.len() {
            self.look_up(&mut closing, now)?;
            if closing.at.0 >= closing.windows.len() {
                self.begin_join(&mut closing)?;
            }
        } else if let Some(joining) = &mut closing.joining {
            if joining.step(&mut self.store, &self.output, now, emit)? == Fired::Done {
                closing.joining = None;
            }
        } else {
            for side in [LEFT, RIGHT] {
                let (gone, removed) = (&closing.gone[side], &mut closing.removed[side]);
                if removed.run < gone.len() {
                    self.store.remove_next(side, &closing.keys, gone, removed, PAGE_ROWS, now)?;
                    self.closing = Some(closing);
                    return Ok(());
                }
            }
            let ids: Vec<KeyId> = closing.windows.iter().map(|window| window.0).collect();
            self.store.backend.forget_empty(&ids);
            return Ok(());
        }
        self.closing = Some(closing);
        Ok(())
    }
}

impl KeyedOperator for WindowJoin {
    fn prefetch(&mut self, input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        let slices = self.slices(rows)?;
        let keys = key_columns(rows, &self.keys[side_of(input)]);
        self.store.prefetch(&keys, &slices, rows.num_rows())
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.store.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.store.backend)
    }

    fn process(
        &mut self,
        input: u32,
        rows: &Batch,
        now: Now,
        _emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.coming = Some(Coming::new(side_of(input), rows));
        self.advance(now)
    }

    fn resume(&mut self, now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(now)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        match self.closing.take() {
            Some(closing) => {
                self.close(closing, now.processing_time, emit)?;
                Ok(Fired::More)
            }
            None => self.take_due(now.watermark),
        }
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.late)
    }
}
