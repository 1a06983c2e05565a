//! The table of a lookup: read whole in the I/O pool, once for all subtasks, and again from time to time.
//!
//! Who steps first after it is due asks for it to be read again; the one before serves until then, and
//! stays where the new one cannot be read.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use connectors::{Context, RecordFailure, SourcePoll, SourcePort};
use model::Diagnostic;
use model::job_graph::{Connection, FailurePolicy};
use platform::{Inbox, IoPool, Platform, Random};
use window::lookup::LookupTable;

use super::super::source::excerpt;
use crate::Sizes;
use crate::metrics::{Counters, LogRecord, LogSink, add};

/// What the table of a node is.
pub(crate) struct TableSpec {
    /// The node, as messages name it.
    pub(crate) name: String,
    /// Where the user wrote it.
    pub(crate) origin: Option<String>,
    pub(crate) connection: Connection,
    pub(crate) schema: SchemaRef,
    /// The columns that it is found by.
    pub(crate) keys: Vec<usize>,
    pub(crate) reload: Option<Duration>,
    /// Of records that are none.
    pub(crate) policy: FailurePolicy,
    pub(crate) sizes: Sizes,
    pub(crate) seed: u64,
}

/// A table that subtasks share.
pub(crate) struct Table {
    spec: TableSpec,
    platform: Platform,
    log: LogSink,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    current: Option<Arc<LookupTable>>,
    /// Why the first reading failed.
    error: Option<Diagnostic>,
    is_reading: bool,
    /// When it is to be read again, by the clock.
    next: Option<Duration>,
    /// The subtasks.
    wakers: Vec<Waker>,
    unreported: Readings,
}

/// What has been read, and nobody has counted yet.
#[derive(Default)]
struct Readings {
    read: usize,
    failed: usize,
    rows_skipped: usize,
}

/// A table, and how many of its records were left out.
type Made = (LookupTable, usize);

impl Table {
    /// A table that is being read.
    pub(crate) fn new(spec: TableSpec, platform: &Platform, log: &LogSink) -> Arc<Self> {
        let shared = Mutex::default();
        let table = Arc::new(Self { spec, platform: platform.clone(), log: Arc::clone(log), shared });
        table.read(&mut table.lock());
        table
    }

    /// Wakes a subtask whenever there is a table, or another.
    pub(crate) fn wakes(&self, waker: Waker) {
        self.lock().wakers.push(waker);
    }

    /// The table as it was read last; none = not yet. Where it is due, begins to read it again.
    ///
    /// # Errors
    /// Why it could not be read at all.
    pub(crate) fn current(self: &Arc<Self>) -> Result<Option<Arc<LookupTable>>, Diagnostic> {
        let mut shared = self.lock();
        if let Some(error) = &shared.error {
            return Err(error.clone());
        }
        if !shared.is_reading && shared.next.is_some_and(|next| next <= self.platform.clock.now()) {
            self.read(&mut shared);
        }
        Ok(shared.current.clone())
    }

    /// When it is to be read again, by the clock, unless that is under way.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let shared = self.lock();
        shared.next.filter(|_| !shared.is_reading)
    }

    /// Counts what has been read since this was asked last.
    pub(crate) fn report(&self, counters: &Counters) {
        let readings = mem::take(&mut self.lock().unreported);
        add(&counters.tables_read, readings.read);
        add(&counters.tables_failed, readings.failed);
        add(&counters.rows_skipped, readings.rows_skipped);
    }

    fn read(self: &Arc<Self>, shared: &mut Shared) {
        shared.is_reading = true;
        let (table, started) = (Arc::clone(self), self.platform.clock.now());
        // Nobody waits for the job itself: it wakes the subtasks.
        let done = Inbox::new(Waker::noop().clone());
        self.platform.io.submit(&done, move || {
            let made = table.spec.read(&table.platform);
            table.on_read(made, started);
        });
    }

    fn on_read(&self, made: Result<Made, Diagnostic>, started: Duration) {
        let mut shared = self.lock();
        shared.is_reading = false;
        shared.next = self.spec.reload.map(|reload| started.saturating_add(reload));
        match made {
            Ok((table, rows_skipped)) => {
                shared.current = Some(Arc::new(table));
                shared.unreported.read += 1;
                shared.unreported.rows_skipped += rows_skipped;
            }
            Err(error) if shared.current.is_some() => {
                shared.unreported.failed += 1;
                let why = match &error.detail {
                    Some(detail) => format!("{}: {detail}", error.message),
                    None => error.message.clone(),
                };
                (self.log)(LogRecord {
                    level: guest::LogLevel::Warn,
                    function: self.spec.name.clone(),
                    subtask: None,
                    message: format!("the table stays as it was, because it could not be read again: {why}"),
                });
            }
            Err(error) => shared.error = Some(error),
        }
        shared.wakers.iter().for_each(Waker::wake_by_ref);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableSpec {
    /// Reads the whole table; blocks.
    fn read(&self, platform: &Platform) -> Result<Made, Diagnostic> {
        let ports = [SourcePort { schema: Arc::clone(&self.schema), used: true }];
        // Made anew each time: it finds the files that are there now.
        let factory = connectors::source(&self.connection, &ports)?;
        factory.prepare().map_err(|error| self.at_node(error))?;
        // What it has others do is done here, at once.
        let io = IoPool::simulated();
        let mut random = Random::of_seed(0);
        let mut source = factory.open(Context {
            platform: Platform { io: io.clone(), ..platform.clone() },
            subtask: 0,
            parallelism: 1,
            waker: Waker::noop().clone(),
            batch_rows: self.sizes.batch_rows,
            batch_bytes: self.sizes.batch_bytes,
            checkpoints: false,
        })?;
        let (mut batches, mut rows_skipped): (Vec<RecordBatch>, usize) = (Vec::new(), 0);
        loop {
            match source.poll().map_err(|error| self.at_node(error))? {
                SourcePoll::Rows(decoded) => {
                    match decoded.failures.first() {
                        Some(first) if self.policy != FailurePolicy::Skip => return Err(self.bad(first)),
                        _ => rows_skipped += decoded.failures.len(),
                    }
                    batches.push(decoded.batch.rows().clone());
                }
                SourcePoll::End => break,
                SourcePoll::Pending if io.run_one(&mut random) => {}
                SourcePoll::Pending => {
                    return Err(self.at_node(Diagnostic::internal("a table that is never read to its end")));
                }
            }
        }
        let table = LookupTable::new(&self.schema, &batches, &self.keys, self.seed);
        let table = table.map_err(|error| {
            self.at_node(Diagnostic::user("a table that cannot be kept").detail(error.to_string()))
        })?;
        Ok((table, rows_skipped))
    }

    /// The error with the node whose table it is about.
    fn at_node(&self, error: Diagnostic) -> Diagnostic {
        let origin = self.origin.as_ref().map(|origin| format!(", written at {origin}")).unwrap_or_default();
        let place = format!("table of node `{}`{origin}", self.name);
        let detail = match &error.detail {
            Some(detail) => format!("{place}: {detail}"),
            None => place,
        };
        error.detail(detail)
    }

    fn bad(&self, failure: &RecordFailure) -> Diagnostic {
        let RecordFailure { place, message, record } = failure;
        let error = Diagnostic::user(format!("cannot read a record of the table of `{}`", self.name))
            .detail(format!("{place}: {message}\n{}", excerpt(record)))
            .hint("to go on without bad records, give the lookup a failure policy: skip");
        self.at_node(error)
    }
}
