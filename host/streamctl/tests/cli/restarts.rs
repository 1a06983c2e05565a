//! Jobs that fail, and are restarted as the strategy says.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::recovery::{LINES, checkpoints, expected, text};
use crate::support::{Folder, Ran, component};

const CHECKPOINTS: [&str; 4] = [
    "-Dexecution.checkpointing.interval=20ms",
    "-Dexecution.checkpointing.dir=chk",
    // The first that cannot be written fails the job.
    "-Dexecution.checkpointing.tolerable-failed-checkpoints=0",
    "-Drestart-strategy.exponential-delay.initial-backoff=10ms",
];

/// Runs word count with checkpoints and these faults.
fn counted(folder: &Folder, faults: &str, options: &[&str]) -> Ran {
    let wasm = component("word_count");
    let mut command = folder.command();
    command.args(["run", "-p", "2"]).args(CHECKPOINTS).args(options);
    command.args([&wasm, "--input", "text.txt", "--output", "out", "--format", "json"]);
    Ran::of(command.env("MILLSTREAM_FAULTS", faults).output().unwrap())
}

#[test]
fn a_job_that_fails_goes_on_from_its_last_checkpoint() {
    let folder = Folder::new();
    let text = text(100_000);
    folder.write("text.txt", &text);
    // Each attempt lasts as long as some checkpoints.
    let faults = "store.sync@1=eio,store.sync@5=eio,store.sync@8=enospc,source.read=stall:60";
    let ran = counted(&folder, faults, &[]);
    let err = &ran.succeeds().err;
    assert!(folder.parts("out") == expected(&text), "other rows than the text's: {err}");
    assert_eq!(checkpoints(&folder), 1, "more is left than is kept");
    for told in [
        "job word_count has failed; restart 1 follows in 0.01 s",
        "checkpoints fail",
        "(os error 5)",
        // Before the first is complete there is nothing to go on from.
        "job word_count begins from the beginning",
        "restart 2 follows",
        "job word_count goes on from checkpoint",
        "(os error 28)",
        "all since the last of its 3 restarts",
    ] {
        assert!(err.contains(told), "`{told}` is not in: {err}");
    }
}

#[test]
fn a_job_that_fails_while_it_is_restored_is_restored_again() {
    let folder = Folder::new();
    let text = text(50_000);
    folder.write("text.txt", &text);
    // Once it has failed nothing can be read, three times in a row.
    let faults = "store.sync@4=eio,store.read@1=eio,store.read@2=eio,store.read@3=eio";
    let ran = counted(&folder, faults, &[]);
    let err = &ran.succeeds().err;
    assert!(err.contains("restart 4 follows") && !err.contains("restart 5"), "{err}");
    assert!(err.contains("checkpoints in `chk` cannot be read"), "{err}");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's: {err}");
    assert_eq!(checkpoints(&folder), 1);
}

#[test]
fn a_process_that_ends_while_it_restores_restores_again() {
    let folder = Folder::new();
    let text = text(LINES);
    folder.write("text.txt", &text);
    let restore = ["--restore", "latest"];
    assert_eq!(counted(&folder, "store.write@4=kill", &restore).code, -1);
    for nth in [1, 2, 1] {
        assert_eq!(counted(&folder, &format!("store.read@{nth}=kill"), &restore).code, -1);
    }
    counted(&folder, "", &restore).succeeds();
    assert!(folder.parts("out") == expected(&text));
    assert_eq!(checkpoints(&folder), 1);
}

#[test]
fn a_restart_knows_the_checkpoints_of_this_run_only() {
    let folder = Folder::new();
    let text = text(20_000);
    folder.write("text.txt", &text);
    counted(&folder, "", &[]).succeeds();
    std::fs::remove_dir_all(folder.path("out")).unwrap();
    // There is the last one of a run before, which has finished.
    let ran = counted(&folder, "store.sync@1=eio", &[]);
    assert!(ran.succeeds().err.contains("begins from the beginning"), "{}", ran.err);
    assert!(folder.parts("out") == expected(&text), "{}", ran.err);
}

/// Lines of a name and a number, the last of them below 0.
fn rows() -> String {
    let rows = (0..3_000).map(|i| format!("n{},{}\n", i * 7 % 23, i % 101));
    rows.chain(["n5,-1\n".to_owned()]).collect()
}

/// Runs a job whose first attempts fail in the guest.
fn failing(folder: &Folder, times: u32, options: &[&str]) -> Ran {
    folder.write("rows.csv", rows());
    let (wasm, times) = (component("operators"), times.to_string());
    let mut command = folder.command();
    command.args(["run", "-p", "2", "-c", "failing"]).args(options);
    command.args([&wasm, "--input", "rows.csv", "--output", "out", "--format", "text", "--times", &times]);
    Ran::of(command.output().unwrap())
}

/// The sums of each row's name, in the order of rows; as in files, by an account of its own.
fn expected_sums() -> Vec<String> {
    let mut sums = BTreeMap::<String, i64>::new();
    let mut lines: Vec<String> = rows()
        .lines()
        .map(|line| {
            let (name, number) = line.split_once(',').unwrap();
            let sum = sums.entry(name.to_owned()).or_default();
            *sum += number.parse::<i64>().unwrap();
            format!("({name},{sum})")
        })
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_function_that_fails_is_opened_again_with_the_number_of_the_attempt() {
    for options in [
        &CHECKPOINTS[..],
        &[
            "-Drestart-strategy.type=fixed-delay",
            "-Drestart-strategy.fixed-delay.attempts=3",
            "-Drestart-strategy.fixed-delay.delay=5ms",
        ],
    ] {
        let folder = Folder::new();
        let ran = failing(&folder, 3, options);
        let err = &ran.succeeds().err;
        assert!(err.contains("restart 3 follows") && err.contains("as told"), "{err}");
        assert_eq!(visible(&folder), expected_sums(), "{err}");
    }
}

/// The lines of part files that can be seen.
fn visible(folder: &Folder) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder.path("out")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("part-") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort_unstable();
    lines
}

#[test]
fn without_a_strategy_the_first_failure_is_the_last() {
    for options in [&[][..], &[CHECKPOINTS[0], CHECKPOINTS[1], "-Drestart-strategy.type=none"]] {
        let folder = Folder::new();
        let ran = failing(&folder, 1, options);
        ran.fails(1, &["as told"]);
        assert!(!ran.err.contains("restart"), "{}", ran.err);
    }
}

#[test]
fn too_many_failures_at_once_are_the_end() {
    let folder = Folder::new();
    let rate = [
        "-Drestart-strategy.type=failure-rate",
        "-Drestart-strategy.failure-rate.max-failures-per-interval=2",
        "-Drestart-strategy.failure-rate.delay=5ms",
    ];
    let ran = failing(&folder, 1_000, &rate);
    ran.fails(
        1,
        &["as told", "restart 2 follows", "it is not restarted: it has failed 3 times within 60000 ms"],
    );
    assert!(!ran.err.contains("restart 3"), "{}", ran.err);
    // Two failures are not too many.
    let folder = Folder::new();
    failing(&folder, 2, &rate).succeeds();
}

#[test]
fn attempts_have_an_end() {
    let folder = Folder::new();
    let fixed = [
        "-Drestart-strategy.type=fixed-delay",
        "-Drestart-strategy.fixed-delay.attempts=2",
        "-Drestart-strategy.fixed-delay.delay=0s",
    ];
    failing(&folder, 1_000, &fixed).fails(1, &["as told", "it has been restarted 2 times"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_restart() {
    let folder = Folder::new();
    folder.write("rows.csv", rows());
    let wasm = component("operators");
    let mut command = folder.command();
    command.args(["run", "-c", "failing", "-Drestart-strategy.type=fixed-delay"]);
    command.args(["-Drestart-strategy.fixed-delay.delay=1h", &wasm, "--input", "rows.csv"]);
    command.args(["--output", "out", "--times", "1"]);
    let err = folder.path("err.txt");
    let mut child = command.stderr(std::fs::File::create(&err).unwrap()).spawn().unwrap();
    while !std::fs::read_to_string(&err).unwrap().contains("restart 1 follows in 3600.00 s") {
        platform::Clock::system().sleep(Duration::from_millis(5));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let err = std::fs::read_to_string(&err).unwrap();
    assert!(err.contains("Job failing was stopped"), "{err}");
}
