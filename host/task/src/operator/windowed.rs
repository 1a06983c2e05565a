//! What a function in windows has more than other keyed functions: its rows are put into windows
//! before they are cut into calls.

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use model::Batch;
use model::job_graph::{Assigner, TimeDomain, Windows};
use state::backend::Ticket;
use state::key_index::KeyId;
use window::assigner::{Assigned, WindowAssigner, WindowClock, instants, shares_slices};
use window::operator::NewBackend;
use window::session_index::SessionIndex;
use window::slice_index::{Ending, SliceIndex};
use window::{AggregateError, Now, Standing};

use super::function::Items;
use super::window_keys::{KeyedBy, Meeting};

/// The windows of a function's subtask.
pub(crate) struct Windowed {
    assigner: WindowAssigner,
    /// What of the windows there are is known apart from what is kept for them.
    pub(crate) index: Index,
    /// Rows do not go to the guest: they are kept until their window ends.
    pub(crate) collects: bool,
    /// The port of late rows of input 0.
    late_port: Option<u32>,
    /// Results come at the end only: no watermark before is looked at.
    pub(crate) batch: bool,
    /// Rows of an input that are in no window yet, and how many of them are.
    waiting: Option<(u32, Batch, usize)>,
    /// How many rows have been put into windows.
    assigned: u64,
    /// What comes before all else.
    pub(crate) stage: Stage,
    /// Timers that are to be set anew before anything else.
    resets: Option<Resets>,
}

/// Timers of windows that were set by another lateness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resets {
    /// By this one, in milliseconds.
    pub(crate) by: i64,
    /// What was due up to this instant had fired then.
    pub(crate) passed: i64,
    /// Those of keys with numbers in this range.
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Where windows are known.
pub(crate) enum Index {
    /// By their keys alone.
    None,
    /// By key: sessions.
    Sessions(SessionIndex),
    /// By key: slices that windows share.
    Slices(SliceIndex),
}

/// What is under way between rows or timers and their calls.
pub(crate) enum Stage {
    None,
    /// Rows, whose keys' sessions have been asked for; they came at this time.
    Joining {
        ticket: Ticket,
        piece: Piece,
        times: ScalarBuffer<i64>,
        now: Now,
    },
    /// Rows in their sessions, of which what is kept has been asked for.
    Meeting {
        ticket: Ticket,
        meeting: Meeting,
        rows: Items,
        now: Now,
    },
    /// What has been collected for sessions goes to those that they have become; the next is the last.
    Moving {
        moves: Vec<(KeyId, KeyId)>,
        rows: Items,
    },
    /// Windows that end, whose keys' slices have been asked for.
    Ending {
        ticket: Ticket,
        due: Vec<(i64, KeyId)>,
    },
    /// Windows that end, of whose slices what is kept has been asked for.
    Gathering {
        ticket: Ticket,
        ending: Ending,
        due: Vec<(i64, KeyId)>,
    },
}

/// Rows of an input that are to be put into windows.
pub(crate) struct Piece {
    pub(crate) input: u32,
    pub(crate) rows: Batch,
    /// The number of the first.
    pub(crate) first: u64,
}

/// In which windows the rows of a call are.
#[derive(Clone)]
pub(crate) struct InWindows {
    /// What follows the key's columns.
    pub(crate) columns: Vec<ArrayRef>,
    /// The number of each row among all that came; the same for each of its windows.
    pub(crate) rows: ScalarBuffer<u64>,
}

impl InWindows {
    pub(crate) fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            columns: self.columns.iter().map(|column| column.slice(offset, length)).collect(),
            rows: self.rows.slice(offset, length),
        }
    }
}

/// Rows in their windows, and those that are late.
pub(crate) struct Taken {
    pub(crate) rows: Batch,
    pub(crate) windows: InWindows,
    pub(crate) late: Option<Batch>,
}

/// Rows that are put into windows at once, a row counted once for each window.
const ASSIGNED: usize = 4 * 1024;
/// Keys whose timers are set anew in one call.
const RESET: usize = 2 * 1024;

/// How a function keeps what is in its windows.
pub(crate) fn keyed_by(windows: &Windows, timers: bool) -> KeyedBy {
    match &windows.assigner {
        Assigner::Session(_) => KeyedBy::Session,
        _ if shares_slices(windows, timers) => KeyedBy::Slice,
        _ => KeyedBy::Window,
    }
}

impl Windowed {
    /// Of a function that sets timers of its own or not, by keys of these types.
    pub(crate) fn new(
        windows: &Windows,
        timers: bool,
        batch: bool,
        key_types: &[DataType],
        backend: &mut NewBackend<'_>,
    ) -> Result<Self, AggregateError> {
        let assigner = WindowAssigner::new(windows, shares_slices(windows, timers))?;
        let clock = assigner.clock;
        let index = match (&windows.assigner, keyed_by(windows, timers)) {
            (Assigner::Session(gap), _) => {
                Index::Sessions(SessionIndex::new(*gap, clock, key_types, backend)?)
            }
            (assigner, KeyedBy::Slice) => {
                Index::Slices(SliceIndex::new(assigner, clock.domain(), key_types, backend)?)
            }
            _ => Index::None,
        };
        Ok(Self {
            assigner,
            index,
            collects: windows.collects,
            late_port: windows.late_port,
            batch,
            waiting: None,
            assigned: 0,
            stage: Stage::None,
            resets: None,
        })
    }

    /// Goes on with another lateness, in milliseconds; what it was before.
    pub(crate) fn change(&mut self, lateness: i64, now: Now) -> i64 {
        let before = self.clock().lateness();
        if lateness != before {
            let passed = self.clock().passed(now);
            self.set_clock(self.clock().with_lateness(lateness, passed));
            // While some are still to be set anew a change can only go back to what those are set by.
            let to = self.resets.map_or(usize::MAX, |resets| resets.from);
            self.resets = Some(Resets { by: before, passed, from: 0, to });
        }
        before
    }

    /// What a checkpoint keeps of them.
    pub(crate) fn standing(&self, now: Now) -> Standing {
        let clock = self.clock();
        match self.resets {
            Some(Resets { by, passed, .. }) => clock.standing(by, passed),
            None => clock.standing(clock.lateness(), clock.passed(now)),
        }
    }

    /// Goes on from what a checkpoint has kept.
    pub(crate) fn stand(&mut self, standing: Standing) {
        let own = self.clock().lateness();
        let before = self.clock().of_standing(standing);
        self.set_clock(before);
        if own != standing.lateness {
            self.set_clock(before.with_lateness(own, standing.passed));
            let (by, passed) = (standing.lateness, standing.passed);
            self.resets = Some(Resets { by, passed, from: 0, to: usize::MAX });
        }
    }

    fn set_clock(&mut self, clock: WindowClock) {
        self.assigner.clock = clock;
        if let Index::Sessions(index) = &mut self.index {
            index.set_clock(clock);
        }
    }

    /// Whether timers are to be set anew.
    pub(crate) fn is_resetting(&self) -> bool {
        self.resets.is_some()
    }

    /// The next keys whose timers are to be set anew: of all with numbers below this.
    pub(crate) fn next_resets(&mut self, bound: usize) -> Option<Resets> {
        let resets = self.resets?;
        let (from, to) = (resets.from, resets.to.min(bound));
        let until = to.min(from + RESET);
        self.resets = (from < to).then_some(Resets { from: until, to, ..resets });
        (from < to).then_some(Resets { to: until, ..resets })
    }

    /// When they are over.
    pub(crate) fn clock(&self) -> WindowClock {
        self.assigner.clock
    }

    /// Timers of a clock up to this instant are due.
    pub(crate) fn due_by(&self, domain: TimeDomain, now: Now) -> i64 {
        match (domain, self.clock().domain()) {
            (TimeDomain::ProcessingTime, TimeDomain::ProcessingTime) => self.clock().passed(now),
            (TimeDomain::ProcessingTime, TimeDomain::EventTime) => now.processing_time,
            (TimeDomain::EventTime, _) => now.watermark,
        }
    }

    /// Where late rows of an input go.
    pub(crate) fn late_port(&self, input: u32) -> Option<u32> {
        self.late_port.map(|port| port + input)
    }

    /// Takes rows of an input; those before have been taken out.
    pub(crate) fn put(&mut self, input: u32, rows: Batch) {
        self.waiting = Some((input, rows, 0));
    }

    /// Whether rows wait to be put into windows.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether something is under way that comes before all else.
    pub(crate) fn is_preparing(&self) -> bool {
        !matches!(self.stage, Stage::None)
    }

    /// Some of the rows that wait.
    pub(crate) fn take(&mut self) -> Option<Piece> {
        let (input, rows, from) = self.waiting.take()?;
        let length = (ASSIGNED / self.assigner.windows_a_row()).max(1).min(rows.num_rows() - from);
        let piece = Piece { input, rows: rows.slice(from, length), first: self.assigned };
        self.assigned += length as u64;
        if from + length < rows.num_rows() {
            self.waiting = Some((input, rows, from + length));
        }
        Some(piece)
    }

    /// Puts rows into windows that are known by time alone.
    pub(crate) fn assign(&self, piece: &Piece, now: Now) -> Result<Taken, AggregateError> {
        let Assigned { places, starts, ends, late } = self.assigner.assign(&piece.rows, now)?;
        piece.taken(&places, vec![instants(starts), instants(ends)], &late)
    }
}

impl Piece {
    /// The rows at these places, once for each of their windows, and those that are late.
    pub(crate) fn taken(
        &self,
        places: &[u32],
        columns: Vec<ArrayRef>,
        late: &[u32],
    ) -> Result<Taken, AggregateError> {
        let is_whole = late.is_empty() && places.len() == self.rows.num_rows();
        let rows = places.iter().map(|place| self.first + u64::from(*place)).collect();
        Ok(Taken {
            rows: if is_whole { self.rows.clone() } else { self.rows.take(places)? },
            windows: InWindows { columns, rows },
            late: (!late.is_empty()).then(|| self.rows.take(late)).transpose()?,
        })
    }
}
