//! Metrics by name, and all of them for Prometheus.

use std::sync::PoisonError;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use cluster::session::Known;
use serde::Deserialize;
use serde_json::json;
use task::metrics::names::{Metric, Scope, list};
use task::metrics::prometheus::{JobView, Place, text};
use task::metrics::rates::{Rates, Sampler};

use crate::answer::{Answer, Failure};
use crate::overview::TASK_MANAGER;
use crate::{Inner, Served};

/// Over how long rates are. Flink: 60 s.
const WINDOW: std::time::Duration = std::time::Duration::from_secs(60);

/// Looks at what jobs have counted until now.
pub(crate) fn sample(inner: &Inner) {
    let jobs: Vec<_> = inner
        .session
        .jobs()
        .into_iter()
        .filter_map(|known| match known {
            Known::Live { master, .. } if !master.status().is_terminal() => {
                master.job().map(|job| (master, job))
            }
            _ => None,
        })
        .collect();
    let mut samplers = inner.samplers.lock().unwrap_or_else(PoisonError::into_inner);
    samplers.retain(|id, _| jobs.iter().any(|(master, _)| master.id() == id));
    for (master, job) in jobs {
        let now = master.attempts().platform.clock.now();
        let sampler = samplers.entry(master.id().to_owned()).or_insert_with(|| Sampler::new(WINDOW));
        sampler.sample(now, &job.metrics());
    }
}

/// What a job does a second; none = it has not been sampled.
pub(crate) fn rates(served: &Served, id: &str) -> Option<Rates> {
    let samplers = served.samplers.lock().unwrap_or_else(PoisonError::into_inner);
    samplers.get(id).map(Sampler::rates)
}

/// Which are wanted: `?get=a,b`; none = only their names.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    get: Option<String>,
}

/// Those of a job that are in a scope, by name.
fn answer(served: &Served, id: &str, wanted: &Wanted, name: impl Fn(&Metric) -> Option<String>) -> Answer {
    let (_, job) = served.running(id)?;
    let rates = rates(served, id);
    let all = list(job.description(), &job.metrics(), rates.as_ref());
    let named = all.iter().filter_map(|metric| name(metric).map(|name| (name, metric)));
    Ok(Json(match &wanted.get {
        None => named.map(|(name, _)| json!({ "id": name })).collect(),
        Some(get) => {
            let wanted: Vec<&str> = get.split(',').map(str::trim).collect();
            let found = named.filter(|(name, _)| wanted.contains(&name.as_str()));
            found.map(|(name, metric)| json!({ "id": name, "value": value(metric) })).collect()
        }
    }))
}

/// Flink's values are texts.
fn value(metric: &Metric) -> String {
    metric.value.to_string()
}

pub(crate) async fn of_job(
    State(served): State<Served>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    answer(&served, &id, &wanted, |metric| match metric.scope {
        Scope::Job => Some(metric.about.name.to_owned()),
        _ => None,
    })
}

/// The number of a vertex.
fn vertex_of(served: &Served, id: &str, vertex: &str) -> Result<usize, Failure> {
    let (_, job) = served.running(id)?;
    let found = job.description().vertex(vertex).map(|(at, _)| at);
    found.ok_or_else(|| Failure::not_found(format!("Vertex {vertex} not found")))
}

/// The vertex and the subtask that a metric is of.
fn place(metric: &Metric) -> Option<(usize, u32)> {
    match metric.scope {
        Scope::Job => None,
        Scope::Task { vertex, subtask } | Scope::Operator { vertex, subtask, .. } => Some((vertex, subtask)),
    }
}

pub(crate) async fn of_vertex(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let vertex = vertex_of(&served, &id, &vertex)?;
    let (_, job) = served.running(&id)?;
    answer(&served, &id, &wanted, |metric| {
        let (of, _) = place(metric)?;
        (of == vertex).then(|| metric.id(job.description()))
    })
}

pub(crate) async fn of_subtask(
    State(served): State<Served>,
    Path((id, vertex, subtask)): Path<(String, String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let vertex = vertex_of(&served, &id, &vertex)?;
    let (_, job) = served.running(&id)?;
    answer(&served, &id, &wanted, |metric| {
        let id = (place(metric)? == (vertex, subtask)).then(|| metric.id(job.description()))?;
        id.split_once('.').map(|(_, name)| name.to_owned())
    })
}

pub(crate) async fn prometheus(State(served): State<Served>) -> impl IntoResponse {
    let jobs: Vec<_> = served
        .session
        .jobs()
        .into_iter()
        .filter_map(|known| match known {
            Known::Live { master, .. } if !master.status().is_terminal() => {
                master.job().map(|job| (master.id().to_owned(), job))
            }
            _ => None,
        })
        .map(|(id, job)| (rates(&served, &id), job.metrics(), id, job))
        .collect();
    let views: Vec<JobView<'_>> = jobs
        .iter()
        .map(|(rates, metrics, id, job)| JobView {
            id,
            description: job.description(),
            metrics,
            rates: rates.as_ref(),
        })
        .collect();
    let place = Place { host: "localhost", tm_id: TASK_MANAGER };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(place, &views))
}
