//! Each job is word-for-word copying of lines until the line `bad` comes: then it does what its
//! name says. Some jobs are hostile before that, in their plan.
//!
//! Arguments: the text to read, the name to collect under, the failure policy (`fail` or `skip`).
#![allow(
    unsafe_code,
    missing_docs,
    reason = "wit-bindgen's exports, and faults that safe Rust does not have"
)]

mod deeds;
mod plan;
#[cfg(target_arch = "wasm32")]
mod residue;

wit_bindgen::generate!({ path: "../../../wit", world: "stateless-job", generate_all });

use exports::millstream::job::{functions, job};
use millstream::job::calls::{Moment, Outcome, Output};
use millstream::job::graph::JobGraph;
use millstream::job::rows::{Batch, Values};

struct Guest;

#[cfg(target_arch = "wasm32")]
export!(Guest);

/// What the open chain does.
static DEED: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

impl job::Guest for Guest {
    fn jobs() -> Vec<job::JobInfo> {
        let names = deeds::NAMES.iter().chain(&plan::NAMES);
        names.map(|name| job::JobInfo { name: (*name).into(), description: String::new() }).collect()
    }

    fn plan(job: String, args: Vec<String>) -> Result<JobGraph, job::Refusal> {
        plan::plan(&job, &args)
    }
}

impl functions::Guest for Guest {
    fn open(task: functions::Task, _: Vec<u32>, _: Vec<functions::NodePort>) -> Result<(), String> {
        if task.job == "slow-open" {
            // As an interpreter that begins: some ten milliseconds.
            for i in 0..20_000_000u32 {
                std::hint::black_box(i);
            }
        }
        *DEED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = task.job;
        Ok(())
    }

    fn process(_now: Moment, _input: u32, rows: Batch) -> Outcome {
        let deed = DEED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        if has_bad(&rows) {
            return deeds::deed(&deed, rows);
        }
        Outcome { outputs: vec![Output { port: 0, rows }], failures: vec![] }
    }
}

fn has_bad(rows: &Batch) -> bool {
    let Values::Bytes(lines) = &rows.columns[0].values else { return false };
    lines.offsets.windows(2).any(|ends| &lines.data[ends[0] as usize..ends[1] as usize] == b"bad")
}
