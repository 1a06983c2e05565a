//! A text that the component carries, read like a file.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;

use crate::formats::Decoding;
use crate::options::Options;
use crate::records::RecordReader;
use crate::{Context, Need, Source, SourceFactory, SourcePoll};

/// The text, with its format.
pub struct ValuesFactory {
    text: Arc<str>,
    decoding: Arc<Decoding>,
}

impl ValuesFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let options = Options::new("values", &connection.options, &["text"])?;
        Ok(Self {
            text: options.text("text").unwrap_or_default().into(),
            decoding: Arc::new(Decoding::of(connection, schema)?),
        })
    }
}

impl SourceFactory for ValuesFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn parallelism_max(&self) -> Option<u32> {
        Some(1)
    }
    fn bounded(&self) -> bool {
        true
    }
    fn bytes_total(&self) -> Option<u64> {
        Some(self.text.len() as u64)
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let mut records =
            RecordReader::new(Arc::clone(&self.decoding), "the job's own text".into(), 0, u64::MAX);
        records.feed(self.text.as_bytes().to_vec());
        records.finish();
        Ok(Box::new(Values { records, bytes: self.text.len() as u64, context }))
    }
}

struct Values {
    records: RecordReader,
    bytes: u64,
    context: Context,
}

impl Source for Values {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        Ok(match self.records.next(self.context.batch_rows, self.context.batch_bytes) {
            Some(decoded) => SourcePoll::Rows(decoded),
            None => SourcePoll::End,
        })
    }
    fn bytes_read(&self) -> u64 {
        self.bytes
    }
}
