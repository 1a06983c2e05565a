//! What happens while a job changes to another version: the process ends, a checkpoint is made, another change is asked
//! for.

use std::collections::BTreeMap;
use std::time::Duration;

use platform::Clock;
use serde_json::Value;

use crate::session::{PATIENCE, Session};
use crate::support::{Folder, Ran, component};
use crate::swap::Tally;

const ROWS: u64 = 400_000;
const KEYS: u64 = 97;

/// Of a job without regular checkpoints: the change's is the first.
const POINTS: [&str; 9] = [
    "swap.begin",
    "swap.change",
    "swap.changed",
    "barrier.sent",
    "subtask.acknowledge",
    "checkpoint.manifest",
    "checkpoint.stored",
    "checkpoint.complete",
    "swap.end",
];

#[test]
fn a_process_that_ends_at_any_step_of_a_change_loses_nothing_and_is_of_one_version_or_the_other() {
    let wasm = component("operators");
    let mut seen = Vec::new();
    for point in POINTS {
        let folder = Folder::new();
        let text: String = (0..ROWS).map(|number| format!("n{},{number}\n", number % KEYS)).collect();
        folder.write("rows.csv", text);
        let mut session = Session::with_faults(&folder, 4, &format!("source.read=stall:400,{point}@1=kill"));
        let args = [&wasm, "--input", "rows.csv", "--output", "out", "--format", "json"];
        let options = ["-d", "-p", "2", "-c", "tally", "-Dexecution.checkpointing.interval=1h"];
        let ran = session.ask(&folder, "run", &[&options[..], &args].concat());
        let id = ran.succeeds().out.strip_prefix("Job has been submitted with JobID ").unwrap();
        let id = id.trim().to_owned();
        session.wait_until(&folder, &id, "RUNNING");
        let next = [&[id.as_str(), wasm.as_str(), "--"], &args[1..], &["--release", "2"]].concat();
        let asked = session.ask(&folder, "swap", &next);
        let ended = session.child.wait().unwrap();
        assert!(!ended.success(), "{point}: {} {}", asked.out, asked.err);
        let session = Session::start(&folder, 4, 0);
        session.wait_until(&folder, &id, "FINISHED");
        let mut by_name: BTreeMap<String, BTreeMap<u64, i64>> = BTreeMap::new();
        let rows = folder.parts("out");
        assert_eq!(rows.len() as u64, ROWS, "{point}");
        for row in rows {
            let row: Value = serde_json::from_str(&row).unwrap();
            let name = row["name"].as_str().unwrap().to_owned();
            let (count, release) = (row["count"].as_u64().unwrap(), row["release"].as_i64().unwrap());
            let before = by_name.entry(name).or_default().insert(count, release);
            assert!(before.is_none(), "{point}: {row} came twice");
        }
        for (name, counts) in by_name {
            assert!(counts.keys().copied().eq(1..=counts.len() as u64), "{point}: {name}");
            let mut releases: Vec<i64> = counts.into_values().collect();
            releases.dedup();
            // The change may have come before the first row.
            let is_whole = [&[1][..], &[1, 2], &[2]].contains(&&releases[..]);
            assert!(is_whole, "{point}: {name} by {releases:?}");
            seen.extend(releases.last().copied());
        }
    }
    // Some have ended before the change was complete, and some after.
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
}

/// The change waits for the checkpoint, and the other one is not done behind it.
#[test]
fn of_two_changes_that_are_asked_for_during_a_checkpoint_one_is_done_and_one_refused() {
    let folder = Folder::new();
    let session =
        Session::with_faults(&folder, 4, "source.read=stall:1500,checkpoint.manifest@12=stall:1500");
    let job = Tally::begin(&folder, session, &["-Dexecution.checkpointing.interval=200ms"]);
    let (clock, path) = (Clock::system(), format!("/jobs/{}/checkpoints", job.id));
    let end = clock.now() + PATIENCE;
    let of = |name: &str| job.session.get(&path).1["counts"][name].as_u64().unwrap_or_default();
    let stalled = loop {
        assert!(clock.now() < end, "no checkpoint stalls");
        let before = of("completed");
        clock.sleep(Duration::from_millis(300));
        if (of("completed"), of("in_progress")) == (before, 1) {
            break before + 1;
        }
    };
    let asked = ["2", "3"].map(|release| {
        let args = ["b.wasm", "--", "--input", "rows.csv", "--output", "out", "--format", "json"];
        let verb = ["swap", "--json", "-m", &job.session.address, &job.id];
        folder.start(&[&verb[..], &args, &["--release", release]].concat())
    });
    let ran = asked.map(|child| Ran::of(child.wait_with_output().unwrap()));
    let done =
        ran.iter().position(|ran| ran.code == 0).unwrap_or_else(|| panic!("{}{}", ran[0].err, ran[1].err));
    ran[1 - done]
        .fails(2, &["the job is changing to another version already", "ask again when that is done"]);
    let said: Value = serde_json::from_str(&ran[done].out).unwrap();
    assert_eq!(said["checkpoint"], stalled + 1, "{said}");
    assert_eq!(of("failed"), 0);
    job.ends();
    let seen = job.releases(&["out"]);
    let wanted = [1, [2, 3][done]];
    assert!(seen.values().all(|releases| *releases == wanted), "{wanted:?}: {:?}", seen.iter().next());
}
