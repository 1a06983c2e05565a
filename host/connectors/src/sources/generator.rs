//! Made-up rows, the same for the same seed at every parallelism, at a rate or as fast as they go.

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, SchemaRef};
use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::Random;

use super::lanes::Lanes;
use super::no_format;
use super::pace::{self, Pace};
use crate::options::Options;
use crate::{Context, Decoded, Need, Source, SourceFactory, SourcePoll};

/// What to make.
pub struct GeneratorFactory {
    kind: Kind,
    rows: Option<u64>,
    /// Rows a second, of all subtasks together.
    rate: Option<f64>,
    seed: u64,
    vocabulary: u64,
    schema: SchemaRef,
    /// Where an earlier run stood.
    restored: OnceLock<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// 0, 1, 2 …
    Sequence,
    /// Lines of ten words, the k-th word of the vocabulary about 1/k as often as the first.
    Words,
}

const WORDS_A_LINE: usize = 10;

impl GeneratorFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        no_format(connection)?;
        let known = ["kind", "rows", "rate", "seed", "vocabulary"];
        let options = Options::new("generator", &connection.options, &known)?;
        let kind = match options.one_of("kind", &["sequence", "words"])? {
            Some("words") => Kind::Words,
            _ => Kind::Sequence,
        };
        let wanted = if kind == Kind::Words { DataType::Utf8 } else { DataType::Int64 };
        if schema.fields().len() != 1 || *schema.field(0).data_type() != wanted {
            return Err(Diagnostic::user(format!("the generator makes rows of one column of type {wanted}")));
        }
        let rate = pace::rate("generator", &options)?;
        let vocabulary = options.parsed("vocabulary")?.unwrap_or(10_000);
        if vocabulary == 0 {
            return Err(Diagnostic::user("the vocabulary of `generator` has at least one word"));
        }
        Ok(Self {
            kind,
            rows: options.parsed("rows")?,
            rate,
            seed: options.parsed("seed")?.unwrap_or(0),
            vocabulary,
            schema: Arc::clone(schema),
            restored: OnceLock::new(),
        })
    }
}

impl SourceFactory for GeneratorFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn parallelism_max(&self) -> Option<u32> {
        None
    }
    fn bounded(&self) -> bool {
        self.rows.is_some()
    }
    fn can_go_back(&self) -> bool {
        true
    }
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        if positions.is_empty() {
            return Ok(());
        }
        Lanes::restored(1, positions, 0, 1)?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| positions.to_vec());
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let (lanes, first) = Lanes::open(1, self.restored.get(), &context)?;
        Ok(Box::new(Generator {
            kind: self.kind,
            rows: self.rows.unwrap_or(u64::MAX),
            pace: Pace::new("generator", self.rate, first, &context),
            seed: self.seed,
            vocabulary: self.vocabulary as f64,
            schema: Arc::clone(&self.schema),
            lanes,
            bytes: 0,
            context,
        }))
    }
}

struct Generator {
    kind: Kind,
    rows: u64,
    pace: Pace,
    seed: u64,
    vocabulary: f64,
    schema: SchemaRef,
    /// The numbers of its rows.
    lanes: Lanes,
    bytes: u64,
    context: Context,
}

impl Generator {
    fn make(&self, numbers: &[u64]) -> ArrayRef {
        match self.kind {
            Kind::Sequence => Arc::new(numbers.iter().map(|number| *number as i64).collect::<Int64Array>()),
            Kind::Words => {
                Arc::new(numbers.iter().map(|number| Some(self.line(*number))).collect::<StringArray>())
            }
        }
    }

    /// The line of this number, whoever makes it.
    fn line(&self, number: u64) -> String {
        let mut random = Random::of_seed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut line = String::with_capacity(WORDS_A_LINE * 7);
        for i in 0..WORDS_A_LINE {
            if i > 0 {
                line.push(' ');
            }
            // Log-uniform ranks: rank k comes with probability ln(1 + 1/k) / ln(vocabulary), close to Zipf's.
            let rank = ((self.vocabulary + 1.0).powf(random.unit()) as u64).clamp(1, self.vocabulary as u64);
            word(rank - 1, &mut line);
        }
        line
    }
}

/// Appends the word of a rank: short for common ones; one word, one rank.
pub fn word(mut rank: u64, line: &mut String) {
    const SYLLABLES: [&str; 16] =
        ["ka", "to", "mi", "ra", "ne", "so", "lu", "vi", "da", "po", "shi", "re", "no", "ta", "me", "ku"];
    loop {
        line.push_str(SYLLABLES[(rank % 16) as usize]);
        rank /= 16;
        if rank == 0 {
            return;
        }
        rank -= 1;
    }
}

impl Source for Generator {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        if self.lanes.next().is_none_or(|next| next >= self.rows) {
            return Ok(SourcePoll::End);
        }
        let due = self.pace.due(self.rows);
        let numbers: Vec<u64> = (0..self.context.batch_rows)
            .map_while(|_| self.lanes.take(due, 1))
            .map(|one| one.start)
            .collect();
        if numbers.is_empty() {
            self.pace.sleep();
            return Ok(SourcePoll::Pending);
        }
        let column = self.make(&numbers);
        self.bytes += column.get_array_memory_size() as u64;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![column])
            .map_err(|error| Diagnostic::internal(error.to_string()))?;
        Ok(SourcePoll::Rows(Decoded::rows(0, Batch::new(rows))))
    }
    fn bytes_read(&self) -> u64 {
        self.bytes
    }
    fn position(&self) -> Option<String> {
        Some(self.lanes.position())
    }
}
