//! The dashboard names what there is.

use std::collections::BTreeSet;

use serde_json::Value;
use task::RunOptions;
use task::metrics::prometheus::{JobView, Place, text};
use task::metrics::rates::Sampler;

use crate::support::{plan_with, root, start};

/// All names of metrics in the queries of a dashboard.
fn named(dashboard: &Value, names: &mut BTreeSet<String>) {
    match dashboard {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(query) if key == "expr" || key == "query" || key == "definition" => {
                        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                        let is_ours =
                            |word: &&str| word.starts_with("flink_") || word.starts_with("millstream_");
                        names.extend(words.filter(is_ours).map(str::to_owned));
                    }
                    value => named(value, names),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, names)),
        _ => {}
    }
}

#[test]
fn every_metric_of_the_dashboard_is_there() {
    let file = std::fs::read_to_string(root().join("docs/grafana/millstream.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let mut names = BTreeSet::new();
    named(&dashboard, &mut names);
    assert!(names.len() > 15, "only {names:?}");
    // A job with a source, functions, timers, event time and a sink; a marker of latency with every step.
    let latency_interval = Some(std::time::Duration::from_nanos(1));
    let options = RunOptions { latency_interval, ..RunOptions::default() };
    let job = start(plan_with("sessions", "sessions", &["--output", "blackhole"], options));
    job.wait();
    let metrics = job.metrics();
    let mut sampler = Sampler::default();
    sampler.sample(std::time::Duration::ZERO, &metrics);
    let rates = sampler.rates();
    let description = job.description();
    let view = JobView { id: "00", description: &description, metrics: &metrics, rates: Some(&rates) };
    let scraped = text(Place { host: "localhost", tm_id: "local" }, &[view]);
    let there: BTreeSet<&str> = scraped
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next())
        .filter(|word| *word != "#")
        .collect();
    for name in &names {
        assert!(there.contains(name.as_str()), "the dashboard names {name}, which is not there");
    }
}

#[test]
fn a_name_in_a_query_is_found() {
    let dashboard =
        serde_json::json!({"panels": [{"targets": [{"expr": "sum(rate(flink_x_y{a=\"b\"}[1m]))"}]}]});
    let mut names = BTreeSet::new();
    named(&dashboard, &mut names);
    assert_eq!(names, BTreeSet::from(["flink_x_y".to_owned()]));
}
