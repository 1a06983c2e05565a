//! Figures of runs to the end.

use task::metrics::{ExecutionState, JobMetrics, StageMetrics};
use task::{Job, JobOutcome};

use crate::support::{all_time, plan, start, subtasks, text};

/// The sum over a stage's subtasks.
fn sum(metrics: &JobMetrics, (vertex, stage): (usize, usize), of: fn(&StageMetrics) -> u64) -> u64 {
    metrics.vertices[vertex].sum(|subtask| of(&subtask.stages[stage]))
}

fn finished(job: &Job) -> JobMetrics {
    assert!(matches!(job.wait(), JobOutcome::Finished));
    job.metrics()
}

#[test]
fn what_leaves_a_chain_comes_to_the_next() {
    const LINES: u64 = 50_000;
    let file = text(LINES as usize);
    let input = file.path().display().to_string();
    let job = start(plan("word_count", "word_count", &["--input", &input, "--output", "blackhole"], 2));
    let metrics = finished(&job);
    let description = job.description();
    let names: Vec<&str> = description.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
    assert_eq!(
        names,
        ["Source: files -> Flat Map", "Keyed Aggregation: sum -> Sink: blackhole"],
        "as a user reads them"
    );
    let inputs = &description.vertices[1].inputs;
    assert_eq!((inputs.len(), inputs[0].from, inputs[0].ship_strategy), (1, 0, "HASH"));
    assert_eq!((description.slots, description.vertices[0].parallelism), (2, 2));

    let [from, to] = &metrics.vertices[..] else { panic!("two chains") };
    assert_eq!(from.sum(|subtask| subtask.records_in), 0, "a source gets nothing from others");
    assert_eq!(from.sum(|subtask| subtask.records_out), 5 * LINES);
    assert_eq!(to.sum(|subtask| subtask.records_in), 5 * LINES);
    assert_eq!(to.sum(|subtask| subtask.records_out), 0);
    assert_eq!(from.sum(|subtask| subtask.bytes_out), to.sum(|subtask| subtask.bytes_in));
    // Words of two bytes and more, with a count each.
    assert!(to.sum(|subtask| subtask.bytes_in) >= 5 * LINES * 6);

    let (source, split, total, sink) = ((0, 0), (0, 1), (1, 0), (1, 1));
    assert_eq!(sum(&metrics, source, |stage| stage.records_in), LINES);
    assert_eq!(sum(&metrics, source, |stage| stage.bytes_read), std::fs::metadata(&input).unwrap().len());
    assert_eq!(sum(&metrics, source, |stage| stage.records_out), LINES, "a source gives what it has read");
    assert_eq!(sum(&metrics, split, |stage| stage.records_in), LINES);
    assert_eq!(sum(&metrics, split, |stage| stage.records_out), 5 * LINES);
    assert_eq!(sum(&metrics, total, |stage| stage.records_in), 5 * LINES);
    assert_eq!(sum(&metrics, total, |stage| stage.records_out), 5 * LINES);
    assert_eq!(sum(&metrics, sink, |stage| stage.records_in), 5 * LINES);
    assert_eq!(sum(&metrics, sink, |stage| stage.records_out), 5 * LINES);

    // Each word is a key of one subtask: 1,009 numbers, `to` and `be`.
    assert_eq!(sum(&metrics, total, |stage| stage.state_keys), 1_009 + 2);

    for subtask in subtasks(&metrics) {
        assert_eq!(subtask.state, ExecutionState::Finished);
        let lived = subtask.ended_ms.unwrap() - subtask.started_ms;
        let spent = i64::try_from(all_time(subtask).as_millis()).unwrap();
        assert!((spent - lived).abs() <= 5, "{lived} ms of life, {spent} ms spent: {subtask:?}");
        assert!(subtask.spent.busy.as_millis() > 0, "{subtask:?}");
    }
    for subtask in &from.subtasks {
        let split = &subtask.stages[1];
        assert!(split.calls > 0 && split.guest <= subtask.spent.busy, "{subtask:?}");
        assert!(split.boundary.as_nanos() > 0 && split.boundary < split.guest, "{subtask:?}");
        // The SDK's stack alone takes so much.
        assert!(split.guest_memory >= 64 << 10, "{subtask:?}");
    }
    let ended = subtasks(&metrics).filter_map(|subtask| subtask.ended_ms).max();
    assert_eq!(metrics.ended_ms(), ended);
    assert_eq!(metrics.uptime_ms(), ended.unwrap() - metrics.started_ms);
    assert_eq!(
        job.metrics(),
        JobMetrics { now_ms: job.metrics().now_ms, ..metrics },
        "nothing moves any more"
    );
}

#[test]
fn watermarks_are_seen_at_each_operator_and_the_components_own_counters_too() {
    // A click a second, then one of the day before.
    let times = (0..3_000).map(|n| format!("2026-03-02T00:{:02}:{:02}Z", n / 60, n % 60));
    let times = times.chain(["2026-03-01T00:00:00Z".to_owned()]);
    let line = |at: String| format!("{{\"user\": \"ann\", \"at\": \"{at}\", \"page\": \"help\"}}\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), times.map(line).collect::<String>()).unwrap();
    let input = file.path().display().to_string();
    let args = ["--input", &input, "--output", "blackhole", "--disorder", "0", "--gap", "1"];
    let job = start(plan("sessions", "sessions", &args, 1));
    let metrics = finished(&job);
    let description = job.description();
    // Just before the last click.
    let watermark = Some(1_772_409_600_000 + 2_999_000 - 1);
    for (of, counted) in description.vertices.iter().zip(&metrics.vertices) {
        for stage in 0..of.stages.len() {
            let (name, figures) = (&of.stages[stage].name, &counted.subtasks[0].stages[stage]);
            let comes_after_watermarks = name.contains("Sessions") || name.contains("Sink");
            if comes_after_watermarks {
                assert_eq!(figures.input_watermark, watermark, "{name}: {figures:?}");
            }
        }
    }
    let sessions =
        description.vertices.iter().flat_map(|of| &of.operators).find(|o| o.name.contains("Sessions"));
    let sessions = sessions.unwrap_or_else(|| panic!("{description:?}"));
    let late = (sessions.uid.as_str().into(), "late".to_owned());
    assert_eq!(metrics.user.counters.get(&late), Some(&1), "{:?}", metrics.user);
    let fired: u64 =
        subtasks(&metrics).flat_map(|subtask| &subtask.stages).map(|stage| stage.timers_fired).sum();
    assert!(fired > 0);
}
