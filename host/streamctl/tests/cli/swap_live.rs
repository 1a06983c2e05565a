//! What changes of a running job beside its code, and changes that are asked for at bad times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use platform::Clock;
use serde_json::Value;

use crate::session::Session;
use crate::support::{Folder, component};
use crate::swap::Tally;

const ROWS: i64 = 400_000;
/// Each so manieth row comes so many milliseconds late.
const EACH: i64 = 50;
const BEHIND: i64 = 100_000;

/// The windows that came out more than once, and the numbers of the rows that were late.
fn windows(folder: &Folder) -> (usize, BTreeSet<i64>) {
    let mut windows: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    let mut late = BTreeSet::new();
    let files = std::fs::read_dir(folder.path("out")).into_iter().flatten().flatten();
    let is_whole = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().starts_with("part-");
    let texts = files.filter(is_whole).map(|file| std::fs::read_to_string(file.path()).unwrap());
    for row in texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
        let row: Vec<Value> =
            serde_json::from_str::<BTreeMap<String, Value>>(&row).unwrap().into_values().collect();
        let text = row.iter().find_map(Value::as_str).unwrap();
        match text.strip_prefix("late ") {
            Some(number) => {
                late.insert(number.parse().unwrap());
            }
            None => {
                let numbers: Vec<i64> = row.iter().filter_map(Value::as_i64).collect();
                *windows.entry((numbers[0], numbers[1])).or_default() += 1;
            }
        }
    }
    (windows.values().filter(|count| **count > 1).count(), late)
}

#[test]
fn windows_take_late_rows_for_another_time_from_a_barrier_on() {
    let folder = Folder::new();
    let row = |number: i64| {
        let at = number - if number % EACH == 0 { BEHIND } else { 0 };
        format!("{{\"key\":{},\"at\":{},\"number\":{number}}}\n", number % 7, at + 1_000_000)
    };
    folder.write("rows.json", (0..ROWS).map(row).collect::<String>());
    let session = Session::start(&folder, 4, 300);
    let wasm = component("operators");
    let args = |lateness: &'static str| {
        let input = ["--input", "rows.json", "--output", "out", "--format", "json"];
        [&input[..], &["--windows", "tumbling", "--with", "rows", "--lateness", lateness]].concat()
    };
    let options = ["-d", "-p", "2", "-c", "windows", "-Dexecution.checkpointing.interval=50ms", &wasm];
    let ran = session.ask(&folder, "run", &[&options[..], &args("1000")].concat());
    let id = ran.succeeds().out.strip_prefix("Job has been submitted with JobID ").unwrap();
    let id = id.trim().to_owned();
    session.wait_until(&folder, &id, "RUNNING");
    let clock = Clock::system();
    let wait_until = |is_there: &dyn Fn() -> bool| {
        let end = clock.now() + Duration::from_secs(60);
        while !is_there() {
            assert!(clock.now() < end, "it does not come");
            clock.sleep(Duration::from_millis(50));
        }
    };
    wait_until(&|| !windows(&folder).1.is_empty());
    let other = [&[id.as_str(), wasm.as_str(), "--"][..], &args("1000000")].concat();
    let diff = session.ask(&folder, "diff", &other);
    let said = ["lateness was 1 s, and is 1000 s", "The running job can take it over"];
    said.iter().for_each(|said| assert!(diff.succeeds().out.contains(said), "{}", diff.out));
    session.ask(&folder, "swap", &other).succeeds();
    // Windows that had gone stay gone: for so long rows are late still.
    wait_until(&|| windows(&folder).0 > 10);
    session.ask(&folder, "swap", &[&id, "--back"]).succeeds();
    session.wait_until(&folder, &id, "FINISHED");
    let (again, late) = windows(&folder);
    // Late by the first version, in their windows by the second, late again.
    let behind: Vec<bool> =
        (0..ROWS).filter(|number| number % EACH == 0).map(|number| late.contains(&number)).collect();
    let mut turns = behind.clone();
    turns.dedup();
    // The first rows are not late for anybody.
    let turns = turns.strip_prefix(&[false]).unwrap_or(&turns);
    assert_eq!(turns, [true, false, true], "{} of {} were late", late.len(), behind.len());
    assert!(again > 10 && late.iter().all(|number| number % EACH == 0), "{again}");
}

/// Changes that are asked for while the job is restarted again and again: each is refused, or done, or it is said that
/// one has to look.
#[test]
fn changes_during_recovery_are_refused_or_done() {
    let folder = Folder::new();
    // At each of these a subtask fails, and with it the attempt.
    let cuts: Vec<String> = (1..9).map(|nth| format!("barrier.cut@{}=eio", 300 * nth)).collect();
    let session = Session::with_faults(&folder, 4, &format!("source.read=stall:400,{}", cuts.join(",")));
    let options = [
        "-Drestart-strategy.type=fixed-delay",
        "-Drestart-strategy.fixed-delay.attempts=100",
        "-Drestart-strategy.fixed-delay.delay=1s",
    ];
    let job = Tally::begin(&folder, session, &options);
    let input = ["b.wasm", "--", "--input", "rows.csv", "--output", "out", "--format", "json", "--release"];
    let (mut said, mut release) = (BTreeMap::<&str, usize>::new(), 2);
    while job.session.status(&folder, &job.id) != "FINISHED" {
        let number = release.to_string();
        let asked = job.ask("swap", &[&input[..], &[&number]].concat());
        let what = match asked.code {
            0 => {
                release = 3 - release;
                "done"
            }
            _ if asked.err.contains("is not running") => "not running",
            _ if asked.err.contains("has ended while it was changing") => "unknown",
            _ if asked.err.contains("has not changed") => "given up",
            _ if asked.err.contains("Nothing differs") => "the same",
            _ => panic!("{} {}", asked.out, asked.err),
        };
        *said.entry(what).or_default() += 1;
    }
    println!("{said:?}");
    let of = |what| said.get(what).copied().unwrap_or(0);
    assert!(of("done") > 0 && of("not running") > 0, "{said:?}");
    let listed: Value = serde_json::from_str(&job.ask("versions", &["--json"]).succeeds().out).unwrap();
    let ran = listed["versions"].as_array().unwrap().len();
    for (name, releases) in job.releases(&["out"]) {
        assert!(releases.len() <= ran, "{name} was counted by {releases:?}, and there were {ran} versions");
    }
}
