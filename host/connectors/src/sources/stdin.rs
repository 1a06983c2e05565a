//! Standard input, read by a thread of its own: reading it cannot be interrupted.

use std::io::{self, Read};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;
use platform::spawn_thread;
use tokio::sync::mpsc;

use super::socket::Received;
use crate::formats::Decoding;
use crate::options::Options;
use crate::{Context, Need, Source, SourceFactory};

/// Standard input, with its format.
pub struct StdinFactory {
    decoding: Arc<Decoding>,
}

const READ_BYTES: usize = 64 << 10;
/// Reads that may wait.
const READS_MAX: usize = 4;

impl StdinFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        Options::new("stdin", &connection.options, &[])?;
        Ok(Self { decoding: Arc::new(Decoding::of(connection, schema)?) })
    }
}

impl SourceFactory for StdinFactory {
    fn needs(&self) -> Vec<Need> {
        vec![Need::Stdin]
    }
    fn parallelism_max(&self) -> Option<u32> {
        Some(1)
    }
    /// It may never end, but usually does: a file or a pipe.
    fn bounded(&self) -> bool {
        true
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let (sender, receiver) = mpsc::channel(READS_MAX);
        // Ends with the input, or at the first read after the source is gone.
        spawn_thread("stdin", move || {
            let mut stdin = io::stdin().lock();
            loop {
                let mut bytes = vec![0; READ_BYTES];
                let read = match stdin.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(n) => {
                        bytes.truncate(n);
                        Ok(bytes)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        Err(Diagnostic::external("cannot read the standard input").detail(error.to_string()))
                    }
                };
                if sender.blocking_send(read).is_err() {
                    return;
                }
            }
        });
        Ok(Box::new(Received::new(Arc::clone(&self.decoding), "standard input".into(), receiver, context)))
    }
}
