//! Harm in a call: the row is found, the others go on.

use std::time::Duration;

use platform::{Clock, spawn_thread};

use crate::support::{run, run_with};

const TEXT: &str = "one\ntwo\nbad\nthree\nfour\n";

/// With the policy to skip, the one bad row is left out and all others pass, whatever the deed;
/// with the policy to fail, the user is told what it was.
fn contained(job: &str, told: &str) {
    let skipped = run(job, TEXT, "skip");
    skipped.outcome.unwrap_or_else(|error| panic!("{job}: {error}"));
    assert_eq!(skipped.lines, ["one", "two", "three", "four"], "{job}");
    assert_eq!(skipped.progress.rows_skipped, 1, "{job}");
    let failed = run(job, TEXT, "fail");
    let error = failed.outcome.err().unwrap_or_else(|| panic!("{job} did not fail"));
    let said = error.to_string();
    assert!(said.contains(told), "{job} says: {said}");
    assert!(said.contains("Hostile"), "{job} names the function: {said}");
    assert!(said.contains("src/hostile.rs:1"), "{job} names the user's line: {said}");
    assert!(said.contains("bad"), "{job} shows the row: {said}");
    assert!(!said.contains('\x1b'), "{job} has no terminal escapes: {said}");
}

#[test]
fn an_endless_loop_is_cut_after_its_time() {
    let clock = Clock::system();
    let before = clock.now();
    let failed = run("loop", "bad\n", "fail");
    let took = clock.now() - before;
    let said = failed.outcome.unwrap_err().to_string();
    assert!(said.contains("ran longer than 1s"), "{said}");
    // Once, and once again with a fresh instance.
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn an_endless_loop_costs_its_row_only() {
    let skipped = run("loop", "good\nbad\nbetter\n", "skip");
    skipped.outcome.unwrap();
    assert_eq!(skipped.lines, ["good", "better"]);
}

/// A job that loops without end holds no other job of the process back.
#[test]
fn neighbours_go_on_beside_an_endless_loop() {
    let looping = spawn_thread("looping", || run("loop", "bad\n", "fail").outcome.is_err());
    for _ in 0..20 {
        run("plan-escapes-not", TEXT, "skip").outcome.unwrap();
    }
    assert!(!looping.is_finished(), "twenty jobs end within the time of one call");
    assert!(looping.join().unwrap());
}

#[test]
fn too_much_memory() {
    contained("memory", "bytes of memory");
    contained("grow", "bytes of memory");
}

#[test]
fn a_deep_recursion() {
    contained("stack", "overflowed its stack");
}

#[test]
fn too_much_output() {
    contained("output", "in one call");
}

#[test]
fn traps_have_a_backtrace() {
    contained("unreachable", "wasm backtrace");
    contained("bounds", "out of bounds memory access");
    contained("indirect", "wasm backtrace");
}

#[test]
fn a_panic_says_the_users_own_words() {
    contained("panic", "the user's own words, at src/mine.rs:42");
}

#[test]
fn what_is_returned_is_checked() {
    for job in [
        "length",
        "offsets-fall",
        "offsets-beyond",
        "utf8",
        "columns",
        "type",
        "port",
        "row",
        "validity",
        "node",
    ] {
        contained(job, "gave what cannot be");
    }
}

#[test]
fn a_flood_of_messages_is_cut_and_tamed() {
    let run = run("log", "bad\n", "fail");
    run.outcome.unwrap();
    assert!(!run.logs.is_empty() && run.logs.len() < 10_000, "{} messages", run.logs.len());
    for record in &run.logs {
        assert!(record.message.len() <= 8 * 1024 + 64, "{} bytes", record.message.len());
        assert!(!record.message.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "no escapes");
    }
}

#[test]
fn a_flood_of_metrics_is_bounded() {
    let run = run("metrics", "bad\n", "fail");
    run.outcome.unwrap();
    assert!((1..=100).contains(&run.metrics), "{} names", run.metrics);
    let told = run.logs.iter().filter(|record| record.message.contains("are dropped")).count();
    assert_eq!(told, 1);
}

/// The suite would notice a sandbox that lets harm through: an honest job is not "contained".
#[test]
fn an_honest_job_is_not_taken_for_a_hostile_one() {
    let honest = run("plan-escapes-not", TEXT, "skip");
    honest.outcome.unwrap();
    assert_eq!(honest.lines.len(), 5);
    assert_eq!(honest.progress.rows_skipped, 0);
}

/// What an instance costs to begin says nothing of its rows: where each call has a fresh one, calls
/// are no smaller for it.
#[test]
fn calls_are_as_large_where_each_instance_is_slow_to_begin() {
    let text = "a line\n".repeat(4_000);
    let options = task::RunOptions { chaos_instances: true, ..task::RunOptions::default() };
    let slow = run_with("slow-open", &text, "skip", options);
    slow.outcome.unwrap();
    assert_eq!(slow.lines.len(), 4_000);
    // Of 128 rows the first, then some of up to a thousand.
    assert!(slow.progress.calls < 20, "{} calls", slow.progress.calls);
}
