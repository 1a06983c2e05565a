//! What a function in windows does before its rows and timers are cut into calls: rows are put into
//! windows, sessions meet, windows are gathered from slices, values are merged.

use arrow_array::{Array, ArrayRef};
use guest::{Call, GuestError, Outcome};
use model::Diagnostic;
use model::job_graph::FailurePolicy;
use state::StoreError;
use state::key_index::KeyId;
use window::AggregateError;
use window::assigner::instants;

use super::function::{
    CALL_STATE_BYTES, EmitFrom, FIRST_ROWS, FunctionOperator, Items, MERGES, Near, Part, Started, call_fit,
    not_stored, value_text,
};
use super::merging::{Merging, Trapped};
use super::window_keys::{Meeting, Met};
use super::windowed::{Index, Piece, Stage, Taken};
use super::{Ran, native_error};
use crate::metrics::{Counters, add, read};
use crate::swap::probation::Fall;

/// Values on their way to become one, and what is then done with them.
pub(crate) struct MergeJob {
    merging: Merging,
    then: Then,
}

enum Then {
    /// They are those of sessions `[start, end)`, and those that these have taken in go.
    Sessions { into: Vec<KeyId>, gone: Vec<KeyId>, windows: Vec<(i64, i64)> },
    /// The guest is called with the windows: the keys' columns, with the start and the end.
    Windows { keys: Vec<ArrayRef>, ends: Vec<i64> },
}

/// Windows whose timers are taken at once, and slices of which they are gathered.
const WINDOWS: usize = 4 * 1024;
const SLICES: usize = 4 * 1024;

impl FunctionOperator {
    /// Goes on with what comes before all else. None: there is nothing of that, or a call is under way.
    pub(crate) fn prepare(
        &mut self,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Option<Ran>, Diagnostic> {
        if self.work.merge.is_some() {
            return self.merge();
        }
        let now = self.now();
        let place = &self.place;
        let wrong = |error: AggregateError| native_error(place, &error);
        let (Some(windows), Some(keyed)) = (&mut self.windows, &mut self.keyed) else { return Ok(None) };
        let store = |keyed, (state, error): (u32, StoreError)| not_stored(place, Some(keyed), state, &error);
        match std::mem::replace(&mut windows.stage, Stage::None) {
            Stage::None => return Ok(None),
            Stage::Joining { ticket, piece, times, now } => {
                let Index::Sessions(index) = &mut windows.index else { return Ok(None) };
                if !index.is_ready(ticket) {
                    windows.stage = Stage::Joining { ticket, piece, times, now };
                    return Ok(Some(Ran::Idle));
                }
                let keys = keyed.stream_keys(piece.input, &piece.rows);
                let passed = windows.clock().passed(now);
                let Index::Sessions(index) = &mut windows.index else { return Ok(None) };
                let joined = index.join(&keys, &times, passed, now.processing_time).map_err(wrong)?;
                let ids = joined.of_places.iter().map(|at| joined.sessions[*at as usize].now.id).collect();
                let taken = piece.taken(&joined.places, vec![instants(ids)], &joined.late).map_err(wrong)?;
                if !joined.sessions.is_empty() {
                    let meeting = Meeting::new(&keys, joined.sessions).map_err(|e| wrong(e.into()))?;
                    let ticket = keyed.prefetch_keys(&meeting.keys, meeting.rows());
                    let ticket = ticket.map_err(|e| wrong(e.into()))?;
                    let rows = Items::Rows(piece.input, taken.rows, Some(taken.windows));
                    windows.stage = Stage::Meeting { ticket, meeting, rows, now };
                }
                self.on_late(piece.input, taken.late, counters, emit)?;
            }
            Stage::Meeting { ticket, meeting, rows, now } => {
                if !keyed.is_ready(ticket) {
                    windows.stage = Stage::Meeting { ticket, meeting, rows, now };
                    return Ok(Some(Ran::Idle));
                }
                // The state that has the extents is of fixed size.
                let Met { merged } = keyed.meet(&meeting, now).map_err(|error| store(keyed, (0, error)))?;
                if merged.is_empty() {
                    self.work.parts.push(Part::new(rows));
                } else if windows.collects {
                    let moves = merged.into_iter().rev().collect();
                    windows.stage = Stage::Moving { moves, rows };
                } else {
                    self.work.parts.push(Part::new(rows));
                    let sessions = &meeting.sessions;
                    let job = MergeJob::of_sessions(
                        &merged,
                        |id| keyed.values(id, now.processing_time),
                        || {
                            sessions
                                .iter()
                                .filter(|of| of.before.len() > 1)
                                .map(|of| (of.now.start, of.now.end))
                        },
                    );
                    self.work.merge = Some(job.map_err(|error| wrong(error.into()))?);
                }
            }
            Stage::Moving { mut moves, rows } => {
                if let Some((from, to)) = moves.last() {
                    let is_done = keyed.move_entries(*from, *to, now.processing_time);
                    if is_done.map_err(|error| store(keyed, error))? {
                        moves.pop();
                    }
                    windows.stage = Stage::Moving { moves, rows };
                } else {
                    self.work.parts.push(Part::new(rows));
                }
            }
            Stage::Ending { ticket, mut due } => {
                let Index::Slices(index) = &mut windows.index else { return Ok(None) };
                if !index.is_ready(ticket) {
                    windows.stage = Stage::Ending { ticket, due };
                    return Ok(Some(Ran::Idle));
                }
                if !due.is_empty() {
                    let ending = index.end(&mut due, SLICES, now.processing_time).map_err(wrong)?;
                    let next = keyed.prefetch_keys(&ending.slices, ending.of_slices.len());
                    let next = next.map_err(|error| wrong(error.into()))?;
                    windows.stage = Stage::Gathering { ticket: next, ending, due };
                }
            }
            Stage::Gathering { ticket, ending, due } => {
                if !keyed.is_ready(ticket) {
                    windows.stage = Stage::Gathering { ticket, ending, due };
                    return Ok(Some(Ran::Idle));
                }
                let values = keyed.gather(&ending.slices, &ending.is_last, now.processing_time);
                let values = values.map_err(|error| store(keyed, (0, error)))?;
                let merging = Merging::new(&values, &ending.of_slices, ending.ends.len());
                let mut keys = ending.keys;
                keys.extend([instants(ending.starts), instants(ending.ends.clone())]);
                let then = Then::Windows { keys, ends: ending.ends };
                self.work.merge = Some(MergeJob { merging: merging.map_err(|e| wrong(e.into()))?, then });
                // Those that are left have been near since these were.
                if let (false, Index::Slices(index)) = (due.is_empty(), &mut windows.index) {
                    windows.stage = Stage::Ending { ticket: index.prefetch_due(&due), due };
                }
            }
        }
        Ok(Some(Ran::Progress))
    }

    /// Puts some rows into their windows.
    pub(crate) fn assign(&mut self, counters: &Counters, emit: &mut EmitFrom<'_>) -> Result<(), Diagnostic> {
        let now = self.now();
        let place = &self.place;
        let wrong = |error: AggregateError| native_error(place, &error);
        let (Some(windows), Some(keyed)) = (&mut self.windows, &self.keyed) else { return Ok(()) };
        let Some(piece) = windows.take() else { return Ok(()) };
        let times = windows.clock();
        if let Index::Sessions(index) = &mut windows.index {
            let times = times.times(&piece.rows, now).map_err(wrong)?;
            let keys = keyed.stream_keys(piece.input, &piece.rows);
            let ticket = index.prefetch(&keys, piece.rows.num_rows()).map_err(wrong)?;
            windows.stage = Stage::Joining { ticket, piece, times, now };
            return Ok(());
        }
        let Taken { rows, windows: in_windows, late } = windows.assign(&piece, now).map_err(wrong)?;
        let Piece { input, .. } = piece;
        if rows.num_rows() > 0 {
            self.work.parts.push(Part::new(Items::Rows(input, rows, Some(in_windows))));
        }
        self.on_late(input, late, counters, emit)
    }

    fn on_late(
        &self,
        input: u32,
        late: Option<model::Batch>,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let port = self.windows.as_ref().and_then(|windows| windows.late_port(input));
        match (late, port) {
            (None, _) => Ok(()),
            (Some(late), None) => {
                add(&counters.rows_late, late.num_rows());
                Ok(())
            }
            (Some(late), Some(port)) => {
                add(&counters.rows_out, late.num_rows());
                emit(self.nodes[0].0, port, late)
            }
        }
    }

    /// Takes due timers of shared slices' windows. What it gives, there are some, or it takes longer to find them.
    pub(crate) fn take_windows(&mut self, now: i64) -> Result<Option<Ran>, Diagnostic> {
        let Some(windows) = &mut self.windows else { return Ok(None) };
        let Index::Slices(index) = &mut windows.index else { return Ok(None) };
        let due = index.take_due(now, WINDOWS).map_err(|error| native_error(&self.place, &error))?;
        if due.timers.is_empty() {
            return Ok(match due {
                due if due.is_waiting => Some(Ran::Idle),
                due if due.is_partial => Some(Ran::Progress),
                _ => None,
            });
        }
        windows.stage = Stage::Ending { ticket: index.prefetch_due(&due.timers), due: due.timers };
        Ok(Some(Ran::Progress))
    }

    /// Does with an index what a part asks for: it gets new slices, or loses sessions. None: that is done,
    /// and the part goes on.
    pub(crate) fn change_index(&mut self, part: &mut Part) -> Result<Option<Started>, Diagnostic> {
        let now = self.now();
        let place = &self.place;
        let wrong = |error: AggregateError| native_error(place, &error);
        let (Some(windows), Some(keyed)) = (&mut self.windows, &self.keyed) else { return Ok(None) };
        let passed = windows.clock().passed(now);
        let (Items::Clear(ids) | Items::Slices(ids)) = &part.what else { return Ok(None) };
        if part.is_sorted || matches!(windows.index, Index::None) {
            return Ok(None);
        }
        let (keys, of_windows) = keyed.split_keys(ids).map_err(|error| wrong(error.into()))?;
        match (&mut windows.index, &part.what) {
            (Index::Sessions(index), Items::Clear(_)) => {
                let ticket = match part.near {
                    Near::Asked(ticket) => ticket,
                    _ => index.prefetch(&keys, ids.len()).map_err(wrong)?,
                };
                if !index.is_ready(ticket) {
                    part.near = Near::Asked(ticket);
                    return Ok(Some(Started::Waiting));
                }
                index.remove(&keys, &of_windows[0], now.processing_time).map_err(wrong)?;
                (part.is_sorted, part.near) = (true, Near::Yes);
                Ok(None)
            }
            (Index::Slices(index), Items::Slices(_)) => {
                let ticket = match part.near {
                    Near::Asked(ticket) => ticket,
                    _ => index.prefetch(&keys, ids.len()).map_err(wrong)?,
                };
                if !index.is_ready(ticket) {
                    part.near = Near::Asked(ticket);
                    return Ok(Some(Started::Waiting));
                }
                index.add(&keys, &of_windows[1], passed, now.processing_time).map_err(wrong)?;
                // Where rows have failed there is none.
                keyed.forget(ids);
                Ok(Some(Started::Nothing))
            }
            _ => Ok(None),
        }
    }

    /// Merges the next pairs. None: a call is under way.
    fn merge(&mut self) -> Result<Option<Ran>, Diagnostic> {
        let place = &self.place;
        let wrong = |error: AggregateError| native_error(place, &error);
        let Some(job) = &mut self.work.merge else { return Ok(None) };
        let fit = call_fit(self.work.nanoseconds_each[MERGES], FIRST_ROWS, self.rows_max);
        if let Some((left, right)) = job.merging.next(fit).map_err(|error| wrong(error.into()))? {
            self.chain.start(Call::Merge { left, right });
            self.work.is_merging = true;
            return Ok(None);
        }
        let Some(MergeJob { merging, then }) = self.work.merge.take() else { return Ok(None) };
        let values = merging.finish().map_err(|error| wrong(error.into()))?;
        match (then, &self.keyed, &self.windows) {
            (Then::Sessions { into, gone, .. }, Some(keyed), _) => {
                let stored = keyed.store_merged(&into, &values, &gone, self.clock.wall_ms());
                stored.map_err(|error| not_stored(place, Some(keyed), 0, &error))?;
            }
            (Then::Windows { keys, ends }, _, Some(windows)) => {
                // A window without a value is not there.
                let places: Vec<u32> =
                    (0u32..).take(ends.len()).filter(|at| values.is_valid(*at as usize)).collect();
                let pick = |column: &ArrayRef| model::gather(column, &places);
                let keys = keys.iter().map(pick).collect::<Result<_, _>>();
                let mut windows = Items::Windows {
                    domain: windows.clock().domain(),
                    keys: keys.map_err(|error| wrong(error.into()))?,
                    times: places.iter().map(|at| ends[*at as usize] - 1).collect(),
                    values: pick(&values).map_err(|error| wrong(error.into()))?,
                };
                // State rides along, so it counts for the size of a call too.
                let each = (values.get_buffer_memory_size() / values.len().max(1)).max(1);
                let fit = (CALL_STATE_BYTES / each).max(1);
                while windows.len() > 0 {
                    let part = windows.split_off((windows.len() - 1) / fit * fit);
                    self.work.parts.push(Part { near: Near::Yes, ..Part::new(part) });
                }
            }
            _ => {}
        }
        Ok(Some(Ran::Progress))
    }

    /// The guest has merged pairs.
    pub(crate) fn on_merged(&mut self, outcome: Outcome, counters: &Counters) {
        self.work.is_merging = false;
        let Some(job) = &mut self.work.merge else { return };
        let pairs = job.merging.under_way();
        self.measure(MERGES, pairs);
        self.count_call(counters);
        if let (Some(job), Some(merged)) = (&mut self.work.merge, outcome.merged) {
            job.merging.on_merged(merged);
        }
        if self.chaos_instances {
            self.chain.reset();
        }
    }

    /// A call that merges has trapped: its window has no value, or the job fails.
    pub(crate) fn on_merge_trap(
        &mut self,
        error: &GuestError,
        counters: &Counters,
    ) -> Result<Ran, Diagnostic> {
        self.work.is_merging = false;
        self.count_trap(counters);
        if let Some(trial) = self.trial.clone().filter(|trial| trial.is_last_chance()) {
            // What was to be merged stands as it is.
            let fall = Fall { at: self.clock.now(), error: self.trapped(error, None) };
            if trial.fails(fall) {
                return Ok(Ran::GoesBack);
            }
        }
        if !error.is_of_a_row() {
            return Err(self.trapped(error, None));
        }
        let Some(job) = &mut self.work.merge else { return Ok(Ran::Progress) };
        let Trapped::Pair(group) = job.merging.on_trap() else { return Ok(Ran::Progress) };
        if let Some(trial) = &self.trial {
            trial.count();
        }
        let window = match &job.then {
            Then::Windows { keys, .. } => {
                keys.iter().map(|column| value_text(column, group as usize)).collect::<Vec<_>>().join(",")
            }
            Then::Sessions { into, windows, .. } => {
                let key = self.keyed.as_ref().and_then(|keyed| keyed.key(into[group as usize]));
                // The last column is the session's id.
                let mut texts: Vec<String> =
                    key.unwrap_or_default().iter().map(|column| value_text(column, 0)).collect();
                texts.pop();
                let (start, end) = windows[group as usize];
                let bounds = instants(vec![start, end]);
                texts.extend([value_text(&bounds, 0), value_text(&bounds, 1)]);
                texts.join(",")
            }
        };
        let window = format!("merging the window ({window})");
        if self.nodes[0].2 == FailurePolicy::Fail {
            return Err(self.trapped(error, Some(window)));
        }
        add(&counters.timers_skipped, 1);
        if read(&counters.timers_skipped) == 1 {
            self.chain.warn(&format!("{window} failed: {error}"));
        }
        Ok(Ran::Progress)
    }
}

impl MergeJob {
    /// That of sessions, which have become others: those of one side by side, in order of time. `windows`
    /// are the others'.
    fn of_sessions<I: Iterator<Item = (i64, i64)>>(
        merged: &[(KeyId, KeyId)],
        values: impl FnOnce(&[KeyId]) -> Result<ArrayRef, arrow_schema::ArrowError>,
        windows: impl FnOnce() -> I,
    ) -> Result<Self, arrow_schema::ArrowError> {
        let (mut all, mut of, mut into, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (from, to) in merged {
            if into.last() != Some(to) {
                of.push(into.len() as u32);
                into.push(*to);
                all.push(*to);
            }
            of.push(into.len() as u32 - 1);
            all.push(*from);
            gone.push(*from);
        }
        let merging = Merging::new(&values(&all)?, &of, into.len())?;
        Ok(Self { merging, then: Then::Sessions { into, gone, windows: windows().collect() } })
    }
}
