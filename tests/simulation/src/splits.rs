//! Watermarks by split: several files, whose times have nothing to do with each other.
//!
//! The guest fails a row that is later than its watermark; failed rows are skipped and counted.

use model::Batch;
use model::job_graph::{JobGraph, NodeKind};
use platform::Random;
use task::JobOutcome;
use task::simulation::{Fault, Report, options};
use tempfile::TempDir;

use crate::simulated::{Simulated, load, seeds};

/// The deed of `tests/guests/timers` that fails a late row.
const FAIL_LATE: i64 = -1;
const BOUND: i64 = 30;

/// The times of each file's rows, out of order by `disorder` at most.
fn files(random: &mut Random, disorder: i64) -> Vec<Vec<i64>> {
    let mut draw = |below: i64| random.below(below as u64) as i64;
    (0..1 + draw(5))
        .map(|_| {
            let start = draw(20_000) - 10_000;
            (0..1 + draw(80)).map(|i| start + i * 5 - draw(disorder + 1)).collect()
        })
        .collect()
}

/// A folder with these files, a row for each time.
fn written(files: &[Vec<i64>]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, times) in files.iter().enumerate() {
        let line =
            |at: &i64| format!(r#"{{"key":{},"at":{at},"deed":{FAIL_LATE}}}"#, at.rem_euclid(7)) + "\n";
        std::fs::write(
            folder.path().join(format!("{number}.jsonl")),
            times.iter().map(line).collect::<String>(),
        )
        .unwrap();
    }
    folder
}

fn simulate(
    simulated: &Simulated,
    files: &[Vec<i64>],
    seed: u64,
    (parallelism, batch_rows): (u32, Option<usize>),
    fault: Option<Fault>,
) -> (Report, Vec<Batch>) {
    let folder = written(files);
    let mut args = ["--input", &folder.path().display().to_string(), "--bound", &BOUND.to_string()]
        .map(str::to_owned)
        .to_vec();
    // Subtasks that wait for each other: none for ever.
    if seed % 3 == 2 {
        args.extend(["--drift".to_owned(), (seed % 40).to_string()]);
    }
    let mut options = options(seed, parallelism);
    options.sizes.batch_rows = batch_rows.unwrap_or(options.sizes.batch_rows);
    let (report, batches) = simulated.run("timers", &args, options, seed, fault);
    assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
    let all: usize = files.iter().map(Vec::len).sum();
    let came: usize = batches.iter().map(Batch::num_rows).sum();
    assert_eq!(came as u64 + report.progress.rows_skipped, all as u64, "SEED={seed}");
    (report, batches)
}

fn parallelism(seed: u64) -> u32 {
    [1, 2, 3, 7][seed as usize % 4]
}

/// No row is late where each file's disorder is within the bound.
#[test]
fn no_row_is_late_whatever_the_other_files_have() {
    let simulated = load("timers");
    for seed in seeds().into_iter().take(400) {
        let files = files(&mut Random::of_seed(seed ^ 0x5711), BOUND);
        let (report, _) = simulate(&simulated, &files, seed, (parallelism(seed), None), None);
        assert_eq!(report.progress.rows_skipped, 0, "SEED={seed}: late rows");
    }
}

/// How many rows are late, read one by one: of the last file, by its own rows. While a file waits,
/// nothing is late.
fn late(files: &[Vec<i64>]) -> u64 {
    let last = &files[files.len() - 1];
    let is_late = |row: usize| last[..row].iter().max().is_some_and(|greatest| greatest - BOUND > last[row]);
    (0..last.len()).filter(|row| is_late(*row)).count() as u64
}

/// Event time is held back by no more than it must: rows that are late by their own file are late.
#[test]
fn the_last_file_has_its_own_watermark() {
    let simulated = load("timers");
    let mut all_late = 0;
    for seed in seeds().into_iter().take(200) {
        let files = files(&mut Random::of_seed(seed ^ 0x1A7E), 3 * BOUND);
        let (report, _) = simulate(&simulated, &files, seed, (1, Some(1)), None);
        assert_eq!(report.progress.rows_skipped, late(&files), "SEED={seed}");
        all_late += late(&files);
    }
    assert!(all_late > 200 || seeds().len() == 1, "only {all_late} rows were late");
}

/// The deliberate fault: one watermark for all the splits of a subtask must show.
#[test]
fn merged_splits_are_reported() {
    let simulated = load("timers");
    let wrong = (0..40)
        .filter(|seed| {
            let files = files(&mut Random::of_seed(*seed ^ 0x5711), BOUND);
            let fault = Some(Fault::SplitsMerged);
            simulate(&simulated, &files, *seed, (parallelism(*seed), None), fault).0.progress.rows_skipped > 0
        })
        .count();
    assert!(wrong > 10, "only {wrong} of 40 runs had late rows");
}

/// The same where subtasks find their files, which are there when they look first: so many steps of a job that has no
/// end, which are enough.
fn found(simulated: &Simulated, seed: u64) -> Report {
    let files = files(&mut Random::of_seed(seed ^ 0x5711), BOUND);
    let folder = written(&files);
    let args = ["--input", &folder.path().display().to_string(), "--bound", &BOUND.to_string()];
    let change = |graph: &mut JobGraph| {
        for node in &mut graph.nodes {
            if let NodeKind::Source(connection) = &mut node.kind {
                connection.options.insert("monitor-interval".into(), "50ms".into());
            }
        }
    };
    let (options, fault) = (options(seed, parallelism(seed)), Some(Fault::Crash(20_000)));
    let (report, _) = simulated.run_with("timers", &args.map(str::to_owned), options, seed, fault, change);
    let all: usize = files.iter().map(Vec::len).sum();
    assert_eq!((report.outcome.is_none(), report.progress.rows_in), (true, all as u64), "SEED={seed}");
    report
}

#[test]
fn no_row_is_late_where_subtasks_find_their_files() {
    let simulated = load("timers");
    for seed in seeds().into_iter().take(100) {
        assert_eq!(found(&simulated, seed).progress.rows_skipped, 0, "SEED={seed}: late rows");
    }
}
