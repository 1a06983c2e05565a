//! Millstream's speed, in ratios to baselines that run beside it.
//!
//! Every subject runs in a process of its own over the same bytes; rounds are interleaved; outputs
//! are compared before any figure counts. A table goes to standard output, rows to `--json FILE`.
#![forbid(unsafe_code)]

mod backends;
mod checkpoints;
mod handwritten;
mod idle;
mod latency;
mod measure;
mod native;
mod nexmark;
mod report;
mod sliding;
mod snapshot;
mod start;
mod state;
mod swap;
mod text;
mod timely_count;
mod totals;
mod windows;
mod word_count;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Parser;

use report::Report;

/// Measures Millstream, and prints figures with their baselines
#[derive(Parser)]
struct Arguments {
    /// Only this bench: word_count, start, latency, state, snapshot, nexmark, sliding, windows, checkpoints, backends, swap, idle
    name: Option<String>,
    /// Also writes the rows to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Interleaved rounds, at least 1; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of the text that is counted
    #[arg(long, default_value_t = 500_000_000)]
    bytes: u64,
    /// Runs one subject in this process: that is how benches run them
    #[arg(long, hide = true)]
    subject: Option<String>,
    /// Drives state in this process, and writes the rows to `--json`: the same
    #[arg(long, hide = true)]
    drive: Option<String>,
    /// The text of the subject
    #[arg(long, hide = true)]
    file: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    allocator::set_up();
    let arguments = Arguments::parse();
    if let Some(subject) = &arguments.subject {
        let file = arguments.file.context("a subject takes a file")?;
        let totals = match subject.as_str() {
            "handwritten" => handwritten::word_count(&file)?,
            "timely-1" => timely_count::word_count(&file, 1)?,
            "timely-2" => timely_count::word_count(&file, 2)?,
            "native-split" => native::word_count(&file)?,
            other => bail!("there is no subject `{other}`"),
        };
        print_line(&totals.to_string());
        return Ok(());
    }
    let mut report = Report::default();
    if let Some(driven) = &arguments.drive {
        match driven.as_str() {
            "snapshot" => snapshot::drive(&mut report, arguments.rounds.max(1))?,
            "backends" => backends::drive(&mut report)?,
            other => bail!("nothing is driven as `{other}`"),
        }
        std::fs::write(arguments.json.context("rows go to a file")?, report.json()?)?;
        return Ok(());
    }
    let wanted = |name: &str| arguments.name.as_deref().is_none_or(|wanted| wanted == name);
    if ![
        "word_count",
        "start",
        "latency",
        "state",
        "snapshot",
        "nexmark",
        "sliding",
        "windows",
        "checkpoints",
        "backends",
        "swap",
        "idle",
    ]
    .iter()
    .any(|name| wanted(name))
    {
        bail!(
            "there is no such bench; there are word_count, start, latency, state, snapshot, nexmark, sliding, windows, checkpoints, backends, swap, idle"
        );
    }
    if wanted("word_count") {
        word_count::run(&mut report, arguments.bytes, arguments.rounds.max(1))?;
    }
    if wanted("start") {
        start::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("latency") {
        latency::run(&mut report)?;
    }
    if wanted("state") {
        state::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("snapshot") {
        snapshot::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("nexmark") {
        nexmark::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("sliding") {
        sliding::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("windows") {
        windows::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("checkpoints") {
        checkpoints::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("backends") {
        backends::run(&mut report, arguments.bytes, arguments.rounds.max(1))?;
    }
    if wanted("swap") {
        swap::run(&mut report, arguments.rounds.max(1))?;
    }
    if wanted("idle") {
        idle::run(&mut report)?;
    }
    print_line(&report.table());
    if let Some(file) = arguments.json {
        std::fs::write(file, report.json()?)?;
    }
    Ok(())
}

/// The one place that writes to standard output.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print_line(text: &str) {
    println!("{text}");
}
