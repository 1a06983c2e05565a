//! 1,000 schedules of word count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use task::simulation::{Fault, Report, options};
use task::{Execution, JobOutcome};

use crate::simulated::{Simulated, load, seeds};

/// A text whose words come again and again, on lines of every length.
fn text() -> String {
    let mut text = String::new();
    for i in 0..300u64 {
        for j in 0..i.wrapping_mul(2_654_435_761) % 9 {
            text.push_str(&format!("w{} ", (i * 7 + j * j * 13) % 53));
        }
        text.push(if i % 50 == 49 { '\r' } else { ' ' });
        text.push('\n');
    }
    text
}

/// Word and count of each row, in the order of each word's rows.
type Counts = BTreeMap<String, Vec<i64>>;

fn expected(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in text.split_whitespace() {
        let of_word = counts.entry(word.to_owned()).or_default();
        of_word.push(of_word.len() as i64 + 1);
    }
    counts
}

/// Runs word count over `input` under a seed; what it did and what it gave.
fn simulate(
    simulated: &Simulated,
    input: &Path,
    seed: u64,
    execution: Execution,
    fault: Option<Fault>,
) -> (Report, Counts) {
    let args = ["--input".to_owned(), input.display().to_string()];
    let parallelism = [1, 2, 3, 7][usize::try_from(seed % 4).unwrap()];
    let mut options = options(seed, parallelism);
    options.execution = execution;
    options.chaos_instances = seed.is_multiple_of(5);
    let (report, batches) = simulated.run("word_count", &args, options, seed, fault);
    let mut counts = Counts::new();
    for batch in batches {
        let (words, numbers) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            counts.entry(words.value(row).to_owned()).or_default().push(numbers.value(row));
        }
    }
    (report, counts)
}

/// The input as a file, since files are read in parts whose order the seed draws.
fn input() -> (tempfile::TempDir, PathBuf, Counts) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, text()).unwrap();
    (folder, file, expected(&text()))
}

#[test]
fn every_schedule_gives_the_same_counts() {
    let (_folder, file, expected) = input();
    let simulated = load("word_count");
    for seed in seeds() {
        let (report, counts) = simulate(&simulated, &file, seed, Execution::Streaming, None);
        assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
        // With several sources the words of one key come in any order, but each count once and
        // rising.
        assert!(counts == expected, "SEED={seed}: other counts than the text's");
    }
}

#[test]
fn batch_execution_gives_the_last_count_of_each_word() {
    let (_folder, file, expected) = input();
    let last: Counts = expected.into_iter().map(|(word, counts)| (word, vec![counts.len() as i64])).collect();
    let simulated = load("word_count");
    for seed in seeds().into_iter().take(50) {
        let (report, counts) = simulate(&simulated, &file, seed, Execution::Batch, None);
        assert!(matches!(report.outcome, Some(JobOutcome::Finished)), "SEED={seed}: {report:?}");
        assert!(counts == last, "SEED={seed}");
    }
}

#[test]
fn a_seed_run_twice_does_the_same_twice() {
    let (_folder, file, _) = input();
    let mut traces = Vec::new();
    for seed in seeds().into_iter().take(20) {
        let once = simulate(&load("word_count"), &file, seed, Execution::Streaming, None).0;
        let again = simulate(&load("word_count"), &file, seed, Execution::Streaming, None).0;
        assert_eq!((once.trace, once.steps), (again.trace, again.steps), "SEED={seed}");
        traces.push(once.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert!(traces.len() > 15 || seeds().len() == 1, "different seeds run differently");
}

/// The deliberate fault: when wake-ups are lost, the simulation must say that jobs stand still.
#[test]
fn a_lost_wake_up_is_reported() {
    let (_folder, file, _) = input();
    let simulated = load("word_count");
    let lost = seeds()
        .into_iter()
        .take(20)
        .filter(|seed| {
            let fault = Some(Fault::LostWakeUp(10));
            simulate(&simulated, &file, *seed, Execution::Streaming, fault).0.outcome.is_none()
        })
        .count();
    assert!(lost > 10 || seeds().len() == 1, "only {lost} of 20 runs stood still");
}
