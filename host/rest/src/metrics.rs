//! Metrics by name, and all of them for Prometheus.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use task::Job;
use task::metrics::names::{Metric, Scope, list};
use task::metrics::prometheus::{JobView, Place, text};
use task::metrics::rates::{Rates, Sampler};

use crate::answer::Answer;
use crate::overview::TASK_MANAGER;
use crate::vertices::number_of;
use crate::{Inner, Served};

/// Over how long rates are. Flink: 60 s.
const WINDOW: std::time::Duration = std::time::Duration::from_secs(60);

/// Looks at what jobs have counted until now.
pub(crate) fn sample(inner: &Inner) {
    let masters = inner.session.masters().into_iter();
    let jobs: Vec<_> = masters.filter_map(|master| Some((Arc::clone(&master), master.job()?))).collect();
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

/// Those of a job that have a name here.
fn answer(
    served: &Served,
    (id, job): (&str, &Job),
    wanted: &Wanted,
    name: impl Fn(&Metric) -> Option<String>,
) -> Answer {
    let rates = rates(served, id);
    let all = list(job.description(), &job.metrics(), rates.as_ref());
    let named = all.iter().filter_map(|metric| name(metric).map(|name| (name, metric)));
    Ok(Json(match &wanted.get {
        None => named.map(|(name, _)| json!({ "id": name })).collect(),
        Some(get) => {
            let wanted: Vec<&str> = get.split(',').map(str::trim).collect();
            let found = named.filter(|(name, _)| wanted.contains(&name.as_str()));
            // Flink's values are texts.
            found.map(|(name, metric)| json!({ "id": name, "value": metric.value.to_string() })).collect()
        }
    }))
}

pub(crate) async fn of_job(
    State(served): State<Served>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (_, job) = served.running(&id)?;
    answer(&served, (&id, &job), &wanted, |metric| match metric.scope {
        Scope::Job => Some(metric.about.name.to_owned()),
        _ => None,
    })
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
    let (_, job) = served.running(&id)?;
    let vertex = number_of(&job, &vertex)?;
    answer(&served, (&id, &job), &wanted, |metric| {
        let (of, _) = place(metric)?;
        (of == vertex).then(|| metric.id(job.description()))
    })
}

pub(crate) async fn of_subtask(
    State(served): State<Served>,
    Path((id, vertex, subtask)): Path<(String, String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (_, job) = served.running(&id)?;
    let vertex = number_of(&job, &vertex)?;
    answer(&served, (&id, &job), &wanted, |metric| {
        let id = (place(metric)? == (vertex, subtask)).then(|| metric.id(job.description()))?;
        id.split_once('.').map(|(_, name)| name.to_owned())
    })
}

pub(crate) async fn prometheus(State(served): State<Served>) -> impl IntoResponse {
    let jobs: Vec<_> = served
        .session
        .masters()
        .into_iter()
        .filter_map(|master| Some((master.id().to_owned(), master.job()?)))
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
