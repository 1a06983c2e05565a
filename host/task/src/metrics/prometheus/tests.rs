//! The text, read by a parser of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metrics::tests::{described, job};
use crate::metrics::{Histogram, rates::Sampler};

/// A sample: its name and labels.
type Key = (String, BTreeMap<String, String>);

/// Reads the text as the format says; panics where it is broken: a sample without a type, a family in two places, a
/// sample twice, a label that does not end.
fn parse(text: &str) -> BTreeMap<Key, f64> {
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut family = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, sort) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "summary"].contains(&sort), "{line}");
            assert!(families.insert(name.to_owned()), "two families {name}");
            family = (name.to_owned(), sort.to_owned());
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap();
        let (name, rest) = line.split_at(end);
        let base = match family.1.as_str() {
            "summary" => name.strip_suffix("_count").or_else(|| name.strip_suffix("_sum")).unwrap(),
            _ => name,
        };
        assert_eq!(base, family.0, "a sample outside its family");
        let (labels, value) = labels(rest.strip_prefix('{').unwrap());
        let value = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            number => number.parse().unwrap(),
        };
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }
    samples
}

fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), after.chars());
        loop {
            match chars.next().unwrap() {
                '"' => break,
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("no escape: \\{c}"),
                }),
                c => value.push(c),
            }
        }
        labels.insert(name.to_owned(), value);
        rest = chars.as_str();
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, rest.strip_prefix("} ").unwrap()),
        }
    }
}

const PLACE: Place<'_> = Place { host: "localhost", tm_id: "local" };

fn find<'a>(samples: &'a BTreeMap<Key, f64>, name: &str, label: (&str, &str)) -> Vec<(&'a Key, f64)> {
    let is_it = |key: &Key| key.0 == name && key.1.get(label.0).is_some_and(|value| value == label.1);
    samples.iter().filter(|(key, _)| is_it(key)).map(|(key, value)| (key, *value)).collect()
}

#[test]
fn names_and_labels_are_flinks() {
    let (description, metrics) = (described(), job());
    let view = JobView { id: "ab", description: &description, metrics: &metrics, rates: None };
    let samples = parse(&text(PLACE, &[view]));
    let task = ("task_name", "Source: a -> Map");
    let found = find(&samples, "flink_taskmanager_job_task_numRecordsOut", task);
    let [(key, value)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*value, 7.0);
    let expected = [
        ("host", "localhost"),
        ("job_id", "ab"),
        ("job_name", "say \"hi\"\\\n"),
        ("tm_id", "local"),
        ("task_id", description.vertices[0].id.as_str()),
        ("task_name", "Source: a -> Map"),
        ("task_attempt_num", "0"),
        ("subtask_index", "0"),
    ];
    assert_eq!(key.1, expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect());
    let restarts = find(&samples, "flink_jobmanager_job_numRestarts", ("job_id", "ab"));
    assert_eq!(restarts.len(), 1);
    assert_eq!(
        find(&samples, "millstream_taskmanager_job_task_operator_numTraps", ("operator_name", "Map")).len(),
        1
    );
    // A source has no guest.
    let of_source = ("operator_name", "Source: a");
    assert!(find(&samples, "millstream_taskmanager_job_task_operator_numTraps", of_source).is_empty());
}

#[test]
fn the_guests_own_have_flinks_names_and_take_none_of_the_engines() {
    let (description, mut metrics) = (described(), job());
    let uid = description.vertices[0].operators[1].uid.as_str();
    metrics.user.counters.insert((uid.into(), "seen so far".into()), 3);
    metrics.user.counters.insert((uid.into(), "seen.so.far".into()), 4);
    metrics.user.counters.insert((uid.into(), "numRecordsIn".into()), 5);
    metrics.user.gauges.insert((uid.into(), "seen_so_far".into()), 1.5);
    metrics
        .user
        .histograms
        .insert((uid.into(), "lengths".into()), Histogram { count: 2, sum: 5.0, min: 1.0, max: 4.0 });
    let view = JobView { id: "ab", description: &description, metrics: &metrics, rates: None };
    let samples = parse(&text(PLACE, &[view]));
    let of = |name: &str| {
        let name = format!("flink_taskmanager_job_task_operator_{name}");
        find(&samples, &name, ("operator_name", "Map")).iter().map(|(_, value)| *value).collect::<Vec<_>>()
    };
    assert_eq!(of("seen_so_far"), [3.0], "of names that become one the first is shown");
    assert_eq!(of("user_numRecordsIn"), [5.0]);
    assert_eq!(of("numRecordsIn").len(), 1);
    assert_eq!(
        [of("lengths_count"), of("lengths_sum"), of("lengths_min"), of("lengths_max")].concat(),
        [2.0, 5.0, 1.0, 4.0]
    );
}

#[test]
fn two_jobs_are_in_one_family() {
    let (description, metrics) = (described(), job());
    let view = |id| JobView { id, description: &description, metrics: &metrics, rates: None };
    let samples = parse(&text(PLACE, &[view("a"), view("b")]));
    for id in ["a", "b"] {
        assert_eq!(find(&samples, "flink_jobmanager_job_uptime", ("job_id", id)).len(), 1);
    }
}

#[test]
fn every_name_of_the_engines_is_there() {
    let (description, metrics) = (described(), job());
    let mut sampler = Sampler::default();
    sampler.sample(std::time::Duration::ZERO, &metrics);
    let rates = sampler.rates();
    let view = JobView { id: "ab", description: &description, metrics: &metrics, rates: Some(&rates) };
    let text = text(PLACE, &[view]);
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in all_names() {
        assert!(shown.contains(name.as_str()), "{name} is missing");
    }
}

#[test]
fn numbers_are_written_as_prometheus_reads_them() {
    assert_eq!([0.0, 1.5, f64::INFINITY, f64::NEG_INFINITY].map(number), ["0", "1.5", "+Inf", "-Inf"]);
    assert_eq!(number(f64::NAN), "NaN");
    assert_eq!(number(i64::MIN as f64).parse(), Ok(i64::MIN as f64));
}
