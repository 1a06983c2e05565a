//! Standard output, in the form of Flink's `print()`: `3> (word,7)`, the subtask's number in front
//! where there are several, and of a changelog each row's kind: `3> +U(word,7)`.

use std::io::{self, Write};
use std::mem;
use std::task::Poll;

use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::Inbox;

use super::changelog::{self, Arriving, Changelog};
use crate::formats::Encoding;
use crate::options::Options;
use crate::{Context, Need, Sink, SinkFactory};

/// What the job fails with when nobody reads standard output any more, as behind `| head`.
pub const CLOSED: &str = "standard output is closed";

/// How rows look.
pub struct PrintFactory {
    encoding: Encoding,
    changelog: Changelog,
}

impl PrintFactory {
    pub(super) fn of(connection: &Connection, arriving: &Arriving) -> Result<Self, Diagnostic> {
        let options = Options::new("print", &connection.options, &changelog::OPTIONS)?;
        let changelog = Changelog::of("print", &options, arriving)?;
        let encoding = Encoding::of(connection, "text")?;
        encoding.fits(&arriving.schema, changelog.has_kinds())?;
        Ok(Self { encoding, changelog })
    }
}

impl SinkFactory for PrintFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        let prefix = match context.parallelism {
            1 => String::new(),
            _ => format!("{}> ", context.subtask + 1),
        };
        Ok(Box::new(Print {
            encoding: self.encoding.clone(),
            changelog: self.changelog.clone(),
            prefix,
            first: true,
            held: Vec::new(),
            written: Inbox::new(context.waker.clone()),
            writing: false,
            context,
        }))
    }
}

/// Bytes that are held back for a larger write.
const HELD_BYTES: usize = 64 << 10;

struct Print {
    encoding: Encoding,
    changelog: Changelog,
    prefix: String,
    first: bool,
    /// Whole lines, not yet on their way.
    held: Vec<u8>,
    written: Inbox<io::Result<()>>,
    writing: bool,
    context: Context,
}

impl Print {
    /// Looks whether the last write has ended.
    fn settle(&mut self) -> Result<(), Diagnostic> {
        if let Some(written) = self.written.take() {
            self.writing = false;
            written.map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => {
                    Diagnostic::external(CLOSED).detail("who reads it has ended").give_up()
                }
                _ => Diagnostic::external("cannot write to standard output").detail(error.to_string()),
            })?;
        }
        Ok(())
    }

    fn send(&mut self) {
        if self.writing || self.held.is_empty() {
            return;
        }
        self.writing = true;
        let bytes = mem::take(&mut self.held);
        self.context.platform.io.submit(&self.written, move || {
            // One lock for all: lines of different subtasks never mix.
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()
        });
    }
}

impl Sink for Print {
    fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if self.held.len() >= HELD_BYTES {
            self.send();
        }
        if self.held.len() >= HELD_BYTES { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        let (rows, kinds) = (self.changelog.rows(batch)?, self.changelog.has_kinds());
        self.encoding.encode(&rows, kinds, &self.prefix, mem::take(&mut self.first), &mut self.held)
    }
    fn poll_flush(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        self.send();
        // What came while a write was under way has to wait for its end.
        if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn poll_finish(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        self.send();
        if self.writing { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
