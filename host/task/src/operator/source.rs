//! A source in its subtask: hands on rows, and does with bad records as the policy says.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, StringArray};
use arrow_schema::SchemaRef;
use connectors::{RecordFailure, Source, SourcePoll};
use model::job_graph::FailurePolicy;
use model::{Batch, Diagnostic};

use super::{Emit, Place, Ran};
use crate::metrics::{Counters, add};

pub(crate) struct SourceOperator {
    pub(crate) source: Box<dyn Source>,
    pub(crate) policy: FailurePolicy,
    /// The last port, where the policy is to divert.
    pub(crate) failures: Option<(u32, SchemaRef)>,
    pub(crate) place: Place,
    pub(crate) bytes_seen: u64,
    /// What it has given can be given again.
    pub(crate) can_go_back: bool,
}

impl SourceOperator {
    pub(crate) fn run(&mut self, counters: &Counters, emit: &mut Emit<'_>) -> Result<Ran, Diagnostic> {
        let decoded = match self.source.poll()? {
            SourcePoll::Pending => return Ok(Ran::Idle),
            SourcePoll::End => {
                self.count_bytes(counters);
                return Ok(Ran::Ended);
            }
            SourcePoll::Rows(decoded) => decoded,
        };
        self.count_bytes(counters);
        add(&counters.rows_in, decoded.batch.num_rows() + decoded.failures.len());
        if decoded.batch.num_rows() > 0 {
            add(&counters.rows_out, decoded.batch.num_rows());
            emit(decoded.port, decoded.batch)?;
        }
        if !decoded.failures.is_empty() {
            self.on_failures(&decoded.failures, counters, emit)?;
        }
        Ok(Ran::Progress)
    }

    fn count_bytes(&mut self, counters: &Counters) {
        let bytes = self.source.bytes_read();
        counters.bytes_read.fetch_add(bytes - self.bytes_seen, std::sync::atomic::Ordering::Relaxed);
        self.bytes_seen = bytes;
    }

    fn on_failures(
        &self,
        failures: &[RecordFailure],
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<(), Diagnostic> {
        match (self.policy, &self.failures) {
            (FailurePolicy::Skip, _) => add(&counters.rows_skipped, failures.len()),
            (FailurePolicy::Divert, Some((port, schema))) => {
                add(&counters.rows_diverted, failures.len());
                let records: ArrayRef =
                    Arc::new(failures.iter().map(|f| Some(&f.record[..])).collect::<BinaryArray>());
                let messages: ArrayRef = Arc::new(
                    failures
                        .iter()
                        .map(|f| Some(format!("{}: {}", f.place, f.message)))
                        .collect::<StringArray>(),
                );
                let rows = Batch::of(Arc::clone(schema), failures.len(), vec![records, messages])
                    .map_err(|error| Diagnostic::internal(error.to_string()))?;
                emit(*port, rows)?;
            }
            (FailurePolicy::Fail | FailurePolicy::Divert, _) => {
                let first = &failures[0];
                return Err(Diagnostic::user(format!("cannot read a record of `{}`", self.place.operator))
                    .detail(format!("{}: {}\n{}", first.place, first.message, excerpt(&first.record)))
                    .hint("to go on without bad records, give the source a failure policy: skip, or a side output"));
            }
        }
        Ok(())
    }
}

/// The beginning of a record, printable.
pub(super) fn excerpt(record: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(record)
        .chars()
        .take(200)
        .map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c })
        .collect();
    format!("record: {text}{}", if record.len() > 200 { " …" } else { "" })
}
