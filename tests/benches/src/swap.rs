//! Jobs under load that change to other versions while they run: how long their sinks get nothing, and how soon all
//! runs the old code after a trap.
//!
//! Word count, visits of users, and a count by name, in releases whose rows tell them apart ([`jobs`]). A thread looks every 100 µs how many rows the sinks have
//! taken. The longest time without any, from when a change is asked for until it is complete, is held against the
//! longest in as long a time right after it, in which nothing changes, and beside the longest while a checkpoint of all
//! state is made. When a job has ended each of its rows is looked
//! at: each is there once, of each key by one release after the other as they have run; and the rows of one file, which
//! lie between two barriers, are of one release. Input and output lie in memory where
//! the system has a folder for that: at a barrier a sink waits for its disk, which is not the change's doing.

mod jobs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use checkpoint::{Settings, Storage};
use guest::{Program, Runtime, RuntimeConfig};
use model::job_graph::NodeKind;
use platform::disk::ModelDisk;
use platform::store::FileStore;
use platform::{Clock, Faults, Platform, spawn_thread};
use task::swap::{Probation, Rollback, Standing, SwapOptions};
use task::{Checkpoints, Job, JobOutcome, Plan, RunOptions};

use crate::measure::{guest, median};
use crate::report::Report;
use jobs::Kind;

const BENCH: &str = "swap";
/// How often it is looked what has come out.
const LOOK: Duration = Duration::from_micros(100);
/// Changes of one job, at most.
const CHANGES: usize = 60;

/// A job that changes between releases, over and over.
struct Case {
    name: &'static str,
    kind: Kind,
    releases: [i64; 2],
    keys: i64,
    rows: i64,
    /// Changes for each round.
    changes: usize,
}

const CASES: [Case; 4] = [
    Case {
        name: "word count",
        kind: Kind::Words,
        releases: [1, 2],
        keys: 5_000,
        rows: 8_000_000,
        changes: 200,
    },
    Case {
        name: "visits",
        kind: Kind::Visits,
        releases: [1, 2],
        keys: 20_000,
        rows: 16_000_000,
        changes: 200,
    },
    TALLY,
    Case {
        name: "1 M keys migrated lazily",
        kind: Kind::Tally,
        releases: [1, 3],
        keys: 1_000_000,
        rows: 6_000_000,
        changes: 20,
    },
];

/// The functions that are called together are others, too.
const TALLY: Case = Case {
    name: "functions",
    kind: Kind::Tally,
    releases: [1, 2],
    keys: 50_000,
    rows: 4_000_000,
    changes: 40,
};

pub(crate) fn run(report: &mut Report, rounds: usize) -> anyhow::Result<()> {
    for case in &CASES {
        let wanted = case.changes * rounds;
        let mut windows = Windows::default();
        while windows.changing.len() < wanted {
            let before = windows.changing.len();
            let changes = CHANGES.min(wanted - before);
            change(case, changes, &mut windows)?;
            ensure!(windows.changing.len() > before, "a job of {} rows ends before it changes", case.rows);
        }
        let count = windows.changing.len();
        for (part, unit) in [(0.5, "ms without rows, p50"), (0.99, "ms without rows, p99"), (1.0, "ms, most")]
        {
            let quiet = at(&mut windows.quiet, part);
            let changing = at(&mut windows.changing, part);
            let subject = |what: &str| format!("{}, {what}", case.name);
            let baseline = subject("no change");
            report.compare((BENCH, count), &baseline, quiet, unit, None);
            let checkpointing = at(&mut windows.checkpointing, part);
            let against = Some((baseline.as_str(), quiet));
            report.compare(
                (BENCH, count),
                &subject("a checkpoint of all state"),
                checkpointing,
                unit,
                against,
            );
            report.compare((BENCH, count), &subject("a change"), changing, unit, against);
            let beyond = subject("a change, beyond the base line");
            report.compare((BENCH, count), &beyond, changing - quiet, unit, None);
        }
        report.compare(
            (BENCH, count),
            &format!("{}, a change", case.name),
            median(windows.took),
            "ms until it is complete, p50",
            None,
        );
    }
    fall(report, 8 * rounds)
}

/// The longest times without rows, in milliseconds.
#[derive(Default)]
struct Windows {
    changing: Vec<f64>,
    quiet: Vec<f64>,
    /// In which a checkpoint of all state is made.
    checkpointing: Vec<f64>,
    /// How long changes took.
    took: Vec<f64>,
}

fn at(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A running job, with its input and output.
struct Running {
    folder: tempfile::TempDir,
    args: Vec<String>,
    program: Program,
    kind: Kind,
    options: RunOptions,
    job: Arc<Job>,
    clock: Clock,
    /// When rows came out, one look after the other.
    seen: Arc<Mutex<Vec<Duration>>>,
    is_over: Arc<AtomicBool>,
    watcher: Option<std::thread::JoinHandle<()>>,
}

fn plan(
    (program, job): (&Program, &str),
    args: &[String],
    options: &RunOptions,
    output: &Path,
) -> anyhow::Result<Plan> {
    let refused = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let graph = program.plan(job, args).map_err(|error| refused(&error))?;
    let mut graph = graph.map_err(|refusal| anyhow!("{refusal:?}"))?;
    for node in &mut graph.nodes {
        if let NodeKind::Sink(connection) = &mut node.kind {
            connection.connector = "files".to_owned();
            connection.options = BTreeMap::from([("path".to_owned(), output.display().to_string())]);
            connection.format = Some("json".to_owned());
            connection.format_options.clear();
        }
    }
    task::plan(program, job, args, graph, options.clone()).map_err(|error| refused(&error))
}

impl Running {
    fn start(case: &Case) -> anyhow::Result<Self> {
        let in_memory = Path::new("/dev/shm");
        let folder = match in_memory.is_dir() {
            true => tempfile::tempdir_in(in_memory)?,
            false => tempfile::tempdir()?,
        };
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, case.kind.input(case.rows, case.keys))?;
        let args = vec!["--input".to_owned(), path.display().to_string()];
        let platform = Platform::system();
        let runtime = Runtime::new(platform.clone(), RuntimeConfig::default())?;
        let program = runtime.load(&std::fs::read(guest("operators")?)?)?;
        let store = Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none()));
        let mut options = RunOptions { parallelism: 2, ..RunOptions::default() };
        options.allow = vec![folder.path().display().to_string()];
        options.checkpoints = Some(Checkpoints {
            settings: Settings {
                interval: None,
                timeout: Duration::from_secs(60),
                min_pause: Duration::ZERO,
                tolerable_failures: None,
                retained: 1,
            },
            storage: Storage::new(store, "5eed5eed5eed5eed5eed5eed5eed5eed"),
            job_id: "5eed5eed5eed5eed5eed5eed5eed5eed".to_owned(),
            takes_over: false,
            restored: None,
            next: 1,
            retained: Vec::new(),
        });
        let of = (&program, case.kind.job());
        let first = plan(of, &release(&args, &[], case.releases[0]), &options, &folder.path().join("out"))?;
        first.prepare().map_err(|error| anyhow!("{error}"))?;
        let job = task::start(first, &platform, Arc::new(|_| {})).map_err(|error| anyhow!("{error}"))?;
        let (job, clock) = (Arc::new(job), platform.clock.clone());
        let (seen, is_over) = (Arc::<Mutex<Vec<Duration>>>::default(), Arc::<AtomicBool>::default());
        let watcher = {
            let (job, clock, seen, is_over) =
                (Arc::clone(&job), clock.clone(), Arc::clone(&seen), Arc::clone(&is_over));
            spawn_thread("watcher", move || {
                let mut before = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let rows = job.progress().rows_out;
                    if rows != before {
                        before = rows;
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(clock.now());
                    }
                    clock.sleep(LOOK);
                }
            })
        };
        let running = Self {
            folder,
            args,
            program,
            kind: case.kind,
            options,
            job,
            clock,
            seen,
            is_over,
            watcher: Some(watcher),
        };
        // Until each key has its state.
        while running.job.progress().rows_out < case.keys as u64 {
            running.clock.sleep(Duration::from_millis(1));
        }
        Ok(running)
    }

    /// Changes; when that was asked for, and when it was complete. None: the job has ended before.
    fn change(
        &self,
        number: i64,
        faults: &[&str],
        how: SwapOptions,
    ) -> anyhow::Result<Option<(Duration, Duration)>> {
        let output = self.folder.path().join("out");
        let of = (&self.program, self.kind.job());
        let plan = plan(of, &release(&self.args, faults, number), &self.options, &output)?;
        let (sender, receiver) = sync_channel(1);
        let asked = self.clock.now();
        let changed = self.job.swap(&plan, how, Box::new(move |result| drop(sender.send(result))));
        changed.map_err(|error| anyhow!("{error}"))?;
        let is_changed = matches!(receiver.recv(), Ok(Ok(_)));
        Ok(is_changed.then(|| (asked, self.clock.now())))
    }

    /// The longest time without rows that overlaps this time, in milliseconds.
    fn longest(&self, from: Duration, to: Duration) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = seen.partition_point(|at| *at < from).saturating_sub(1);
        let pairs = seen[first..].windows(2).take_while(|pair| pair[0] < to);
        milliseconds(pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
    }

    /// Waits for its end, and looks at every row.
    fn hold(mut self, case: &Case, ran: &[i64], is_of_one_side: bool) -> anyhow::Result<()> {
        let outcome = self.job.wait();
        self.is_over.store(true, Ordering::Relaxed);
        self.watcher.take().and_then(|watcher| watcher.join().ok()).context("the watcher has failed")?;
        ensure!(matches!(outcome, JobOutcome::Finished), "it ended with {outcome:?}");
        let folder = self.folder.path().join("out");
        case.kind.hold(&folder, (case.rows, case.keys), ran, is_of_one_side)?;
        Ok(())
    }
}

fn release(args: &[String], faults: &[&str], release: i64) -> Vec<String> {
    let of_release = ["--release".to_owned(), release.to_string()];
    args.iter().cloned().chain(faults.iter().map(|fault| (*fault).to_owned())).chain(of_release).collect()
}

/// A job that changes to and fro so many times, unless it ends before.
fn change(case: &Case, changes: usize, windows: &mut Windows) -> anyhow::Result<()> {
    let running = Running::start(case)?;
    let mut ran = vec![case.releases[0]];
    let mut times = Vec::new();
    for number in case.releases.into_iter().cycle().skip(1).take(changes) {
        let Some((asked, complete)) = running.change(number, &[], SwapOptions::default())? else { break };
        ran.push(number);
        let took = complete - asked;
        // One look more, so that what follows it is not the end of its gap.
        running.clock.sleep(took + Duration::from_millis(20));
        if running.job.progress().rows_in < case.kind.rows_in(case.rows) {
            let quiet = running.clock.now();
            let (sender, receiver) = sync_channel(1);
            let answer = Box::new(move |result| drop(sender.send(result)));
            running.job.checkpoint(true, answer).map_err(|error| anyhow!("{error}"))?;
            if !matches!(receiver.recv(), Ok(Ok(_))) {
                break;
            }
            let checkpointed = running.clock.now();
            running.clock.sleep(Duration::from_millis(20));
            times.push((asked, complete, quiet, checkpointed));
        }
    }
    for (asked, complete, end, checkpointed) in times {
        windows.changing.push(running.longest(asked, complete));
        windows.quiet.push(running.longest(end - (complete - asked), end));
        windows.checkpointing.push(running.longest(end, checkpointed));
        windows.took.push(milliseconds(complete - asked));
    }
    running.hold(case, &ran, true)
}

/// Versions on probation that trap: from the trap until its subtask, and until all, ran the old code.
fn fall(report: &mut Report, wanted: usize) -> anyhow::Result<()> {
    let case = &TALLY;
    let (mut subtask, mut all) = (Vec::new(), Vec::new());
    while all.len() < wanted {
        let running = Running::start(case)?;
        let mut ran = vec![1];
        for _ in 0..(wanted - all.len()).min(CHANGES / 3) {
            let (sender, receiver) = sync_channel(4);
            let observer = move |standing: &Standing| drop(sender.send(standing.clone()));
            let rollback = Rollback::Forward;
            let probation = Probation { time: Duration::from_secs(60), max_traps: 0, rollback };
            let how = SwapOptions { probation: Some(probation), observer: Some(Arc::new(observer)) };
            running.change(2, &["--trap-after", "20000"], how)?;
            ran.extend([2, 1]);
            let standing = receiver.iter().find(|standing| {
                matches!(
                    standing,
                    Standing::WentBack { .. } | Standing::NotChanged { .. } | Standing::Kept { .. }
                )
            });
            let Some(Standing::WentBack { trap, took, .. }) = standing else { break };
            subtask.push(milliseconds(trap.took));
            all.push(milliseconds(took));
        }
        running.hold(case, &ran, false)?;
    }
    let count = all.len();
    for (part, unit) in [(0.5, "ms from the trap, p50"), (1.0, "ms from the trap, most")] {
        report.compare((BENCH, count), "the trapped subtask is back", at(&mut subtask, part), unit, None);
        report.compare((BENCH, count), "all subtasks are back", at(&mut all, part), unit, None);
    }
    Ok(())
}
