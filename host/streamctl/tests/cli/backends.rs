//! State larger than memory: jobs with their state in RocksDB give what they give with it in memory, over crashes,
//! changes of the backend, full disks and folders that go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use platform::{Clock, spawn_thread};

use crate::support::{Folder, Ran, checkpoints_in, component, files_below};

/// The least memory that there may be: half of it is for keys that are in use, shared by the job's operators.
const ROCKS: [&str; 3] = [
    "-Dstate.backend.type=rocksdb",
    "-Dstate.backend.rocksdb.memory.fixed-per-slot=4mb",
    "-Dstate.backend.rocksdb.localdir=state",
];
const HASHMAP: [&str; 1] = ["-Dstate.backend.type=hashmap"];
const CHECKPOINTS: [&str; 2] =
    ["-Dexecution.checkpointing.interval=20ms", "-Dexecution.checkpointing.dir=chk"];

/// So many words over so many lines, each word again and again, and long after it was last.
fn text(words: u64, lines: u64) -> String {
    let mut text = String::new();
    for i in 0..lines * 8 {
        let word = match i % 3 {
            0 => i / 3 % words,
            _ => (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % words,
        };
        let end = if i % 8 == 7 { '\n' } else { ' ' };
        write!(text, "word-{word:09}{end}").unwrap();
    }
    text
}

/// More of them than there is memory for.
fn words() -> String {
    text(60_000, 30_000)
}

/// What a job is run with.
struct Job<'a> {
    component: &'a str,
    job: &'a [&'a str],
}

const WORDS: Job<'_> = Job { component: "word_count", job: &["--input", "input", "--format", "json"] };
const STATES: Job<'_> =
    Job { component: "operators", job: &["-c", "states", "--input", "input", "--format", "text"] };
const TIMERS: Job<'_> =
    Job { component: "operators", job: &["-c", "process_count", "--input", "input", "--format", "text"] };

impl Job<'_> {
    fn command(&self, folder: &Folder, parallelism: &str, options: &[&str], output: &str) -> Command {
        let mut command = folder.command();
        command.args(["run", "-p", parallelism]).args(options).arg(component(self.component)).args(self.job);
        command.args(["--output", output]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, folder: &Folder, parallelism: &str, options: &[&str], faults: &str) -> Ran {
        let mut command = self.command(folder, parallelism, options, "out");
        Ran::of(command.env("MILLSTREAM_FAULTS", faults).output().unwrap())
    }

    /// What it has given, as far as that does not depend on how rows come together in batches: what a timer counts
    /// has with it all rows of the batches before its time, so the last counts only are the same in all runs.
    fn rows(&self, folder: &Folder, output: &str) -> Vec<String> {
        let mut rows = folder.parts(output);
        if self.job == TIMERS.job {
            let mut last = BTreeMap::<String, (i64, String)>::new();
            for row in &mut rows {
                let fields: Vec<&str> = row.trim_matches(['(', ')']).split(',').collect();
                let (key, time, count) =
                    (fields[0].to_owned(), fields[1].parse().unwrap(), fields[2].to_owned());
                *row = format!("{key} {time}");
                let newest = last.entry(key).or_insert((i64::MIN, String::new()));
                *newest = (time, count).max(newest.clone());
            }
            rows.extend(last.into_iter().map(|(key, (_, count))| format!("{key} has {count}")));
            rows.sort_unstable();
        }
        rows
    }

    /// Its rows with the state in memory, and that there are some.
    #[track_caller]
    fn expected(&self, folder: &Folder) -> Vec<String> {
        let mut command = self.command(folder, "1", &HASHMAP, "expected");
        Ran::of(command.output().unwrap()).succeeds();
        let rows = self.rows(folder, "expected");
        assert!(rows.len() > 1_000, "{} rows", rows.len());
        rows
    }
}

/// Lines for the job `states`: keys come again long after they were last; each has entries and a list.
fn lines(keys: u64, lines: u64) -> String {
    const OPS: [&str; 12] =
        ["total", "put", "put", "add", "seen", "greatest", "mean", "get", "remove", "unseen", "put", "later"];
    let mut text = String::new();
    for number in 0..lines {
        let drawn = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 13;
        let (key, op) = (drawn % keys, OPS[(number / keys + drawn / keys) as usize % OPS.len()]);
        let item = match drawn / 7 % 5 {
            0 => "null".to_owned(),
            n => format!("\"an item of some length, the {n}th of its key\""),
        };
        writeln!(
            text,
            "{{\"key\":{key},\"number\":{number},\"op\":\"{op}\",\"item\":{item},\"amount\":{}}}",
            drawn % 1_000
        )
        .unwrap();
    }
    text
}

/// Lines for the job `process_count`: a key's timers are due long after it was last.
fn timers(keys: u64, lines: u64) -> String {
    let mut text = String::new();
    for i in 0..lines {
        let key = (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17) % keys;
        writeln!(text, "{{\"key\":{key},\"at\":{},\"op\":\"none\",\"time\":0,\"then\":null}}", i / 5)
            .unwrap();
    }
    text
}

/// Makes a run last as long as some checkpoints.
const PACED: &str = "sink.write=stall:8,source.read=stall:15";

/// The folders of state that are there.
fn left_of_state(folder: &Folder) -> Vec<PathBuf> {
    fs::read_dir(folder.path("state")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn rows_are_the_same_wherever_state_lies() {
    for (job, input) in
        [(WORDS, words()), (STATES, lines(20_000, 100_000)), (TIMERS, timers(40_000, 100_000))]
    {
        let folder = Folder::new();
        folder.write("input", input);
        let expected = job.expected(&folder);
        for (parallelism, more) in [("1", &[][..]), ("3", &[]), ("2", &["--chaos-instances"])] {
            let options = [&ROCKS[..], more].concat();
            job.run(&folder, parallelism, &options, "").succeeds();
            assert!(job.rows(&folder, "out") == expected, "{:?} at p = {parallelism}: other rows", job.job);
            fs::remove_dir_all(folder.path("out")).unwrap();
            assert!(left_of_state(&folder).is_empty(), "the state of a job that has finished is left");
        }
        // It has been out of memory, and back.
        for point in ["state.write", "state.read"] {
            let ran = job.run(&folder, "1", &ROCKS, &format!("{point}@1=eio"));
            ran.fails(1, &["state cannot be kept on the disk", "Input/output error", "localdir"]);
            fs::remove_dir_all(folder.path("out")).unwrap();
        }
    }
}

#[test]
fn state_that_has_lived_its_time_is_gone_from_the_disk_too() {
    let keys = 40_000;
    let folder = Folder::new();
    let line = |key: u64, op: &str| {
        format!("{{\"key\":{key},\"number\":{key},\"op\":\"{op}\",\"item\":\"an item\",\"amount\":7}}\n")
    };
    let all = |op: &str| (0..keys).map(|key| line(key, op)).collect::<String>();
    // What is told after the time at which it is.
    let told = |rows: &mut dyn Iterator<Item = String>| {
        let mut told = BTreeMap::<String, u64>::new();
        for row in rows.take(keys as usize) {
            let (_, said) = row.trim_end_matches(')').split_once(' ').unwrap();
            *told.entry(said.to_owned()).or_default() += 1;
        }
        told
    };
    for (ttl, is_there) in [("3600000", true), ("1", false)] {
        let wasm = component("operators");
        let run = ["run", "-q", "-p", "1", "-c", "aging"];
        let job = [wasm.as_str(), "--input", "-", "--ttl", ttl];
        let mut child = folder.start(&[&run[..], &ROCKS, &job].concat());
        let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut rows = BufReader::new(output).lines().map(Result::unwrap);
        let (puts, asks) = (all("put"), all("all"));
        let writer = spawn_thread("puts", move || {
            input.write_all(puts.as_bytes()).unwrap();
            input
        });
        let before = told(&mut rows);
        assert_eq!(before, BTreeMap::from([("None None None None".to_owned(), keys)]));
        let mut input = writer.join().unwrap();
        Clock::system().sleep(Duration::from_millis(5));
        let writer = spawn_thread("asks", move || input.write_all(asks.as_bytes()).unwrap());
        let after = told(&mut rows);
        let said = match is_there {
            true => "Some(7) Some(7) Some(7) Some(7) {Some(\"an item\"): 7} [7]",
            false => "None None None None {} []",
        };
        assert_eq!(after, BTreeMap::from([(said.to_owned(), keys)]), "after {ttl} ms");
        writer.join().unwrap();
        assert!(child.wait().unwrap().success());
    }
}

/// A job that is killed again and again goes on with its state in memory, then on the disk, and so on.
#[test]
fn a_checkpoint_of_one_backend_is_restored_by_the_other() {
    for (job, input) in
        [(WORDS, words()), (STATES, lines(20_000, 100_000)), (TIMERS, timers(40_000, 100_000))]
    {
        let folder = Folder::new();
        folder.write("input", input);
        let expected = job.expected(&folder);
        let restore = ["--restore", "latest"];
        let runs = [(&ROCKS[..], "2"), (&HASHMAP, "3"), (&ROCKS, "1"), (&HASHMAP, "2"), (&ROCKS, "3")];
        let mut killed = 0;
        for (nth, (backend, parallelism)) in runs.into_iter().enumerate() {
            let options = [backend, &CHECKPOINTS, &restore].concat();
            // After some checkpoints of this run; the last comes to its end.
            let faults = match nth {
                4 => String::new(),
                _ => format!("checkpoint.store@2=kill,{PACED}"),
            };
            let ran = job.run(&folder, parallelism, &options, &faults);
            assert!(ran.code == 0 || (ran.code == -1 && nth < 4), "{:?}, {nth}: {}", job.job, ran.err);
            assert!(nth == 0 || ran.err.contains("goes on from checkpoint"), "{}", ran.err);
            killed += usize::from(ran.code == -1);
            if ran.code == 0 {
                break;
            }
        }
        assert!(killed >= 2, "{:?}: it was too fast", job.job);
        assert!(job.rows(&folder, "out") == expected, "{:?}: other rows", job.job);
        assert_eq!(checkpoints_in(&folder.path("chk")), Ok(1));
    }
}

/// Stops a job with a savepoint when it has made some checkpoints.
fn stopped(job: &Job<'_>, folder: &Folder, parallelism: &str, options: &[&str]) -> PathBuf {
    let savepoints = ["-Dexecution.checkpointing.savepoint-dir=sv"];
    let options = [options, &CHECKPOINTS, &savepoints].concat();
    let mut command = job.command(folder, parallelism, &options, "out");
    let child = command.env("MILLSTREAM_FAULTS", PACED).spawn().unwrap();
    wait_for_checkpoint(folder, 1);
    Command::new("kill").args(["-USR2", &child.id().to_string()]).status().unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.succeeds();
    let (_, path) =
        ran.err.split_once("Savepoint completed. Path: file:").unwrap_or_else(|| panic!("{}", ran.err));
    folder.path(path.lines().next().unwrap())
}

/// Waits until there is a checkpoint of this number or a later one.
#[track_caller]
fn wait_for_checkpoint(folder: &Folder, number: u64) {
    let clock = Clock::system();
    let end = clock.now() + Duration::from_secs(60);
    loop {
        let mut files = Vec::new();
        files_below(&folder.path("chk"), &mut files);
        let newest = files.iter().filter(|path| path.ends_with("_metadata")).filter_map(|path| {
            let name = path.parent()?.file_name()?.to_str()?;
            name.strip_prefix("chk-")?.parse::<u64>().ok()
        });
        if newest.max().is_some_and(|newest| newest >= number) {
            return;
        }
        assert!(clock.now() < end, "there is no checkpoint {number}: {files:?}");
        clock.sleep(Duration::from_millis(2));
    }
}

/// The rows of all states of a savepoint, by operator and state.
fn states_of(folder: &Folder, path: &str) -> BTreeMap<String, Vec<String>> {
    let shown = folder.streamctl(&["state", path, "--json"]);
    let mut states = BTreeMap::new();
    for line in shown.succeeds().out.lines() {
        let shown: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(uid), Some(name)) = (shown["uid"].as_str(), shown["state"].as_str()) else { continue };
        let rows = folder.streamctl(&["state", path, "--operator", uid, "--state", name, "--json"]);
        let mut rows: Vec<String> = rows.succeeds().out.lines().map(str::to_owned).collect();
        rows.sort_unstable();
        states.insert(format!("{uid}/{name}"), rows);
    }
    states
}

#[test]
fn a_savepoint_does_not_tell_which_backend_made_it() {
    for (job, input, states) in [(WORDS, words(), 1), (STATES, lines(20_000, 100_000), 7)] {
        let folder = Folder::new();
        folder.write("input", input);
        let expected = job.expected(&folder);
        let first = stopped(&job, &folder, "2", &ROCKS);
        let second_options = [&HASHMAP[..], &["-s", first.to_str().unwrap()]].concat();
        fs::remove_dir_all(folder.path("chk")).unwrap();
        let second = stopped(&job, &folder, "3", &second_options);
        let rest = [&ROCKS[..], &["-s", second.to_str().unwrap()]].concat();
        job.run(&folder, "1", &rest, "").succeeds();
        assert!(job.rows(&folder, "out") == expected, "{:?}: other rows", job.job);
        // At the end of the input each has the same rows.
        let ends = [("disk", &ROCKS[..]), ("memory", &HASHMAP)].map(|(name, backend)| {
            let dir = format!("-Dexecution.checkpointing.dir={name}");
            let mut command = job.command(&folder, "2", &[backend, &[dir.as_str()]].concat(), name);
            Ran::of(command.output().unwrap()).succeeds();
            let mut files = Vec::new();
            files_below(&folder.path(name), &mut files);
            let manifest = files.iter().find(|path| path.ends_with("_metadata")).expect("a last checkpoint");
            states_of(&folder, manifest.parent().unwrap().to_str().unwrap())
        });
        assert!(
            ends[0].len() >= states && ends[0].values().all(|rows| !rows.is_empty()),
            "{:?}",
            ends[0].keys()
        );
        assert!(ends[0] == ends[1], "{:?}: other states", job.job);
    }
}

#[test]
fn a_process_that_ends_where_state_is_on_its_way_loses_nothing() {
    let folder = Folder::new();
    folder.write("input", words());
    let expected = WORDS.expected(&folder);
    let options = [&ROCKS[..], &CHECKPOINTS, &["--restore", "latest"], &RESTARTS].concat();
    for (fault, points) in [
        ("kill", &["state.write", "state.read", "state.freeze", "state.frozen"][..]),
        ("eio", &["state.read", "state.frozen"]),
        ("enospc", &["state.write", "state.freeze"]),
    ] {
        for point in points {
            let ran = WORDS.run(&folder, "2", &options, &format!("{point}@3={fault},{PACED}"));
            match fault {
                "kill" => assert_eq!(ran.code, -1, "{point}: {}", ran.err),
                _ => {
                    assert!(ran.succeeds().err.contains("restart 1 follows"), "{point}: {}", ran.err);
                    assert!(ran.err.contains("state cannot be kept on the disk"), "{point}: {}", ran.err);
                }
            }
            WORDS.run(&folder, "3", &options, "").succeeds();
            assert!(folder.parts("out") == expected, "{point}={fault}: other rows");
            assert_eq!(checkpoints_in(&folder.path("chk")), Ok(1));
            assert!(left_of_state(&folder).is_empty(), "{point}={fault}: state is left");
            fs::remove_dir_all(folder.path("out")).unwrap();
            fs::remove_dir_all(folder.path("chk")).unwrap();
        }
    }
}

const RESTARTS: [&str; 3] = [
    "-Drestart-strategy.type=fixed-delay",
    "-Drestart-strategy.fixed-delay.attempts=3",
    "-Drestart-strategy.fixed-delay.delay=5ms",
];

/// Starts a job that takes seconds, and waits until it has a checkpoint and something on the disk.
fn started(folder: &Folder, options: &[&str]) -> Child {
    let options = [&ROCKS[..], &CHECKPOINTS, options].concat();
    let mut command = WORDS.command(folder, "2", &options, "out");
    let mut child = command.env("MILLSTREAM_FAULTS", PACED).spawn().unwrap();
    wait_for_checkpoint(folder, 2);
    let is_on_disk = || {
        let mut files = Vec::new();
        files_below(&folder.path("state"), &mut files);
        files.iter().any(|path| path.extension().is_some_and(|kind| kind == "sst"))
    };
    while !is_on_disk() {
        assert!(child.try_wait().unwrap().is_none(), "it has come to its end");
        Clock::system().sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn a_folder_of_state_that_is_deleted_under_a_job_is_a_failure_like_others() {
    let folder = Folder::new();
    folder.write("input", words());
    let expected = WORDS.expected(&folder);
    let child = started(&folder, &RESTARTS);
    // It may put a file there meanwhile.
    while folder.path("state").exists() {
        drop(fs::remove_dir_all(folder.path("state")));
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    let err = &ran.succeeds().err;
    assert!(err.contains("restart 1 follows") && err.contains("state cannot be kept on the disk"), "{err}");
    assert!(err.contains("No such file or directory") && err.contains("state/millstream-state-"), "{err}");
    assert!(folder.parts("out") == expected, "other rows: {err}");
    assert_eq!(checkpoints_in(&folder.path("chk")), Ok(1));
    assert!(left_of_state(&folder).is_empty());
}

#[test]
fn the_folder_of_a_job_goes_with_it_however_it_ends() {
    let folder = Folder::new();
    folder.write("input", words());
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-KILL", -1)] {
        let child = started(&folder, &[]);
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, code, "{}", ran.err);
        assert_eq!(left_of_state(&folder).len(), usize::from(signal == "-KILL"), "{signal}");
        fs::remove_dir_all(folder.path("out")).unwrap();
        fs::remove_dir_all(folder.path("chk")).unwrap();
    }
    // So it does where something is being written when the job ends.
    WORDS.run(&folder, "2", &ROCKS, "state.write=stall:60").succeeds();
    assert!(left_of_state(&folder).is_empty(), "state is left");
    fs::remove_dir_all(folder.path("out")).unwrap();
    // The next job removes what a killed one has left, and nothing of one that runs.
    let child = started(&folder, &[]);
    let of_running = left_of_state(&folder);
    assert_eq!(of_running.len(), 1, "{of_running:?}");
    folder.write("short", "a b a");
    let short = Job { job: &["--input", "short"], ..WORDS };
    Ran::of(short.command(&folder, "1", &ROCKS, "short-out").output().unwrap()).succeeds();
    assert_eq!(left_of_state(&folder), of_running);
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).code, 143);
    assert!(left_of_state(&folder).is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = Folder::new();
    folder.write("input", "a b a");
    folder.write("file", "");
    for (option, told) in [
        ("state.backend.type=rocks", &["state.backend.type", "hashmap or rocksdb"][..]),
        ("state.backend.rocksdb.memory.fixed-per-slot=1mb", &["a slot needs 4mb at least", "fixed-per-slot"]),
        ("state.backend.rocksdb.memory.fixed-per-slot=much", &["fixed-per-slot", "much"]),
    ] {
        let option = format!("-D{option}");
        WORDS.run(&folder, "1", &[&ROCKS[..], &[&option]].concat(), "").fails(2, told);
    }
    for (place, told) in [("file", "File exists"), ("/proc/state", "No such file or directory")] {
        let option = format!("-Dstate.backend.rocksdb.localdir={place}");
        let ran = WORDS.run(&folder, "1", &[&ROCKS[..], &CHECKPOINTS, &[&option]].concat(), "");
        ran.fails(1, &["state cannot be kept on the disk", place, told, "hint: ", "localdir"]);
    }
}

/// A disk of so many bytes at `small` that goes with the process: the shell that makes it becomes the job.
fn on_a_small_disk(folder: &Folder, bytes: &str, job: &Command) -> Command {
    fs::create_dir_all(folder.path("small")).unwrap();
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size={bytes} tmpfs small && exec \"$@\"");
    command.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(job.get_program()).args(job.get_args()).current_dir(folder.dir.path());
    command.env("MILLSTREAM_CONF_DIR", folder.dir.path()).stdin(Stdio::null());
    command
}

#[test]
fn a_disk_that_is_full_of_state_ends_the_job_with_the_reason() {
    let folder = Folder::new();
    folder.write("input", text(400_000, 150_000));
    let expected = WORDS.expected(&folder);
    let run = |bytes: &str, faults: &str| {
        let options =
            ["-Dstate.backend.rocksdb.localdir=small", "--restore", "latest", "-Drestart-strategy.type=none"];
        let options = [&ROCKS[..], &CHECKPOINTS, &options].concat();
        let job = WORDS.command(&folder, "2", &options, "out");
        let mut command = on_a_small_disk(&folder, bytes, &job);
        Ran::of(command.env("MILLSTREAM_FAULTS", faults).output().unwrap())
    };
    let may_mount =
        on_a_small_disk(&folder, "1m", &Command::new("true")).status().is_ok_and(|ended| ended.success());
    let (full, free) = match may_mount {
        true => (run("3m", PACED), run("500m", "")),
        // Where no disk can be made the point is as full.
        false => (run("", &format!("state.write@40=enospc,{PACED}")), run("", "")),
    };
    full.fails(1, &["state cannot be kept on the disk", "No space left on device", "localdir"]);
    assert!(free.succeeds().err.contains("goes on from checkpoint"), "{}", free.err);
    assert!(folder.parts("out") == expected, "other rows: {}", free.err);
}

/// How much memory a join of so many events takes at most, in MiB.
fn memory_of(folder: &Folder, events: &str, backend: &[&str]) -> u64 {
    let job = Job { component: "nexmark", job: &["-c", "q20", "--events", events] };
    let mut child = job.command(folder, "1", backend, "out").spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        // It may be over by now: then what was last is what there is.
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) >> 10);
        Clock::system().sleep(Duration::from_millis(2));
    }
    Ran::of(child.wait_with_output().unwrap()).succeeds();
    fs::remove_dir_all(folder.path("out")).unwrap();
    most
}

#[test]
fn memory_does_not_grow_with_the_state() {
    const BUDGET: u64 = 16;
    let folder = Folder::new();
    let budget = format!("-Dstate.backend.rocksdb.memory.fixed-per-slot={BUDGET}mb");
    let rocks = [&ROCKS[..], &[&budget]].concat();
    // As much as there is memory for, and ten times that.
    let (little, much) = ("60000", "600000");
    let base = memory_of(&folder, little, &rocks);
    let in_memory = memory_of(&folder, much, &HASHMAP);
    let on_disk = memory_of(&folder, much, &rocks);
    assert!(in_memory > base + 5 * BUDGET, "the state is small: {in_memory} MiB, {base} with little of it");
    assert!(on_disk < base + 3 * BUDGET, "{on_disk} MiB, with {BUDGET} for state; {base} with little of it");
}
