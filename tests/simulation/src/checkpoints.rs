//! Jobs that crash and go on from their last checkpoint, again and again, at another parallelism: what can be
//! seen of their output in the end is what a run without a crash gives.
//!
//! The disk under the checkpoints is a model that loses what was not made durable; blocking work that was under way
//! is done or not done. Output files are real ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::{Settings, Storage};
use model::job_graph::{JobGraph, NodeKind};
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Faults, Random};
use task::simulation::{Fault, options};
use task::{Checkpoints, JobOutcome, Restored};

use crate::simulated::{Simulated, Unheard, load, seeds};

pub(crate) const JOB_ID: &str = "00000000000000000000000000000001";

/// Checkpoints as often as this, of which so many are kept. No failure fails the job.
pub(crate) fn settings(interval: Option<Duration>, retained: usize) -> Settings {
    let (timeout, min_pause) = (Duration::from_secs(60), Duration::ZERO);
    Settings { interval, timeout, min_pause, tolerable_failures: None, retained }
}

/// Checkpoints of a job that begins from the beginning.
pub(crate) fn anew(settings: Settings, storage: Storage) -> Checkpoints {
    let (takes_over, restored, next, retained) = (false, None, 1, Vec::new());
    Checkpoints { settings, storage, job_id: JOB_ID.to_owned(), takes_over, restored, next, retained }
}

/// Crashes of a job at most.
const CRASHES: u64 = 5;

/// A job with its arguments, and how its rows are compared.
pub(crate) struct Case<'a> {
    pub(crate) job: &'a str,
    pub(crate) args: Vec<String>,
    /// Rows are a changelog, which is applied.
    pub(crate) changes: bool,
}

/// The job with files in this folder in the place of its sink.
pub(crate) fn with_files(graph: &mut JobGraph, folder: &Path, changes: bool) {
    for node in &mut graph.nodes {
        match &mut node.kind {
            NodeKind::Sink(connection) => {
                connection.connector = "files".to_owned();
                connection.options = BTreeMap::from([("path".to_owned(), folder.display().to_string())]);
                if changes {
                    connection.options.insert("changelog".into(), "retract".into());
                }
                connection.format = Some("json".to_owned());
                connection.format_options.clear();
            }
            // So slow that windows of ten seconds end meanwhile.
            NodeKind::Source(connection) if connection.connector == "nexmark" => {
                connection.options.insert("event-rate".into(), "40".into());
            }
            _ => {}
        }
    }
}

/// The rows that can be seen in a folder, with how often each is there.
pub(crate) fn seen(folder: &Path, changes: bool) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in std::fs::read_to_string(entry.path()).unwrap().lines() {
            let (row, by) = match changes {
                false => (line.to_owned(), 1),
                true => {
                    let (op, row) = line.split_once(',').unwrap();
                    (row.to_owned(), if op.contains("\"-") { -1 } else { 1 })
                }
            };
            *rows.entry(row).or_default() += by;
        }
    }
    rows.retain(|_, count| *count != 0);
    rows
}

/// Runs a job to its end, however often it crashes. What can be seen then, and how often it has gone on from a
/// checkpoint.
fn crashed_and_gone_on(
    simulated: &Simulated,
    case: &Case<'_>,
    seed: u64,
    unheard: Unheard,
) -> Result<(BTreeMap<String, i64>, u64), String> {
    let mut random = Random::of_seed(seed);
    let (disk, folder) = (ModelDisk::new(), tempfile::tempdir().unwrap());
    let storage = |disk: &ModelDisk| {
        Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), Faults::none())), JOB_ID)
    };
    let interval = Some(Duration::from_millis(1 + random.below(40)));
    let settings = settings(interval, 1 + random.below(2) as usize);
    let max_parallelism = Some(128);
    // Some crash early, some late.
    let bound = [100, 300, 1_000, 3_000][random.below(4) as usize];
    let (mut gone_on, mut parallelism) = (0, 1);
    for attempt in 0..=CRASHES {
        let storage = storage(&disk);
        let latest = storage.latest(|manifest| Restored::read(manifest, &storage));
        let latest = latest.map_err(|error| error.to_string())?;
        if !latest.damaged.is_empty() {
            return Err(format!("{:?}", latest.damaged));
        }
        storage.sweep(&[]).map_err(|error| error.to_string())?;
        let retained = storage.traces().map_err(|error| error.to_string())?;
        let restored = latest.found.map(Arc::new);
        gone_on += u64::from(restored.is_some());
        // Half go on as they were, so that their checkpoints build upon the one before.
        if attempt == 0 || random.one_in(2) {
            parallelism = [1, 2, 3, 7][random.below(4) as usize];
        }
        let mut options = options(random.bits(), parallelism);
        options.max_parallelism = max_parallelism;
        options.allow = vec![folder.path().display().to_string()];
        options.chaos_instances = seed.is_multiple_of(5);
        options.checkpoints = Some(Checkpoints {
            settings: settings.clone(),
            storage,
            job_id: JOB_ID.to_owned(),
            takes_over: attempt > 0,
            restored,
            next: latest.next,
            retained: retained.into_iter().map(|(id, _)| id).collect(),
        });
        let fault = (attempt < CRASHES).then(|| Fault::Crash(random.below(bound)));
        let change = |graph: &mut JobGraph| with_files(graph, folder.path(), case.changes);
        let report =
            simulated.run_in_files(case.job, &case.args, options, random.bits(), fault, unheard, change);
        let report = report.map_err(|error| format!("{error:?}"))?;
        if std::env::var_os("SEED").is_some() {
            println!("attempt {attempt} at {parallelism}: {} steps, fault {fault:?}", report.steps);
        }
        match report.outcome {
            Some(JobOutcome::Finished) => break,
            None if fault.is_some() => {}
            outcome => return Err(format!("attempt {attempt} ended with {outcome:?}")),
        }
        disk.crash(&mut random);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".inprogress"))
        .collect();
    if !left.is_empty() {
        return Err(format!("{left:?} are left"));
    }
    Ok((seen(folder.path(), case.changes), gone_on))
}

/// Holds a job against itself without a crash. How often it has gone on from a checkpoint.
fn hold(simulated: &Simulated, case: &Case<'_>, expected: &BTreeMap<String, i64>, seeds: &[u64]) -> u64 {
    let mut gone_on = 0;
    for seed in seeds {
        match crashed_and_gone_on(simulated, case, *seed, Unheard::Nobody) {
            Err(error) => panic!("SEED={seed}: {}: {error}", case.job),
            Ok((rows, times)) => {
                let lost = expected.iter().filter(|(row, count)| rows.get(*row) != Some(count)).take(3);
                let more = rows.iter().filter(|(row, count)| expected.get(*row) != Some(count)).take(3);
                let (lost, more): (Vec<_>, Vec<_>) = (lost.collect(), more.collect());
                assert!(
                    lost.is_empty() && more.is_empty(),
                    "SEED={seed}: {}: expected {lost:?}, got {more:?}",
                    case.job
                );
                gone_on += times;
            }
        }
    }
    gone_on
}

pub(crate) fn words() -> (tempfile::TempDir, Case<'static>, BTreeMap<String, i64>) {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: u64| (0..i % 9).map(|j| format!("w{} ", (i * 7 + j * j * 13) % 53)).collect::<String>();
    let text: String = (0..400u64).map(|i| line(i) + "\n").collect();
    let mut expected = BTreeMap::new();
    let mut counts = BTreeMap::<&str, u64>::new();
    for word in text.split_whitespace() {
        let count = counts.entry(word).or_default();
        *count += 1;
        expected.insert(format!("{{\"word\":\"{word}\",\"count\":{count}}}"), 1);
    }
    let path = folder.path().join("text.txt");
    std::fs::write(&path, &text).unwrap();
    let args = vec!["--input".to_owned(), path.display().to_string()];
    (folder, Case { job: "word_count", args, changes: false }, expected)
}

#[test]
fn each_word_is_counted_once_whatever_crashes() {
    let (_folder, case, expected) = words();
    let seeds: Vec<u64> = seeds().into_iter().take(300).collect();
    let gone_on = hold(&load("word_count"), &case, &expected, &seeds);
    assert!(gone_on > 100 || seeds.len() == 1, "only {gone_on} times went it on from a checkpoint");
}

/// The deliberate fault: sinks that do not hear of the checkpoint that the job goes on from.
#[test]
fn sinks_that_forget_are_reported() {
    let (_folder, case, expected) = words();
    let simulated = load("word_count");
    let is_wrong = |seed: &u64| match crashed_and_gone_on(&simulated, &case, *seed, Unheard::Sinks) {
        Err(_) => true,
        Ok((rows, _)) => rows != expected,
    };
    let reported = (0..40u64).filter(is_wrong).count();
    assert!(reported > 10, "only {reported} of 40 were found");
}

#[test]
fn queries_give_the_same_final_rows_whatever_crashes() {
    let simulated = load("nexmark");
    let cases = [
        ("q0", false),
        ("q3", false),
        ("q4", true),
        ("q5", true),
        ("q7", false),
        ("q8", false),
        ("q9", true),
        ("q11", false),
        ("q15", true),
        ("q16", true),
        ("q17", true),
        ("q18", true),
        ("q20", false),
    ];
    let mut gone_on = 0;
    for (job, changes) in cases {
        let case = Case { job, args: ["--events", "1500"].map(str::to_owned).to_vec(), changes };
        let folder = tempfile::tempdir().unwrap();
        let change = |graph: &mut JobGraph| with_files(graph, folder.path(), changes);
        let mut straight = options(1, 1);
        straight.allow = vec![folder.path().display().to_string()];
        let straight = simulated.run_in_files(job, &case.args, straight, 1, None, Unheard::Nobody, change);
        assert!(matches!(straight.unwrap().outcome, Some(JobOutcome::Finished)), "{job}");
        let expected = seen(folder.path(), changes);
        assert!(!expected.is_empty(), "{job}");
        let seeds: Vec<u64> = seeds().into_iter().take(8).collect();
        gone_on += hold(&simulated, &case, &expected, &seeds);
    }
    assert!(gone_on > 40 || seeds().len() == 1, "only {gone_on} times went they on from a checkpoint");
}
