//! Metrics as Prometheus's text (format 0.0.4). Names and labels are those of Flink's `PrometheusReporter`; what Flink
//! has not begins with `millstream_` in place of `flink_`.

use std::collections::BTreeMap;

use super::names::{self, About, JOB, Metric, OPERATOR, OPERATOR_RATES, Scope, Sort, TASK, TASK_RATES};
use super::rates::Rates;
use super::{JobDescription, JobMetrics};

/// What the text is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A job to be shown.
#[derive(Clone, Copy)]
pub struct JobView<'a> {
    /// 32 hexadecimal digits.
    pub id: &'a str,
    /// What it is made of.
    pub description: &'a JobDescription,
    /// What it has counted.
    pub metrics: &'a JobMetrics,
    /// How fast that rises, where it is known.
    pub rates: Option<&'a Rates>,
}

/// Where the jobs run.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The label `host`.
    pub host: &'a str,
    /// The label `tm_id`.
    pub tm_id: &'a str,
}

/// Metrics of one name.
struct Family {
    sort: &'static str,
    help: String,
    /// Each once: what follows the name, and the value.
    samples: BTreeMap<String, String>,
}

/// Families by name: no two of one.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

impl Families {
    /// Adds a sample; where its name is another sort's already, or the very sample is there, it is left out.
    fn add(
        &mut self,
        name: &str,
        (sort, help): (&'static str, &str),
        suffix: &str,
        labels: &Labels,
        value: f64,
    ) {
        let new = || Family { sort, help: help.to_owned(), samples: BTreeMap::new() };
        let family = self.0.entry(name.to_owned()).or_insert_with(new);
        if family.sort == sort {
            family.samples.entry(format!("{suffix}{}", labels.0)).or_insert_with(|| number(value));
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, Family { sort, help, samples }) in &self.0 {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {sort}\n"));
            for (rest, value) in samples {
                text.push_str(&format!("{name}{rest} {value}\n"));
            }
        }
        text
    }
}

/// `{a="b",c="d"}`
struct Labels(String);

impl Labels {
    fn of(labels: &[(&str, &str)]) -> Self {
        let each = labels.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        });
        Self(format!("{{{}}}", each.collect::<Vec<_>>().join(",")))
    }
}

/// As Prometheus reads numbers.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        format!("{value}")
    }
}

/// A name with `_` in place of what names may not have.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' || c == '_' { c } else { '_' }).collect()
}

/// The name of a metric: `flink_taskmanager_job_task_numRecordsIn`.
#[must_use]
pub fn name_of(scope: Scope, about: &About) -> String {
    let whose = if about.is_flinks { "flink" } else { "millstream" };
    format!("{whose}_{}_{}", scope_name(scope), about.name)
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Job => "jobmanager_job",
        Scope::Task { .. } => "taskmanager_job_task",
        Scope::Operator { .. } => "taskmanager_job_task_operator",
    }
}

/// The metrics of jobs as text.
#[must_use]
pub fn text(place: Place<'_>, jobs: &[JobView<'_>]) -> String {
    let mut families = Families::default();
    for job in jobs {
        let of_job = [("job_id", job.id), ("job_name", job.description.name.as_str())];
        for metric in names::list(job.description, job.metrics, job.rates) {
            add(&mut families, place, job, &of_job, &metric);
        }
        latencies(&mut families, place, job, &of_job);
        users(&mut families, place, job, &of_job);
    }
    families.text()
}

fn add(
    families: &mut Families,
    place: Place<'_>,
    job: &JobView<'_>,
    of_job: &[(&str, &str)],
    metric: &Metric,
) {
    let sort = match metric.about.sort {
        Sort::Counter => "counter",
        Sort::Gauge | Sort::Rate => "gauge",
    };
    let help = match metric.about.unit {
        "" => metric.about.meaning.to_owned(),
        unit => format!("{} ({unit})", metric.about.meaning),
    };
    let attempt = job.metrics.restarts.to_string();
    let mut labels = vec![("host", place.host)];
    labels.extend(of_job);
    let number;
    if let Scope::Task { vertex, subtask } | Scope::Operator { vertex, subtask, .. } = metric.scope {
        let Some(of) = job.description.vertices.get(vertex) else { return };
        number = subtask.to_string();
        labels.extend([
            ("tm_id", place.tm_id),
            ("task_id", of.id.as_str()),
            ("task_name", of.name.as_str()),
            ("task_attempt_num", attempt.as_str()),
            ("subtask_index", number.as_str()),
        ]);
        if let Scope::Operator { stage, .. } = metric.scope {
            let Some(of) = of.stages.get(stage) else { return };
            labels.extend([("operator_id", of.id.as_str()), ("operator_name", of.name.as_str())]);
        }
    }
    let name = name_of(metric.scope, metric.about);
    families.add(&name, (sort, &help), "", &Labels::of(&labels), metric.value.number());
}

/// What the summary of latencies is called.
pub const LATENCY: &str =
    "flink_taskmanager_job_latency_source_id_operator_id_operator_subtask_index_latency";
/// Which quantiles it has, Flink's.
const QUANTILES: [(f64, &str); 6] =
    [(0.5, "0.5"), (0.75, "0.75"), (0.95, "0.95"), (0.98, "0.98"), (0.99, "0.99"), (0.999, "0.999")];

/// How long latency markers have taken.
fn latencies(families: &mut Families, place: Place<'_>, job: &JobView<'_>, of_job: &[(&str, &str)]) {
    let about = ("summary", "How long markers took from a source to an operator, as rows do (ms)");
    for (of, vertex) in job.description.vertices.iter().zip(&job.metrics.vertices) {
        for task in &vertex.subtasks {
            let subtask = task.subtask.to_string();
            for (stage, counted) in of.stages.iter().zip(&task.stages) {
                for (source, latency) in &counted.latencies {
                    let Some(source) = job.description.vertices.get(*source as usize) else { continue };
                    let mut labels = vec![("host", place.host)];
                    labels.extend(of_job);
                    labels.extend([
                        ("tm_id", place.tm_id),
                        ("source_id", source.id.as_str()),
                        ("operator_id", stage.id.as_str()),
                        ("operator_subtask_index", subtask.as_str()),
                    ]);
                    families.add(LATENCY, about, "_count", &Labels::of(&labels), latency.count as f64);
                    for (part, name) in QUANTILES {
                        let took = latency.quantile(part).as_secs_f64() * 1e3;
                        let labels: Vec<_> = labels.iter().copied().chain([("quantile", name)]).collect();
                        families.add(LATENCY, about, "", &Labels::of(&labels), took);
                    }
                }
            }
        }
    }
}

/// The guests' own, over all subtasks of an operator. One that is called as one of the engine's has `user_` before it.
fn users(families: &mut Families, place: Place<'_>, job: &JobView<'_>, of_job: &[(&str, &str)]) {
    let labels = |uid: &str| {
        let mut labels = vec![("host", place.host)];
        labels.extend(of_job);
        labels.push(("tm_id", place.tm_id));
        let vertices = job.description.vertices.iter();
        let found =
            vertices.flat_map(|of| of.operators.iter().map(move |o| (of, o))).find(|(_, o)| o.uid == uid);
        if let Some((of, operator)) = found {
            labels.extend([
                ("task_id", of.id.as_str()),
                ("task_name", of.name.as_str()),
                ("operator_id", operator.id.as_str()),
                ("operator_name", operator.name.as_str()),
            ]);
        }
        Labels::of(&labels)
    };
    let name = |name: &str| {
        let user = if is_taken(name) { "user_" } else { "" };
        format!("flink_taskmanager_job_task_operator_{user}{}", plain(name))
    };
    let user = &job.metrics.user;
    for ((uid, counter), value) in &user.counters {
        let about = ("counter", "A counter of the component's own.");
        families.add(&name(counter), about, "", &labels(uid), *value as f64);
    }
    for ((uid, gauge), value) in &user.gauges {
        families.add(&name(gauge), ("gauge", "A gauge of the component's own."), "", &labels(uid), *value);
    }
    for ((uid, histogram), all) in &user.histograms {
        let (name, labels) = (name(histogram), labels(uid));
        let about = ("summary", "A histogram of the component's own.");
        families.add(&name, about, "_count", &labels, all.count as f64);
        families.add(&name, about, "_sum", &labels, all.sum);
        families.add(&format!("{name}_min"), ("gauge", "The least of its samples."), "", &labels, all.min);
        families.add(&format!("{name}_max"), ("gauge", "The greatest of its samples."), "", &labels, all.max);
    }
}

/// Whether an operator has a metric of the engine's that becomes this name.
fn is_taken(name: &str) -> bool {
    let name = plain(name);
    OPERATOR.iter().any(|of| of.0.name == name) || OPERATOR_RATES.iter().any(|of| of.0.name == name)
}

/// The names of all metrics of the engine's.
#[must_use]
pub fn all_names() -> Vec<String> {
    let (task, operator) =
        (Scope::Task { vertex: 0, subtask: 0 }, Scope::Operator { vertex: 0, subtask: 0, stage: 0 });
    let job = JOB.iter().map(|of| name_of(Scope::Job, &of.0));
    let tasks = TASK.iter().map(|of| &of.0).chain(TASK_RATES.iter().map(|of| &of.0));
    let operators = OPERATOR.iter().map(|of| &of.0).chain(OPERATOR_RATES.iter().map(|of| &of.0));
    job.chain(tasks.map(|about| name_of(task, about)))
        .chain(operators.map(|about| name_of(operator, about)))
        .collect()
}

#[cfg(test)]
mod tests;
