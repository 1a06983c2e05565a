//! Files that come while a job runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use platform::{Clock, Random};

use crate::support::{Folder, Ran, component};

/// A text of so many lines, of the words of this file alone and of words of all.
fn text(file: u64, lines: u64) -> String {
    (0..lines).map(|line| format!("all{} f{file}w{} f{file}\n", line % 5, line % 7)).collect()
}

/// Puts a file into the folder under a name that counts for nothing, and renames it.
fn drop_in(folder: &Folder, name: &str, text: &str) {
    folder.write("in/.under-way", text);
    std::fs::rename(folder.path("in/.under-way"), folder.path("in").join(name)).unwrap();
}

/// The rows of word count over all texts: every count of every word, once.
fn expected(texts: &[String]) -> Vec<String> {
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut rows = Vec::new();
    for word in texts.iter().flat_map(|text| text.split_whitespace()) {
        let count = counts.entry(word).or_default();
        *count += 1;
        rows.push(format!("{{\"word\":\"{word}\",\"count\":{count}}}"));
    }
    rows.sort_unstable();
    rows
}

/// How many rows can be seen.
fn seen(folder: &Path) -> usize {
    let parts = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = parts.filter(|entry| entry.file_name().to_string_lossy().starts_with("part-"));
    parts.map(|entry| std::fs::read_to_string(entry.path()).unwrap().lines().count()).sum()
}

const CHECKPOINTS: [&str; 2] =
    ["-Dexecution.checkpointing.interval=15ms", "-Dexecution.checkpointing.dir=chk"];

fn run_of(folder: &Folder, parallelism: &str, options: &[&str], faults: &str) -> Command {
    let mut command = folder.command();
    command
        .args(["run", "-p", parallelism])
        .args(CHECKPOINTS)
        .args(options)
        .args([&component("word_count"), "--input", "in", "--monitor-interval", "10ms", "--output", "out"])
        .args(["--format", "json"])
        .env("MILLSTREAM_FAULTS", faults)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command
}

/// Waits until so many rows can be seen, and then a while for more than there should be.
#[track_caller]
fn wait_for(folder: &Folder, child: &mut Child, rows: usize) {
    let clock = Clock::system();
    while seen(&folder.path("out")) < rows {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        assert!(clock.now() < Duration::from_secs(60), "{} rows of {rows}", seen(&folder.path("out")));
        clock.sleep(Duration::from_millis(20));
    }
    clock.sleep(Duration::from_millis(150));
}

fn signal(child: Child, signal: &str) -> Ran {
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn files_that_come_are_counted_once_however_often_the_process_is_killed() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("in")).unwrap();
    let mut random = Random::of_seed(5);
    let mut texts = Vec::new();
    let mut killed = 0;
    let clock = Clock::system();
    for attempt in 0..10 {
        let parallelism = ["2", "3", "1"][attempt % 3];
        let mut child = run_of(&folder, parallelism, &["--restore", "latest"], "").spawn().unwrap();
        for _ in 0..2 + random.below(4) {
            let file = texts.len() as u64;
            let lines = if random.one_in(4) { 20_000 } else { random.below(300) };
            texts.push(text(file, lines));
            drop_in(&folder, &format!("part-{file}"), &texts[texts.len() - 1]);
            clock.sleep(Duration::from_millis(random.below(80)));
        }
        assert!(child.try_wait().unwrap().is_none(), "it ends by itself");
        child.kill().unwrap();
        killed += 1;
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, -1, "{}", ran.err);
    }
    let expected = expected(&texts);
    let mut child = run_of(&folder, "3", &["--restore", "latest"], "").spawn().unwrap();
    wait_for(&folder, &mut child, expected.len());
    let ran = signal(child, "-TERM");
    assert_eq!(ran.code, 143, "{}", ran.err);
    assert!(killed == 10 && folder.parts("out") == expected, "other rows than the files': {}", ran.err);
}

#[test]
fn a_savepoint_knows_what_has_been_read() {
    let folder = Folder::new();
    let savepoints = ["-Dexecution.checkpointing.savepoint-dir=sv"];
    let mut texts = vec![text(0, 5_000), text(1, 10)];
    drop_in(&folder, "a", &texts[0]);
    drop_in(&folder, "b", &texts[1]);
    let mut child = run_of(&folder, "2", &savepoints, "").spawn().unwrap();
    wait_for(&folder, &mut child, expected(&texts).len());
    let ran = signal(child, "-USR2");
    assert!(ran.succeeds().err.contains("Savepoint completed."), "{}", ran.err);
    // What has been read need not be there any more.
    std::fs::remove_file(folder.path("in/a")).unwrap();
    texts.push(text(2, 100));
    drop_in(&folder, "c", &texts[2]);
    let path = std::fs::read_dir(folder.path("sv")).unwrap().next().unwrap().unwrap().path();
    let mut child = run_of(&folder, "3", &["-s", path.to_str().unwrap()], "").spawn().unwrap();
    let all = expected(&texts);
    wait_for(&folder, &mut child, all.len());
    assert_eq!(signal(child, "-INT").code, 130);
    assert!(folder.parts("out") == all, "other rows than the files'");
    // Without looking for new files it ends, and what has been read is not read again.
    let wasm = component("word_count");
    let job = [&wasm, "--input", "in", "--output", "out", "--format", "json"];
    let args: Vec<&str> =
        ["run", "-q", "-s", path.to_str().unwrap()].into_iter().chain(job.map(|arg| arg as &str)).collect();
    folder.streamctl(&args).succeeds();
    // What came after the savepoint is put aside, and comes again.
    let parts = std::fs::read_dir(folder.path("out")).unwrap().map(|entry| entry.unwrap().path());
    let (parts, aside): (Vec<_>, Vec<_>) =
        parts.partition(|path| path.file_name().unwrap().to_string_lossy().starts_with("part-"));
    let mut rows: Vec<String> = Vec::new();
    parts
        .iter()
        .for_each(|path| rows.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned)));
    rows.sort_unstable();
    assert!(rows == all && !aside.is_empty(), "other rows than the files'");
}

#[test]
fn a_look_that_fails_or_ends_the_process_loses_nothing() {
    let folder = Folder::new();
    let texts = [text(0, 500), text(1, 10), text(2, 700)];
    for (number, text) in texts.iter().enumerate() {
        drop_in(&folder, &format!("f{number}"), text);
    }
    for nth in [1, 2, 5] {
        let killed = run_of(&folder, "2", &["--restore", "latest"], &format!("source.look@{nth}=kill"));
        let ran = Ran::of({ killed }.output().unwrap());
        assert_eq!(ran.code, -1, "{}", ran.err);
    }
    let options = ["--restore", "latest", "-Drestart-strategy.exponential-delay.initial-backoff=5ms"];
    let mut child = run_of(&folder, "3", &options, "source.look@1=eio,source.look@7=eio").spawn().unwrap();
    let expected = expected(&texts);
    wait_for(&folder, &mut child, expected.len());
    let ran = signal(child, "-TERM");
    assert!(ran.err.contains("cannot look for new files in `in`"), "{}", ran.err);
    assert!(folder.parts("out") == expected, "other rows than the files': {}", ran.err);
}

#[test]
fn where_input_has_to_end_new_files_are_refused() {
    let folder = Folder::new();
    drop_in(&folder, "a", "a\n");
    let wasm = component("word_count");
    let run = |path: &str, options: &[&str]| {
        let job = [wasm.as_str(), "--input", path, "--monitor-interval", "1s"];
        folder.streamctl(&["run"].into_iter().chain(options.iter().copied()).chain(job).collect::<Vec<_>>())
    };
    run("in", &["--execution", "batch"])
        .fails(2, &["--execution batch needs input that ends", "files end without `monitor-interval`"]);
    run("in/a", &[]).fails(2, &["`in/a` is a file, in which no new files can come", "name the folder"]);
    run("no", &[]).fails(2, &["there is no folder `no`"]);
    run("-", &[]).fails(2, &["`stdin` has no option `monitor-interval`"]);
}
