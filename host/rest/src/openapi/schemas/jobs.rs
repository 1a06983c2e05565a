//! Jobs and applications.

use cluster::JobStatus;
use serde_json::{Value, json};

use super::super::schema::{
    count, each, flag, list, map, named, nothing, object, one_of, or_null, text, whole,
};
use super::{job_id, time};
use crate::applications;
use crate::jobs::STATES;

/// Beginning, end, and what lies between.
pub(super) fn span<'a>() -> [(&'a str, Value); 3] {
    [("start-time", time()), ("end-time", time()), ("duration", whole())]
}

fn statuses() -> Value {
    one_of(JobStatus::ALL.iter().map(|status| status.name()))
}

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let mut states: Vec<String> = STATES.iter().map(|state| state.to_ascii_lowercase()).collect();
    states.push("total".to_owned());
    let brief = [
        ("jid", job_id()),
        ("name", text()),
        ("jobType", text()),
        ("schedulerType", text()),
        ("state", named("JobStatus")),
        ("last-modification", time()),
        ("tasks", each(states, &count())),
        ("pending-operators", count()),
    ];
    let application = || [("id", job_id()), ("name", text()), ("status", one_of(applications::STATES))];
    let node = object([
        ("id", text()),
        ("operator", text()),
        ("parallelism", count()),
        ("operator_strategy", text()),
        ("description", text()),
        ("optimizer_properties", object([])),
        (
            "inputs?",
            list(object([("id", text()), ("num", count()), ("exchange", text()), ("ship_strategy", text())])),
        ),
    ]);
    vec![
        ("JobStatus", statuses()),
        ("TaskState", one_of(STATES)),
        ("TaskCounts", each(STATES, &count())),
        ("JobBrief", object(brief.into_iter().chain(span()))),
        ("Jobs", object([("jobs", list(object([("id", job_id()), ("status", named("JobStatus"))])))])),
        ("JobsOverview", object([("jobs", list(named("JobBrief")))])),
        ("JobState", object([("status", named("JobStatus"))])),
        ("Plan", object([("jid", job_id()), ("name", text()), ("type", text()), ("nodes", list(node))])),
        ("JobPlan", object([("plan", named("Plan"))])),
        ("Job", job()),
        (
            "JobConfiguration",
            object([
                ("jid", job_id()),
                ("name", text()),
                (
                    "execution-config",
                    object([
                        ("restart-strategy", text()),
                        ("job-parallelism", count()),
                        ("object-reuse-mode", flag()),
                        ("user-config", map(text())),
                    ]),
                ),
            ]),
        ),
        ("Exceptions", exceptions()),
        ("ExecutionResult", execution_result()),
        (
            "JobAccumulators",
            object([
                ("job-accumulators", nothing()),
                ("user-task-accumulators", nothing()),
                ("serialized-user-task-accumulators", object([])),
            ]),
        ),
        ("JobLog", object([("lines", list(text()))])),
        (
            "Applications",
            object([(
                "applications",
                list(object(
                    application().into_iter().chain(span()).chain([("jobs", named("CountsByName"))]),
                )),
            )]),
        ),
        (
            "Application",
            object(application().into_iter().chain(span()).chain([
                ("timestamps", each(applications::STATES, &time())),
                ("jobs", list(named("JobBrief"))),
            ])),
        ),
    ]
}

fn job() -> Value {
    let about = [
        ("jid", job_id()),
        ("application-id", job_id()),
        ("name", text()),
        ("isStoppable", flag()),
        ("state", named("JobStatus")),
        ("job-type", text()),
        ("schedulerType", text()),
        ("maxParallelism", whole()),
        ("now", time()),
        ("timestamps", each(JobStatus::ALL.iter().map(|status| status.name()), &time())),
        ("vertices", list(named("JobVertex"))),
        ("status-counts", named("TaskCounts")),
        ("plan", named("Plan")),
        ("pending-operators", count()),
        ("waits-for", or_null(text())),
    ];
    object(about.into_iter().chain(span()))
}

fn exceptions() -> Value {
    let entry = object([
        ("exceptionName", text()),
        ("stacktrace", text()),
        ("timestamp", time()),
        ("failureLabels", object([])),
        ("taskName", json!({ "type": "null" })),
        ("endpoint", json!({ "type": "null" })),
        ("taskManagerId", json!({ "type": "null" })),
        ("concurrentExceptions", nothing()),
    ]);
    object([("exceptionHistory", object([("entries", list(entry)), ("truncated", flag())]))])
}

fn execution_result() -> Value {
    let result = object([
        ("id", job_id()),
        ("application-status", one_of(["SUCCEEDED", "CANCELED", "FAILED"])),
        ("accumulator-results", object([])),
        ("net-runtime", count()),
        ("failure-cause?", named("FailureCause")),
    ]);
    object([("status", named("Progress")), ("job-execution-result?", result)])
}
