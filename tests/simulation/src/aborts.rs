//! What is told of checkpoints, some of which fail, and what these leave behind: nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use checkpoint::statistics::{Statistics, Status};
use checkpoint::{Storage, Tracker};
use model::job_graph::JobGraph;
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Clock, Disk, Faults};
use task::JobOutcome;
use task::simulation::options;

use crate::checkpoints::{Case, JOB_ID, anew, seen, settings, with_files, words};
use crate::simulated::{Simulated, Unheard, load, seeds};

/// A job whose store fails.
struct Run {
    disk: ModelDisk,
    folder: tempfile::TempDir,
    storage: Storage,
    told: Statistics,
}

/// Runs a job to its end, with a checkpoint each millisecond and these faults of its store.
fn run(simulated: &Simulated, case: &Case<'_>, seed: u64, faults: &str, retained: usize) -> Run {
    let (disk, folder) = (ModelDisk::new(), tempfile::tempdir().unwrap());
    let storage = |faults| Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), faults)), JOB_ID);
    let tracker = Arc::new(Mutex::new(Tracker::new(100_000)));
    let mut options = options(seed, [1, 2, 3][usize::try_from(seed % 3).unwrap()]);
    options.allow = vec![folder.path().display().to_string()];
    options.checkpoint_tracker = Arc::clone(&tracker);
    options.checkpoints = Some(anew(
        settings(Some(Duration::from_millis(1)), retained),
        storage(Faults::parse(faults, &Clock::simulated()).unwrap()),
    ));
    let change = |graph: &mut JobGraph| with_files(graph, folder.path(), case.changes);
    let report =
        simulated.run_in_files(case.job, &case.args, options, seed, None, Unheard::Nobody, change).unwrap();
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
    let told = tracker.lock().unwrap().statistics();
    let storage = storage(Faults::none());
    Run { disk, folder, storage, told }
}

#[test]
fn each_checkpoint_is_told_as_it_was() {
    let (_folder, case, _) = words();
    let simulated = load("word_count");
    let mut sizes = 0;
    for seed in seeds().into_iter().take(40) {
        let faults = "store.write@1=enospc,store.sync@4=eio,store.rename@9=eio";
        let Run { storage, told, .. } = run(&simulated, &case, seed, faults, usize::MAX);
        let there = storage.traces().unwrap();
        assert!(there.iter().all(|(_, is_complete)| *is_complete), "SEED={seed}: {there:?}");
        let counts = told.counts;
        assert_eq!((counts.completed, counts.in_progress), (there.len() as u64, 0), "SEED={seed}");
        assert_eq!(counts.total, counts.completed + counts.failed, "SEED={seed}");
        // Those after the last may not have come to be.
        assert!((1..=3).contains(&counts.failed), "SEED={seed}: {counts:?}");
        for report in &told.history {
            assert_eq!(report.num_acknowledged_subtasks, report.num_subtasks, "SEED={seed}: {report:?}");
            let of_tasks: u64 = report.tasks.values().map(|task| task.state_size).sum();
            assert_eq!(report.state_size, of_tasks, "SEED={seed}: {report:?}");
            if report.status == Status::Failed {
                let why = report.failure_message.as_deref().unwrap();
                assert!(why.contains("os error"), "SEED={seed}: {why}");
                assert!(!there.contains(&(report.id, true)), "SEED={seed}: {report:?}");
                continue;
            }
            let manifest = storage.manifest(report.id).and_then(|manifest| storage.check(manifest)).unwrap();
            assert_eq!(report.state_size, manifest.bytes(), "SEED={seed}: {report:?}");
            assert_eq!(report.trigger_timestamp, manifest.began, "SEED={seed}");
            let until_parts = Duration::from_millis(manifest.duration);
            assert!(report.end_to_end_duration >= until_parts, "SEED={seed}: {report:?}");
            sizes = sizes.max(report.state_size);
        }
        let longest = told.history.iter().filter(|report| report.status == Status::Completed);
        let longest = longest.map(|report| report.end_to_end_duration).max().unwrap();
        let summary = told.summary.end_to_end_duration.max;
        assert_eq!(summary.as_micros(), longest.as_micros(), "SEED={seed}");
    }
    assert!(sizes > 1_000, "nothing had state");
}

/// The paths of all files below a folder, whatever their names.
fn all_in(disk: &ModelDisk, folder: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for name in disk.list(folder).unwrap() {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match path.strip_suffix('/') {
            Some(below) => paths.extend(all_in(disk, below)),
            None => paths.push(path),
        }
    }
    paths.sort_unstable();
    paths
}

#[test]
fn a_hundred_that_are_given_up_leave_nothing_behind() {
    let (_folder, case, expected) = words();
    let simulated = load("word_count");
    let points = ["store.write", "store.sync", "store.rename", "store.sync-folder"];
    let faults = points.iter().flat_map(|point| (1..=25).map(move |nth| format!("{point}@{nth}=eio")));
    let faults = faults.collect::<Vec<_>>().join(",");
    for seed in seeds().into_iter().take(20) {
        let Run { disk, folder, storage, told } = run(&simulated, &case, seed, &faults, 1);
        // They fail one after the other, and then no more.
        assert_eq!(told.counts.failed, 100, "SEED={seed}");
        let last = told.latest.completed.unwrap().id;
        let manifest = storage.manifest(last).and_then(|manifest| storage.check(manifest)).unwrap();
        let mut named: Vec<String> = manifest.files.into_keys().collect();
        named.push(format!("{JOB_ID}/chk-{last}/_metadata"));
        named.sort_unstable();
        assert_eq!(all_in(&disk, ""), named, "SEED={seed}");
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(name.starts_with("part-"), "SEED={seed}: {name} is left");
        }
        assert!(seen(folder.path(), false) == expected, "SEED={seed}: other rows");
    }
}
