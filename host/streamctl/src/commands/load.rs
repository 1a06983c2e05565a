//! From a file and arguments to a plan: what `run`, `info` and `test` have in common.

use std::path::Path;
use std::sync::Arc;

use cluster::Config;
use cluster::attempts::Terms;
use guest::{JobInfo, Program, Refusal, Runtime};
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::Execution;

use crate::Stop;
use crate::cli::{self, JobArgs};

/// A sandbox with this configuration.
pub(crate) fn runtime(config: &Config, platform: &Platform) -> Result<Arc<Runtime>, Stop> {
    cluster::program::runtime(config, platform).map_err(Stop::Failed)
}

/// The component in this file.
pub(crate) fn program(runtime: &Arc<Runtime>, file: &Path) -> Result<Program, Stop> {
    let bytes = read(file)?;
    runtime.load(&bytes).map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))
}

/// The bytes of a component's file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Stop> {
    std::fs::read(file).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = match missing {
            true => Diagnostic::user(format!("there is no file `{}`", file.display())),
            false => Diagnostic::user(format!("cannot read `{}`", file.display())).detail(error.to_string()),
        };
        Stop::Refused(error.hint("run takes a component: `streamctl build DIR -o FILE` makes one"))
    })
}

/// The error, with the component's file.
pub(crate) fn of_file(mut error: Diagnostic, file: &Path) -> Diagnostic {
    error.message = format!("{}: {}", file.display(), error.message);
    error
}

/// The jobs of a component, the default one first.
pub(crate) fn jobs(program: &Program, file: &Path) -> Result<Vec<JobInfo>, Stop> {
    program.jobs().map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))
}

/// The job of this name, or the component's first.
pub(crate) fn job<'a>(jobs: &'a [JobInfo], file: &Path, name: Option<&str>) -> Result<&'a JobInfo, Stop> {
    let names = || jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match name {
        None => jobs.first(),
        Some(name) => jobs.iter().find(|job| job.name == name),
    };
    found.ok_or_else(|| {
        Stop::Refused(match name {
            None => Diagnostic::user(format!("{} has no job", file.display())),
            Some(name) => Diagnostic::user(format!("there is no job `{name}` in {}", file.display()))
                .detail(format!("there are: {}", names()))
                .hint("-c takes one of them"),
        })
    })
}

/// What a job says to its arguments.
pub(crate) fn graph(program: &Program, file: &Path, job: &str, args: &[String]) -> Result<JobGraph, Stop> {
    let answer = program.plan(job, args).map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))?;
    answer.map_err(|refusal| match refusal {
        Refusal::Help(text) => {
            crate::terminal::answer(&text);
            Stop::Code(0)
        }
        Refusal::Usage(text) => Stop::Usage(text),
        Refusal::Invalid(text) => Stop::Refused(Diagnostic::user(text)),
    })
}

/// What is asked of the job: the command line over the configuration.
pub(crate) fn terms(args: &JobArgs, config: Config) -> Terms {
    let mut terms = Terms::new(config);
    terms.parallelism = args.parallelism;
    terms.execution = args.execution.map(|execution| match execution {
        cli::Execution::Streaming => Execution::Streaming,
        cli::Execution::Batch => Execution::Batch,
    });
    terms.allow.clone_from(&args.allow);
    terms
}
