//! Savepoints of running jobs, `streamctl state`, and savepoints made of rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use checkpoint::Savepoint;
use platform::Faults;
use platform::disk::SystemDisk;
use platform::store::FileStore;

use crate::checkpoints::number;
use crate::recovery::{checkpoints, expected, text};
use crate::support::{Folder, Ran, component, files_below};

const COUNTS: &str = "aggregate-sum-by-f0";
const STATES: &str = "process-States-by-key";

/// Whether a checkpoint is complete that has counts.
fn has_checkpoint(folder: &Folder) -> bool {
    let mut files = Vec::new();
    files_below(&folder.path("chk"), &mut files);
    let has_counts = |path: &PathBuf| {
        // It may be gone by now, when one more is complete.
        let manifest = std::fs::read_to_string(path).unwrap_or_default();
        path.ends_with("_metadata") && manifest.contains("/data-0\"")
    };
    files.iter().any(has_counts)
}

/// Runs word count, sends it a signal when it has made a checkpoint, and waits for its end. None = it was faster.
fn signalled(folder: &Folder, signal: &str, options: &[&str]) -> Option<Ran> {
    let wasm = component("word_count");
    let mut args = vec!["run", "-p", "2", "-Dexecution.checkpointing.interval=10ms"];
    args.extend(["-Dexecution.checkpointing.dir=chk", "-Dexecution.checkpointing.savepoint-dir=sv"]);
    args.extend(options);
    args.extend([wasm.as_str(), "--input", "text.txt", "--output", "out", "--format", "json"]);
    let mut command = folder.command();
    // Each read takes a while: the job is not at its end when the signal comes, on a busy machine either.
    command.args(&args).env("MILLSTREAM_FAULTS", "source.read=stall:50");
    let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().unwrap();
    while !has_checkpoint(folder) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let is_running = child.try_wait().unwrap().is_none();
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    is_running.then_some(ran)
}

fn savepoint(folder: &Folder) -> PathBuf {
    let mut all = std::fs::read_dir(folder.path("sv")).unwrap().map(|entry| entry.unwrap().path());
    let savepoint = all.next().unwrap();
    assert!(all.next().is_none(), "there is more than one savepoint");
    savepoint
}

/// The counts in a savepoint, by word.
fn counts(folder: &Folder, path: &str) -> BTreeMap<String, i64> {
    let ran = folder.streamctl(&["state", path, "--operator", COUNTS, "--state", "aggregate", "--json"]);
    let row = |line: &str| -> (String, i64) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        (row["f0"].as_str().unwrap().to_owned(), row["count"].as_i64().unwrap())
    };
    ran.succeeds().out.lines().map(row).collect()
}

#[test]
fn a_job_stops_with_a_savepoint_and_goes_on_from_it_wherever_it_lies() {
    for form in ["CANONICAL", "NATIVE"] {
        let folder = Folder::new();
        let text = text(300_000);
        folder.write("text.txt", &text);
        let format = format!("-Dexecution.savepoint.format={form}");
        let ran = signalled(&folder, "-USR2", &[&format]).expect("the job is long");
        assert!(ran.succeeds().err.contains("Savepoint completed. Path: file:sv/savepoint-"), "{}", ran.err);
        assert!(ran.err.contains("Job word_count finished"), "{}", ran.err);
        let path = savepoint(&folder);
        let is_canonical = path.join(COUNTS).join("aggregate").is_dir();
        assert_eq!((is_canonical, path.join("data-0").is_file()), (form == "CANONICAL", form == "NATIVE"));
        // Its counts are those of the rows that can be seen: it was the last element.
        let moved = folder.path("elsewhere");
        std::fs::rename(&path, &moved).unwrap();
        let sum: i64 = counts(&folder, "elsewhere").values().sum();
        let seen = folder.parts("out").len();
        assert!(seen < text.split_whitespace().count(), "it was stopped at its end");
        assert_eq!(usize::try_from(sum).unwrap(), seen, "{form}");
        let wasm = component("word_count");
        let run = ["run", "-s", "file:elsewhere", "-p", "7", wasm.as_str()];
        let args: Vec<&str> =
            run.into_iter().chain(["--input", "text.txt", "--output", "out", "--format", "json"]).collect();
        let gone_on = folder.streamctl(&args);
        assert!(gone_on.succeeds().err.contains("Job word_count finished"), "{}", gone_on.err);
        assert!(folder.parts("out") == expected(&text), "{form}: other rows than the text's");
        // No row is read twice.
        let rows_in = |ran: &Ran| number(&ran.err, "Job word_count", " rows in");
        assert_eq!(rows_in(&ran) + rows_in(&gone_on), 300_000, "{form}");
    }
}

#[test]
fn a_savepoint_on_the_way_changes_nothing() {
    let folder = Folder::new();
    let text = text(300_000);
    folder.write("text.txt", &text);
    let ran = signalled(&folder, "-USR1", &[]).expect("the job is long");
    assert!(ran.succeeds().err.contains("Savepoint completed."), "{}", ran.err);
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
    assert!(!counts(&folder, savepoint(&folder).to_str().unwrap()).is_empty());
}

#[test]
fn checkpoints_stay_or_go_when_the_job_is_stopped() {
    for (retention, kept) in
        [("RETAIN_ON_CANCELLATION", 1), ("DELETE_ON_CANCELLATION", 0), ("NO_EXTERNALIZED_CHECKPOINTS", 0)]
    {
        let folder = Folder::new();
        folder.write("text.txt", text(300_000));
        let option = format!("-Dexecution.checkpointing.externalized-checkpoint-retention={retention}");
        let ran = signalled(&folder, "-INT", &[&option]).expect("the job is long");
        assert_eq!(ran.code, 130, "{}", ran.err);
        // One that was under way may have been left.
        let is_kept = checkpoints(&folder) >= 1;
        assert_eq!(is_kept, kept == 1, "{retention}");
    }
    let folder = Folder::new();
    folder.write("text.txt", "a");
    let wasm = component("word_count");
    let refused = folder.streamctl(&[
        "run",
        "-Dexecution.checkpointing.externalized-checkpoint-retention=PERHAPS",
        &wasm,
        "--input",
        "text.txt",
    ]);
    refused.fails(2, &["RETAIN_ON_CANCELLATION or DELETE_ON_CANCELLATION"]);
}

/// A job's folder with a savepoint `boot` of two counts.
fn bootstrapped() -> Folder {
    let folder = Folder::new();
    folder.write("rows.csv", "f0,count\none,1000\nzwei,7\n");
    let made = folder.streamctl(&write("boot", "rows.csv"));
    made.succeeds();
    folder
}

fn write<'a>(out: &'a str, input: &'a str) -> Vec<&'a str> {
    // Leaked once a call: a test's arguments.
    let wasm: &'static str = Box::leak(component("word_count").into_boxed_str());
    let of = ["state", "write", out, "--component", wasm, "--operator", COUNTS, "--state", "aggregate"];
    of.into_iter().chain(["--input", input, "--", "--input", "text.txt"]).collect()
}

#[test]
fn a_job_begins_with_state_that_was_made_of_rows() {
    let folder = bootstrapped();
    folder.write("text.txt", "one two one zwei");
    let wasm = component("word_count");
    for parallelism in ["1", "2", "5"] {
        let ran = folder.streamctl(&["run", "-s", "boot", "-p", parallelism, &wasm, "--input", "text.txt"]);
        assert_eq!(ran.succeeds().rows(), ["(one,1001)", "(one,1002)", "(two,1)", "(zwei,8)"]);
        assert!(ran.err.contains("goes on from savepoint boot"), "{}", ran.err);
    }
    let shown = folder.streamctl(&["state", "boot"]);
    let expected = "Savepoint 0 of job word_count (ae6b4ba157c8f1f64c5657a30d571b6f)
begun NOW, complete after 0 ms, SIZE

UID                  OPERATOR                PARALLELISM  KEY GROUPS    SIZE  BESIDES
aggregate-sum-by-f0  Keyed Aggregation: sum            1         128  SIZE

UID                  STATE      KIND       ROWS    SIZE  COLUMNS
aggregate-sum-by-f0  aggregate  aggregate     2  SIZE  f0: Utf8, key_group: UInt16, count: Int64
";
    let size = shown.succeeds().out.lines().last().unwrap().split("  ").find(|cell| cell.ends_with("kB"));
    let line = shown.out.lines().nth(1).unwrap();
    let begun = line.strip_prefix("begun ").unwrap().split_once(',').unwrap().0;
    let is_instant = begun.starts_with("20") && begun.ends_with('Z');
    assert!(is_instant, "{begun}");
    assert_eq!(shown.out.replace(size.unwrap().trim(), "SIZE").replace(begun, "NOW"), expected);
    let rows = folder.streamctl(&["state", "boot", "--operator", COUNTS, "--state", "aggregate"]);
    assert_eq!(
        rows.succeeds().out,
        "f0    key_group  count\none         119   1000\nzwei         56      7\n"
    );
}

/// Lines for the job `states` that leave something in each of its states.
const LINES: &str = r#"{"key":1,"number":1,"op":"total","item":null,"amount":5}
{"key":1,"number":2,"op":"put","item":"a","amount":6}
{"key":1,"number":3,"op":"put","item":null,"amount":-6}
{"key":2,"number":4,"op":"add","item":"x","amount":7}
{"key":2,"number":5,"op":"add","item":"y","amount":8}
{"key":2,"number":6,"op":"seen","item":"x","amount":7}
{"key":3,"number":7,"op":"mean","item":"x","amount":7}
{"key":3,"number":8,"op":"greatest","item":"x","amount":7}
"#;
const NAMES: [&str; 7] = ["state", "total", "seen", "greatest", "history", "mean", "items"];

fn rows_of(folder: &Folder, path: &str, state: &str) -> String {
    let ran = folder.streamctl(&["state", path, "--operator", STATES, "--state", state, "--json"]);
    ran.succeeds().out.clone()
}

#[test]
fn states_of_every_kind_as_json_lines_make_the_same_savepoint() {
    let folder = Folder::new();
    folder.write("lines.jsonl", LINES);
    let wasm = component("operators");
    let run = ["run", "-q", "-c", "states", "-Dexecution.checkpointing.dir=chk"];
    let args: Vec<&str> = run.into_iter().chain([wasm.as_str(), "--input", "lines.jsonl"]).collect();
    folder.streamctl(&args).succeeds();
    let job = std::fs::read_dir(folder.path("chk")).unwrap().next().unwrap().unwrap().path();
    let checkpoint = job.join("chk-1").display().to_string();
    let mut args = vec!["state", "write", "boot", "--component", &wasm, "-c", "states"];
    let files: Vec<String> = NAMES.iter().map(|name| format!("{name}.jsonl")).collect();
    for (name, file) in NAMES.iter().zip(&files) {
        let rows = rows_of(&folder, &checkpoint, name);
        assert!(!rows.is_empty(), "{name}");
        folder.write(file, &rows);
        args.extend(["--operator", STATES, "--state", name, "--input", file]);
    }
    args.extend(["--", "--input", "more.jsonl"]);
    folder.streamctl(&args).succeeds();
    for (name, file) in NAMES.iter().zip(&files) {
        let before = std::fs::read_to_string(folder.path(file)).unwrap();
        assert_eq!(rows_of(&folder, "boot", name), before, "{name}");
    }
    // A job that begins with it knows what was before.
    let line = |key: i64, number: i64, op: &str, item: &str, amount: i64| {
        format!("{{\"key\":{key},\"number\":{number},\"op\":\"{op}\",\"item\":{item},\"amount\":{amount}}}\n")
    };
    let more = [
        line(1, 1, "total", "null", 1),
        line(1, 2, "put", "\"b\"", 9),
        line(2, 3, "add", "\"z\"", 9),
        line(2, 4, "seen", "\"x\"", 1),
        line(3, 5, "mean", "\"x\"", 9),
        line(3, 6, "greatest", "\"x\"", 3),
    ];
    folder.write("more.jsonl", more.concat());
    for parallelism in ["1", "3"] {
        let ran = folder.streamctl(&[
            "run",
            "-q",
            "-s",
            "boot",
            "-c",
            "states",
            "-p",
            parallelism,
            &wasm,
            "--input",
            "more.jsonl",
        ]);
        let expected = [
            "(1,Some(6))",
            "(2,{None: -6, Some(\"a\"): 6, Some(\"b\"): 9})",
            "(3,[(7, \"x\"), (8, \"y\"), (9, \"z\")])",
            "(4,Some(8))",
            "(5,Some(\"16/2\"))",
            "(6,Some(7))",
        ];
        assert_eq!(ran.succeeds().rows(), expected);
    }
}

#[test]
fn a_bad_row_is_named_with_its_line_and_nothing_is_made() {
    let folder = Folder::new();
    for (file, text, told) in [
        ("a.csv", "f0,count\na,1\nb,x\n", "a.csv, line 3: `count` is Int64, and cannot be `x`"),
        ("a.csv", "f0,number\na,1\n", "a.csv, line 1: there is no column `number`"),
        ("a.csv", "f0,count\na,1\nb,1\na,2\n", "a.csv, line 4: its key was there before"),
        ("a.jsonl", "{\"f0\":\"a\",\"count\":1}\n\n{\"f0\":\"b\",\"count\":\"x\"}\n", "a.jsonl, line 3: "),
        ("a.jsonl", "{\"f0\":\"a\",\"count\":1,\"more\":1}\n", "a.jsonl, line 1: "),
        ("a.txt", "a", "in no format that is known"),
    ] {
        folder.write(file, text);
        folder.streamctl(&write("boot", file)).fails(2, &[told]);
        assert!(!folder.path("boot").exists(), "{told}");
    }
    folder.write("a.csv", "f0,count\na,1\n");
    let with = |from: &str, to: &'static str| -> Vec<&str> {
        write("boot", "a.csv").into_iter().map(|arg| if arg == from { to } else { arg }).collect()
    };
    folder.streamctl(&with(COUNTS, "nobody")).fails(2, &["no operator of uid `nobody`", COUNTS]);
    folder.streamctl(&with("aggregate", "other")).fails(2, &["no state `other`", "there is: aggregate"]);
    folder.streamctl(&with("a.csv", "none.csv")).fails(2, &["cannot read `none.csv`"]);
    folder.write("boot/there", "");
    folder.streamctl(&write("boot", "a.csv")).fails(2, &["`boot` is there already"]);
}

#[test]
fn state_that_nobody_asks_for_is_refused_unless_it_may_be_left_out() {
    let folder = bootstrapped();
    folder.write("rows.csv", "n1,5\n");
    let wasm = component("operators");
    let run = |more: &[&str]| {
        let args = ["run", "-q", "-s", "boot"].into_iter().chain(more.iter().copied());
        let job = ["-c", "strict", wasm.as_str(), "--input", "rows.csv"];
        folder.streamctl(&args.chain(job).collect::<Vec<_>>())
    };
    let told = ["`Keyed Aggregation: sum`", COUNTS, "which is not in the job", "--allowNonRestoredState"];
    run(&[]).fails(2, &told);
    for option in ["-n", "--allowNonRestoredState"] {
        assert_eq!(run(&[option]).succeeds().rows().len(), 1);
    }
    let both = folder.streamctl(&["run", "-s", "boot", "--restore", "latest", &wasm]);
    assert_eq!(both.code, 2, "{}", both.err);
    let missing = folder.streamctl(&["run", "-s", "nowhere", &wasm, "--input", "rows.csv"]);
    missing.fails(2, &["`nowhere` is no checkpoint", "_metadata"]);
}

#[test]
fn damage_is_named_and_a_drained_job_does_not_go_on() {
    let folder = bootstrapped();
    let wasm = component("word_count");
    folder.write("text.txt", "one");
    let store = Arc::new(FileStore::new(Arc::new(SystemDisk::new(folder.dir.path())), Faults::none()));
    let savepoint = Savepoint::new(store, "boot");
    let mut manifest = savepoint.manifest().unwrap();
    manifest.is_final = true;
    savepoint.put_manifest(&manifest).unwrap();
    let run = |more: &[&str]| {
        let args = ["run", "-q", "-s", "boot"].into_iter().chain(more.iter().copied());
        folder.streamctl(&args.chain([wasm.as_str(), "--input", "text.txt"]).collect::<Vec<_>>())
    };
    run(&[]).fails(2, &["a job that was drained", "execution.savepoint.resume-drained=true"]);
    let forced = run(&["-Dexecution.savepoint.resume-drained=true"]);
    assert_eq!(forced.succeeds().rows(), ["(one,1001)"]);
    assert!(folder.streamctl(&["state", "boot"]).succeeds().out.starts_with("Savepoint of a drained job"));

    let file = folder.path("boot").join(COUNTS).join("aggregate/key-groups-0-127.arrow");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for args in [vec!["state", "boot"], vec!["run", "-s", "boot", &wasm, "--input", "text.txt"]] {
        folder.streamctl(&args).fails(2, &["key-groups-0-127.arrow` is damaged"]);
    }
    std::fs::remove_file(&file).unwrap();
    folder.streamctl(&["state", "boot"]).fails(2, &["key-groups-0-127.arrow` is missing"]);
    folder.write("boot/_metadata", "{}");
    folder.streamctl(&["state", "boot"]).fails(2, &["`_metadata` is damaged"]);
}
