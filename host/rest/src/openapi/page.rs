//! `docs/rest.md` is made here.

use std::fmt::Write;

use super::parameters_of;
use crate::routes::routes;

/// What Flink 2.3 serves and Millstream does not, with the reason.
const NOT_SERVED: [(&str, &str, &str); 29] = [
    ("POST", "/jobs", "it takes a graph of Java objects: upload a component and run it"),
    ("POST", "/jars/{jarid}/run-application", "an application is a job here: `/jars/{jarid}/run`"),
    (
        "GET",
        "/applications/{applicationid}/exceptions",
        "an application has one job: `/jobs/{jobid}/exceptions`",
    ),
    ("GET", "/jobs/{jobid}/jobmanager/log-url", "there is no log elsewhere"),
    ("GET", "/jobs/{jobid}/taskmanagers/{taskmanagerid}/log-url", "the same"),
    ("PATCH", "/jobs/{jobid}/clientHeartbeat", "a job does not end with who submitted it"),
    ("GET", "/jobs/{jobid}/yarn-cancel", "there is no YARN: `PATCH /jobs/{jobid}`"),
    ("GET", "/jobs/{jobid}/yarn-stop", "the same"),
    ("POST", "/jobs/{jobid}/coordinators/{operatorUid}", "no operator has a part outside of its subtasks"),
    (
        "GET",
        "/jobs/{jobid}/resource-requirements",
        "a job's parallelism stays; a restart with another: `/jobs/{jobid}/swap`",
    ),
    ("PUT", "/jobs/{jobid}/resource-requirements", "the same"),
    ("PATCH", "/jobs/{jobid}/rescaling", "the same; Flink answers 503"),
    ("GET", "/jobs/{jobid}/rescaling/{triggerid}", "the same"),
    ("GET", "/jobs/{jobid}/rescales/config", "the same"),
    ("GET", "/jobs/{jobid}/rescales/details/{rescaleuuid}", "the same"),
    ("GET", "/jobs/{jobid}/rescales/history", "the same"),
    ("GET", "/jobs/{jobid}/rescales/overview", "the same"),
    ("GET", "/jobs/{jobid}/rescales/summary", "the same"),
    (
        "GET",
        "/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}/attempts/{attempt}",
        "attempts are the job's: the last is at `…/subtasks/{subtaskindex}`",
    ),
    (
        "GET",
        "/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}/attempts/{attempt}/accumulators",
        "the same",
    ),
    ("GET", "/jobmanager/profiler", "nothing is profiled by REST"),
    ("POST", "/jobmanager/profiler", "the same"),
    ("GET", "/jobmanager/profiler/{file}", "the same"),
    ("GET", "/taskmanagers/{taskmanagerid}/profiler", "the same"),
    ("POST", "/taskmanagers/{taskmanagerid}/profiler", "the same"),
    ("GET", "/taskmanagers/{taskmanagerid}/profiler/{file}", "the same"),
    ("GET", "/taskmanagers/{taskmanagerid}/stdout", "rows of `print` are in the session's log"),
    ("DELETE", "/datasets/{datasetid}", "no data outlives its job"),
    ("GET", "/datasets/delete/{triggerid}", "the same"),
];

/// The page as it should be.
fn page() -> String {
    let mut page = String::from(
        "# REST\n\nMade from the table of routes; `UPDATE=1 cargo test --release -p rest openapi` writes it anew.\n\n\
         A session answers at `127.0.0.1:8081` (`rest.address`, `rest.port`), and so does a job that `streamctl run` runs in its \
         own process ([ports](cli.md#streamctl-run)). Paths and JSON are those of Flink 2.3, with and without `/v1`.\n\n\
         `/openapi.json` is the same as an OpenAPI 3.1 document, with the schema of each answer: clients can be made of it.\n\n\
         - Errors are `{\"errors\": [\"…\"]}`: 400 what is asked makes no sense or does not work now, 404 there is no such thing, \
         409 the job has ended otherwise, 413 and 408 [too large or too slow](limits.md#limits-of-requests), 503 the session ends.\n\
         - What takes a while answers 202 and a `request-id`; under that it is looked at. A client's own `triggerId` (32 hex \
         digits) begins it once, however often it is sent.\n\
         - Ids of jobs have 32 hex digits. Times are in milliseconds since the epoch, in UTC; -1 or 0 is none.\n\
         - Requests with the `Origin` or the `Host` of another site are refused with 403. A server that was set up with a token \
         wants it as `Authorization: Bearer TOKEN`, and answers 401 without it.\n\
         - What is not there has Flink's form and says so: no accumulators, no data sets, no flame graphs, no JVM.\n\n\
         ## What is served\n\n| | path | what | |\n|---|---|---|---|\n",
    );
    for route in routes() {
        let query: Vec<&str> = route.query.iter().map(|(name, _)| *name).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}=", query.join("=&")) };
        let ours = if route.is_ours { "not Flink's" } else { "" };
        let about = route.about;
        writeln!(page, "| {} | `{}{query}` | {about} | {ours} |", route.method, route.path).unwrap();
    }
    page.push_str(
        "\n## What of Flink's is not served\n\nIt is answered with 404.\n\n| | path | why |\n|---|---|---|\n",
    );
    for (method, path, why) in NOT_SERVED {
        writeln!(page, "| {method} | `{path}` | {why} |").unwrap();
    }
    page
}

#[test]
fn the_page_of_the_interface_is_true() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rest.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == page(), "docs/rest.md is not up to date");
}

#[test]
fn what_is_said_not_to_be_served_is_not() {
    for (method, path, _) in NOT_SERVED {
        let served = routes().iter().any(|route| route.method == method && route.path == path);
        assert!(!served, "{method} {path}");
        assert!(parameters_of(path).count() == path.matches('{').count());
    }
}
