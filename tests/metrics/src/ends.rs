//! Traps, and jobs that fail.

use task::JobOutcome;
use task::metrics::ExecutionState;

use crate::support::{plan, start, subtasks};

const TEXT: &str = "one\ntwo\nbad\nthree\nfour\n";

#[test]
fn traps_and_what_is_skipped_are_counted_at_the_operator() {
    let job = start(plan("hostile", "stack", &[TEXT, "metrics-skip", "skip"], 1));
    assert!(matches!(job.wait(), JobOutcome::Finished));
    let (metrics, description) = (job.metrics(), job.description());
    let found = description.vertices.iter().enumerate().find_map(|(v, vertex)| {
        let stage = vertex.stages.iter().position(|stage| stage.name.contains("Hostile"))?;
        Some((v, stage))
    });
    let (vertex, stage) = found.unwrap_or_else(|| panic!("{description:?}"));
    let figures = &metrics.vertices[vertex].subtasks[0].stages[stage];
    assert_eq!((figures.records_in, figures.records_out, figures.skipped), (5, 4, 1));
    assert!(figures.traps >= 2, "the batch, and the row alone: {figures:?}");
}

#[test]
fn a_job_that_fails_says_which_subtask_did() {
    let job = start(plan("hostile", "stack", &[TEXT, "metrics-fail", "fail"], 1));
    assert!(matches!(job.wait(), JobOutcome::Failed(_)));
    let metrics = job.metrics();
    let states: Vec<ExecutionState> = subtasks(&metrics).map(|subtask| subtask.state).collect();
    assert!(states.contains(&ExecutionState::Failed), "{states:?}");
    assert!(states.iter().all(|state| state.is_final()), "{states:?}");
    assert!(metrics.vertices.iter().any(|vertex| vertex.state() == ExecutionState::Failed));
}
