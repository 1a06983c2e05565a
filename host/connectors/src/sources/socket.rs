//! A socket to connect to, as Flink's `socketTextStream`: what comes until the peer closes.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;
use platform::faults::Point;
use platform::{Platform, spawn_task};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::formats::Decoding;
use crate::options::Options;
use crate::records::RecordReader;
use crate::{Context, Need, Source, SourceFactory, SourcePoll};

/// A host and port, with the format of what comes.
pub struct SocketFactory {
    host: String,
    port: u16,
    /// How long a refused connection is tried again.
    retry: Duration,
    decoding: Arc<Decoding>,
}

const RETRY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
const CONNECT_TIME: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 << 10;
/// Reads that may wait.
const READS_MAX: usize = 4;

impl SocketFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let options = Options::new("socket", &connection.options, &["host", "port", "retry"])?;
        options.required("port")?;
        Ok(Self {
            host: options.required("host")?.to_owned(),
            port: options.parsed("port")?.unwrap_or_default(),
            retry: options.parsed("retry")?.map_or(RETRY, Duration::from_secs),
            decoding: Arc::new(Decoding::of(connection, schema)?),
        })
    }
}

impl SourceFactory for SocketFactory {
    fn needs(&self) -> Vec<Need> {
        vec![Need::Connect { host: self.host.clone(), port: self.port.to_string() }]
    }
    fn parallelism_max(&self) -> Option<u32> {
        Some(1)
    }
    fn bounded(&self) -> bool {
        false
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let (sender, receiver) = mpsc::channel(READS_MAX);
        let name = format!("{}:{}", self.host, self.port);
        let (host, port, retry) = (self.host.clone(), self.port, self.retry);
        let platform = context.platform.clone();
        let waiting = sender.clone();
        spawn_task("socket", async move {
            // Ends at once when the source is gone, whatever it waits for.
            tokio::select! {
                () = read(host, port, retry, platform, sender) => {}
                () = waiting.closed() => {}
            }
        });
        Ok(Box::new(Received::new(Arc::clone(&self.decoding), name, receiver, context)))
    }
}

type Read = Result<Vec<u8>, Diagnostic>;

async fn read(host: String, port: u16, retry: Duration, platform: Platform, sender: mpsc::Sender<Read>) {
    let mut stream = match connect(&host, port, retry, &platform).await {
        Ok(stream) => stream,
        Err(error) => {
            let error = Diagnostic::external(format!("cannot connect to `{host}:{port}`"))
                .detail(format!("{error}; tried for {} s", retry.as_secs()))
                .hint("is something listening there? `nc -lk PORT` does, for a try");
            // The source is gone, or hears of it.
            drop(sender.send(Err(error)).await);
            return;
        }
    };
    loop {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        let read = match platform.faults.pass_in_task(Point::NetworkRead).await {
            Ok(()) => stream.read_buf(&mut bytes).await,
            Err(error) => Err(error),
        };
        let read = match read {
            Ok(0) => return,
            Ok(_) => Ok(bytes),
            Err(error) => Err(Diagnostic::external(format!("lost the connection to `{host}:{port}`"))
                .detail(error.to_string())),
        };
        let lost = read.is_err();
        if sender.send(read).await.is_err() || lost {
            return;
        }
    }
}

async fn connect(host: &str, port: u16, retry: Duration, platform: &Platform) -> io::Result<TcpStream> {
    let until = platform.clock.now() + retry;
    loop {
        let tried = tokio::time::timeout(CONNECT_TIME, TcpStream::connect((host, port)));
        let error = match platform.faults.pass_in_task(Point::NetworkConnect).await {
            Ok(()) => match tried.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
            },
            Err(error) => error,
        };
        if platform.clock.now() + PAUSE > until {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Records out of bytes that come by themselves.
pub(super) struct Received {
    records: RecordReader,
    reads: mpsc::Receiver<Read>,
    bytes_read: u64,
    context: Context,
}

impl Received {
    pub(super) fn new(
        decoding: Arc<Decoding>,
        name: String,
        reads: mpsc::Receiver<Read>,
        context: Context,
    ) -> Self {
        Self { records: RecordReader::new(decoding, name, 0, u64::MAX), reads, bytes_read: 0, context }
    }
}

impl Source for Received {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        loop {
            if let Some(decoded) = self.records.next(self.context.batch_rows, self.context.batch_bytes) {
                return Ok(SourcePoll::Rows(decoded));
            }
            if self.records.is_done() {
                return Ok(SourcePoll::End);
            }
            let mut waiting = std::task::Context::from_waker(&self.context.waker);
            match self.reads.poll_recv(&mut waiting) {
                Poll::Pending => return Ok(SourcePoll::Pending),
                Poll::Ready(None) => self.records.finish(),
                Poll::Ready(Some(read)) => {
                    let bytes = read?;
                    self.bytes_read += bytes.len() as u64;
                    self.records.feed(bytes);
                }
            }
        }
    }
    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}
