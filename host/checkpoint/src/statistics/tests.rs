//! What is told of checkpoints, by example.

use serde_json::json;

use super::*;
use crate::manifest::{JobName, Operator, Place, Section, Subtask};

fn at(ms: u64) -> Moment {
    Moment { wall_ms: 1_000_000 + i64::try_from(ms).unwrap(), now: Duration::from_millis(ms) }
}

fn took(alignment: u64, sync: u64, rest: u64) -> Took {
    let [alignment, sync, rest] = [alignment, sync, rest].map(Duration::from_millis);
    // As many bytes came meanwhile.
    let processed = u64::try_from(alignment.as_millis()).unwrap();
    Took { alignment, sync, rest, processed }
}

fn answer(uid: &str, bytes: u64, took: Took) -> Answer<'_> {
    Answer { uid, name: "Count", subtask: 0, bytes, took }
}

/// Makes a checkpoint of two subtasks that takes so long.
fn make(tracker: &mut Tracker, id: CheckpointId, kind: Kind, ms: u64) {
    let start = id * 1_000;
    tracker.triggered(id, kind, 2, at(start));
    tracker.acknowledged(
        id,
        [answer("count", 60, took(2, 1, 3)), answer("sink", 5, took(2, 0, 0))],
        at(start + 1),
    );
    tracker.acknowledged(id, [answer("count", 40, took(7, 0, 4))], at(start + 2));
    tracker.completed(id, at(start + ms));
}

#[test]
fn a_checkpoint_is_told_with_its_operators() {
    let mut tracker = Tracker::default();
    tracker.triggered(7, Kind::Checkpoint, 2, at(10));
    tracker.acknowledged(7, [answer("count", 60, took(2, 1, 3)), answer("sink", 5, took(2, 0, 0))], at(14));
    let under_way = tracker.statistics();
    assert_eq!((under_way.counts.in_progress, under_way.counts.total), (1, 1));
    assert_eq!(under_way.history[0].status, Status::InProgress);
    tracker.acknowledged(7, [answer("count", 40, took(7, 0, 4))], at(15));
    // It builds upon another, of which it has a hundred bytes.
    let job = JobName { id: "ab".into(), name: "job".into(), component: String::new() };
    let mut manifest = Manifest::new(job, 7);
    let place = |path: &str, length| Place::File { path: path.into(), offset: 0, length };
    let section = |place| Section { kind: "0.values".into(), layer: 0, place };
    let sections = vec![
        section(place("ab/chk-6/data-0", 100)),
        section(place("data-0", 98)),
        section(Place::Inline("ab".into())),
    ];
    let subtasks = vec![Subtask { is_finished: false, sections }];
    let (parallelism, max_parallelism) = (1, 128);
    let name = "Count".to_owned();
    let operator = Operator { name, parallelism, max_parallelism, subtasks, tables: Vec::new() };
    manifest.operators.insert("count".into(), operator);
    let place = Place::File { path: "ab/chk-7/sink".into(), offset: 0, length: 5 };
    let subtasks = vec![Subtask {
        is_finished: false,
        sections: vec![Section { kind: "prepared".into(), layer: 0, place }],
    }];
    let name = "Sink".to_owned();
    let operator = Operator { name, parallelism, max_parallelism, subtasks, tables: Vec::new() };
    manifest.operators.insert("sink".into(), operator);
    tracker.sized(&manifest);
    tracker.completed(7, at(20));
    // What comes late is of no checkpoint.
    tracker.acknowledged(7, [answer("count", 1, took(1, 1, 1))], at(21));
    assert!(tracker.failed(7, "late", at(22)).is_none());

    let json = serde_json::to_value(tracker.statistics()).unwrap();
    let counts = json!({ "restored": 0, "total": 1, "in_progress": 0, "completed": 1, "failed": 0 });
    assert_eq!(json["counts"], counts);
    let expected = json!({
        "id": 7,
        "status": "COMPLETED",
        "checkpoint_type": "CHECKPOINT",
        "is_savepoint": false,
        "trigger_timestamp": 1_000_010,
        "latest_ack_timestamp": 1_000_015,
        "end_to_end_duration": 10,
        "checkpointed_size": 105,
        "state_size": 205,
        // Two of one subtask, whatever operators it has, and seven of the other.
        "processed_data": 9,
        "alignment_duration": 7,
        "sync_duration": 1,
        "async_duration": 4,
        "num_subtasks": 2,
        "num_acknowledged_subtasks": 2,
        "discarded": false,
        "tasks": {
            "count": {
                "name": "Count",
                "num_acknowledged_subtasks": 2,
                "latest_ack_timestamp": 1_000_015,
                "end_to_end_duration": 5,
                "checkpointed_size": 100,
                "state_size": 200,
                "alignment_duration": 7,
                "sync_duration": 1,
                "async_duration": 4,
            },
            "sink": {
                "name": "Count",
                "num_acknowledged_subtasks": 1,
                "latest_ack_timestamp": 1_000_014,
                "end_to_end_duration": 4,
                "checkpointed_size": 5,
                "state_size": 5,
                "alignment_duration": 2,
                "sync_duration": 0,
                "async_duration": 0,
            },
        },
    });
    assert_eq!(json["history"], json!([expected]));
    assert_eq!(json["latest"]["completed"], expected);
    assert_eq!(json["summary"]["end_to_end_duration"]["p99"], 10);
    assert_eq!(json["summary"]["alignment_duration"]["max"], 7);
    assert_eq!(json["summary"]["processed_data"]["max"], 9);
}

#[test]
fn the_last_few_are_kept_and_all_are_counted() {
    let mut tracker = Tracker::new(3);
    for id in 1..=5 {
        make(&mut tracker, id, Kind::Checkpoint, 10 * id);
        tracker.removed(id - 1);
    }
    let stop = Some(Stop::Suspend);
    tracker.triggered(6, Kind::Savepoint { stop }, 2, at(6_000));
    let reason = "the disk is full";
    let failed = tracker.failed(6, reason, at(6_500)).unwrap();
    assert_eq!(
        (failed.checkpoint_type, failed.failure_timestamp),
        (CheckpointType::SyncSavepoint, Some(1_006_500))
    );
    make(&mut tracker, 7, Kind::Savepoint { stop }, 70);
    let told = tracker.statistics();
    let counts = Counts { restored: 0, total: 7, in_progress: 0, completed: 6, failed: 1 };
    assert_eq!(told.counts, counts);
    let history: Vec<_> =
        told.history.iter().map(|report| (report.id, report.status, report.discarded)).collect();
    let expected = [(7, Status::Completed, false), (6, Status::Failed, false), (5, Status::Completed, false)];
    assert_eq!(history, expected);
    assert_eq!(told.latest.failed.unwrap().failure_message.as_deref(), Some(reason));
    assert_eq!(told.latest.completed.unwrap().id, 5);
    assert_eq!(told.latest.savepoint.unwrap().id, 7);
    let durations = told.summary.end_to_end_duration;
    let ms = Duration::from_millis;
    assert_eq!((durations.min, durations.max), (ms(10), ms(70)));
    // Of 10, 20, 30, 40, 50, 70.
    assert_eq!(
        (durations.p50, durations.p90, durations.avg),
        (ms(30), ms(70), Duration::from_micros(36_666))
    );
    assert_eq!(told.summary.state_size.avg, 105);
}

#[test]
fn one_that_the_job_does_not_see_the_end_of_has_failed() {
    let mut tracker = Tracker::default();
    tracker.triggered(1, Kind::Checkpoint, 2, at(0));
    tracker.ended("the job has ended", at(5));
    tracker.ended("the job has ended", at(6));
    let job = JobName { id: "ab".into(), name: "job".into(), component: String::new() };
    tracker.restored(&Manifest::new(job, 0), at(7));
    let told = tracker.statistics();
    let counts = Counts { restored: 1, total: 1, in_progress: 0, completed: 0, failed: 1 };
    assert_eq!(told.counts, counts);
    let restored = Restoration { id: 0, restore_timestamp: 1_000_007, is_savepoint: false };
    assert_eq!(told.latest.restored, Some(restored));
    assert_eq!(told.summary, Summary::default());
}

#[test]
fn quantiles_are_of_the_last_thousand() {
    let mut samples = Samples::default();
    (0..2_000).for_each(|value| samples.add(value));
    let spread = samples.spread();
    assert_eq!((spread.min, spread.max, spread.avg), (0, 1_999, 999));
    assert_eq!((spread.p50, spread.p95, spread.p99, spread.p999), (1_499, 1_949, 1_989, 1_998));
}
