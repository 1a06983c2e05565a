//! Checkpoints of a running job: how long one takes from its barrier to its durable manifest, what they cost in
//! CPU time, and how soon after `kill -9` output is committed again.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use platform::Clock;

use crate::measure::{self, Round, UNIT, guest, median, streamctl};
use crate::report::Report;
use crate::text::text;
use crate::totals::Totals;

const BENCH: &str = "checkpoints";
const ROWS: u64 = 100_000_000;
const KEYS: u64 = 100_000;
const NONE: &str = "process with value state, 100,000 keys, no checkpoints";
const EACH_SECOND: &str = "the same, a checkpoint a second";
const UNIT_BYTES: u64 = 100_000_000;

/// Of the job that is killed: about 100 MB of state.
const MANY_KEYS: u64 = 7_000_000;
const STATE_BYTES: u64 = 100_000_000;
/// What is given up when nothing comes.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    let file = text(UNIT_BYTES)?;
    let mut took = Vec::new();
    let (valid, void) = measure::steady_rounds(rounds, || {
        let folder = tempfile::tempdir()?;
        let mut round = Round::new();
        round.insert(UNIT, measure::run(&mut measure::subject(UNIT, &file)?)?);
        let without = measure::run(&mut counts(KEYS, None)?)?;
        let with = measure::run(&mut counts(KEYS, Some((folder.path(), "1s")))?)?;
        let [given, expected] = [&with, &without].map(|run| Totals::of_summary(&run.said));
        ensure!(given? == expected?, "with checkpoints the job gives something else");
        took.extend(durations(folder.path())?);
        round.insert(NONE, without);
        round.insert(EACH_SECOND, with);
        Ok(round)
    })?;
    ensure!(took.len() >= rounds, "there were {} checkpoints only", took.len());
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let mut add = |subject: &str, value: f64, unit: &str, against: Option<(&str, f64)>| {
        report.compare((BENCH, valid.len()), subject, value, unit, against);
    };
    add(EACH_SECOND, at(0.5), "ms from the trigger to the durable manifest, p50", None);
    add(EACH_SECOND, at(0.99), "ms from the trigger to the durable manifest, p99", None);
    add(EACH_SECOND, took.len() as f64, "checkpoints", None);
    let seconds = |name: &str| median(valid.iter().map(|round| round[name].cpu.as_secs_f64()).collect());
    add(NONE, seconds(NONE), "CPU-seconds", None);
    add(EACH_SECOND, seconds(EACH_SECOND), "CPU-seconds", Some((NONE, seconds(NONE))));
    add("rounds that were void", void as f64, "of all", None);

    let recovered = (0..rounds).map(|_| recovery()).collect::<anyhow::Result<Vec<_>>>()?;
    let subject = "100 MB of state, a checkpoint each 500 ms";
    let unit = "ms from kill -9 and a new start to the first newly committed file";
    report.compare((BENCH, rounds), subject, median(recovered), unit, None);
    Ok(())
}

fn counts(keys: u64, checkpoints: Option<(&Path, &str)>) -> anyhow::Result<Command> {
    let mut command = streamctl()?;
    command.args(["run", "-p", "2"]);
    if let Some((folder, interval)) = checkpoints {
        command
            .arg(format!("-Dexecution.checkpointing.dir={}", folder.join("chk").display()))
            .arg(format!("-Dexecution.checkpointing.interval={interval}"));
        // All are kept, to be looked at.
        command.arg("-Dexecution.checkpointing.num-retained=10000");
    }
    command.args(["-c", "process_counts"]).arg(guest("speed")?);
    command.args(["--rows", &ROWS.to_string(), "--keys", &keys.to_string(), "--output", "blackhole"]);
    Ok(command)
}

/// The folders of complete checkpoints.
fn complete(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for job in std::fs::read_dir(folder.join("chk")).into_iter().flatten() {
        for checkpoint in std::fs::read_dir(job?.path())? {
            let path = checkpoint?.path();
            if path.join("_metadata").exists() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// How long each took, in milliseconds: from when it began, as its manifest says, to when the manifest had its
/// name. The last one, which comes with the end of the input, is none of them.
fn durations(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::new();
    for path in complete(folder)? {
        let manifest = path.join("_metadata");
        let text = std::fs::read_to_string(&manifest)?;
        let said: serde_json::Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        if said["is_final"] == false {
            let began = said["began"].as_f64().context("a manifest says when it began")?;
            let there = std::fs::metadata(&manifest)?;
            took.push(there.ctime() as f64 * 1e3 + there.ctime_nsec() as f64 / 1e6 - began);
        }
    }
    Ok(took)
}

/// Kills a job with much state, and starts it again; milliseconds until output comes that was not there.
fn recovery() -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::system();
    let output = folder.path().join("out");
    let start = || -> anyhow::Result<_> {
        let mut command = streamctl()?;
        command
            .args(["run", "-q", "-p", "2", "--restore", "latest"])
            .arg(format!("-Dexecution.checkpointing.dir={}", folder.path().join("chk").display()))
            .arg("-Dexecution.checkpointing.interval=500ms")
            .args(["-c", "process_counts"])
            .arg(guest("speed")?)
            .args(["--rows", "1000000000", "--keys", &MANY_KEYS.to_string(), "--output"])
            .arg(&output);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    let committed = || -> BTreeSet<std::ffi::OsString> {
        let entries = std::fs::read_dir(&output).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name())
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .collect()
    };
    let state = || -> anyhow::Result<u64> {
        let mut most = 0;
        for path in complete(folder.path()).unwrap_or_default() {
            let files = std::fs::read_dir(path).into_iter().flatten().flatten();
            most = most.max(files.filter_map(|file| Some(file.metadata().ok()?.len())).sum());
        }
        Ok(most)
    };
    let (mut child, end) = (start()?, clock.now() + PATIENCE);
    while state()? < STATE_BYTES {
        if child.try_wait()?.is_some() || clock.now() > end {
            child.kill().ok();
            bail!("the job has ended before it had {STATE_BYTES} bytes of state");
        }
        clock.sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    let before = committed();
    let began = clock.now();
    let mut child = start()?;
    while committed().is_subset(&before) {
        if child.try_wait()?.is_some() || clock.now() > began + PATIENCE {
            child.kill().ok();
            bail!("nothing is committed after a restart");
        }
        clock.sleep(Duration::from_millis(2));
    }
    let took = clock.now() - began;
    child.kill()?;
    child.wait()?;
    Ok(took.as_secs_f64() * 1e3)
}
