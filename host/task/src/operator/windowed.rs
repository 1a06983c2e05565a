//! What a function in windows has more than other keyed functions: its rows are put into windows
//! before they are cut into calls.

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use model::Batch;
use model::job_graph::{TimeDomain, Windows};
use window::assigner::{Assigned, WindowAssigner, instants};
use window::{AggregateError, Now};

/// The windows of a function's subtask.
pub(crate) struct Windowed {
    assigner: WindowAssigner,
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
    pub(crate) input: u32,
    pub(crate) rows: Batch,
    pub(crate) windows: InWindows,
    pub(crate) late: Option<Batch>,
}

/// Rows that are put into windows at once, a row counted once for each window.
const ASSIGNED: usize = 4 * 1024;

impl Windowed {
    pub(crate) fn new(windows: &Windows, batch: bool) -> Result<Self, AggregateError> {
        Ok(Self {
            assigner: WindowAssigner::new(windows)?,
            collects: windows.collects,
            late_port: windows.late_port,
            batch,
            waiting: None,
            assigned: 0,
        })
    }

    /// When they are over.
    pub(crate) fn clock(&self) -> window::assigner::WindowClock {
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

    /// Puts some of the rows that wait into windows.
    pub(crate) fn take(&mut self, now: Now) -> Result<Option<Taken>, AggregateError> {
        let Some((input, rows, from)) = self.waiting.take() else { return Ok(None) };
        let length = (ASSIGNED / self.assigner.windows_a_row()).max(1).min(rows.num_rows() - from);
        let piece = rows.slice(from, length);
        let Assigned { places, starts, ends, late } = self.assigner.assign(&piece, now)?;
        let is_whole = late.is_empty() && places.len() == length;
        let numbers = places.iter().map(|place| self.assigned + u64::from(*place)).collect();
        let taken = Taken {
            input,
            rows: if is_whole { piece.clone() } else { piece.take(&places)? },
            windows: InWindows { columns: vec![instants(starts), instants(ends)], rows: numbers },
            late: (!late.is_empty()).then(|| piece.take(&late)).transpose()?,
        };
        self.assigned += length as u64;
        if from + length < rows.num_rows() {
            self.waiting = Some((input, rows, from + length));
        }
        Ok(Some(taken))
    }
}
