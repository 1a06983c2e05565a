//! Sources, sinks and their formats. The only crate that knows client libraries.
//!
//! A connection of the job graph becomes a [`SourceFactory`] or [`SinkFactory`] when the job is
//! planned, with everything checked that can be checked; each subtask then opens its own
//! [`Source`] or [`Sink`]. Neither ever blocks: what blocks runs in the platform's I/O pool or on
//! its network runtime, and wakes the subtask.
#![forbid(unsafe_code)]

mod formats;
mod options;
mod records;
pub mod rows;
pub mod sinks;
pub mod sources;
pub mod splits;
#[cfg(test)]
mod test_support;

pub use options::time;
pub use sinks::collect::collected;
pub use sinks::{Arriving, sink};
pub use sources::{SourcePort, source};
pub use splits::{FoundSplits, Splits, SplitsOf};

use std::task::{Poll, Waker};
use std::time::Duration;

use model::{Batch, Diagnostic};
use platform::{Faults, Platform};

/// What a job asks of the outside: a grant is needed for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A file, folder or glob, as the plan names it.
    Read(String),
    /// A file or folder, as the plan names it.
    Write(String),
    /// A host and port.
    Connect {
        /// Its name or address.
        host: String,
        /// The port, as the plan names it.
        port: String,
    },
    /// The standard input.
    Stdin,
}

/// Where a subtask's source or sink lives.
#[derive(Clone)]
pub struct Context {
    /// The world.
    pub platform: Platform,
    /// The subtask's number, from 0.
    pub subtask: u32,
    /// How many subtasks the operator has.
    pub parallelism: u32,
    /// Wakes the subtask when there is something to do.
    pub waker: Waker,
    /// How many rows a batch should have at most, about.
    pub batch_rows: usize,
    /// How many bytes a batch should have at most, about (one row may be larger).
    pub batch_bytes: usize,
    /// Checkpoints are made: a sink that can shows rows only once they are [committed](Sink::commit).
    pub checkpoints: bool,
}

/// A source, checked, not yet open. Shared by its subtasks.
pub trait SourceFactory: Send + Sync {
    /// What it asks of the outside.
    fn needs(&self) -> Vec<Need>;
    /// The greatest parallelism that it can have; none = any.
    fn parallelism_max(&self) -> Option<u32>;
    /// Whether it ends by itself.
    fn bounded(&self) -> bool;
    /// All bytes that it will read, where that is known: for showing progress.
    fn bytes_total(&self) -> Option<u64> {
        None
    }
    /// Looks at the outside before the job starts (is the file there?), once, after grants.
    ///
    /// # Errors
    /// What is wrong, for the user.
    fn prepare(&self) -> Result<(), Diagnostic> {
        Ok(())
    }
    /// Whether what it has given can be given again, from a [`position`](Source::position) on. If not, a failure
    /// loses rows.
    fn can_go_back(&self) -> bool {
        false
    }
    /// Goes on where the subtasks of an earlier run stood, however many there were; none = from the beginning. After
    /// [`prepare`](Self::prepare), before the first subtask is opened.
    ///
    /// # Errors
    /// If what they stood in is not there any more, or is another.
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        match positions {
            [] => Ok(()),
            _ => Err(Diagnostic::user("this source cannot go back to where it was")),
        }
    }
    /// Opens a subtask's part.
    ///
    /// # Errors
    /// What is wrong, for the user.
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic>;
}

/// A subtask's part of a source.
pub trait Source: Send {
    /// The next rows, if there are some now; wakes the subtask when that changes. Never blocks.
    ///
    /// # Errors
    /// Where the source cannot go on; it is not polled again.
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic>;
    /// Bytes handed out so far, as they were outside.
    fn bytes_read(&self) -> u64;
    /// Where it stands between two polls: behind all that it has given. In a form of its own, which its factory
    /// reads again. None = in the middle of something, so that it is to be polled before, which takes no waiting;
    /// or it [cannot go back](SourceFactory::can_go_back).
    fn position(&self) -> Option<String> {
        None
    }
    /// Its splits, for event time by split. Rows that it gives are of the split that it took last. None = all its
    /// rows are one stream.
    fn splits(&self) -> Option<SplitsOf> {
        None
    }
    /// When, by the clock, it has something to do though nobody wakes it; `poll` does it.
    fn wakes_at(&self) -> Option<Duration> {
        None
    }
}

/// What a source has now.
pub enum SourcePoll {
    /// Rows, and records that are none.
    Rows(Decoded),
    /// Nothing yet.
    Pending,
    /// Nothing ever again.
    End,
}

/// Records, decoded as far as they could be.
pub struct Decoded {
    /// The output that the good ones leave by; 0 for a source that has one only.
    pub port: u32,
    /// The good ones.
    pub batch: Batch,
    /// The bad ones.
    pub failures: Vec<RecordFailure>,
}

impl Decoded {
    /// Rows for this port, none of them bad.
    #[must_use]
    pub fn rows(port: u32, batch: Batch) -> Self {
        Self { port, batch, failures: Vec::new() }
    }
}

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailure {
    /// Where it is: `orders.json, line 17`.
    pub place: String,
    /// The record as it was (cut at 64 KiB).
    pub record: Vec<u8>,
    /// What is wrong with it.
    pub message: String,
}

/// A sink, checked, not yet open. Shared by its subtasks.
pub trait SinkFactory: Send + Sync {
    /// What it asks of the outside.
    fn needs(&self) -> Vec<Need>;
    /// Looks at the outside before the job starts (is the folder empty?), once, after grants.
    ///
    /// # Errors
    /// What is wrong, for the user.
    fn prepare(&self) -> Result<(), Diagnostic> {
        Ok(())
    }
    /// Opens a subtask's part.
    ///
    /// # Errors
    /// What is wrong, for the user.
    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic>;
    /// Brings the outside back to what the subtasks of an earlier run [kept](Sink::poll_prepare), however many
    /// there were: what was ready to be committed is, what came later goes. In place of
    /// [`prepare`](Self::prepare); doing it again changes nothing.
    ///
    /// # Errors
    /// If the outside is not as it was left, or cannot be changed.
    fn restore(&self, states: &[String], faults: &Faults) -> Result<(), Diagnostic> {
        let _ = (states, faults);
        self.prepare()
    }
    /// Whether nothing that it takes can be seen before it is [committed](Sink::commit), so that a job can undo it by
    /// going back to an earlier checkpoint.
    fn can_hold_back(&self) -> bool {
        false
    }
    /// After all subtasks have finished (or the job has failed or was cancelled): what the sink
    /// has to tell the user, one line each (a blackhole's row count and checksum).
    fn summary(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A subtask's part of a sink. One that takes all at once needs only `write`.
pub trait Sink: Send {
    /// Whether more rows may be written now; wakes the subtask when that changes. Never blocks.
    ///
    /// # Errors
    /// Where something that was written before could not be.
    fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
        Poll::Ready(Ok(()))
    }
    /// Takes rows; only after `poll_ready` was ready. May hold them back until `poll_flush`.
    ///
    /// # Errors
    /// Where a row cannot be written, naming it.
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic>;
    /// Sends on what is held back. Called when there is nothing more to write for now, and whenever the subtask is
    /// woken. Pending where something is still held back; wakes the subtask when it can go.
    ///
    /// # Errors
    /// Where something could not be written.
    fn poll_flush(&mut self) -> Poll<Result<(), Diagnostic>> {
        Poll::Ready(Ok(()))
    }
    /// When, by the clock, it has something to do though no row comes; `poll_flush` does it.
    fn wakes_at(&self) -> Option<Duration> {
        None
    }
    /// After the last row: ready when everything is outside, whole and named.
    ///
    /// # Errors
    /// Where something could not be written.
    fn poll_finish(&mut self) -> Poll<Result<(), Diagnostic>> {
        Poll::Ready(Ok(()))
    }
    /// Where checkpoints are made, when a barrier has come: ready when all that was written before is durable, and
    /// can be committed whatever happens. What the checkpoint is to keep of it, for
    /// [`SinkFactory::restore`]. None = nothing: what was written is outside, and comes again after a failure.
    ///
    /// # Errors
    /// Where something could not be written.
    fn poll_prepare(&mut self) -> Poll<Result<Option<String>, Diagnostic>> {
        self.poll_flush().map(|flushed| flushed.map(|()| None))
    }
    /// A checkpoint is complete: shows what was prepared up to it, `prepared` calls of
    /// [`poll_prepare`](Self::poll_prepare) that were ready ago. Errors come with the next `poll_`.
    fn commit(&mut self, prepared: usize) {
        let _ = prepared;
    }
}
