//! A keyed function in windows of every kind, that counts and sums.
//!
//! Job `windows`: source (JSON lines `{key, at, deed, value}`, numbers all) -> watermarks by `at`, bounded by
//! `--bound MS` -> `Sum`, by key -> sink (`kind, key, start, end, time, count, sum`), late rows to a second
//! sink, failed ones to a third. Its arguments say which windows: see `plan.rs`. With `--native true` the native
//! aggregate is in the place of `Sum`, which gives `key, window_start, window_end, count, sum`.
//! Job `bids`: the same over bids of Nexmark, by auction (`--one-key true`: all of one), or (`--native true`)
//! the native aggregate.
//!
//! A row counts, and does its deed: 1 fails it, 2 traps, 3 sets an event-time timer `value` after it, 4 tries
//! to delete the window's own timers, 5 gives a row of kind 0, 6 sets a timer of processing time `value` from
//! now. A timer gives what the state says (1; of processing time: 2). With `--faults true` it fails where
//! the count is a multiple of 7, and traps where the sum is a multiple of 5; `--merge` says what else may
//! be wrong with what is merged.
#![allow(unsafe_code, missing_docs, reason = "wit-bindgen's exports")]

mod plan;
mod sum;

wit_bindgen::generate!({ path: "../../../wit", world: "windowed-job", generate_all });

use std::sync::OnceLock;

use exports::millstream::job::{functions, job, keyed_functions, window_functions};
use millstream::job::calls::{KeyedBatch, KeyedOutcome, Moment, Outcome};
use millstream::job::graph::{JobGraph, TimeDomain};
use millstream::job::rows::{Batch, Column};
use plan::Options;

struct Guest;

#[cfg(target_arch = "wasm32")]
export!(Guest);

/// What the arguments say, and the port of each output.
static OPENED: OnceLock<(Options, Vec<(u32, u32)>)> = OnceLock::new();

fn opened() -> &'static (Options, Vec<(u32, u32)>) {
    OPENED.get().unwrap_or_else(|| sum::abort("called before it was opened"))
}

impl job::Guest for Guest {
    fn jobs() -> Vec<job::JobInfo> {
        let job = |name: &str, of: &str| job::JobInfo { name: name.into(), description: of.into() };
        vec![job("windows", "Sums in windows, as rows say."), job("bids", "Sums the bids of auctions.")]
    }

    fn plan(job: String, args: Vec<String>) -> Result<JobGraph, job::Refusal> {
        let options = Options::of(&args).map_err(job::Refusal::Usage)?;
        Ok(plan::plan(job, &options))
    }
}

impl functions::Guest for Guest {
    fn open(task: functions::Task, chain: Vec<u32>, outputs: Vec<functions::NodePort>) -> Result<(), String> {
        if chain != [plan::SUM] && chain != [plan::PROJECT] {
            return Err(format!("there is no chain {chain:?}"));
        }
        let outputs = outputs.iter().map(|output| (output.node, output.port)).collect();
        OPENED.get_or_init(|| (Options::of(&task.args).unwrap_or_default(), outputs));
        Ok(())
    }

    fn process(_now: Moment, _input: u32, rows: Batch) -> Outcome {
        sum::project(rows)
    }
}

impl keyed_functions::Guest for Guest {
    fn process_keyed(now: Moment, call: KeyedBatch) -> KeyedOutcome {
        sum::on_rows(now, &call)
    }

    fn on_timers(now: Moment, domain: TimeDomain, times: Vec<i64>, call: KeyedBatch) -> KeyedOutcome {
        sum::on_timers(now, domain, &times, &call)
    }
}

impl window_functions::Guest for Guest {
    fn merge(count: u32, left: Vec<Column>, right: Vec<Column>) -> Vec<Column> {
        sum::merge(count as usize, &left, &right)
    }
}
