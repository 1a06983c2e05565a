//! Guests in languages without an SDK: the contract must be pleasant and exact from there too.
//!
//! Each has the jobs `word_count` and `sessions` (a keyed function with state and timers over
//! events out of order), which are compared with what a few lines of Rust make of the same input.
#![cfg(test)]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use platform::Random;
use tempfile::TempDir;

/// The guests that `scripts/test` has built.
const GUESTS: [&str; 1] = ["python"];

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
}

struct Ran {
    code: Option<i32>,
    rows: Vec<String>,
    told: String,
}

/// Runs a job over this input; its rows without the subtasks' numbers, sorted.
fn run(guest: &str, options: &[&str], input: &str) -> Ran {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, input).unwrap();
    let component = target().join("pilots").join(format!("{guest}.wasm"));
    assert!(component.exists(), "{} is missing; `scripts/test` builds it", component.display());
    let output = Command::new(target().join("release/streamctl"))
        .arg("run")
        .args(options)
        .arg(component)
        .arg("--input")
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| match line.split_once("> ") {
        Some((subtask, row)) if subtask.bytes().all(|b| b.is_ascii_digit()) => row.to_owned(),
        _ => line.to_owned(),
    };
    let mut rows: Vec<String> = text.lines().map(row).collect();
    rows.sort_unstable();
    Ran { code: output.status.code(), rows, told: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// Each parallelism, with fresh instances for some.
const RUNS: [&[&str]; 4] = [&["-p", "1"], &["-p", "2"], &["-p", "3"], &["-p", "2", "--chaos-instances"]];

#[test]
fn words_are_counted() {
    let mut text = String::new();
    let mut random = Random::of_seed(3);
    for _ in 0..400 {
        for _ in 0..random.below(12) {
            write!(text, "wört{} ", random.below(50)).unwrap();
        }
        text.push('\n');
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut expected: Vec<String> = text
        .split_whitespace()
        .map(|word| {
            let count = counts.entry(word).or_default();
            *count += 1;
            format!("({word},{count})")
        })
        .collect();
    expected.sort_unstable();
    for guest in GUESTS {
        for options in RUNS {
            let ran = run(guest, &[&["-c", "word_count"], options].concat(), &text);
            assert_eq!(
                (ran.code, ran.rows),
                (Some(0), expected.clone()),
                "{guest} {options:?}: {}",
                ran.told
            );
        }
    }
}

/// A session is a run of a user's events less than this apart, in milliseconds.
const GAP: i64 = 5_000;
/// Events come at most this late.
const DISORDER: i64 = 1_000;

#[test]
fn sessions_end_by_timers() {
    let mut random = Random::of_seed(4);
    let mut input = String::new();
    let mut by_user: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for i in 0..3_000i64 {
        let user = random.below(40);
        let at = i * 120 - random.below(DISORDER as u64) as i64 - 50_000;
        if random.one_in(50) {
            // Fails, and the others go on.
            writeln!(input, r#"{{"user":"","at":{at}}}"#).unwrap();
            continue;
        }
        writeln!(input, r#"{{"user":"u{user}","at":{at}}}"#).unwrap();
        by_user.entry(user).or_default().push(at);
    }
    let mut expected = Vec::new();
    for (user, times) in &mut by_user {
        times.sort_unstable();
        for session in times.chunk_by(|one, next| next - one < GAP) {
            let (start, end) = (session[0], session[session.len() - 1]);
            expected.push(format!("(u{user},{start},{end},{})", session.len()));
        }
    }
    expected.sort_unstable();
    for guest in GUESTS {
        for options in RUNS {
            let ran = run(guest, &[&["-c", "sessions"], options].concat(), &input);
            assert_eq!(
                (ran.code, ran.rows),
                (Some(0), expected.clone()),
                "{guest} {options:?}: {}",
                ran.told
            );
            assert!(ran.told.contains("failed and skipped"), "{}", ran.told);
        }
    }
}

#[test]
fn an_exception_is_the_guests_last_words() {
    let ran = run("python", &["-c", "word_count"], "fine\n!raise\n");
    assert_eq!(ran.code, Some(1), "{}", ran.told);
    for told in ["ValueError: told to raise", "in process", "row 2: (!raise)"] {
        assert!(ran.told.contains(told), "`{told}` is not in: {}", ran.told);
    }
    let refused = run("python", &["-c", "word_count"], "").told;
    assert!(refused.contains("0 rows in"), "{refused}");
}
