//! What the tests share: connections in a line, and a world that drives sources and sinks.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::{Platform, Random, ReadySet};

use crate::{
    Arriving, Context, RecordFailure, Sink, SinkFactory, Source, SourceFactory, SourcePoll, SourcePort,
};

/// A connector with these options, without a format.
pub(crate) fn connection(connector: &str, options: &[(&str, &str)]) -> Connection {
    Connection {
        connector: connector.to_owned(),
        options: options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        format: None,
        format_options: Default::default(),
    }
}

/// The same connection with a format and its options.
pub(crate) fn with_format(connection: Connection, format: &str, options: &[(&str, &str)]) -> Connection {
    let format_options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Connection { format: Some(format.into()), format_options, ..connection }
}

/// A schema of names, types and whether they may be null.
pub(crate) fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, data_type, nullable): &(&str, DataType, bool)| {
        Field::new(*name, data_type.clone(), *nullable)
    };
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// The one port of a source whose rows have this schema.
pub(crate) fn one_port(schema: &SchemaRef) -> [SourcePort; 1] {
    [SourcePort { schema: Arc::clone(schema), used: true }]
}

/// Inserts of this schema.
pub(crate) fn inserts(schema: &SchemaRef) -> Arriving {
    Arriving { schema: Arc::clone(schema), changes: false }
}

/// One column of text, never null.
pub(crate) fn text_schema() -> SchemaRef {
    schema(&[("line", DataType::Utf8, false)])
}

/// The first column, which is of text.
pub(crate) fn texts(batch: &Batch) -> Vec<String> {
    use arrow_array::cast::AsArray;
    batch.column(0).as_string::<i32>().iter().map(|text| text.unwrap_or("(null)").to_owned()).collect()
}

/// The first column, which is of whole numbers.
pub(crate) fn numbers(batch: &Batch) -> Vec<i64> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// The error of something that must fail.
pub(crate) fn error_of<T>(result: Result<T, Diagnostic>) -> Diagnostic {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error,
    }
}

/// Everything that sources gave, in the order in which it came.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) batches: Vec<(u32, Batch)>,
    /// The same batches, each with its port.
    pub(crate) by_port: Vec<(u32, Batch)>,
    pub(crate) failures: Vec<RecordFailure>,
    /// Over all subtasks.
    pub(crate) bytes_read: u64,
}

impl Given {
    pub(crate) fn texts(&self) -> Vec<String> {
        self.batches.iter().flat_map(|(_, batch)| texts(batch)).collect()
    }

    pub(crate) fn sorted_texts(&self) -> Vec<String> {
        let mut texts = self.texts();
        texts.sort_unstable();
        texts
    }
}

/// A platform, and a worker that polls its subtasks when they are woken and only then.
pub(crate) struct World {
    pub(crate) platform: Platform,
    pub(crate) batch_rows: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) checkpoints: bool,
    random: Random,
    ready: Arc<ReadySet>,
}

/// Nothing that a test waits for takes so long, in the real world and in a simulated one.
const PATIENCE: Duration = Duration::from_secs(30);
const SIMULATED_PATIENCE: Duration = Duration::from_secs(3_600);
const SUBTASKS_MAX: usize = 64;

impl World {
    /// The real world.
    pub(crate) fn system() -> Self {
        Self::of(Platform::system(), 0)
    }

    /// A world whose every order is the seed's.
    pub(crate) fn simulated(seed: u64) -> Self {
        Self::of(Platform::simulated(), seed)
    }

    fn of(platform: Platform, seed: u64) -> Self {
        let ready = ReadySet::new(SUBTASKS_MAX);
        Self {
            platform,
            batch_rows: 100,
            batch_bytes: 1 << 16,
            checkpoints: false,
            random: Random::of_seed(seed),
            ready,
        }
    }

    /// The same world with batches of about so many rows and bytes.
    pub(crate) fn with_batches(self, batch_rows: usize, batch_bytes: usize) -> Self {
        Self { batch_rows, batch_bytes, ..self }
    }

    /// The same world, where checkpoints are made.
    pub(crate) fn with_checkpoints(self) -> Self {
        Self { checkpoints: true, ..self }
    }

    pub(crate) fn context(&self, subtask: u32, parallelism: u32) -> Context {
        Context {
            platform: self.platform.clone(),
            subtask,
            parallelism,
            waker: self.ready.waker(subtask as usize),
            batch_rows: self.batch_rows,
            batch_bytes: self.batch_bytes,
            checkpoints: self.checkpoints,
        }
    }

    /// Waits until a subtask has been woken, and takes those that have.
    pub(crate) fn wait(&mut self) -> Vec<usize> {
        let mut woken = Vec::new();
        self.ready.take(&mut woken);
        if !woken.is_empty() {
            return woken;
        }
        if self.platform.clock.is_simulated() {
            assert!(self.platform.io.run_one(&mut self.random), "nothing is under way, and a subtask waits");
            assert!(self.platform.clock.now() < SIMULATED_PATIENCE, "all the waiting is for nothing");
        } else {
            self.ready.park(Some(PATIENCE));
        }
        self.ready.take(&mut woken);
        assert!(!woken.is_empty(), "nobody wakes the subtask that waits");
        woken
    }

    /// Reads a source to its end, at this parallelism.
    pub(crate) fn read(
        &mut self,
        factory: &dyn SourceFactory,
        parallelism: u32,
    ) -> Result<Given, Diagnostic> {
        factory.prepare()?;
        let mut sources = (0..parallelism)
            .map(|subtask| factory.open(self.context(subtask, parallelism)).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        (0..parallelism as usize).for_each(|subtask| self.ready.mark(subtask));
        let mut given = Given::default();
        while sources.iter().any(Option::is_some) {
            for subtask in self.wait() {
                if let Some(source) = &mut sources[subtask]
                    && !self.step(subtask, source.as_mut(), &mut given)?
                {
                    given.bytes_read += source.bytes_read();
                    sources[subtask] = None;
                }
            }
        }
        Ok(given)
    }

    /// Reads a source in part: each subtask until it has been polled so often as `polls` says for it, when its
    /// position is noted, and then on, which nobody sees. What was given before, and the positions.
    pub(crate) fn read_in_part(
        &mut self,
        factory: &dyn SourceFactory,
        polls: &[usize],
    ) -> Result<(Given, Vec<String>), Diagnostic> {
        // A handful of subtasks.
        let parallelism = polls.len() as u32;
        let mut sources = (0..parallelism)
            .map(|subtask| factory.open(self.context(subtask, parallelism)).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        (0..polls.len()).for_each(|subtask| self.ready.mark(subtask));
        let (mut given, mut unseen) = (Given::default(), Given::default());
        let mut polled = vec![0; polls.len()];
        let mut positions = vec![None; polls.len()];
        while sources.iter().any(Option::is_some) {
            for subtask in self.wait() {
                let Some(source) = &mut sources[subtask] else { continue };
                if polled[subtask] >= polls[subtask] && positions[subtask].is_none() {
                    positions[subtask] = source.position();
                }
                let given = if positions[subtask].is_none() { &mut given } else { &mut unseen };
                polled[subtask] += 1;
                if !self.step(subtask, source.as_mut(), given)? {
                    positions[subtask] = positions[subtask].take().or_else(|| source.position());
                    sources[subtask] = None;
                }
            }
        }
        Ok((given, positions.into_iter().map(|position| position.expect("it can go back")).collect()))
    }

    /// Polls a source once. False at its end.
    fn step(&self, subtask: usize, source: &mut dyn Source, given: &mut Given) -> Result<bool, Diagnostic> {
        match source.poll()? {
            SourcePoll::End => return Ok(false),
            SourcePoll::Pending => {}
            SourcePoll::Rows(decoded) => {
                given.by_port.push((decoded.port, decoded.batch.clone()));
                given.batches.push((subtask as u32, decoded.batch));
                given.failures.extend(decoded.failures);
                self.ready.mark(subtask);
            }
        }
        Ok(true)
    }

    /// Writes batches to the only subtask of a sink, and finishes it.
    pub(crate) fn write(&mut self, factory: &dyn SinkFactory, batches: &[Batch]) -> Result<(), Diagnostic> {
        let mut sink = factory.open(self.context(0, 1))?;
        for batch in batches {
            self.write_one(sink.as_mut(), batch)?;
        }
        self.finish(sink.as_mut())
    }

    /// Writes a batch as soon as the sink takes it.
    pub(crate) fn write_one(&mut self, sink: &mut dyn Sink, batch: &Batch) -> Result<(), Diagnostic> {
        loop {
            match sink.poll_ready() {
                std::task::Poll::Ready(ready) => {
                    ready?;
                    return sink.write(batch);
                }
                std::task::Poll::Pending => self.wait(),
            };
        }
    }

    /// Waits until all that was written is ready to be committed.
    pub(crate) fn prepare(&mut self, sink: &mut dyn Sink) -> Result<Option<String>, Diagnostic> {
        loop {
            match sink.poll_prepare() {
                std::task::Poll::Ready(prepared) => return prepared,
                std::task::Poll::Pending => self.wait(),
            };
        }
    }

    /// Waits until everything is outside.
    pub(crate) fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), Diagnostic> {
        loop {
            match sink.poll_finish() {
                std::task::Poll::Ready(finished) => return finished,
                std::task::Poll::Pending => self.wait(),
            };
        }
    }
}
