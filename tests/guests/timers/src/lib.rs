//! A keyed function that does with timers what its rows say.
//!
//! Source (JSON lines `{key, at, deed, time, then}`, numbers all) -> watermarks by `at`, bounded by
//! `--bound MS` -> `obey`, by key -> sink (`kind, key, time, count`).
//!
//! A row counts, keeps its `then` if it has one, gives `(0, key, at, count)`, and does its deed with
//! the key's event-time timer for `time`: 1 sets it, 2 deletes it. Deed 3 fails the row, 4 traps; -1
//! fails a row that is later than its watermark.
//! Deeds 5 and 6 set and delete a timer of processing time; from 7 on they lie about timers and states. A timer that fires gives
//! `(1, key, time, count)` (of processing time: 2); it fails where its time is a multiple of 13;
//! where the key has a `then`, it sets a timer for that and forgets it.
#![allow(unsafe_code, missing_docs, reason = "wit-bindgen's exports")]

mod obey;
mod plan;

wit_bindgen::generate!({ path: "../../../wit", world: "millstream-job", generate_all });

use exports::millstream::job::{functions, job, keyed_functions};
use millstream::job::calls::{KeyedBatch, KeyedOutcome, Moment, Outcome};
use millstream::job::graph::{JobGraph, TimeDomain};
use millstream::job::rows::Batch;

struct Guest;

#[cfg(target_arch = "wasm32")]
export!(Guest);

impl job::Guest for Guest {
    fn jobs() -> Vec<job::JobInfo> {
        vec![job::JobInfo { name: "timers".into(), description: "Does with timers what rows say.".into() }]
    }

    fn plan(job: String, args: Vec<String>) -> Result<JobGraph, job::Refusal> {
        plan::plan(job, &args).map_err(job::Refusal::Usage)
    }
}

impl functions::Guest for Guest {
    fn open(
        _task: functions::Task,
        chain: Vec<u32>,
        _outputs: Vec<functions::NodePort>,
    ) -> Result<(), String> {
        if chain == [plan::OBEY] { Ok(()) } else { Err(format!("there is no chain {chain:?}")) }
    }

    fn process(_now: Moment, _input: u32, _rows: Batch) -> Outcome {
        Outcome { outputs: vec![], failures: vec![] }
    }
}

impl keyed_functions::Guest for Guest {
    fn process_keyed(now: Moment, call: KeyedBatch) -> KeyedOutcome {
        obey::on_rows(now, &call)
    }

    fn on_timers(now: Moment, domain: TimeDomain, times: Vec<i64>, call: KeyedBatch) -> KeyedOutcome {
        obey::on_timers(now, domain, &times, &call)
    }
}
