//! What subtasks spend their time with.

use std::net::TcpListener;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use connectors::{Context, Need, Sink, SinkFactory};
use model::{Batch, Diagnostic};
use platform::Clock;
use task::metrics::prometheus::{self, JobView, Place};
use task::metrics::{ExecutionState, Standing};
use task::{JobOutcome, RunOptions};

use crate::support::{all_time, plan, plan_with, sinks, start, subtasks, text, until};

/// Takes a batch every 20 ms.
struct Slow {
    clock: Clock,
    next: Duration,
}

struct SlowFactory;

impl SinkFactory for SlowFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }

    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        Ok(Box::new(Slow { clock: context.platform.clock, next: Duration::ZERO }))
    }
}

impl Sink for Slow {
    fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
        if self.clock.now() < self.next { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn write(&mut self, _: &Batch) -> Result<(), Diagnostic> {
        self.next = self.clock.now() + Duration::from_millis(20);
        Ok(())
    }

    fn wakes_at(&self) -> Option<Duration> {
        Some(self.next).filter(|next| *next > self.clock.now())
    }
}

#[test]
fn a_slow_sink_makes_the_chain_before_it_back_pressured() {
    let file = text(200_000);
    let input = file.path().display().to_string();
    let mut plan = plan("word_count", "word_count", &["--input", &input, "--output", "blackhole"], 1);
    for sink in sinks(&plan) {
        plan.replace_sink(sink, Arc::new(SlowFactory));
    }
    let job = start(plan);
    let metrics = until(&job, "half a second of back-pressure", |metrics| {
        metrics.vertices[0].subtasks[0].spent.backpressured > Duration::from_millis(500)
    });
    let (before, sink) = (&metrics.vertices[0].subtasks[0], &metrics.vertices[1].subtasks[0]);
    assert!(before.spent.backpressured > 2 * (before.spent.busy + before.spent.idle), "{before:?}");
    assert_eq!(sink.spent.backpressured, Duration::ZERO, "nothing is after it: {sink:?}");
    assert!(sink.spent.busy > 2 * sink.spent.idle, "it waits for its writing: {sink:?}");
    assert_eq!(sink.state, ExecutionState::Running);
    assert_eq!((metrics.ended_ms(), metrics.uptime_ms()), (None, metrics.now_ms - metrics.started_ms));
    let standing = |metrics: &task::JobMetrics| metrics.vertices[0].subtasks[0].standing;
    until(&job, "back-pressured when looked at", |m| standing(m) == Standing::BackPressured);
    job.cancel();
    assert!(matches!(job.wait(), JobOutcome::Cancelled));
    let ended = job.metrics();
    assert!(subtasks(&ended).all(|subtask| subtask.state == ExecutionState::Canceled), "{ended:?}");
    assert!(subtasks(&ended).all(|subtask| subtask.ended_ms.is_some()));
}

#[test]
fn a_job_that_waits_for_a_socket_is_idle() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let job = start(plan("word_count", "word_count", &["--host", "127.0.0.1", "--port", &port], 1));
    let (_peer, _) = listener.accept().unwrap();
    let metrics = until(&job, "half a second idle", |metrics| {
        subtasks(metrics).all(|subtask| subtask.spent.idle > Duration::from_millis(500))
    });
    for subtask in subtasks(&metrics) {
        assert_eq!(subtask.standing, Standing::Idle);
        assert_eq!(subtask.spent.backpressured, Duration::ZERO);
        assert!(subtask.spent.idle > 4 * subtask.spent.busy, "{subtask:?}");
    }
    // Of whoever looks twice nobody sees time go back.
    let mut last = metrics;
    for _ in 0..1_000 {
        let now = job.metrics();
        for (was, is) in subtasks(&last).zip(subtasks(&now)) {
            assert!(was.spent.idle <= is.spent.idle && was.spent.busy <= is.spent.busy, "{was:?} {is:?}");
        }
        last = now;
    }
    job.cancel();
    assert!(matches!(job.wait(), JobOutcome::Cancelled));
}

#[test]
fn latency_markers_wait_where_rows_wait() {
    let file = text(200_000);
    let input = file.path().display().to_string();
    let args = ["--input", &input, "--output", "blackhole"];
    let latency_interval = Some(Duration::from_millis(5));
    let options = RunOptions { parallelism: 2, latency_interval, ..RunOptions::default() };
    let mut plan = plan_with("word_count", "word_count", &args, options);
    for sink in sinks(&plan) {
        plan.replace_sink(sink, Arc::new(SlowFactory));
    }
    let job = start(plan);
    let metrics = until(&job, "20 markers at each sink", |metrics| {
        let came =
            |stage: &task::metrics::StageMetrics| stage.latencies.get(&0).is_some_and(|of| of.count >= 20);
        metrics.vertices[1].subtasks.iter().all(|subtask| subtask.stages.iter().all(came))
    });
    for subtask in &metrics.vertices[0].subtasks {
        assert!(subtask.stages[0].latencies.is_empty(), "a source is no way from itself");
        // It is in the same step.
        assert!(subtask.stages[1].latencies[&0].quantile(0.5) < Duration::from_millis(50), "{subtask:?}");
    }
    for subtask in &metrics.vertices[1].subtasks {
        // Rows wait at the gate for a sink that takes 20 ms a batch.
        let took = subtask.stages[1].latencies[&0].quantile(0.5);
        assert!(took >= Duration::from_millis(20), "{subtask:?}");
        assert!(took < Duration::from_secs(20), "{subtask:?}");
    }
    let description = job.description();
    let view = JobView { id: "00", description: &description, metrics: &metrics, rates: None };
    let text = prometheus::text(Place { host: "localhost", tm_id: "local" }, &[view]);
    let of_sink = description.vertices[1].stages[1].id.as_str();
    let is_median = |line: &&str| {
        line.starts_with(prometheus::LATENCY)
            && line.contains(of_sink)
            && line.contains("operator_subtask_index=\"1\"")
            && line.contains("quantile=\"0.5\"")
    };
    assert_eq!(text.lines().filter(is_median).count(), 1, "{text}");
    job.cancel();
    job.wait();
}

#[test]
fn an_idle_source_gives_markers_too_and_none_where_they_are_off() {
    let markers = |latency_interval| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let options = RunOptions { latency_interval, ..RunOptions::default() };
        let job =
            start(plan_with("word_count", "word_count", &["--host", "127.0.0.1", "--port", &port], options));
        let (_peer, _) = listener.accept().unwrap();
        until(&job, "300 ms idle", |metrics| {
            subtasks(metrics).all(|subtask| subtask.spent.idle > Duration::from_millis(300))
        });
        job.cancel();
        job.wait();
        let metrics = job.metrics();
        let came = metrics.vertices[1].subtasks[0].stages[0].latencies.get(&0).map_or(0, |of| of.count);
        (came, all_time(&metrics.vertices[0].subtasks[0]).as_millis())
    };
    assert_eq!(markers(None).0, 0);
    let (count, lived_ms) = markers(Some(Duration::from_millis(10)));
    assert!(count >= 5 && u128::from(count) <= lived_ms / 10, "{count} markers in {lived_ms} ms");
}
