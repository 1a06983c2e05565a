//! Guests in languages without an SDK: the contract must be pleasant and exact from there too.
//!
//! Each has the jobs `word_count` and `sessions_count` (a keyed function with state and timers over
//! events out of order), the one in Python a more general `sessions` too. They are compared with
//! what a few lines of Rust make of the same input.
#![cfg(test)]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use platform::Random;
use tempfile::TempDir;

/// The guests that `scripts/test` has built.
const GUESTS: [&str; 2] = ["python", "c"];

struct Ran {
    code: Option<i32>,
    rows: Vec<String>,
    told: String,
}

fn run(guest: &str, options: &[&str], input: &str) -> Ran {
    run_with(guest, options, input, &[])
}

/// Runs a job over this input; its rows without the subtasks' numbers, sorted.
fn run_with(guest: &str, options: &[&str], input: &str, arguments: &[&str]) -> Ran {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, input).unwrap();
    let output = Command::new(built::streamctl())
        .arg("run")
        .args(options)
        .arg(built::pilot(guest))
        .arg("--input")
        .arg(file)
        .args(arguments)
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

/// Each parallelism, with an instance that lives and with a fresh one for every call.
const RUNS: [&[&str]; 6] = [
    &["-p", "1"],
    &["-p", "2"],
    &["-p", "3"],
    &["-p", "1", "--chaos-instances"],
    &["-p", "2", "--chaos-instances"],
    &["-p", "3", "--chaos-instances"],
];

/// The guest's job gives these rows in each of the runs; what the runs said.
fn gives(guest: &str, job: &str, input: &str, expected: &[String]) -> Vec<String> {
    let check = |options: &&[&str]| {
        let ran = run(guest, &[&["-c", job], *options].concat(), input);
        assert_eq!((ran.code, &ran.rows[..]), (Some(0), expected), "{guest} {options:?}: {}", ran.told);
        ran.told
    };
    RUNS.iter().map(check).collect()
}

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
        gives(guest, "word_count", &text, &expected);
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
    for i in 0..1_200i64 {
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
    for told in gives("python", "sessions", &input, &expected) {
        assert!(told.contains("failed and skipped"), "{told}");
    }
}

/// JSON lines of events out of order, some without a user, and the sessions in them as rows. What
/// comes late joins no two sessions: a user's events are clearly less, or clearly more, than `GAP` apart.
fn events(seed: u64) -> (String, Vec<String>) {
    let mut random = Random::of_seed(seed);
    let mut below = |bound: i64| random.below(bound as u64) as i64;
    let (mut arrivals, mut sessions) = (Vec::new(), Vec::new());
    for user in 0..40 {
        let mut at = below(2 * GAP) - 20_000;
        for _ in 0..2 + below(12) {
            let count = 1 + below(8);
            for event in 0..count {
                at += if event == 0 { GAP + DISORDER + 1 + below(20_000) } else { below(GAP - DISORDER) };
                arrivals.push((at + below(DISORDER), format!(r#"{{"user":"u{user}","at":{at}}}"#)));
                if below(50) == 0 {
                    arrivals.push((at, format!(r#"{{"user":"","at":{at}}}"#)));
                }
            }
            sessions.push(format!("(u{user},{count},{at})"));
        }
    }
    arrivals.sort_unstable();
    sessions.sort_unstable();
    (arrivals.into_iter().fold(String::new(), |text, (_, line)| text + &line + "\n"), sessions)
}

#[test]
fn a_timer_is_moved_by_each_event() {
    // A fresh instance costs Python milliseconds.
    let runs = [("python", 5)].into_iter().chain((5..15).map(|seed| ("c", seed)));
    for (guest, seed) in runs {
        let (input, expected) = events(seed);
        // One split: two would be read side by side, which is a greater disorder.
        assert!(input.len() < 64 * 1024, "{}", input.len());
        let failing = input.matches(r#""user":"""#).count();
        assert!(failing > 10, "{failing}");
        for told in gives(guest, "sessions_count", &input, &expected) {
            assert!(told.contains(&format!("{failing} failed and skipped")), "{told}");
            assert!(told.contains("timers fired"), "{told}");
        }
    }
}

#[test]
fn a_folder_gets_json() {
    for guest in GUESTS {
        let folder = TempDir::new().unwrap();
        let folder = folder.path().join("out");
        let arguments = ["--output", folder.to_str().unwrap()];
        let ran = run_with(guest, &["-c", "sessions_count"], "{\"user\":\"u\",\"at\":7}\n", &arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.told);
        let written = std::fs::read_to_string(folder.join("part-0-0.json")).unwrap();
        assert_eq!(written, "{\"user\":\"u\",\"count\":1,\"last\":7}\n", "{guest}");
    }
}

#[test]
fn a_guest_has_last_words() {
    let python = ["ValueError: told to raise", "in process", "row 2: (!raise)"];
    // The backtrace names C's functions.
    let c = ["told to abort by a line", "split", "row 2: (!abort)"];
    for (guest, line, words) in [("python", "!raise", python), ("c", "!abort", c)] {
        let ran = run(guest, &["-c", "word_count"], &format!("fine\n{line}\n"));
        assert_eq!(ran.code, Some(1), "{}", ran.told);
        for told in words {
            assert!(ran.told.contains(told), "`{told}` is not in: {}", ran.told);
        }
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for guest in GUESTS {
        let ran = run_with(guest, &["-c", "word_count"], "", &["--inptu", "x"]);
        assert_eq!(ran.code, Some(2), "{guest}: {}", ran.told);
        assert!(ran.told.contains("Usage: "), "{guest}: {}", ran.told);
    }
}

#[test]
fn no_rows_are_no_trouble() {
    for (guest, job) in
        GUESTS.into_iter().flat_map(|guest| [(guest, "word_count"), (guest, "sessions_count")])
    {
        for told in gives(guest, job, "", &[]) {
            assert!(told.contains("0 rows in"), "{guest} {job}: {told}");
        }
    }
}
