//! Timers by the real clock.

use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::time::Duration;

use platform::Clock;

use crate::support::{Folder, Ran, component};

/// A timer fires though no row comes: the worker that sleeps wakes for it.
#[test]
fn a_timer_of_processing_time_fires_while_the_input_waits() {
    let folder = Folder::new();
    let mut child = folder.start(&["run", "-q", "-p", "2", &component("timers"), "--input", "-"]);
    let due = Clock::system().wall_ms() + 300;
    // The guest fails timers for multiples of 13.
    let due = due + i64::from(due % 13 == 0);
    let mut input = child.stdin.take().unwrap();
    writeln!(input, r#"{{"key":4,"at":1000,"deed":5,"time":{due}}}"#).unwrap();
    input.flush().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().ends_with("(0,4,1000,1)"));
    // The input stays open: nothing but the clock makes the next row.
    assert!(lines.next().unwrap().ends_with(&format!("(2,4,{due},1)")));
    assert!(Clock::system().wall_ms() >= due);
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// Timers that fail are counted; the log has the first only.
#[test]
fn failed_timers_do_not_flood_the_log() {
    let folder = Folder::new();
    let row = |i: i64| format!("{{\"key\":{},\"at\":{i},\"deed\":1,\"time\":{}}}\n", i % 7, 13 * (100 + i));
    let input: String = (0..300).map(row).collect();
    let ran = folder.with_stdin(&["run", &component("timers"), "--input", "-"], input.as_bytes());
    let warnings = ran.succeeds().err.lines().filter(|line| line.contains("failed: a time of 13s")).count();
    assert_eq!(warnings, 1, "{}", ran.err);
    assert!(ran.err.contains("300 timers failed and were dropped"), "{}", ran.err);
}

/// A job that waits says how far event time is, and what holds it back.
#[test]
fn who_holds_event_time_back_is_said() {
    let folder = Folder::new();
    let second: String = (0..50).map(|i| format!("{{\"key\":1,\"at\":{i},\"deed\":0}}\n")).collect();
    let second = folder.write("second.jsonl", second);
    let args = ["run", &component("timers"), "--bound", "10", "--input", "-", "--second", &second];
    let mut child = folder.start(&args);
    let mut input = child.stdin.take().unwrap();
    writeln!(input, r#"{{"key":4,"at":1000,"deed":0}}"#).unwrap();
    input.flush().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let rows: Vec<String> = lines.by_ref().take(51).collect();
    assert!(rows.iter().any(|row| row.contains("(0,4,1000,1)")), "{rows:?}");
    // The watermark is said right after the rows, and so is the file's end.
    Clock::system().sleep(Duration::from_millis(300));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let told = Ran::of(child.wait_with_output().unwrap()).err;
    let expected = "event time: watermark 1970-01-01T00:00:00.989, by subtask 1 of 1 of `Watermarks`";
    assert!(told.contains(expected), "{told}");
}

/// A source of several files says which of them holds event time back.
#[test]
fn the_file_that_holds_event_time_back_is_said() {
    let folder = Folder::new();
    // The first file is long, so that the second waits while it is read.
    let rows: String = (0..400_000).map(|i| format!("{{\"key\":1,\"at\":{i},\"deed\":0}}\n")).collect();
    folder.write("in/a.jsonl", rows);
    folder.write("in/b.jsonl", "{\"key\":1,\"at\":5,\"deed\":0}\n");
    let mut child = folder.start(&["run", &component("timers"), "--input", "in"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().is_some());
    // Nobody reads on: the job waits for its sink, in the middle of the first file.
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    lines.for_each(drop);
    let told = Ran::of(child.wait_with_output().unwrap()).err;
    assert!(told.contains("event time: no watermark yet: `in/b.jsonl` waits to be read"), "{told}");
}
