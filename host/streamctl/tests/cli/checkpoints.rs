//! What is told of a job's checkpoints, and checkpoints under bad conditions.

use std::time::Duration;

use crate::recovery::{expected, text};
use crate::support::{Folder, Ran, component};

const CHECKPOINTS: [&str; 2] =
    ["-Dexecution.checkpointing.interval=20ms", "-Dexecution.checkpointing.dir=chk"];

/// Word count with these faults and options, from `text.txt` into `out`.
fn word_count(folder: &Folder, faults: &str, options: &[&str]) -> std::process::Command {
    let mut command = folder.command();
    command.args(["run", "-p", "2"]).args(CHECKPOINTS).args(options);
    command.args([&component("word_count"), "--input", "text.txt", "--output", "out", "--format", "json"]);
    command.env("MILLSTREAM_FAULTS", faults);
    command
}

/// The number before a word in what was said.
#[track_caller]
pub(crate) fn number(err: &str, of: &str, word: &str) -> u64 {
    let line = err.lines().find(|line| line.starts_with(of)).unwrap_or_else(|| panic!("no {of} in: {err}"));
    let before = line.split(word).next().filter(|before| *before != line);
    let before = before.unwrap_or_else(|| panic!("no {word} in: {line}"));
    before.trim_end().rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn the_end_of_a_job_says_how_its_checkpoints_were() {
    let folder = Folder::new();
    let text = text(50_000);
    folder.write("text.txt", &text);
    // Each read takes a while, so that there are some.
    let faults = "source.read=stall:10,store.sync@3=enospc";
    let ran = Ran::of(word_count(&folder, faults, &[]).output().unwrap());
    let err = &ran.succeeds().err;
    let full = "checkpoint 2 has failed: No space left on device (os error 28)";
    assert!(err.contains(&format!("WARN  checkpoints: {full}")), "{err}");
    assert!(number(err, "checkpoints: ", " complete, 1 failed; ") > 2, "{err}");
    for told in [" on average, p50 ", "; alignment at most ", "the last that failed was 2: No space left"] {
        assert!(err.contains(told), "`{told}` is not in: {err}");
    }
    assert!(folder.parts("out") == expected(&text));
    // Over restarts they are counted on.
    let folder = Folder::new();
    folder.write("text.txt", &text);
    let faults = "source.read=stall:10,store.sync@5=eio";
    let options = [
        "-Dexecution.checkpointing.tolerable-failed-checkpoints=0",
        "-Drestart-strategy.exponential-delay.initial-backoff=10ms",
    ];
    let ran = Ran::of(word_count(&folder, faults, &options).output().unwrap());
    let err = &ran.succeeds().err;
    assert!(number(err, "checkpoints: ", " complete, 1 failed, 1 restored; ") > 2, "{err}");
    // A job without checkpoints has nothing to say of them.
    let wasm = component("word_count");
    let ran = folder.streamctl(&["run", &wasm, "--input", "text.txt", "--output", "without"]);
    assert!(!ran.succeeds().err.contains("checkpoints"), "{}", ran.err);
    let refused = folder.streamctl(&["run", "-Dweb.checkpoints.history=many", &wasm, "--input", "text.txt"]);
    refused.fails(2, &["web.checkpoints.history"]);
}

#[test]
fn the_size_and_the_time_of_a_checkpoint_are_in_it() {
    let folder = Folder::new();
    folder.write("text.txt", text(100_000));
    let faults = "source.read=stall:10,store.write@7=kill";
    let ran = Ran::of(word_count(&folder, faults, &[]).output().unwrap());
    assert_eq!(ran.code, -1, "{}", ran.err);
    let job = std::fs::read_dir(folder.path("chk")).unwrap().next().unwrap().unwrap().path();
    let mut complete = std::fs::read_dir(job).unwrap().map(|entry| entry.unwrap().path());
    let path = complete.find(|path| path.join("_metadata").is_file()).unwrap();
    let shown = folder.streamctl(&["state", path.to_str().unwrap()]);
    let out = &shown.succeeds().out;
    let line = out.lines().nth(1).unwrap();
    assert!(line.starts_with("begun 20") && line.contains("Z, complete after "), "{out}");
    let size = line.rsplit(", ").next().unwrap();
    assert!(size.ends_with(" kB"), "{out}");
    let of_operator = out.lines().find(|line| line.starts_with("aggregate-sum-by-f0  Keyed")).unwrap();
    assert!(of_operator.contains(" kB"), "{out}");
}

/// How many objects are being written below `chk`.
fn being_written(folder: &Folder) -> usize {
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let checkpoints = below(folder.path("chk")).flat_map(|job| below(job.path()));
    let names = checkpoints.flat_map(|checkpoint| below(checkpoint.path())).map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".unfinished-")).count()
}

/// A checkpoint that takes longer than their interval holds the next back; there are not more and more.
#[test]
fn checkpoints_that_are_slower_than_their_interval_do_not_pile_up() {
    let folder = Folder::new();
    let text = text(60_000);
    folder.write("text.txt", &text);
    // Two objects each, a tenth of a second for each.
    let faults = "source.read=stall:25,store.sync=stall:100";
    let clock = platform::Clock::system();
    let start = clock.now();
    let mut child = word_count(&folder, faults, &["-Dexecution.checkpointing.interval=10ms"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(being_written(&folder));
        clock.sleep(Duration::from_millis(2));
    }
    let took = clock.now() - start;
    let ran = Ran::of(child.wait_with_output().unwrap());
    let complete = number(&ran.succeeds().err, "checkpoints: ", " complete");
    assert!(complete > 1 && u128::from(complete) <= took.as_millis() / 200 + 1, "{complete} in {took:?}");
    assert_eq!(most, 1, "so many were written at once");
    assert!(folder.parts("out") == expected(&text));
}
