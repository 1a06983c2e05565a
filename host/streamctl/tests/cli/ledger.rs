//! The ledger: what goes into a job against what it has committed, with its process ended at random and at every
//! point at which faults are, its disk failing, its sink slow.
//!
//! `LEDGER=long` makes it long (`scripts/test --long ledger`); `SEED=n` is for ends at random.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use platform::faults::Point;
use platform::{Clock, Random};

use crate::recovery::{expected, text};
use crate::support::{Folder, Ran, checkpoints_in, component, files_below};

fn is_long() -> bool {
    std::env::var("LEDGER").is_ok_and(|what| what == "long")
}

/// A job over files, and what it is to commit.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) component: &'static str,
    pub(crate) job: &'static [&'static str],
    pub(crate) input: String,
    /// Its rows, sorted.
    expected: Vec<String>,
}

/// Word count over so many lines: a row for each word.
pub(crate) fn words(lines: u64) -> Case {
    let input = text(lines);
    let expected = expected(&input);
    let job = &["--format", "json"];
    Case { name: "words", component: "word_count", job, input, expected }
}

/// Windows of 10 s by key over so many lines of keys, times and numbers: for each a count and a sum.
pub(crate) fn windows(lines: i64) -> Case {
    const SIZE: i64 = 10_000;
    let mut input = String::new();
    let mut sums = BTreeMap::<(i64, i64), (i64, i64)>::new();
    for i in 0..lines {
        let (key, at, number) = (i * 7 % 31, 500 + i * 17, i % 13);
        input.push_str(&format!("{{\"key\":{key},\"at\":{at},\"number\":{number}}}\n"));
        let (count, sum) = sums.entry((at / SIZE * SIZE, key)).or_default();
        (*count, *sum) = (*count + 1, *sum + number);
    }
    let row = |((start, key), (count, sum)): (&(i64, i64), &(i64, i64))| {
        format!("({key},{start},{},{count}/{sum})", start + SIZE)
    };
    let mut expected: Vec<String> = sums.iter().map(row).collect();
    expected.sort_unstable();
    let job = &["-c", "windows", "--size", "10000", "--format", "text"];
    Case { name: "windows", component: "operators", job, input, expected }
}

/// The highest of so many bids in each 10 s (Nexmark, query 7), by native windows and a join.
fn highest_bids(bids: i64) -> Case {
    const SIZE: i64 = 10_000;
    let bid = |i: i64| (i * 250, i * 7_919 % 10_007);
    let mut input = String::new();
    let mut highest = BTreeMap::<i64, i64>::new();
    for (i, (at, price)) in (0..bids).map(|i| (i, bid(i))) {
        input.push_str(&format!(
            "{{\"event_type\":2,\"person\":null,\"auction\":null,\"bid\":{{\"auction\":{i},\"bidder\":{},\
             \"price\":{price},\"channel\":\"c\",\"url\":\"u\",\"dateTime\":{at},\"extra\":\"\"}}}}\n",
            i % 97
        ));
        let most = highest.entry(at / SIZE).or_default();
        *most = price.max(*most);
    }
    // A bid at the very end of a window is held against the window before, too: `BETWEEN` has both ends.
    let windows = |at: i64| [Some(at / SIZE), (at % SIZE == 0).then_some(at / SIZE - 1)];
    let mut expected = Vec::new();
    for (i, (at, price)) in (0..bids).map(|i| (i, bid(i))) {
        for _ in windows(at).into_iter().flatten().filter(|window| highest.get(window) == Some(&price)) {
            let (seconds, millis) = (at / 1_000, at % 1_000);
            let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            expected.push(format!(
                "{{\"auction\":{i},\"price\":{price},\"bidder\":{},\
                 \"dateTime\":\"1970-01-01 {hours:02}:{minutes:02}:{seconds:02}.{millis:03}\",\"extra\":\"\"}}",
                i % 97
            ));
        }
    }
    expected.sort_unstable();
    let job = &["-c", "q7", "--format", "json"];
    Case { name: "highest bids", component: "nexmark", job, input, expected }
}

/// A folder in which a case is run again and again until it is done.
struct Ledger<'a> {
    case: &'a Case,
    folder: Folder,
    wasm: String,
}

impl<'a> Ledger<'a> {
    fn of(case: &'a Case) -> Self {
        let folder = Folder::new();
        folder.write("input", &case.input);
        Self { case, folder, wasm: component(case.component) }
    }

    /// The same, as it is now.
    fn copy(&self) -> Self {
        let copy = Self::of(self.case);
        let (from, to) = (self.folder.dir.path(), copy.folder.dir.path());
        let mut files = Vec::new();
        files_below(from, &mut files);
        for file in files {
            let to = to.join(Path::new(&file).strip_prefix(from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, to).unwrap();
        }
        copy
    }

    /// One run from the newest checkpoint, with these faults.
    fn command(&self, parallelism: &str, faults: &str) -> std::process::Command {
        let mut command = self.folder.command();
        command
            .args(["run", "-p", parallelism, "--restore", "latest"])
            .args(["-Dexecution.checkpointing.interval=10ms", "-Dexecution.checkpointing.dir=chk"])
            .arg("-Drestart-strategy.exponential-delay.initial-backoff=5ms")
            .args([&self.wasm, "--input", "input", "--output", "out"])
            .args(self.case.job)
            .env("MILLSTREAM_FAULTS", faults)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, parallelism: &str, faults: &str) -> Ran {
        Ran::of(self.command(parallelism, faults).output().unwrap())
    }

    /// Lets the job come to its end, and holds what there is against what is expected.
    #[track_caller]
    fn close(&self, what: &str) {
        let ran = self.run("2", "");
        assert_eq!(ran.code, 0, "{} {what}: {}", self.case.name, ran.err);
        if let Err(wrong) = self.account() {
            panic!("{} {what}: {wrong}\n{}", self.case.name, ran.err);
        }
    }

    /// What is wrong with what has been committed, or with what is left of it.
    fn account(&self) -> Result<(), String> {
        self.case.account(&self.folder, "out", "chk")
    }
}

impl Case {
    /// What is wrong with what has been committed to a folder, or with what is left there and of checkpoints.
    pub(crate) fn account(&self, folder: &Folder, out: &str, checkpoints: &str) -> Result<(), String> {
        let mut rows = Vec::new();
        for entry in fs::read_dir(folder.path(out)).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("part-") {
                return Err(format!("`{name}` is left over"));
            }
            rows.extend(fs::read_to_string(entry.path()).unwrap().lines().map(str::to_owned));
        }
        rows.sort_unstable();
        if rows != self.expected {
            let (is, should) = (rows.len(), self.expected.len());
            let differs = rows.iter().zip(&self.expected).find(|(is, should)| is != should);
            return Err(format!("{is} rows are committed of {should}; the first that differ: {differs:?}"));
        }
        match checkpoints_in(&folder.path(checkpoints))? {
            1 => Ok(()),
            left => Err(format!("{left} checkpoints are left")),
        }
    }
}

/// Where `sockets.rs`, `s3.rs`, `new_files.rs` and `backends.rs` end a process, and where only a change to another version
/// passes: a job on files that are there, with its state in memory, does not come there.
const ELSEWHERE: [Point; 14] = [
    Point::NetworkConnect,
    Point::NetworkRead,
    Point::StoreUpload,
    Point::StoreUploaded,
    Point::SourceLook,
    Point::StateWrite,
    Point::StateRead,
    Point::StateFreeze,
    Point::StateFrozen,
    Point::SwapBegin,
    Point::SwapChange,
    Point::SwapChanged,
    Point::SwapLeave,
    Point::SwapEnd,
];

/// The cases that have so many checkpoints that each point is passed.
fn cases() -> Vec<Case> {
    let mut cases = vec![words(30_000), highest_bids(60_000)];
    if is_long() {
        cases.push(windows(150_000));
    }
    cases
}

/// Makes a run last as long as some checkpoints. What is said before it goes first.
const PACED: &str = "sink.write=stall:8,source.read=stall:15";

/// A job that has ended with a complete checkpoint, files that wait for one, and one that is not whole.
fn crashed(case: &Case) -> Ledger<'_> {
    let ledger = Ledger::of(case);
    let ran = ledger.run("2", &format!("sink.sync@5=kill,{PACED}"));
    assert_eq!(ran.code, -1, "{}: it has come to its end: {}", case.name, ran.err);
    ledger
}

#[test]
fn a_process_that_ends_at_any_point_loses_nothing_and_gives_nothing_twice() {
    let mut passed = 0;
    for case in cases() {
        let crashed = crashed(&case);
        for point in Point::ALL.into_iter().filter(|point| !ELSEWHERE.contains(point)) {
            let (ledger, name) = (crashed.copy(), point.name());
            // What is restored is restored three times in a row.
            let is_of_recovery =
                ["store.read", "source.restore", "sink.restore", "sink.clear", "sink.restored"];
            let passings = match is_of_recovery.contains(&name) {
                _ if is_long() => &[1, 1, 1, 2, 3][..],
                true => &[1, 1, 1],
                false => &[1],
            };
            for nth in passings {
                let ran =
                    ledger.run(if *nth == 2 { "3" } else { "2" }, &format!("{name}@{nth}=kill,{PACED}"));
                assert!(ran.code == -1 || *nth > 1, "{}: {name} is not passed: {}", case.name, ran.err);
            }
            ledger.close(name);
            passed += 1;
        }
    }
    assert!(passed >= 60, "{passed} points of two jobs");
}

#[test]
fn a_point_that_fails_is_survived_by_a_restart() {
    for case in &cases()[..if is_long() { 3 } else { 1 }] {
        let crashed = crashed(case);
        for point in Point::ALL.into_iter().filter(|point| !ELSEWHERE.contains(point)) {
            let (ledger, name) = (crashed.copy(), point.name());
            let ran = ledger.run("2", &format!("{name}@1=eio,{name}@3=enospc,{PACED}"));
            // What fails before the job has begun refuses it.
            assert!([0, 2].contains(&ran.code), "{}: {name}: {}", case.name, ran.err);
            ledger.close(name);
        }
    }
}

#[test]
fn a_process_that_ends_at_random_loses_nothing_and_gives_nothing_twice() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random::of_seed(seed);
    let ends = if is_long() { 60 } else { 8 };
    let cases = match is_long() {
        true => vec![words(400_000), highest_bids(340_000), windows(2_000_000)],
        false => vec![words(40_000), highest_bids(80_000)],
    };
    for case in cases {
        let ledger = Ledger::of(&case);
        let (mut killed, mut finished) = (0, 0);
        while killed < ends {
            let parallelism = ["1", "2", "3"][random.below(3) as usize];
            let mut child = ledger.command(parallelism, "").spawn().unwrap();
            // Some of them while it begins, and while it restores.
            Clock::system().sleep(Duration::from_millis(10 + random.below(200)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
            }
            let ran = Ran::of(child.wait_with_output().unwrap());
            match ran.code {
                -1 => killed += 1,
                0 => {
                    // It came to its end too soon: that is one account more, and it begins anew.
                    finished += 1;
                    ledger.account().unwrap_or_else(|wrong| panic!("SEED={seed} {}: {wrong}", case.name));
                    assert!(finished < 50, "{} is too short", case.name);
                    fs::remove_dir_all(ledger.folder.path("out")).unwrap();
                    fs::remove_dir_all(ledger.folder.path("chk")).unwrap();
                }
                code => panic!("SEED={seed} {}: {code}: {}", case.name, ran.err),
            }
        }
        ledger.close(&format!("SEED={seed}, {killed} times killed, {finished} times finished"));
    }
}

/// What could not be made durable is lost, and written anew: a second attempt at the same would be told that all
/// is well (fsyncgate).
#[test]
fn a_file_that_cannot_be_made_durable_is_written_anew() {
    for case in cases() {
        let ledger = Ledger::of(&case);
        let ran = ledger.run("2", &format!("sink.sync@3=eio,{PACED}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("restart 1 follows") && ran.err.contains("(os error 5)"), "{}", ran.err);
        ledger.close("sink.sync");
        // A checkpoint fails without the job.
        let ledger = Ledger::of(&case);
        let ran =
            ledger.run("2", &format!("store.sync@2=eio,store.sync@3=eio,store.sync-folder@5=eio,{PACED}"));
        assert!(ran.code == 0 && !ran.err.contains("restart"), "{}", ran.err);
        ledger.close("store.sync");
    }
}

#[test]
fn a_sink_that_forgets_to_commit_is_reported() {
    for case in cases() {
        let ledger = Ledger::of(&case);
        let ran = ledger.run("2", &format!("sink.rename@2=skip,{PACED}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        let wrong = ledger.account().unwrap_err();
        assert!(wrong.contains("is left over") || wrong.contains("rows are committed"), "{wrong}");
    }
}

/// A field of a process's file in `/proc`, in its unit.
fn of_process(id: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// A sink that takes a tenth of a second for what takes a millisecond holds its source back: memory does not grow,
/// and checkpoints do not wait for what is queued.
#[test]
fn a_slow_sink_slows_its_source_and_neither_memory_nor_checkpoints_grow() {
    let lines = text(20_000);
    let folder = Folder::new();
    folder.write("input", lines.repeat(40));
    let size = 40 * lines.len() as u64;
    let mut command = folder.command();
    command
        .args(["run", "-q", "-p", "2", "-Dexecution.checkpointing.interval=300ms"])
        .args(["-Dexecution.checkpointing.dir=chk", "-Dexecution.checkpointing.num-retained=100"])
        .args([&component("word_count"), "--input", "input", "--output", "out"])
        .env("MILLSTREAM_FAULTS", "sink.write=stall:100");
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let clock = Clock::system();
    let manifests = || {
        let mut files = Vec::new();
        if folder.path("chk").is_dir() {
            files_below(&folder.path("chk"), &mut files);
        }
        files.retain(|path| path.ends_with("_metadata"));
        files
    };
    let end = clock.now() + Duration::from_secs(60);
    let (mut early, mut memory) = (0, 0);
    while manifests().len() < 8 {
        assert!(clock.now() < end, "{:?}", manifests());
        assert!(child.try_wait().unwrap().is_none(), "it has come to its end");
        clock.sleep(Duration::from_millis(50));
        memory = of_process(child.id(), "status", "VmHWM:") >> 10;
        if manifests().len() <= 2 {
            early = memory;
        }
    }
    let read = of_process(child.id(), "io", "rchar:");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(read < size, "{read} bytes are read of {size}: nothing has held the source back");
    assert!(memory < early + 32, "memory has grown from {early} to {memory} MiB");
    for path in manifests() {
        let manifest = fs::read_to_string(&path).unwrap();
        let after = manifest.split_once("\"duration\":").unwrap().1;
        let duration: String = after.chars().take_while(char::is_ascii_digit).collect();
        let duration: u64 = duration.parse().unwrap();
        assert!(duration < 3_000, "{path:?} took {duration} ms");
    }
}

/// Event time, and what is waited for, do not hear of the wall clock.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    for case in cases() {
        let ledger = Ledger::of(&case);
        let ran = ledger.run("2", &format!("barrier.cut@3=jump:3600000,barrier.cut@9=jump:-7200000,{PACED}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        ledger.close("jumps");
    }
}

#[test]
fn faults_that_there_are_not_are_refused_with_the_nearest() {
    let case = words(1);
    let ran = Ledger::of(&case).run("1", "sink.comit=kill");
    ran.fails(2, &["`MILLSTREAM_FAULTS` says no faults", "did you mean `sink.commit`?"]);
}
