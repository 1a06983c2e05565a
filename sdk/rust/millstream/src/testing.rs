//! Runs a job natively, in one process and one thread, for `cargo test`.
//!
//! ```
//! use millstream::prelude::*;
//! use millstream::testing::Harness;
//!
//! #[job]
//! fn lengths(job: &Job) -> Result<()> {
//!     job.lines(Connector::stdin()).map(|line| line.len() as i64).print();
//!     Ok(())
//! }
//!
//! let run = Harness::of(lengths).lines(["a", "bcd"]).run();
//! assert_eq!(run.rows::<i64>("Sink: print"), [1, 3]);
//! ```
//!
//! The user's functions are the real ones; aggregates, state, timers and watermarks are small
//! stand-ins for the host's, in streaming mode. Rows reach every operator in the order of their source.
//! Windows, joins, top-n and aggregates that give changelogs have none: a job with one of them is tested in
//! the engine, by [`Harness::component`].
//!
//! Time is the test's own. [`Harness::driver`] runs a job step by step: it pushes rows one by one,
//! moves the watermark and the clock, and takes what has come out.

mod aggregate;
mod component;
mod driver;
mod entries;
mod graph;
mod keyed;
mod value;
mod watermarks;
mod wire;

pub use driver::Driver;

use component::Driven;
use driver::Engine;

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_sys::bindings::millstream::job::graph::JobGraph;
use millstream_sys::bindings::millstream::job::rows::Batch;
use millstream_sys::host::stub::{self, Told};

use crate::changes::RowKind;
use crate::job::{Definition, Job, JobFunction, Refusal};
use crate::logging;
use crate::record::{Record, Row, finish_rows, reader_of};

/// A job to be run in a test: its arguments and its input.
pub struct Harness {
    #[expect(clippy::type_complexity, reason = "a job function with its types erased")]
    build: Box<dyn Fn(&Job) -> Result<(), Refusal>>,
    arguments: Vec<String>,
    /// by the source's name or uid; the empty name is any source
    inputs: BTreeMap<String, Vec<Batch>>,
    /// the job's name in its component
    name: Option<String>,
    component: Option<PathBuf>,
    streamctl: Option<PathBuf>,
}

impl Harness {
    /// The job of a job function, without arguments.
    pub fn of<F: JobFunction<A> + 'static, A>(function: F) -> Harness {
        let name = std::any::type_name::<F>().rsplit("::").next().filter(|name| !name.starts_with('{'));
        Harness {
            build: Box::new(move |job| function.build(job)),
            arguments: Vec::new(),
            inputs: BTreeMap::new(),
            name: name.map(str::to_owned),
            component: None,
            streamctl: None,
        }
    }

    /// Sets the job's arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Harness {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Gives lines to the job's source.
    #[must_use]
    pub fn lines<'a>(self, lines: impl IntoIterator<Item = &'a str>) -> Harness {
        self.rows::<String>("", lines)
    }

    /// Gives rows of `T` to the source of this name or uid; `""` is the job's only source.
    #[must_use]
    pub fn rows<T: Record>(mut self, source: &str, rows: impl IntoIterator<Item = impl Row<T>>) -> Harness {
        self.inputs.entry(source.into()).or_default().push(batch_of::<T>(rows));
        self
    }

    /// Gives rows of `T` with their event times, in milliseconds.
    #[must_use]
    pub fn timed_rows<T: Record>(
        mut self,
        source: &str,
        rows: impl IntoIterator<Item = (i64, impl Row<T>)>,
    ) -> Harness {
        let (times, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let batch = Batch { event_times: Some(times), ..batch_of::<T>(rows) };
        self.inputs.entry(source.into()).or_default().push(batch);
        self
    }

    /// Drives the job's component in the engine itself, its functions in the sandbox, instead of the
    /// job function of this process. `streamctl build -o FILE` makes it.
    ///
    /// `streamctl` is the one that the environment's `STREAMCTL` names, else that of the path.
    #[must_use]
    pub fn component(mut self, file: impl Into<PathBuf>) -> Harness {
        self.component = Some(file.into());
        self
    }

    /// Says which `streamctl` drives components.
    #[must_use]
    pub fn streamctl(mut self, binary: impl Into<PathBuf>) -> Harness {
        self.streamctl = Some(binary.into());
        self
    }

    /// The graph, or what the job refuses.
    ///
    /// # Errors
    /// If the job refuses its arguments, gives help, or cannot be built.
    pub fn plan(&self) -> Result<JobGraph, Refusal> {
        Ok(self.build()?.0)
    }

    fn build(&self) -> Result<(JobGraph, graph::Stages), Refusal> {
        let job = Job::new("job", "", &self.arguments);
        (self.build)(&job)?;
        job.plan.into_inner().finish("job").map_err(Refusal::Invalid)
    }

    /// Runs the job to the end of its input: then the watermark is the greatest, and all timers of event
    /// time fire. Timers of processing time that are left do not; that clock stands at 0.
    ///
    /// # Panics
    /// If the job cannot be built, an input is missing, or a row fails where the policy is to fail.
    pub fn run(self) -> Run {
        if self.component.is_some() {
            return self.driver().finish();
        }
        let (mut runner, inputs) = self.runner();
        runner.run(inputs);
        Run { outputs: runner.outputs, told: stub::take() }
    }

    /// Runs the job step by step, as the test says. What `rows` and `lines` gave is pushed first.
    ///
    /// # Panics
    /// If the job cannot be built.
    pub fn driver(self) -> Driver {
        let (engine, inputs): (Box<dyn Engine>, _) = match &self.component {
            Some(component) => {
                let streamctl = self.streamctl.as_deref();
                let driven = Driven::start(component, streamctl, self.name.as_deref(), &self.arguments);
                (Box::new(driven), self.inputs)
            }
            None => {
                let (runner, inputs) = self.runner();
                (Box::new(runner), inputs)
            }
        };
        let mut driver = Driver { engine };
        for (source, batches) in inputs {
            batches.into_iter().for_each(|batch| driver.engine.push(&source, batch));
        }
        driver
    }

    fn runner(self) -> (graph::Runner, BTreeMap<String, Vec<Batch>>) {
        logging::begin_call();
        stub::take();
        let (graph, stages) = self.build().unwrap_or_else(|refusal| panic!("{}", refusal.text()));
        (graph::Runner::new(graph, stages), self.inputs)
    }
}

/// What a job has given.
pub struct Run {
    outputs: Vec<graph::Output>,
    told: Told,
}

impl Run {
    /// The rows at the sink of this name, uid, collection (of `collect`), or path (of `files`), in order.
    ///
    /// # Panics
    /// If there is no such sink, or its rows are not of the type `T`.
    pub fn rows<T: Record>(&self, sink: &str) -> Vec<T> {
        rows_of(&self.output(sink).batches)
    }

    /// The event times of the rows at a sink; none where a row has none.
    ///
    /// # Panics
    /// If there is no such sink.
    pub fn times(&self, sink: &str) -> Vec<Option<i64>> {
        let times = |batch: &Batch| match &batch.event_times {
            Some(times) => times.iter().copied().map(Some).collect(),
            None => vec![None; batch.length as usize],
        };
        self.output(sink).batches.iter().flat_map(times).collect()
    }

    /// The rows at a sink with what each does to the table that its stream describes.
    ///
    /// # Panics
    /// As [`rows`](Self::rows).
    pub fn changes<T: Record>(&self, sink: &str) -> Vec<(RowKind, T)> {
        changes_of(&self.output(sink).batches)
    }

    /// The columns' names at a sink.
    ///
    /// # Panics
    /// If there is no such sink.
    pub fn names(&self, sink: &str) -> Vec<String> {
        self.output(sink).names.clone()
    }

    fn output(&self, sink: &str) -> &graph::Output {
        &self.outputs[place_of(&self.outputs, sink)]
    }

    /// The messages that the job's functions logged.
    pub fn messages(&self) -> Vec<&str> {
        self.told.messages.iter().map(|(_, message)| message.as_str()).collect()
    }

    /// The sum of a counter over all functions.
    pub fn counter(&self, name: &str) -> u64 {
        self.told.counts.iter().filter(|(_, counter, _)| counter == name).map(|(.., delta)| delta).sum()
    }

    /// The last value of a gauge.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.told.gauges.iter().rev().find(|(_, gauge, _)| gauge == name).map(|(.., value)| *value)
    }

    /// All samples of a histogram.
    pub fn histogram(&self, name: &str) -> Vec<f64> {
        let samples = self.told.histograms.iter().filter(|(_, histogram, _)| histogram == name);
        samples.flat_map(|(.., samples)| samples.iter().copied()).collect()
    }
}

/// Which output is called so.
fn place_of(outputs: &[graph::Output], sink: &str) -> usize {
    outputs.iter().position(|output| output.is_called(sink)).unwrap_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        panic!("the job has no sink `{sink}`: it has {names:?}")
    })
}

fn rows_of<T: Record>(batches: &[Batch]) -> Vec<T> {
    let mut rows = Vec::new();
    for batch in batches {
        let reader = reader_of::<T>(batch);
        rows.extend((0..batch.length as usize).map(|row| T::from_row(T::get(&reader, row))));
    }
    rows
}

fn changes_of<T: Record>(batches: &[Batch]) -> Vec<(RowKind, T)> {
    let kinds = batches.iter().flat_map(|batch| match &batch.kinds {
        Some(kinds) => kinds.iter().copied().map(RowKind::of).collect(),
        None => vec![RowKind::Insert; batch.length as usize],
    });
    kinds.zip(rows_of(batches)).collect()
}

/// A batch of rows.
pub(crate) fn batch_of<T: Record>(rows: impl IntoIterator<Item = impl Row<T>>) -> Batch {
    let mut builder = T::Builder::default();
    let mut length = 0;
    for row in rows {
        row.append_to(&mut builder);
        length += 1;
    }
    Batch { length, event_times: None, kinds: None, columns: finish_rows::<T>(&mut builder) }
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}
