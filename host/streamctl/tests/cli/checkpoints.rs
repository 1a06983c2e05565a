//! What is told of a job's checkpoints, and checkpoints under bad conditions.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::recovery::{expected, text};
use crate::support::{Folder, Ran, component, files_below};

const CHECKPOINTS: [&str; 2] =
    ["-Dexecution.checkpointing.interval=20ms", "-Dexecution.checkpointing.dir=chk"];

/// Word count with these faults and options, from `text.txt` into `out`.
fn word_count(folder: &Folder, faults: &str, options: &[&str]) -> Command {
    let mut command = folder.command();
    command.args(["run", "-p", "2"]).args(CHECKPOINTS).args(options);
    command.args([&component("word_count"), "--input", "text.txt", "--output", "out", "--format", "json"]);
    command.env("MILLSTREAM_FAULTS", faults);
    command
}

/// The number before a word in what was said.
#[track_caller]
pub(crate) fn number(err: &str, of: &str, word: &str) -> u64 {
    let line = err.lines().find(|line| line.starts_with(of)).unwrap_or_else(|| panic!("no {of} in: {err}"));
    let before = line.split(word).next().filter(|before| *before != line);
    let before = before.unwrap_or_else(|| panic!("no {word} in: {line}"));
    before.trim_end().rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn the_end_of_a_job_says_how_its_checkpoints_were() {
    let folder = Folder::new();
    let text = text(50_000);
    folder.write("text.txt", &text);
    // Each read takes a while, so that there are some.
    let faults = "source.read=stall:10,store.sync@4=enospc";
    let ran = Ran::of(word_count(&folder, faults, &[]).output().unwrap());
    let err = &ran.succeeds().err;
    let full = "checkpoint 2 has failed: No space left on device (os error 28)";
    assert!(err.contains(&format!("WARN  checkpoints: {full}")), "{err}");
    assert!(number(err, "checkpoints: ", " complete, 1 failed; ") > 2, "{err}");
    for told in [" on average, p50 ", "; alignment at most ", "the last that failed was 2: No space left"] {
        assert!(err.contains(told), "`{told}` is not in: {err}");
    }
    assert!(folder.parts("out") == expected(&text));
    // Over restarts they are counted on.
    let folder = Folder::new();
    folder.write("text.txt", &text);
    let faults = "source.read=stall:10,store.sync@5=eio";
    let options = [
        "-Dexecution.checkpointing.tolerable-failed-checkpoints=0",
        "-Drestart-strategy.exponential-delay.initial-backoff=10ms",
    ];
    let ran = Ran::of(word_count(&folder, faults, &options).output().unwrap());
    let err = &ran.succeeds().err;
    assert!(number(err, "checkpoints: ", " complete, 1 failed, 1 restored; ") > 2, "{err}");
    // A job without checkpoints has nothing to say of them.
    let wasm = component("word_count");
    let ran = folder.streamctl(&["run", &wasm, "--input", "text.txt", "--output", "without"]);
    assert!(!ran.succeeds().err.contains("checkpoints"), "{}", ran.err);
    let refused = folder.streamctl(&["run", "-Dweb.checkpoints.history=many", &wasm, "--input", "text.txt"]);
    refused.fails(2, &["web.checkpoints.history"]);
}

#[test]
fn the_size_and_the_time_of_a_checkpoint_are_in_it() {
    let folder = Folder::new();
    folder.write("text.txt", text(100_000));
    let faults = "source.read=stall:10,store.write@7=kill";
    let ran = Ran::of(word_count(&folder, faults, &[]).output().unwrap());
    assert_eq!(ran.code, -1, "{}", ran.err);
    let job = std::fs::read_dir(folder.path("chk")).unwrap().next().unwrap().unwrap().path();
    let mut complete = std::fs::read_dir(job).unwrap().map(|entry| entry.unwrap().path());
    let path = complete.find(|path| path.join("_metadata").is_file()).unwrap();
    let shown = folder.streamctl(&["state", path.to_str().unwrap()]);
    let out = &shown.succeeds().out;
    let line = out.lines().nth(1).unwrap();
    assert!(line.starts_with("begun 20") && line.contains("Z, complete after "), "{out}");
    let size = line.rsplit(", ").next().unwrap();
    assert!(size.ends_with(" kB"), "{out}");
    let of_operator = out.lines().find(|line| line.starts_with("aggregate-sum-by-f0  Keyed")).unwrap();
    assert!(of_operator.contains(" kB"), "{out}");
}

/// How many objects are being written below `chk`.
fn being_written(folder: &Folder) -> usize {
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let checkpoints = below(folder.path("chk")).flat_map(|job| below(job.path()));
    let names = checkpoints.flat_map(|checkpoint| below(checkpoint.path())).map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".unfinished-")).count()
}

/// A checkpoint that takes longer than their interval holds the next back; there are not more and more.
#[test]
fn checkpoints_that_are_slower_than_their_interval_do_not_pile_up() {
    let folder = Folder::new();
    let text = text(60_000);
    folder.write("text.txt", &text);
    // Two objects each, a tenth of a second for each.
    let faults = "source.read=stall:25,store.sync=stall:100";
    let clock = platform::Clock::system();
    let start = clock.now();
    let mut child = word_count(&folder, faults, &["-Dexecution.checkpointing.interval=10ms"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(being_written(&folder));
        clock.sleep(Duration::from_millis(2));
    }
    let took = clock.now() - start;
    let ran = Ran::of(child.wait_with_output().unwrap());
    let complete = number(&ran.succeeds().err, "checkpoints: ", " complete");
    assert!(complete > 1 && u128::from(complete) <= took.as_millis() / 200 + 1, "{complete} in {took:?}");
    assert_eq!(most, 1, "so many were written at once");
    assert!(folder.parts("out") == expected(&text));
}

/// The complete checkpoints below `chk`, in their order.
fn complete(folder: &Folder) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(&folder.path("chk"), &mut files);
    let manifests = files.iter().filter(|path| path.ends_with("_metadata"));
    let mut complete: Vec<PathBuf> = manifests.map(|path| path.parent().unwrap().to_owned()).collect();
    complete.sort_by_key(|path| number_of(path));
    complete
}

fn number_of(checkpoint: &Path) -> u64 {
    checkpoint.to_string_lossy().rsplit('-').next().unwrap().parse().unwrap()
}

/// A job that does not outlive its test.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(Some(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Stops it by a signal, and waits for its end.
    fn stop(mut self) -> Ran {
        Command::new("kill").args(["-TERM", &self.child().id().to_string()]).status().unwrap();
        Ran::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Waits for something, while the job runs.
#[track_caller]
fn wait(job: &mut Running, what: &str, is_so: impl Fn() -> bool) {
    let clock = platform::Clock::system();
    let end = clock.now() + Duration::from_secs(60);
    while !is_so() {
        assert!(job.child().try_wait().unwrap().is_none(), "the job has ended, and there was no {what}");
        assert!(clock.now() < end, "there is no {what}");
        clock.sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_stops_a_job_without_a_checkpoint_and_it_goes_on_from_the_last() {
    let folder = Folder::new();
    let text = text(200_000);
    folder.write("text.txt", &text);
    let mut job = Running::start(word_count(&folder, "source.read=stall:80", &[]).stderr(Stdio::piped()));
    wait(&mut job, "checkpoint", || complete(&folder).last().is_some_and(|last| number_of(last) > 8));
    let stopped = job.stop();
    assert_eq!(stopped.code, 143, "{}", stopped.err);
    assert!(stopped.err.contains("Job word_count was stopped"), "{}", stopped.err);
    let last = number_of(&complete(&folder).pop().unwrap());
    let ran = Ran::of(word_count(&folder, "", &["--restore", "latest"]).output().unwrap());
    let told = format!("goes on from checkpoint {last}");
    assert!(ran.succeeds().err.contains(&told), "{}", ran.err);
    // What came after it is read again, and seen once.
    let rows_in = |ran: &Ran| number(&ran.err, "Job word_count", " rows in");
    let (before, after) = (rows_in(&stopped), rows_in(&ran));
    assert!(before < 200_000 && after < 200_000 && before + after >= 200_000, "{before} and {after}");
    assert!(folder.parts("out") == expected(&text), "other rows than the text's");
}

/// A file system of a few kilobytes, in a folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount one.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1536k", "tmpfs"]).arg(folder).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Where no file system may be mounted, what a full disk does is shown by faults on purpose alone.
#[test]
fn a_disk_that_is_full_for_a_while_holds_up_checkpoints_only() {
    let folder = Folder::new();
    let Some(_disk) = SmallDisk::mount(&folder.path("chk")) else { return };
    let text = text(200_000);
    folder.write("text.txt", &text);
    let err = folder.path("err.txt");
    let faults = "source.read=stall:100";
    let mut job = Running::start(word_count(&folder, faults, &[]).stderr(File::create(&err).unwrap()));
    wait(&mut job, "checkpoint", || !complete(&folder).is_empty());
    let ballast = folder.path("chk/ballast");
    let full = std::fs::write(&ballast, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let said = || std::fs::read_to_string(&err).unwrap();
    let failures = || said().matches("No space left on device (os error 28)").count();
    wait(&mut job, "failure", || failures() > 0);
    // The one before it is as it was.
    let before = complete(&folder).pop().unwrap();
    folder.streamctl(&["state", before.to_str().unwrap()]).succeeds();
    std::fs::remove_file(&ballast).unwrap();
    wait(&mut job, "checkpoint", || {
        complete(&folder).last().is_some_and(|last| number_of(last) > number_of(&before))
    });
    drop(job);
    // They fail again and again, for one reason, which is told once.
    assert_eq!(failures(), 1, "{}", said());
    let ran = Ran::of(word_count(&folder, "", &["--restore", "latest"]).output().unwrap());
    assert!(ran.succeeds().err.contains("goes on from checkpoint"), "{}", ran.err);
    assert!(folder.parts("out") == expected(&text), "other rows than the text's: {}", said());
}

#[test]
fn a_sink_that_is_slow_slows_the_source_and_holds_up_neither_memory_nor_checkpoints() {
    let folder = Folder::new();
    let lines = text(100_000);
    let (bytes, lines) = (lines.len() * 20, lines.repeat(20));
    folder.write("text.txt", &lines);
    // Each write takes a hundred times as long as without.
    let options = ["-Dexecution.checkpointing.timeout=10s", "-Dexecution.checkpointing.interval=100ms"];
    let mut job =
        Running::start(word_count(&folder, "sink.write=stall:400", &options).stderr(Stdio::piped()));
    let clock = platform::Clock::system();
    let end = clock.now() + Duration::from_secs(6);
    while clock.now() < end {
        assert!(job.child().try_wait().unwrap().is_none(), "the sink was not slow");
        clock.sleep(Duration::from_millis(20));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.child().id())).unwrap();
    let ran = job.stop();
    assert_eq!(ran.code, 143, "{}", ran.err);
    let rows = number(&ran.err, "Job word_count", " rows in");
    assert!((1..200_000).contains(&rows), "the source was not slowed: {}", ran.err);
    assert!(number(&ran.err, "checkpoints: ", " complete") >= 1, "{}", ran.err);
    assert!(!ran.err.contains("it took longer"), "{}", ran.err);
    // What the job would have read and made of it is some hundred megabytes.
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(bytes > 75_000_000 && peak < 220_000, "{peak} kB at most, of a text of {bytes} bytes");
}
