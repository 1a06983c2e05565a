//! A text that the component carries, read like a file.

use std::sync::{Arc, OnceLock};

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
    /// Where an earlier run stood.
    restored: OnceLock<usize>,
}

impl ValuesFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let options = Options::new("values", &connection.options, &["text"])?;
        Ok(Self {
            text: options.text("text").unwrap_or_default().into(),
            decoding: Arc::new(Decoding::of(connection, schema)?),
            restored: OnceLock::new(),
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
    fn can_go_back(&self) -> bool {
        true
    }
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        let Some(position) = positions.iter().find(|position| !position.is_empty()) else { return Ok(()) };
        let at = position.parse().ok().filter(|at| self.text.is_char_boundary(*at));
        let at = at.ok_or_else(|| {
            Diagnostic::user("a checkpoint says no position in the job's own text").detail(position.clone())
        })?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| at);
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let start = self.restored.get().copied().unwrap_or(0);
        let name = "the job's own text".to_owned();
        let mut records = RecordReader::new(Arc::clone(&self.decoding), name, start as u64, u64::MAX);
        records.feed(self.text.as_bytes()[start.saturating_sub(1)..].to_vec());
        records.finish();
        let bytes = self.text.len() as u64;
        Ok(Box::new(Values { records, bytes, start: start as u64, has_given: false, context }))
    }
}

struct Values {
    records: RecordReader,
    bytes: u64,
    /// Where it began.
    start: u64,
    has_given: bool,
    context: Context,
}

impl Source for Values {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        Ok(match self.records.next(self.context.batch_rows, self.context.batch_bytes) {
            Some(decoded) => {
                self.has_given = true;
                SourcePoll::Rows(decoded)
            }
            None => SourcePoll::End,
        })
    }
    fn bytes_read(&self) -> u64 {
        self.bytes
    }
    fn position(&self) -> Option<String> {
        let at = if self.has_given { self.records.position() } else { self.start };
        Some(at.min(self.bytes).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{World, connection, text_schema};

    #[test]
    fn each_line_comes_once_however_often_reading_stops_and_goes_on() {
        let (mut lines, mut positions) = (Vec::new(), Vec::new());
        for polls in [0, 1, 2, 0, usize::MAX] {
            let connection = connection("values", &[("text", "one\ntwo\n\nfour\nfünf\nsix")]);
            let factory = ValuesFactory::of(&connection, &text_schema()).unwrap();
            factory.restore(&positions).unwrap();
            let mut world = World::simulated(1).with_batches(1, 1 << 16);
            let (given, next) = world.read_in_part(&factory, &[polls]).unwrap();
            lines.extend(given.texts());
            positions = next;
        }
        assert_eq!(lines, ["one", "two", "", "four", "fünf", "six"]);
    }
}
