//! Metrics by name, and all of them for Prometheus.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use cluster::JobMaster;
use serde::Deserialize;
use serde_json::json;
use task::metrics::names::{Metric, Scope, list};
use task::metrics::prometheus::{JobView, Place, text};
use task::metrics::rates::{Rates, Sampler};
use task::{Job, JobDescription};

use crate::answer::{Answer, Failure};
use crate::overview::TASK_MANAGER;
use crate::process::Process;
use crate::spread::{KINDS, aggregated};
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

impl Wanted {
    /// Of these, which have names and values.
    fn answer(&self, named: impl Iterator<Item = (impl AsRef<str>, impl ToString)>) -> Answer {
        Ok(Json(match &self.get {
            None => named.map(|(name, _)| json!({ "id": name.as_ref() })).collect(),
            Some(get) => {
                let wanted: Vec<&str> = get.split(',').map(str::trim).collect();
                let found = named.filter(|(name, _)| wanted.contains(&name.as_ref()));
                // Flink's values are texts.
                found
                    .map(|(name, value)| json!({ "id": name.as_ref(), "value": value.to_string() }))
                    .collect()
            }
        }))
    }
}

/// Which of many are wanted, and in which ways: `?get=a,b&agg=min,max&subtasks=0,2-3`.
#[derive(Deserialize)]
pub(crate) struct WantedOfMany {
    get: Option<String>,
    agg: Option<String>,
    #[serde(alias = "jobs", alias = "taskmanagers")]
    subtasks: Option<String>,
}

impl WantedOfMany {
    /// What each of many has, by name, as one.
    fn answer(&self, each: &[Vec<(String, f64)>]) -> Answer {
        let mut by_name: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in each.iter().flatten() {
            by_name.entry(name).or_default().push(*value);
        }
        let Some(get) = &self.get else {
            return Ok(Json(by_name.keys().map(|name| json!({ "id": name })).collect()));
        };
        let asked: Vec<&str> = self.agg.iter().flat_map(|asked| asked.split(',')).map(str::trim).collect();
        if let Some(other) = asked.iter().find(|kind| !KINDS.contains(kind)) {
            return Err(Failure::bad(format!("There is no aggregation \"{other}\": {}.", KINDS.join(", "))));
        }
        let kinds = if asked.is_empty() { &KINDS[..] } else { &asked };
        let wanted = get.split(',').map(str::trim);
        let found = wanted.filter_map(|name| aggregated(name, by_name.get(name)?, kinds));
        Ok(Json(found.collect()))
    }

    /// Whether one of this name is among those that are asked for.
    fn has(&self, name: &str) -> bool {
        self.subtasks.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| one.trim() == name))
    }

    /// The same of numbers, of which there may be ranges: `0,2-3`.
    fn has_number(&self, number: u32) -> Result<bool, Failure> {
        let Some(wanted) = &self.subtasks else { return Ok(true) };
        for part in wanted.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
                return Err(Failure::bad(format!("\"{part}\" is no number of a subtask, and no range.")));
            };
            if (first..=last).contains(&number) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(crate) async fn of_jobs(State(served): State<Served>, Query(wanted): Query<WantedOfMany>) -> Answer {
    let mut each = Vec::new();
    for master in served.session.masters().iter().filter(|master| wanted.has(master.id())) {
        let Some(job) = master.job() else { continue };
        let all = list(&job.description(), &master.metrics(&job), rates(&served, master.id()).as_ref());
        let of_job = all.iter().filter(|metric| metric.scope == Scope::Job);
        each.push(of_job.map(|metric| (metric.about.name.to_owned(), metric.value.number())).collect());
    }
    wanted.answer(&each)
}

pub(crate) async fn of_subtasks(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
    Query(wanted): Query<WantedOfMany>,
) -> Answer {
    let (_, job) = served.running(&id)?;
    let vertex = number_of(&job, &vertex)?;
    let mut each: BTreeMap<u32, Vec<(String, f64)>> = BTreeMap::new();
    let description = job.description();
    for metric in list(&description, &job.metrics(), rates(&served, &id).as_ref()) {
        let Some((of, subtask)) = place(&metric) else { continue };
        if of == vertex && wanted.has_number(subtask)? {
            let id = metric.id(&description);
            let name = id.split_once('.').map(|(_, name)| name.to_owned()).unwrap_or_default();
            each.entry(subtask).or_default().push((name, metric.value.number()));
        }
    }
    wanted.answer(&each.into_values().collect::<Vec<_>>())
}

pub(crate) async fn of_task_managers(Query(wanted): Query<WantedOfMany>) -> Answer {
    let each = match wanted.has(TASK_MANAGER) {
        true => {
            Process::now().metrics().iter().map(|(name, value)| ((*name).to_owned(), *value as f64)).collect()
        }
        false => Vec::new(),
    };
    wanted.answer(&[each])
}

/// Those of the process, and some more.
fn of_process(wanted: &Wanted, more: &[(&'static str, u64)]) -> Answer {
    wanted.answer(more.iter().copied().chain(Process::now().metrics()))
}

pub(crate) async fn of_task_manager(Path(id): Path<String>, Query(wanted): Query<Wanted>) -> Answer {
    crate::overview::is_task_manager(&id)?;
    of_process(&wanted, &[])
}

pub(crate) async fn of_job_manager(State(served): State<Served>, Query(wanted): Query<Wanted>) -> Answer {
    let (total, free) = served.session.slots();
    let more = [
        ("taskSlotsTotal", u64::from(total)),
        ("taskSlotsAvailable", u64::from(free)),
        ("numRegisteredTaskManagers", 1),
        ("numRunningJobs", served.session.masters().len() as u64),
    ];
    of_process(&wanted, &more)
}

/// Those of a job that have a name here.
fn answer(
    served: &Served,
    (master, job): (&JobMaster, &Job),
    wanted: &Wanted,
    name: impl Fn(&Metric, &JobDescription) -> Option<String>,
) -> Answer {
    let (rates, description) = (rates(served, master.id()), job.description());
    let all = list(&description, &master.metrics(job), rates.as_ref());
    wanted.answer(all.iter().filter_map(|metric| Some((name(metric, &description)?, &metric.value))))
}

pub(crate) async fn of_job(
    State(served): State<Served>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (master, job) = served.running(&id)?;
    answer(&served, (&master, &job), &wanted, |metric, _| match metric.scope {
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
    let (master, job) = served.running(&id)?;
    let vertex = number_of(&job, &vertex)?;
    answer(&served, (&master, &job), &wanted, |metric, description| {
        let (of, _) = place(metric)?;
        (of == vertex).then(|| metric.id(description))
    })
}

pub(crate) async fn of_subtask(
    State(served): State<Served>,
    Path((id, vertex, subtask)): Path<(String, String, u32)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let (master, job) = served.running(&id)?;
    let vertex = number_of(&job, &vertex)?;
    answer(&served, (&master, &job), &wanted, |metric, description| {
        let id = (place(metric)? == (vertex, subtask)).then(|| metric.id(description))?;
        id.split_once('.').map(|(_, name)| name.to_owned())
    })
}

pub(crate) async fn prometheus(State(served): State<Served>) -> impl IntoResponse {
    let jobs: Vec<_> = served
        .session
        .masters()
        .into_iter()
        .filter_map(|master| Some((master.job()?, master)))
        .map(|(job, master)| (rates(&served, master.id()), master.metrics(&job), master, job.description()))
        .collect();
    let views: Vec<JobView<'_>> = jobs
        .iter()
        .map(|(rates, metrics, master, description)| JobView {
            id: master.id(),
            description,
            metrics,
            rates: rates.as_ref(),
        })
        .collect();
    let place = Place { host: "localhost", tm_id: TASK_MANAGER };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(place, &views))
}
