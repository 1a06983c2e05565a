//! Word count from the contract alone: what `wit/` says is all that this guest knows.
//!
//! Source (files, socket, or a text of its own) -> function `split` -> native count by word -> sink.
#![allow(unsafe_code, missing_docs, reason = "wit-bindgen's exports")]

mod arguments;
mod plan;
mod split;

wit_bindgen::generate!({ path: "../../../wit", world: "stateless-job", generate_all });

use exports::millstream::job::{functions, job};
use millstream::job::calls::{Moment, Outcome};
use millstream::job::graph::JobGraph;
use millstream::job::rows::Batch;

struct Guest;

#[cfg(target_arch = "wasm32")]
export!(Guest);

impl job::Guest for Guest {
    fn jobs() -> Vec<job::JobInfo> {
        vec![job::JobInfo { name: "word_count".into(), description: "Counts the words of a text.".into() }]
    }

    fn plan(job: String, args: Vec<String>) -> Result<JobGraph, job::Refusal> {
        arguments::parse(&args).map(|arguments| plan::plan(job, &arguments))
    }
}

impl functions::Guest for Guest {
    fn open(task: functions::Task, chain: Vec<u32>, outputs: Vec<functions::NodePort>) -> Result<(), String> {
        let only_split = chain == [plan::SPLIT]
            && matches!(&outputs[..], [functions::NodePort { node: plan::SPLIT, port: 0 }]);
        if only_split {
            Ok(())
        } else {
            Err(format!("{} has no chain {chain:?} with the outputs {outputs:?}", task.job))
        }
    }

    fn process(_now: Moment, _input: u32, rows: Batch) -> Outcome {
        split::split(&rows)
    }
}
