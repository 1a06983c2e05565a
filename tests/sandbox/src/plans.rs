//! Harm before the job starts: in `jobs` and `plan`, and in what a plan asks for.

use guest::{GuestError, Refusal};
use task::RunOptions;

use crate::support::hostile;

fn args() -> [String; 3] {
    ["a\nb\n", "plans", "fail"].map(str::to_owned)
}

#[test]
fn a_plan_has_the_limits_of_a_call() {
    let error = hostile().plan("plan-loop", &args()).unwrap_err();
    assert!(matches!(error, GuestError::TimedOut(_)), "{error}");
    let error = hostile().plan("plan-memory", &args()).unwrap_err();
    assert!(matches!(error, GuestError::OutOfMemory(_)), "{error}");
}

#[test]
fn a_file_that_nobody_named_is_refused() {
    let graph = hostile().plan("plan-passwd", &args()).unwrap().unwrap();
    let plan = task::plan(hostile(), "plan-passwd", &args(), graph.clone(), RunOptions::default()).unwrap();
    let error = plan.prepare().unwrap_err();
    assert!(error.message.contains("to read `/etc/passwd`, which is not granted"), "{error}");
    assert!(error.hint.unwrap().contains("--allow /etc/passwd"));
    let options = RunOptions { allow: vec!["/etc/passwd".to_owned()], ..RunOptions::default() };
    task::plan(hostile(), "plan-passwd", &args(), graph, options).unwrap().prepare().unwrap();
}

#[test]
fn a_graph_that_cannot_be_is_refused() {
    for job in ["plan-large", "plan-cycle", "plan-edge"] {
        let refused = match hostile().plan(job, &args()) {
            Err(error) => error.diagnostic(),
            Ok(graph) => {
                let graph = graph.unwrap();
                task::plan(hostile(), job, &args(), graph, RunOptions::default())
                    .err()
                    .unwrap_or_else(|| panic!("{job}"))
            }
        };
        assert!(refused.message.len() < 2_000, "{job}: {refused}");
    }
}

#[test]
fn a_jobs_own_message_has_no_escapes() {
    let Refusal::Usage(text) = hostile().plan("plan-escapes", &args()).unwrap().unwrap_err() else {
        panic!("it refuses its arguments");
    };
    assert!(text.contains("no") && !text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
}
