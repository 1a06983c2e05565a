//! Rates of given samples at given times.

use super::*;
use crate::metrics::tests::job;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rate(sampler: &Sampler, name: &str) -> f64 {
    sampler.rates().of_task(0, 0, name).unwrap()
}

#[test]
fn a_rate_is_that_of_the_window() {
    let mut sampler = Sampler::default();
    assert_eq!(sampler.rates(), Rates::default());
    let mut metrics = job();
    metrics.vertices[0].subtasks[0].records_out = 0;
    sampler.sample(at(0), &metrics);
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 0.0);
    // 100 rows a second for a minute, then none.
    for second in (5..=60).step_by(5) {
        metrics.vertices[0].subtasks[0].records_out = second * 100;
        sampler.sample(at(second), &metrics);
        assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 100.0);
    }
    for second in (65..=90).step_by(5) {
        sampler.sample(at(second), &metrics);
    }
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 50.0);
    for second in (95..=120).step_by(5) {
        sampler.sample(at(second), &metrics);
    }
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 0.0);
    assert!(sampler.samples.len() <= 13, "{} samples are kept", sampler.samples.len());
}

#[test]
fn times_are_milliseconds_a_second() {
    let mut sampler = Sampler::default();
    let mut metrics = job();
    sampler.sample(at(10), &metrics);
    metrics.vertices[0].subtasks[0].spent.busy += Duration::from_millis(500);
    metrics.vertices[0].subtasks[0].spent.idle += Duration::from_millis(1_500);
    sampler.sample(at(12), &metrics);
    assert_eq!(rate(&sampler, "busyTimeMsPerSecond"), 250.0);
    assert_eq!(rate(&sampler, "idleTimeMsPerSecond"), 750.0);
}

#[test]
fn a_job_that_was_started_again_has_rates_from_then() {
    let mut sampler = Sampler::default();
    let mut metrics = job();
    metrics.vertices[0].subtasks[0].records_out = 1_000;
    sampler.sample(at(0), &metrics);
    // It has counted more than the attempt before it.
    metrics.restarts = 1;
    metrics.vertices[0].subtasks[0].records_out = 2_000;
    sampler.sample(at(5), &metrics);
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 0.0);
    metrics.vertices[0].subtasks[0].records_out = 2_050;
    sampler.sample(at(10), &metrics);
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 10.0);
    // Or less, and nobody has said so.
    metrics.vertices[0].subtasks[0].records_out = 50;
    sampler.sample(at(15), &metrics);
    assert_eq!(rate(&sampler, "numRecordsOutPerSecond"), 0.0);
}
