//! All that can be asked: one table, of which the router and the OpenAPI document are made.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::{
    Served, applications, checkpoints, jars, jobs, metrics, openapi, overview, swaps, triggers, vertices,
};

/// A method at a path: who answers, and what there is to know about it.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// With its parameters in braces, by Flink's names for them.
    pub(crate) path: &'static str,
    handler: MethodRouter<Served>,
    /// What it is, in a sentence.
    pub(crate) about: &'static str,
    /// Flink has not got it.
    pub(crate) is_ours: bool,
    /// It is not below `/v1`.
    pub(crate) is_at_root: bool,
    /// What may stand after `?`.
    pub(crate) query: &'static [Parameter],
    /// What may be sent.
    pub(crate) body: Option<Content>,
    /// The status of an answer that is no error.
    pub(crate) status: u16,
    pub(crate) answer: Content,
    /// Statuses of errors, but for those that any request may get.
    pub(crate) refusals: &'static [u16],
}

/// What is sent, or answered.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    /// JSON by this schema of the document.
    Json(&'static str),
    /// A form with files, by this schema.
    Form(&'static str),
    Text,
}

/// A parameter in the query: its name, and what it says.
pub(crate) type Parameter = (&'static str, &'static str);

const WANTED: Parameter =
    ("get", "Names of metrics, with commas between them; without it only the names are listed.");
const KINDS: Parameter = (
    "agg",
    "What the figures come to: `min`, `max`, `avg`, `sum`, `skew`, with commas between them; without it all of these.",
);
const OF_ONE: &[Parameter] = &[WANTED];
const OF_JOBS: &[Parameter] =
    &[WANTED, KINDS, ("jobs", "Ids of jobs, with commas between them; without it all.")];
const OF_TASK_MANAGERS: &[Parameter] =
    &[WANTED, KINDS, ("taskmanagers", "Ids of TaskManagers, with commas between them; without it all.")];
const OF_SUBTASKS: &[Parameter] =
    &[WANTED, KINDS, ("subtasks", "Numbers of subtasks and ranges of them, `0,2-3`; without it all.")];
const MODE: &[Parameter] = &[("mode", "`cancel`, which it is without it.")];

fn route<H: Handler<T, Served>, T: 'static>(
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    handler: H,
    about: &'static str,
) -> Route {
    Route {
        method,
        path,
        handler: on(filter, handler),
        about,
        is_ours: false,
        is_at_root: false,
        query: &[],
        body: None,
        status: 200,
        answer: Content::Json("Empty"),
        refusals: &[],
    }
}

fn get<H: Handler<T, Served>, T: 'static>(path: &'static str, handler: H, about: &'static str) -> Route {
    route((Method::GET, MethodFilter::GET), path, handler, about)
}

fn post<H: Handler<T, Served>, T: 'static>(path: &'static str, handler: H, about: &'static str) -> Route {
    route((Method::POST, MethodFilter::POST), path, handler, about)
}

fn patch<H: Handler<T, Served>, T: 'static>(path: &'static str, handler: H, about: &'static str) -> Route {
    route((Method::PATCH, MethodFilter::PATCH), path, handler, about)
}

fn delete<H: Handler<T, Served>, T: 'static>(path: &'static str, handler: H, about: &'static str) -> Route {
    route((Method::DELETE, MethodFilter::DELETE), path, handler, about)
}

impl Route {
    fn gives(self, schema: &'static str) -> Self {
        Self { answer: Content::Json(schema), ..self }
    }

    fn gives_text(self) -> Self {
        Self { answer: Content::Text, ..self }
    }

    /// It begins something that others look at.
    fn begins(self, schema: &'static str) -> Self {
        Self { status: 202, ..self.gives(schema) }
    }

    fn takes(self, schema: &'static str) -> Self {
        Self { body: Some(Content::Json(schema)), ..self }
    }

    fn takes_files(self, schema: &'static str) -> Self {
        Self { body: Some(Content::Form(schema)), ..self }
    }

    fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    fn may_refuse(self, refusals: &'static [u16]) -> Self {
        Self { refusals, ..self }
    }

    fn ours(self) -> Self {
        Self { is_ours: true, ..self }
    }

    fn at_root(self) -> Self {
        Self { is_at_root: true, ..self }
    }
}

/// The session has no such thing, or nothing yet to say of it.
const NOT_THERE: &[u16] = &[404];
/// The same, or it takes nothing new.
const ENDING: &[u16] = &[404, 503];

/// The table.
pub(crate) fn routes() -> Vec<Route> {
    let process = [
        get("/config", overview::config, "What serves, for a web page.").gives("Configuration"),
        get("/overview", overview::overview, "The session: its slots, and how many jobs there are.")
            .gives("Overview"),
        delete("/cluster", overview::shutdown, "Ends the session; its jobs come back with the next."),
        get("/datasets", overview::data_sets, "Sets of data that outlive their job: none.").gives("DataSets"),
        get("/openapi.json", openapi::answer, "This document.").gives("Document").ours(),
        get("/metrics", metrics::prometheus, "All metrics, as Prometheus reads them.")
            .gives_text()
            .ours()
            .at_root(),
        get("/jobmanager/config", overview::job_manager_config, "The session's configuration.").gives("Keys"),
        get("/jobmanager/environment", overview::environment, "What runs the session.").gives("Environment"),
        get("/jobmanager/metrics", metrics::of_job_manager, "Metrics of the process.")
            .query(OF_ONE)
            .gives("Metrics"),
        get("/jobmanager/log", overview::job_manager_log, "The session's log.")
            .gives_text()
            .may_refuse(NOT_THERE),
        get("/jobmanager/logs", overview::job_manager_logs, "The files of its log.").gives("Logs"),
        get("/jobmanager/logs/{name}", overview::job_manager_log_of, "One of these files.").gives_text(),
        get("/jobmanager/thread-dump", overview::job_manager_threads, "The names of its threads.")
            .gives("Threads"),
        get("/taskmanagers", overview::task_managers, "The TaskManagers: this process.")
            .gives("TaskManagers"),
        get("/taskmanagers/metrics", metrics::of_task_managers, "Metrics of TaskManagers, together.")
            .query(OF_TASK_MANAGERS)
            .gives("Aggregates"),
        get("/taskmanagers/{taskmanagerid}", overview::task_manager, "A TaskManager.").gives("TaskManager"),
        get("/taskmanagers/{taskmanagerid}/metrics", metrics::of_task_manager, "Its metrics.")
            .query(OF_ONE)
            .gives("Metrics"),
        get("/taskmanagers/{taskmanagerid}/log", overview::task_manager_log, "Its log.").gives_text(),
        get("/taskmanagers/{taskmanagerid}/logs", overview::task_manager_logs, "The files of its log.")
            .gives("Logs"),
        get("/taskmanagers/{taskmanagerid}/logs/{name}", overview::task_manager_log_of, "One of them.")
            .gives_text(),
        get(
            "/taskmanagers/{taskmanagerid}/thread-dump",
            overview::task_manager_threads,
            "The names of its threads.",
        )
        .gives("Threads"),
    ];
    let jars = [
        get("/jars", jars::all, "Components that were uploaded.").gives("Jars"),
        post("/jars/upload", jars::upload, "Uploads a component.")
            .takes_files("JarFile")
            .gives("JarUpload")
            .may_refuse(&[503]),
        delete("/jars/{jarid}", jars::remove, "Removes a component; its jobs keep theirs."),
        post("/jars/{jarid}/run", jars::run, "Starts a job of a component.")
            .takes("JarRunBody")
            .gives("JarRun")
            .may_refuse(ENDING),
        get("/jars/{jarid}/plan", jars::plan, "The plan of a job of a component.").gives("JobPlan"),
        post("/jars/{jarid}/plan", jars::plan, "The same, as a body asks for it.")
            .takes("JarRunBody")
            .gives("JobPlan"),
    ];
    let jobs = [
        get("/applications/overview", applications::overview, "Applications: each job is one.")
            .gives("Applications"),
        get("/applications/{applicationid}", applications::application, "An application.")
            .gives("Application"),
        post("/applications/{applicationid}/cancel", jobs::cancel, "Cancels it.")
            .begins("Empty")
            .may_refuse(&[409, 410]),
        get("/applications/{applicationid}/jobmanager/config", overview::config_of, "Its configuration.")
            .gives("Keys"),
        get("/jobs", jobs::jobs, "Jobs and their states.").gives("Jobs"),
        get("/jobs/overview", jobs::overview, "Jobs, in brief.").gives("JobsOverview"),
        get("/jobs/metrics", metrics::of_jobs, "Metrics of jobs, together.")
            .query(OF_JOBS)
            .gives("Aggregates"),
        get("/jobs/{jobid}", jobs::job, "A job: its state, its vertices, its plan.").gives("Job"),
        patch("/jobs/{jobid}", jobs::cancel, "Cancels a job.")
            .query(MODE)
            .begins("Empty")
            .may_refuse(&[409, 410]),
        get("/jobs/{jobid}/status", jobs::status, "A job's state.").gives("JobState"),
        get("/jobs/{jobid}/plan", jobs::plan, "A job's plan.").gives("JobPlan"),
        get("/jobs/{jobid}/config", jobs::config, "What a job was started with.").gives("JobConfiguration"),
        get("/jobs/{jobid}/exceptions", jobs::exceptions, "Why a job has failed, each time.")
            .gives("Exceptions"),
        get("/jobs/{jobid}/execution-result", jobs::execution_result, "How a job has ended.")
            .gives("ExecutionResult"),
        get("/jobs/{jobid}/accumulators", jobs::accumulators, "Accumulators: none, they are metrics.")
            .gives("JobAccumulators"),
        get("/jobs/{jobid}/metrics", metrics::of_job, "A job's metrics.").query(OF_ONE).gives("Metrics"),
        get("/jobs/{jobid}/logs", jobs::logs, "What a job has said, the last of it.").gives("JobLog").ours(),
        get("/jobs/{jobid}/jobmanager/config", overview::config_of, "A job's configuration.").gives("Keys"),
        get("/jobs/{jobid}/jobmanager/environment", overview::environment_of, "What runs it.")
            .gives("Environment"),
        post(
            "/jobs/{jobid}/pause",
            triggers::pause,
            "Pauses a job: its slots are free, what it has is kept.",
        )
        .begins("Triggered")
        .ours(),
        post("/jobs/{jobid}/resume", triggers::resume, "Goes on with a job that was paused.")
            .begins("Empty")
            .ours(),
    ];
    let changes = [
        get("/jobs/{jobid}/versions", swaps::versions, "The versions that a job has been.")
            .gives("Versions")
            .ours(),
        post("/jobs/{jobid}/diff", swaps::diff, "What a change to another version would do.")
            .takes("VersionBody")
            .gives("Difference")
            .ours(),
        post("/jobs/{jobid}/swap", swaps::swap, "Changes a job to another version.")
            .takes("VersionBody")
            .begins("SwapTriggered")
            .ours(),
        get("/jobs/{jobid}/swap/{triggerid}", triggers::of_job, "What came of that.")
            .gives("Operation")
            .ours(),
    ];
    let checkpoints = [
        get("/jobs/{jobid}/checkpoints", checkpoints::all, "A job's checkpoints.").gives("Checkpoints"),
        post("/jobs/{jobid}/checkpoints", triggers::checkpoint, "Makes a checkpoint.")
            .takes("CheckpointBody")
            .begins("Triggered"),
        get("/jobs/{jobid}/checkpoints/{triggerid}", triggers::of_job, "What came of that.")
            .gives("Operation"),
        get("/jobs/{jobid}/checkpoints/config", checkpoints::config, "How a job's checkpoints are made.")
            .gives("CheckpointConfiguration"),
        get("/jobs/{jobid}/checkpoints/details/{checkpointid}", checkpoints::details, "A checkpoint.")
            .gives("Checkpoint"),
        get(
            "/jobs/{jobid}/checkpoints/details/{checkpointid}/subtasks/{vertexid}",
            checkpoints::subtasks,
            "A vertex' part of a checkpoint, by subtask.",
        )
        .gives("CheckpointOfVertex"),
        post("/jobs/{jobid}/savepoints", triggers::savepoint, "Makes a savepoint.")
            .takes("SavepointBody")
            .begins("Triggered"),
        get("/jobs/{jobid}/savepoints/{triggerid}", triggers::of_job, "What came of that, or of a stop.")
            .gives("Operation"),
        post("/jobs/{jobid}/stop", triggers::stop, "Stops a job with a savepoint.")
            .takes("StopBody")
            .begins("Triggered"),
        post("/savepoint-disposal", triggers::dispose, "Removes a savepoint.")
            .takes("DisposalBody")
            .begins("Triggered"),
        get("/savepoint-disposal/{triggerid}", triggers::of_disposal, "What came of that.")
            .gives("Operation"),
    ];
    let vertices = [
        get("/jobs/{jobid}/vertices/{vertexid}", vertices::vertex, "A vertex, by subtask.").gives("Vertex"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/subtasktimes",
            vertices::subtask_times,
            "When its subtasks did what.",
        )
        .gives("SubtaskTimes"),
        get("/jobs/{jobid}/vertices/{vertexid}/taskmanagers", vertices::task_managers, "It, by TaskManager.")
            .gives("VertexOnTaskManagers"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/watermarks",
            vertices::watermarks,
            "Its subtasks' watermarks.",
        )
        .gives("Metrics"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/backpressure",
            vertices::backpressure,
            "What it is back-pressured.",
        )
        .gives("BackPressure"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/accumulators",
            vertices::accumulators,
            "Its accumulators: none.",
        )
        .gives("VertexAccumulators"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/metrics",
            metrics::of_vertex,
            "Its metrics, those of each subtask.",
        )
        .query(OF_ONE)
        .gives("Metrics"),
        get("/jobs/{jobid}/vertices/{vertexid}/flamegraph", vertices::flame_graph, "None is drawn.")
            .gives("FlameGraph"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/jm-operator-metrics",
            vertices::coordinators,
            "Metrics of what operators have outside of their subtasks: nothing.",
        )
        .query(OF_ONE)
        .gives("Metrics"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/subtasks/accumulators",
            vertices::accumulators_of_subtasks,
            "Its subtasks' accumulators: none.",
        )
        .gives("SubtaskAccumulators"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/subtasks/metrics",
            metrics::of_subtasks,
            "Its metrics, together.",
        )
        .query(OF_SUBTASKS)
        .gives("Aggregates"),
        get("/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}", vertices::subtask, "A subtask.")
            .gives("Subtask"),
        get(
            "/jobs/{jobid}/vertices/{vertexid}/subtasks/{subtaskindex}/metrics",
            metrics::of_subtask,
            "A subtask's metrics.",
        )
        .query(OF_ONE)
        .gives("Metrics"),
    ];
    process.into_iter().chain(jars).chain(jobs).chain(changes).chain(checkpoints).chain(vertices).collect()
}

/// Answers all of them, those of Flink's with and without `/v1`.
pub(crate) fn router() -> Router<Served> {
    let (mut everywhere, mut at_root) = (Router::new(), Router::new());
    for Route { path, handler, is_at_root, .. } in routes() {
        match is_at_root {
            true => at_root = at_root.route(path, handler),
            false => everywhere = everywhere.route(path, handler),
        }
    }
    at_root.merge(everywhere.clone()).nest("/v1", everywhere)
}
