//! `streamctl test`: a project's tests, then its golden cases in the real sandbox.
//!
//! A golden case is a folder `golden/<case>` with `args` (one argument a line; `INPUT_DIR` stands
//! for the folder), maybe `job` (the job's name, without which it is the component's first), and `expected`: the rows as JSON lines, sorted, that the job gives with
//! `--execution batch`. Where rows of a streaming run have an order-independent answer too, it is
//! in `expected-streaming`. Each case runs at several parallelisms, each also with a fresh instance
//! for every call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest::Program;
use model::Diagnostic;
use platform::Platform;
use task::{Execution, JobOutcome, LogSink, RunOptions};

use super::{build, load};
use crate::cli::TestArgs;
use crate::terminal::{Style, Terminal};
use crate::{Done, Stop};
use cluster::Config;

pub(crate) fn test(args: &TestArgs, terminal: &Arc<Terminal>) -> Done {
    let component = match &args.component {
        Some(component) => component.clone(),
        None => {
            own_tests(&args.dir)?;
            build::component(&args.dir, terminal)?
        }
    };
    let platform = Platform::system();
    let runtime = load::runtime(&Config::load(&[]).map_err(Stop::Refused)?, &platform)?;
    let program = load::program(&runtime, &component)?;
    let cases = cases(&args.dir.join("golden"))?;
    if cases.is_empty() {
        terminal.line("No golden cases: a folder golden/<case> with `args` and `expected` is one.");
        return Ok(());
    }
    let mut failed = 0;
    for case in &cases {
        let result = case.accept(args.accept, &program, &platform).and_then(|()| {
            args.parallelism.iter().try_for_each(|p| {
                [false, true].iter().try_for_each(|chaos| case.check(&program, &platform, *p, *chaos))
            })
        });
        match result {
            Ok(()) => {
                terminal.line(&format!("golden {} ... {}", case.name, terminal.style(Style::Green, "ok")))
            }
            Err(error) => {
                failed += 1;
                terminal.line(&format!("golden {} ... {}", case.name, terminal.style(Style::Red, "FAILED")));
                terminal.error(&error);
            }
        }
    }
    terminal.line(&format!("golden cases: {} passed, {failed} failed", cases.len() - failed));
    if failed == 0 { Ok(()) } else { Err(Stop::Code(1)) }
}

/// The project's `cargo test`, natively.
fn own_tests(dir: &Path) -> Done {
    if !dir.is_dir() {
        return Err(Stop::Refused(Diagnostic::user(format!("there is no folder `{}`", dir.display()))));
    }
    let mut command = Command::new("cargo");
    command.arg("test").current_dir(dir);
    // Tests that drive a component find this binary by it.
    if let Ok(here) = std::env::current_exe() {
        command.env("STREAMCTL", here);
    }
    let ended = command
        .status()
        .map_err(|error| Stop::Failed(Diagnostic::external("cannot run cargo").detail(error.to_string())))?;
    if ended.success() { Ok(()) } else { Err(Stop::Code(1)) }
}

struct Case {
    name: String,
    folder: PathBuf,
    args: Vec<String>,
    /// none = the component's first
    job: Option<String>,
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    fs::read_to_string(path).map_err(|error| {
        Diagnostic::user(format!("cannot read `{}`", path.display())).detail(error.to_string())
    })
}

fn cases(golden: &Path) -> Result<Vec<Case>, Stop> {
    let Ok(entries) = fs::read_dir(golden) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let args = read(&folder.join("args")).map_err(Stop::Refused)?;
            let here = folder.display().to_string();
            Ok(Case {
                name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                args: args.lines().map(|arg| arg.replace("INPUT_DIR", &here)).collect(),
                job: fs::read_to_string(folder.join("job")).ok().map(|name| name.trim().to_owned()),
                folder,
            })
        })
        .collect()
}

impl Case {
    /// Writes the expectation, where it is wanted and there is none.
    fn accept(&self, wanted: bool, program: &Program, platform: &Platform) -> Result<(), Diagnostic> {
        let expected = self.folder.join("expected");
        if !wanted || expected.exists() {
            return Ok(());
        }
        let rows = self.run(program, platform, 1, false, Execution::Batch)?;
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(&expected, text).map_err(|error| {
            Diagnostic::external(format!("cannot write `{}`", expected.display())).detail(error.to_string())
        })
    }

    fn check(&self, program: &Program, platform: &Platform, p: u32, chaos: bool) -> Result<(), Diagnostic> {
        let streaming = self.folder.join("expected-streaming");
        for (file, execution) in
            [(self.folder.join("expected"), Execution::Batch), (streaming, Execution::Streaming)]
        {
            if execution == Execution::Streaming && !file.exists() {
                continue;
            }
            let text = read(&file)?;
            let mut expected: Vec<&str> = text.lines().collect();
            expected.sort_unstable();
            let rows = self.run(program, platform, p, chaos, execution)?;
            if rows.iter().map(String::as_str).ne(expected.iter().copied()) {
                let chaos = if chaos { ", a fresh instance for every call" } else { "" };
                return Err(Diagnostic::user(format!("other rows than in `{}`", file.display()))
                    .detail(format!("at parallelism {p}{chaos}:\n{}", difference(&expected, &rows))));
            }
        }
        Ok(())
    }

    /// The rows of one run, as JSON lines, sorted.
    fn run(
        &self,
        program: &Program,
        platform: &Platform,
        parallelism: u32,
        chaos_instances: bool,
        execution: Execution,
    ) -> Result<Vec<String>, Diagnostic> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let output = std::env::temp_dir().join(format!("streamctl-test-{}-{number}", std::process::id()));
        let rows = self.rows_in(program, platform, &output, parallelism, chaos_instances, execution);
        // A folder of the system's temporary files may stay.
        drop(fs::remove_dir_all(&output));
        rows
    }

    fn rows_in(
        &self,
        program: &Program,
        platform: &Platform,
        output: &Path,
        parallelism: u32,
        chaos_instances: bool,
        execution: Execution,
    ) -> Result<Vec<String>, Diagnostic> {
        let mut args = self.args.clone();
        args.extend(["--output", &output.display().to_string(), "--format", "json"].map(str::to_owned));
        let jobs = program.jobs().map_err(|error| error.diagnostic())?;
        let first = jobs.first().map_or("", |job| job.name.as_str());
        let job = self.job.as_deref().unwrap_or(first);
        let graph = program.plan(job, &args).map_err(|error| error.diagnostic())?.map_err(|refusal| {
            Diagnostic::user("the job refuses the case's arguments").detail(format!("{refusal:?}"))
        })?;
        let options = RunOptions { parallelism, chaos_instances, execution, ..RunOptions::default() };
        let plan = task::plan(program, job, &args, graph, options)?;
        plan.prepare()?;
        let log: LogSink = Arc::new(|_| {});
        match task::start(plan, platform, log)?.wait() {
            JobOutcome::Finished => {}
            JobOutcome::Cancelled => return Err(Diagnostic::user("the job was stopped")),
            JobOutcome::Failed(error) => return Err(error),
        }
        let mut rows = Vec::new();
        for entry in fs::read_dir(output).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"part-") {
                rows.extend(read(&entry.path())?.lines().map(str::to_owned));
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }
}

/// Lines that are shown of a difference.
const SHOWN: usize = 10;

/// The first rows that are missing or too many.
fn difference(expected: &[&str], rows: &[String]) -> String {
    let (mut left, mut right) =
        (expected.iter().copied().peekable(), rows.iter().map(String::as_str).peekable());
    let mut lines = Vec::new();
    loop {
        let ordering = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(wanted), Some(got)) => wanted.cmp(got),
        };
        match ordering {
            std::cmp::Ordering::Less => lines.extend(left.next().map(|row| format!("  missing:  {row}"))),
            std::cmp::Ordering::Greater => lines.extend(right.next().map(|row| format!("  too many: {row}"))),
            std::cmp::Ordering::Equal => {
                left.next();
                right.next();
            }
        }
    }
    let more = lines.len().saturating_sub(SHOWN);
    lines.truncate(SHOWN);
    if more > 0 {
        lines.push(format!("  … and {more} more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_sides() {
        let rows = ["a", "c", "c"].map(str::to_owned);
        assert_eq!(difference(&["a", "b", "c"], &rows), "  missing:  b\n  too many: c");
    }
}
