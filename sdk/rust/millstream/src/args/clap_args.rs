//! Arguments by clap, and those that every example takes.

use clap::error::ErrorKind;

use super::JobArgs;
use crate::connector::{Connector, Sink};
use crate::error::{Error, Result};
use crate::job::Refusal;

impl<P: clap::Parser> JobArgs for P {
    fn parse(job: &str, description: &str, arguments: &[String]) -> Result<P, Refusal> {
        // A command has static texts only; a guest parses its arguments once or twice in its life.
        let name: &'static str = Box::leak(job.to_string().into_boxed_str());
        let mut command = P::command().name(name).bin_name(name).no_binary_name(true);
        if command.get_about().is_none() && !description.is_empty() {
            let about: &'static str = Box::leak(description.to_string().into_boxed_str());
            command = command.about(about);
        }
        let matches = command.clone().try_get_matches_from(arguments);
        matches.and_then(|matches| P::from_arg_matches(&matches)).map_err(|error| {
            let kind = error.kind();
            let text = error.format(&mut command).render().to_string();
            match kind {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Help(text),
                _ => {
                    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
                    Refusal::Usage(text.to_string())
                }
            }
        })
    }
}

// The comments of these structs are none to clap, which would show them in place of the job's own.
#[cfg_attr(
    doc,
    doc = "Where a job reads: `--input PATH`, with `--monitor-interval TIME` also new files, or `--host HOST --port PORT`."
)]
#[cfg_attr(not(doc), allow(missing_docs, reason = "documented for readers, not for clap"))]
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InputArgs {
    /// File, folder or glob to read; `-` is standard input
    #[arg(long, help_heading = "Input", value_name = "PATH", conflicts_with_all = ["host", "port"])]
    pub input: Option<String>,
    /// Look for new files so often (such as `10s`); the job then never ends by itself
    #[arg(long, help_heading = "Input", value_name = "TIME", requires = "input")]
    pub monitor_interval: Option<String>,
    /// Host of a socket to read
    #[arg(long, help_heading = "Input", requires = "port")]
    pub host: Option<String>,
    /// Port of a socket to read
    #[arg(long, help_heading = "Input", requires = "host")]
    pub port: Option<u16>,
}

impl InputArgs {
    /// What the arguments name.
    ///
    /// # Errors
    /// A wrong use of the job, if they name nothing.
    pub fn source(&self) -> Result<Connector> {
        self.given().ok_or_else(|| {
            Error::usage("no input is given\nhint: `--input PATH`, or `--host HOST --port PORT`")
        })
    }

    /// What the arguments name, or else a text that the component carries.
    pub fn or_sample(&self, text: &str) -> Connector {
        self.given().unwrap_or_else(|| Connector::text(text))
    }

    fn given(&self) -> Option<Connector> {
        match (&self.input, &self.host, self.port) {
            (Some(path), _, _) => {
                let input = if path == "-" { Connector::stdin() } else { Connector::files(path) };
                let interval = self.monitor_interval.iter();
                Some(interval.fold(input, |input, interval| input.option("monitor-interval", interval)))
            }
            (None, Some(host), Some(port)) => Some(Connector::socket(host, port)),
            _ => None,
        }
    }
}

#[cfg_attr(
    doc,
    doc = "Where a job writes: `--output print|blackhole|DIR`, `--format json|csv|text|parquet`."
)]
#[cfg_attr(not(doc), allow(missing_docs, reason = "documented for readers, not for clap"))]
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Where rows go: `print`, `blackhole`, or a folder
    #[arg(long, help_heading = "Output", value_name = "print|blackhole|DIR", default_value = "print")]
    pub output: String,
    /// Format of the rows [default: json, and text where they are printed]
    #[arg(long, help_heading = "Output", value_parser = ["json", "csv", "text", "parquet"])]
    pub format: Option<String>,
}

impl From<&OutputArgs> for Sink {
    fn from(args: &OutputArgs) -> Sink {
        let sink = match args.output.as_str() {
            "" | "print" => Sink::print(),
            "blackhole" => Sink::blackhole(),
            path => Sink::files(path),
        };
        args.format.iter().fold(sink, |sink, format| sink.format(format))
    }
}

impl From<OutputArgs> for Sink {
    fn from(args: OutputArgs) -> Sink {
        Sink::from(&args)
    }
}
