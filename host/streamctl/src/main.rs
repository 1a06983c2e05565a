//! Millstream's command line.
//!
//! Exit codes: 0 finished, or did what was asked · 1 failed · 2 wrong usage, or refused before
//! anything started · 130 and 143 after a clean stop by Ctrl-C and SIGTERM · 141 when nobody reads
//! standard output any more.
#![forbid(unsafe_code)]

mod arguments;
mod cli;
mod commands;
mod sdk;
mod terminal;
mod toolchain;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use model::Diagnostic;

use cli::{Cli, Command};
use terminal::Terminal;

/// How a command ended, other than well.
enum Stop {
    /// Exit code 1.
    Failed(Diagnostic),
    /// Exit code 2.
    Refused(Diagnostic),
    /// Exit code 2, and a text as it is: a job's own usage message.
    Usage(String),
    /// What there was to say has been said.
    Code(u8),
}

type Done = Result<(), Stop>;

fn main() -> ExitCode {
    allocator::set_up();
    let raw: Vec<String> = match std::env::args_os().map(std::ffi::OsString::into_string).collect() {
        Ok(raw) => raw,
        Err(other) => {
            let error = Diagnostic::user("an argument is not valid UTF-8")
                .detail(other.to_string_lossy().into_owned());
            return code(Err(Stop::Refused(error)), &Terminal::new(cli::Color::Auto));
        }
    };
    let sorted = match arguments::sort(arguments::with_two_dashes(raw)) {
        Ok(sorted) => sorted,
        Err(error) => return code(Err(Stop::Refused(error)), &Terminal::new(cli::Color::Auto)),
    };
    let cli = match Cli::try_parse_from(sorted) {
        Ok(cli) => cli,
        Err(error) => {
            let wanted = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A closed pipe is no news: nobody reads.
            drop(error.print());
            return if wanted { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    let terminal = Arc::new(Terminal::new(cli.color));
    let done = match cli.command {
        Command::Run(args) => commands::run::run(&args, &terminal),
        Command::List(args) => commands::jobs::list(&args),
        Command::Cancel(args) => commands::jobs::cancel(&args),
        Command::Stop(args) => commands::jobs::stop(&args),
        Command::Savepoint(args) => commands::jobs::savepoint(&args),
        Command::Checkpoint(args) => commands::jobs::checkpoint(&args),
        Command::Pause(args) => commands::jobs::pause(&args),
        Command::Resume(args) => commands::jobs::resume(&args),
        Command::Swap(args) => commands::swap::swap(&args),
        Command::Diff(args) => commands::swap::diff(&args),
        Command::Versions(args) => commands::swap::versions(&args),
        Command::Logs(args) => commands::jobs::logs(&args),
        Command::Session(args) => commands::session::session(&args.command, &terminal),
        Command::Info(args) => commands::info::info(&args, &terminal),
        Command::Drive(args) => commands::drive::drive(&args),
        Command::New(args) => commands::new::new(&args),
        Command::Build(args) => commands::build::build(&args, &terminal),
        Command::Test(args) => commands::test::test(&args, &terminal),
        Command::Doctor => commands::doctor::doctor(&terminal),
        Command::State(args) => commands::state::state(&args),
        Command::Config(args) => commands::config::config(&args),
        Command::Completion { shell } => commands::completion::completion(shell),
        Command::Man { dir } => commands::man::man(dir.as_deref()),
    };
    code(done, &terminal)
}

fn code(done: Done, terminal: &Terminal) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(error)) => {
            terminal.error(&error);
            ExitCode::from(1)
        }
        Err(Stop::Refused(error)) => {
            terminal.error(&error);
            ExitCode::from(2)
        }
        Err(Stop::Usage(text)) => {
            terminal.usage(&text);
            ExitCode::from(2)
        }
        Err(Stop::Code(code)) => ExitCode::from(code),
    }
}
