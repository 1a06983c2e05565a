//! Which windows rows are in, and when these are over: for who keeps what is in them.

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use model::Batch;
use model::job_graph::{Assigner, TimeDomain, Windows};
use state::TimerChange;
use state::key_index::KeyId;

use crate::grid::WindowGrid;
use crate::operator::Now;
use crate::windows::sliced::edges::Edges;
use crate::{AggregateError, Standing};

/// When windows are over, by one of the two clocks.
///
/// Instants are in milliseconds since the epoch. A window `[start, end)` ends at its last instant, `end - 1`,
/// and what is kept for it goes at `cleared_at(end)`, at that or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowClock {
    domain: TimeDomain,
    /// In milliseconds.
    lateness: i64,
    /// Windows that end up to this instant have gone, whatever the lateness is.
    gone: i64,
}

/// How long windows of a function take late rows, in milliseconds.
#[must_use]
pub fn lateness_of(windows: &Windows) -> i64 {
    match &windows.assigner {
        Assigner::Everything => 0,
        _ => crate::windows::millis(windows.lateness),
    }
}

impl WindowClock {
    /// By this clock; `lateness` in milliseconds.
    pub(crate) fn new(domain: TimeDomain, lateness: i64) -> Self {
        Self { domain, lateness, gone: i64::MIN }
    }

    /// Which clock it is.
    #[must_use]
    pub fn domain(self) -> TimeDomain {
        self.domain
    }

    /// Whether windows take rows after their ends.
    #[must_use]
    pub fn has_lateness(self) -> bool {
        self.lateness > 0
    }

    /// Instants up to this one have passed.
    #[must_use]
    pub fn passed(self, now: Now) -> i64 {
        match self.domain {
            TimeDomain::EventTime => now.watermark,
            // Rows may still come in this millisecond.
            TimeDomain::ProcessingTime => now.processing_time.saturating_sub(1),
        }
    }

    /// The last instant at which a window of this end takes rows.
    #[must_use]
    pub fn cleared_at(self, end: i64) -> i64 {
        (end - 1).saturating_add(self.lateness)
    }

    /// Windows that end up to this instant take no rows any more.
    #[must_use]
    pub fn cleared_by(self, passed: i64) -> i64 {
        passed.saturating_sub(self.lateness).saturating_add(1).max(self.gone)
    }

    /// Whether a window of this end still takes rows, when this instant has passed.
    #[must_use]
    pub fn takes(self, end: i64, passed: i64) -> bool {
        end > self.gone && self.cleared_at(end) > passed
    }

    /// Whether a window of this end is over, when a timer of this instant fires.
    #[must_use]
    pub fn is_over(self, time: i64, end: i64) -> bool {
        time > self.cleared_at(end) || end <= self.gone
    }

    /// How long they take late rows, in milliseconds.
    #[must_use]
    pub fn lateness(self) -> i64 {
        self.lateness
    }

    /// The same with another lateness, in milliseconds, from when this instant has passed: what has gone stays gone.
    #[must_use]
    pub fn with_lateness(self, lateness: i64, passed: i64) -> Self {
        // By the machine's clock no row is late; and what has ended may not have fired yet.
        let gone = match self.domain {
            TimeDomain::EventTime => self.cleared_by(passed),
            TimeDomain::ProcessingTime => self.gone,
        };
        Self { domain: self.domain, lateness, gone }
    }

    /// What a checkpoint keeps, when this instant has passed and timers are set by this lateness.
    #[must_use]
    pub fn standing(self, lateness: i64, passed: i64) -> Standing {
        Standing { lateness, early: 0, gone: self.gone, passed, is_settled: true }
    }

    /// The clock that a checkpoint has kept.
    #[must_use]
    pub fn of_standing(self, standing: Standing) -> Self {
        Self { domain: self.domain, lateness: standing.lateness, gone: standing.gone }
    }

    /// What is to be done with the timers of a window of this end that were set by another lateness when this instant
    /// had passed: with those that clear it.
    pub fn reset(
        self,
        (key, had): (KeyId, &[i64]),
        (before, passed): (i64, i64),
        end: i64,
        changes: &mut Vec<TimerChange>,
    ) {
        let clears_at = |lateness: i64| end.saturating_add(lateness);
        let timer = |time, set| TimerChange { key, domain: self.domain, time, set };
        // Where the window's last instant is still to come, and there is no lateness, that clears it.
        let is_by_end = !self.has_lateness() && (end - 1 > passed || had.contains(&(end - 1)));
        let wanted = clears_at(self.lateness).max(passed.saturating_add(1));
        let gone = clears_at(before);
        if before > 0 && had.contains(&gone) && (is_by_end || gone != wanted) {
            changes.push(timer(gone, false));
        }
        if !is_by_end && !had.contains(&wanted) {
            changes.push(timer(wanted, true));
        }
    }

    /// The timers that a window of this end has by itself: at its last instant; and after the lateness,
    /// where there is one, to clear it. (A timer of the guest's for the last instant that the window is
    /// kept comes before that.)
    pub fn set_timers(self, key: KeyId, end: i64, changes: &mut Vec<TimerChange>) {
        let timer = |time| TimerChange { key, domain: self.domain, time, set: true };
        changes.push(timer(end - 1));
        if self.has_lateness() {
            changes.push(timer(self.cleared_at(end).saturating_add(1)));
        }
    }

    /// Whether a window of this end is kept no longer after a timer.
    #[must_use]
    pub fn is_last(self, domain: TimeDomain, time: i64, end: i64) -> bool {
        domain == self.domain && !self.has_lateness() && time == end - 1
    }

    /// The rows' times by this clock.
    ///
    /// # Errors
    /// If they have none.
    pub fn times(self, rows: &Batch, now: Now) -> Result<ScalarBuffer<i64>, AggregateError> {
        match (self.domain, rows.event_times()) {
            (TimeDomain::ProcessingTime, _) => Ok(vec![now.processing_time; rows.num_rows()].into()),
            (TimeDomain::EventTime, Some(times)) => Ok(times.clone()),
            (TimeDomain::EventTime, None) => Err(AggregateError::NoTime),
        }
    }
}

/// Puts rows into the windows of a function. Sessions are not found by time alone, but in an index
/// by key, `session_index`.
pub struct WindowAssigner {
    /// When they are over.
    pub clock: WindowClock,
    kind: Kind,
}

enum Kind {
    Everything,
    Grid(WindowGrid),
    /// Rows are in one slice each, which the windows share.
    Slices(Edges),
}

/// Rows in their windows.
#[derive(Debug, Default)]
pub struct Assigned {
    /// A row's place, once for each of its windows; they rise.
    pub places: Vec<u32>,
    /// The windows' starts.
    pub starts: Vec<i64>,
    /// The windows' ends.
    pub ends: Vec<i64>,
    /// Places of rows whose windows are all over.
    pub late: Vec<u32>,
}

/// The start and the end of the window for everything: its last instant is before the end of all time.
const EVERYTHING: (i64, i64) = (i64::MIN, i64::MAX);

impl WindowAssigner {
    /// That of a function.
    ///
    /// # Errors
    /// As the plan is refused.
    pub fn new(windows: &Windows, shares_slices: bool) -> Result<Self, AggregateError> {
        let kind = match &windows.assigner {
            Assigner::Everything | Assigner::Session(_) => Kind::Everything,
            assigner if shares_slices => Kind::Slices(Edges::of(assigner)),
            assigner => Kind::Grid(WindowGrid::new(assigner)?),
        };
        let clock = WindowClock::new(windows.time, lateness_of(windows));
        Ok(Self { clock, kind })
    }

    /// How many windows a row is in, at most; of slices it is in one.
    #[must_use]
    pub fn windows_a_row(&self) -> usize {
        match &self.kind {
            Kind::Everything | Kind::Slices(_) => 1,
            Kind::Grid(grid) => usize::try_from(grid.windows_a_time()).unwrap_or(usize::MAX),
        }
    }

    /// Each row once for every window that it is in and that is not over, or once with its slice where one of
    /// the slice's windows is not over.
    ///
    /// # Errors
    /// If rows have no event times, and need them.
    pub fn assign(&self, rows: &Batch, now: Now) -> Result<Assigned, AggregateError> {
        let passed = self.clock.passed(now);
        match &self.kind {
            Kind::Everything => {
                let count = rows.num_rows();
                Ok(Assigned {
                    // Batches are cut far below 2^32 rows.
                    places: (0..count as u32).collect(),
                    starts: vec![EVERYTHING.0; count],
                    ends: vec![EVERYTHING.1; count],
                    late: Vec::new(),
                })
            }
            Kind::Grid(grid) => {
                let times = self.clock.times(rows, now)?;
                let is_kept = |end| self.clock.takes(end, passed);
                let (places, windows, late) = grid.assign(&times, is_kept, |start, end| (start, end));
                let (starts, ends) = windows.into_iter().unzip();
                Ok(Assigned { places, starts, ends, late })
            }
            Kind::Slices(edges) => Ok(assign_slices(edges, &self.clock.times(rows, now)?, passed)),
        }
    }
}

fn assign_slices(edges: &Edges, times: &[i64], passed: i64) -> Assigned {
    let mut assigned = Assigned::default();
    // Neighbours are mostly in one slice.
    let (mut start, mut end, mut is_late) = (i64::MAX, i64::MIN, false);
    for (row, time) in (0u32..).zip(times) {
        if !(start..end).contains(time) {
            end = edges.slice_end(*time);
            (start, is_late) = (edges.before(end), edges.last_window(end) - 1 <= passed);
        }
        if is_late {
            assigned.late.push(row);
            continue;
        }
        assigned.places.push(row);
        assigned.starts.push(start);
        assigned.ends.push(end);
    }
    assigned
}

/// Whether windows of a function share slices: those that overlap and merge, whose edges are even, and that
/// ask for nothing between their ends.
#[must_use]
pub fn shares_slices(windows: &Windows, timers: bool) -> bool {
    let is_overlapping = match &windows.assigner {
        Assigner::Sliding(grid) | Assigner::Cumulating(grid) => grid.zone.is_none() && grid.size > grid.step,
        _ => false,
    };
    is_overlapping && windows.merges && windows.lateness.is_zero() && !timers
}

/// The type of instants among a key's columns.
#[must_use]
pub fn instant_type() -> DataType {
    crate::windows::instant_type()
}

/// A column of instants.
#[must_use]
pub fn instants(times: Vec<i64>) -> ArrayRef {
    crate::windows::instants(times)
}
