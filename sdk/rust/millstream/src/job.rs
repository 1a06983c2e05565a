//! A job: a function that builds a graph, and the component's list of them.

use std::cell::RefCell;
use std::panic::Location;

use millstream_sys::bindings::exports::millstream::job::job::{self as contract, JobInfo};
use millstream_sys::bindings::millstream::job::graph::{Connection, JobGraph, NodeKind, Setting};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::args::{Args, JobArgs};
use crate::connector::Connector;
use crate::error::{Error, Result};
use crate::logging;
use crate::plan::{NewNode, Plan, SharedPlan};
use crate::record::{Record, schema_of};
use crate::stream::{Source, Stream};

/// A job under construction: where its streams begin.
pub struct Job {
    name: String,
    description: &'static str,
    arguments: Vec<String>,
    args: Args,
    pub(crate) plan: SharedPlan,
}

impl Job {
    pub(crate) fn new(name: &str, description: &'static str, arguments: &[String]) -> Job {
        Job {
            name: name.into(),
            description,
            arguments: arguments.to_vec(),
            args: Args::new(arguments),
            plan: RefCell::default(),
        }
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job's arguments, for jobs that parse them by hand.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Sets one of Flink's configuration keys for this job; the command line wins.
    pub fn set(&self, key: &str, value: impl ToString) -> &Job {
        let setting = Setting { name: key.into(), value: value.to_string() };
        self.plan.borrow_mut().settings.push(setting);
        self
    }

    /// Lines of text, one row each, in a column `line`.
    #[track_caller]
    pub fn lines(&self, connector: impl Into<Connector>) -> Source<'_, String> {
        let source = self.source::<String>(connector.into(), Some("lines"));
        source.stream().rename(&["line".to_string()]);
        source
    }

    /// JSON lines: each an object whose members are the fields of `T`.
    #[track_caller]
    pub fn json<T: Record>(&self, connector: impl Into<Connector>) -> Source<'_, T> {
        self.source(connector.into(), Some("json"))
    }

    /// CSV, whose columns are the fields of `T`; see [`Connector::format_option`] for `header` and
    /// `delimiter`.
    #[track_caller]
    pub fn csv<T: Record>(&self, connector: impl Into<Connector>) -> Source<'_, T> {
        self.source(connector.into(), Some("csv"))
    }

    /// Parquet, whose columns of these names are the fields of `T`; of [`Connector::files`] only.
    #[track_caller]
    pub fn parquet<T: Record>(&self, connector: impl Into<Connector>) -> Source<'_, T> {
        self.source(connector.into(), Some("parquet"))
    }

    /// The numbers from 0, in a column `value`: `rows` of them, or without end; at most `rate` a
    /// second over all subtasks.
    #[track_caller]
    pub fn sequence(&self, rows: Option<u64>, rate: Option<u64>) -> Source<'_, i64> {
        self.source(generator("sequence", rows, rate), None)
    }

    /// Lines of ten words each, Zipf-distributed, in a column `line`.
    #[track_caller]
    pub fn random_words(&self, rows: Option<u64>, rate: Option<u64>) -> Source<'_, String> {
        let source = self.source::<String>(generator("words", rows, rate), None);
        source.stream().rename(&["line".to_string()]);
        source
    }

    /// Tables of a connector that has several, each a stream, in the connector's order; `names` are theirs.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # #[derive(Record)] struct Person { id: i64 }
    /// # #[derive(Record)] struct Auction { id: i64 }
    /// # #[derive(Record)] struct Bid { auction: i64 }
    /// # fn tables(job: &Job) {
    /// let generator = Connector::of("nexmark").option("events", 1_000_000);
    /// let (persons, auctions, bids) =
    ///     job.tables::<(Person, Auction, Bid)>(generator, ["persons", "auctions", "bids"]);
    /// # let _: (Stream<'_, Person>, Stream<'_, Auction>, Stream<'_, Bid>) = (persons, auctions, bids);
    /// # }
    /// ```
    #[track_caller]
    pub fn tables<T: Tables>(&self, connector: impl Into<Connector>, names: T::Names) -> T::Streams<'_> {
        let location = Location::caller();
        let ports = T::ports(names);
        let node = self.add_source(connector.into(), None, ports, location);
        T::streams(self, node)
    }

    /// Rows of any connector that the host knows, in the connector's format or the one given.
    #[track_caller]
    pub fn source<T: Record>(&self, connector: Connector, format: Option<&str>) -> Source<'_, T> {
        let ports = vec![("main".into(), schema_of::<T>())];
        let node = self.add_source(connector, format, ports, Location::caller());
        Source::new(self.port(node, 0))
    }

    fn add_source(
        &self,
        connector: Connector,
        format: Option<&str>,
        outputs: Vec<(String, Vec<Field>)>,
        location: &Location<'_>,
    ) -> u32 {
        let connection = Connection {
            connector: connector.name,
            options: connector.options,
            format: connector.format.or_else(|| format.map(Into::into)),
            format_options: connector.format_options,
        };
        let new = NewNode {
            name: format!("Source: {}", connection.connector),
            uid: Some(format!("source-{}", connection.connector)),
            kind: NodeKind::Source(connection),
            outputs,
            stage: None,
        };
        self.plan.borrow_mut().add(new, &[], location)
    }

    fn port<T>(&self, node: u32, port: u32) -> Stream<'_, T> {
        Stream::new(self, self.plan.borrow_mut().stream_of(node, port))
    }
}

/// The tables of a connector that has several: a tuple of two to four records.
pub trait Tables {
    /// A stream of each.
    type Streams<'j>;
    /// A name for each.
    type Names;
    /// The ports of the source.
    #[doc(hidden)]
    fn ports(names: Self::Names) -> Vec<(String, Vec<Field>)>;
    /// The streams of a source's ports.
    #[doc(hidden)]
    fn streams(job: &Job, node: u32) -> Self::Streams<'_>;
}

macro_rules! tables {
    ($($count:literal: $($table:ident $place:literal)*;)*) => {$(
        impl<$($table: Record),*> Tables for ($($table,)*) {
            type Streams<'j> = ($(Stream<'j, $table>,)*);
            type Names = [&'static str; $count];

            fn ports(names: Self::Names) -> Vec<(String, Vec<Field>)> {
                vec![$((names[$place].to_string(), schema_of::<$table>())),*]
            }

            fn streams(job: &Job, node: u32) -> Self::Streams<'_> {
                ($(job.port::<$table>(node, $place),)*)
            }
        }
    )*};
}

tables! {
    2: A 0 B 1;
    3: A 0 B 1 C 2;
    4: A 0 B 1 C 2 D 3;
}

fn generator(kind: &str, rows: Option<u64>, rate: Option<u64>) -> Connector {
    let connector = Connector::of("generator").option("kind", kind);
    let connector = rows.into_iter().fold(connector, |connector, rows| connector.option("rows", rows));
    rate.into_iter().fold(connector, |connector, rate| connector.option("rate", rate))
}

/// Why there is no graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// the text that was asked for
    Help(String),
    /// the arguments are wrong
    Usage(String),
    /// the job cannot be built
    Invalid(String),
}

impl Refusal {
    /// What the user is told.
    pub fn text(&self) -> &str {
        match self {
            Refusal::Help(text) | Refusal::Usage(text) | Refusal::Invalid(text) => text,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        if error.is_usage() { Refusal::Usage(error.to_string()) } else { Refusal::Invalid(error.to_string()) }
    }
}

/// A function that describes a job: of the job alone, or of the job and its arguments.
#[diagnostic::on_unimplemented(
    message = "this is not the function of a job",
    label = "expected `fn(&Job) -> Result<()>` or `fn(&Job, Arguments) -> Result<()>`",
    note = "arguments are a type with `#[derive(Parser)]`, or any that implements `JobArgs`"
)]
pub trait JobFunction<Arguments> {
    /// Builds the job's graph.
    ///
    /// # Errors
    /// A refusal, if the arguments are wrong, ask for help, or the job cannot be built.
    #[doc(hidden)]
    fn build(&self, job: &Job) -> Result<(), Refusal>;
}

impl<F: Fn(&Job) -> Result<()>> JobFunction<()> for F {
    fn build(&self, job: &Job) -> Result<(), Refusal> {
        let result = self(job);
        job.args.check(&job.name, job.description)?;
        Ok(result?)
    }
}

impl<A: JobArgs, F: Fn(&Job, A) -> Result<()>> JobFunction<(A,)> for F {
    fn build(&self, job: &Job) -> Result<(), Refusal> {
        let arguments = A::parse(&job.name, job.description, &job.arguments)?;
        Ok(self(job, arguments)?)
    }
}

/// A job of this component; `#[job]` makes it.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Definition {
    pub name: &'static str,
    pub description: &'static str,
    pub build: fn(&Job) -> Result<(), Refusal>,
}

/// Runs a job function.
pub(crate) fn build(definition: &Definition, arguments: &[String]) -> Result<Plan, Refusal> {
    let job = Job::new(definition.name, definition.description, arguments);
    (definition.build)(&job)?;
    Ok(job.plan.into_inner())
}

/// The component's `jobs`.
#[doc(hidden)]
pub fn jobs(definitions: &[Definition]) -> Vec<JobInfo> {
    let info = |job: &Definition| JobInfo { name: job.name.into(), description: job.description.into() };
    definitions.iter().map(info).collect()
}

/// The component's `plan`.
///
/// # Errors
/// As the contract says.
#[doc(hidden)]
pub fn plan(
    definitions: &[Definition],
    job: &str,
    arguments: &[String],
) -> Result<JobGraph, contract::Refusal> {
    logging::begin_call();
    let Some(definition) = definitions.iter().find(|definition| definition.name == job) else {
        let names: Vec<&str> = definitions.iter().map(|definition| definition.name).collect();
        let message = format!("this component has no job `{job}`\ndetail: it has {}", names.join(", "));
        return Err(contract::Refusal::Usage(message));
    };
    let graph = build(definition, arguments)
        .and_then(|plan| plan.finish(definition.name).map_err(Refusal::Invalid))
        .map_err(|refusal| match refusal {
            Refusal::Help(text) => contract::Refusal::Help(text),
            Refusal::Usage(text) => contract::Refusal::Usage(text),
            Refusal::Invalid(text) => contract::Refusal::Invalid(text),
        })?;
    Ok(graph.0)
}
