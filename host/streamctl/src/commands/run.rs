//! `streamctl run`: a job from its component to its last row.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use connectors::sinks::print::CLOSED;
use guest::LogLevel;
use model::Diagnostic;
use model::job_graph::{JobGraph, NodeKind};
use platform::network::runtime;
use platform::{Clock, Platform, spawn_task, spawn_thread};
use task::{Form, Job, JobOutcome, LogRecord, LogSink, Progress, SavepointRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::checkpoints::{self, Asked, Restore, Restoring};
use super::load;
use crate::cli::RunArgs;
use crate::config::Config;
use crate::terminal::{Style, Terminal, bytes, count};
use crate::{Done, Stop};

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
/// As of programs that end by SIGPIPE, without a word.
const PIPE_CLOSED: u8 = 141;

pub(crate) fn run(args: &RunArgs, terminal: &Arc<Terminal>) -> Done {
    let platform = Platform::system();
    let mut config = Config::load(&args.job.define).map_err(Stop::Refused)?;
    let sandbox = load::runtime(&config, &platform)?;
    let file = &args.job.file;
    let program = load::program(&sandbox, file)?;
    let jobs = load::jobs(&program, file)?;
    let name = &load::job(&jobs, file, args.job.job.as_deref())?.name;
    let graph = load::graph(&program, file, name, &args.job.args)?;
    let mut options = load::options(&args.job, &mut config, &graph)?;
    options.chaos_instances = args.chaos_instances;
    let say = |text: &str| {
        if !args.quiet {
            terminal.line(text);
        }
    };
    let from_savepoint = args.from_savepoint.clone().map(Restore::Path);
    let restoring = Restoring {
        from: args.restore.as_ref().or(from_savepoint.as_ref()),
        allow_non_restored: args.allow_non_restored_state,
    };
    let asked = checkpoints::asked(&config, restoring, name, &platform.clock, terminal, &say);
    let Asked { checkpoints, is_finished } = asked.map_err(Stop::Refused)?;
    options.checkpoints = checkpoints;
    let prints = prints(&graph);
    let plan = task::plan(&program, name, &args.job.args, graph, options).map_err(Stop::Refused)?;
    plan.prepare().map_err(Stop::Refused)?;
    if is_finished {
        say("the job has finished before: nothing is left to do");
        return Ok(());
    }
    if plan.options().checkpoints.is_some() {
        for source in plan.sources_that_cannot_go_back() {
            terminal.warning(&format!(
                "`{source}` cannot be read again: what it has given since the last checkpoint is lost when the job fails (at most once)"
            ));
        }
    }
    let title = plan.physical.job.name.clone();
    let nodes: Vec<String> = plan.physical.job.nodes.iter().map(|node| node.name.clone()).collect();

    let least = if args.quiet { LogLevel::Warn } else { LogLevel::Trace };
    let (log, printer) = log_to(terminal, least);
    let start = platform.clock.now();
    let of_checkpoints = plan.options().checkpoints.as_ref();
    let (storage, job_id) = of_checkpoints
        .map(|of| (of.storage.clone(), of.job_id.clone()))
        .map_or((None, None), |(storage, id)| (Some(storage), Some(id)));
    let savepoints = job_id.and_then(|id| Some((id, checkpoints::savepoints(&config)?)));
    let savepoint_signals = savepoints.as_ref().map(|_| catch_savepoint_signals()).transpose();
    let savepoint_signals = savepoint_signals.map_err(Stop::Failed)?;
    let signals = catch_signals().map_err(Stop::Failed)?;
    let job = Arc::new(task::start(plan, &platform, log).map_err(Stop::Failed)?);
    let signalled = watch_signals(signals, &job, terminal);
    if let (Some(signals), Some((id, (folder, form)))) = (savepoint_signals, savepoints) {
        watch_savepoint_signals(
            signals,
            &job,
            &SavepointFolder { folder, form, id, quiet: args.quiet },
            terminal,
        );
    }
    let shown = !args.quiet && Terminal::is_terminal() && !(prints && std::io::stdout().is_terminal());
    let watcher = shown.then(|| show_progress(&job, &platform.clock, terminal));
    let outcome = job.wait();
    if let Some((stop, watcher)) = watcher {
        drop(stop);
        join(watcher);
    }
    if let Some(storage) = storage {
        checkpoints::retain(&config, &storage, &outcome, terminal);
    }
    // The log is whole before anything is said of the end.
    join(printer);
    let took = platform.clock.now() - start;
    let unread = matches!(&outcome, JobOutcome::Failed(error) if error.message == CLOSED);
    if !args.quiet && !unread {
        summary(&job, &title, &nodes, &outcome, took).iter().for_each(|line| terminal.line(line));
    }
    match (outcome, signalled.load(Ordering::SeqCst)) {
        (JobOutcome::Failed(_), _) if unread => Err(Stop::Code(PIPE_CLOSED)),
        (JobOutcome::Failed(error), _) => Err(Stop::Failed(error)),
        (JobOutcome::Cancelled, code) if code > 0 => Err(Stop::Code(code)),
        _ => Ok(()),
    }
}

/// Whether rows go to standard output.
fn prints(graph: &JobGraph) -> bool {
    graph.nodes.iter().any(|node| matches!(&node.kind, NodeKind::Sink(to) if to.connector == "print"))
}

/// A panic of a thread that only shows something is no reason to fail.
fn join(thread: JoinHandle<()>) {
    drop(thread.join());
}

/// Messages that may wait for standard error; more are counted and dropped.
const MESSAGES_MAX: usize = 1_024;

/// Where guests' messages go: a thread writes them, so that a slow reader of standard error holds
/// no worker back.
fn log_to(terminal: &Arc<Terminal>, least: LogLevel) -> (LogSink, JoinHandle<()>) {
    let (sender, records) = sync_channel::<LogRecord>(MESSAGES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let (lost, terminal) = (Arc::clone(&dropped), Arc::clone(terminal));
    let printer = spawn_thread("log", move || {
        for record in records {
            terminal.line(&log_line(&record, &terminal));
        }
        match lost.load(Ordering::Relaxed) {
            0 => {}
            n => terminal.warning(&format!("{} messages of guests were dropped: too many at once", count(n))),
        }
    });
    // Worker threads share the one sender.
    let sender: Mutex<SyncSender<LogRecord>> = Mutex::new(sender);
    let log: LogSink = Arc::new(move |record| {
        if record.level < least {
            return;
        }
        let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.try_send(record).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    });
    (log, printer)
}

fn log_line(record: &LogRecord, terminal: &Terminal) -> String {
    let level = match record.level {
        LogLevel::Trace => terminal.style(Style::Dim, "TRACE"),
        LogLevel::Debug => terminal.style(Style::Dim, "DEBUG"),
        LogLevel::Info => terminal.style(Style::Green, "INFO "),
        LogLevel::Warn => terminal.style(Style::Yellow, "WARN "),
        LogLevel::Error => terminal.style(Style::Red, "ERROR"),
    };
    format!("{level} {} ({}): {}", record.function, record.subtask + 1, record.message)
}

/// From now on signals do not end the process. Before the job starts: none may find it half-way.
fn catch_signals() -> Result<Vec<(Signal, u8)>, Diagnostic> {
    let _network = runtime().enter();
    [(SignalKind::interrupt(), INTERRUPTED), (SignalKind::terminate(), TERMINATED)]
        .into_iter()
        .map(|(kind, code)| Ok((signal(kind)?, code)))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Diagnostic::external("cannot catch signals").detail(error.to_string()))
}

/// SIGUSR1 and SIGUSR2, and whether the job stops with the savepoint.
fn catch_savepoint_signals() -> Result<[(Signal, bool); 2], Diagnostic> {
    let _network = runtime().enter();
    let catch = |kind| {
        signal(kind).map_err(|error| Diagnostic::external("cannot catch signals").detail(error.to_string()))
    };
    Ok([(catch(SignalKind::user_defined1())?, false), (catch(SignalKind::user_defined2())?, true)])
}

/// Where a run's savepoints are put.
#[derive(Clone)]
struct SavepointFolder {
    folder: PathBuf,
    form: Form,
    /// The job's id.
    id: String,
    /// Nothing is said but warnings.
    quiet: bool,
}

/// Makes savepoints when signals come.
fn watch_savepoint_signals(
    signals: [(Signal, bool); 2],
    job: &Arc<Job>,
    to: &SavepointFolder,
    terminal: &Arc<Terminal>,
) {
    for (mut signals, stops) in signals {
        let (job, to, terminal) = (Arc::downgrade(job), to.clone(), Arc::clone(terminal));
        spawn_task("savepoints", async move {
            while signals.recv().await.is_some() {
                let (savepoint, path) = checkpoints::new_savepoint(&to.folder, &to.id);
                let stop = stops.then_some(checkpoint::coordinator::Stop::Suspend);
                let (said, quiet) = (Arc::clone(&terminal), to.quiet);
                let answer = Box::new(move |result: Result<u64, String>| match result {
                    Ok(_) if quiet => {}
                    Ok(_) => said.line(&format!("Savepoint completed. Path: file:{}", path.display())),
                    Err(why) => said.warning(&format!("there is no savepoint: {why}")),
                });
                let request = SavepointRequest { savepoint, form: to.form, stop };
                if let Some(Err(error)) = job.upgrade().map(|job| job.savepoint(request, answer)) {
                    terminal.warning(&error.message);
                }
            }
        });
    }
}

/// The first signal stops the job, the second the process. The code to end with.
fn watch_signals(signals: Vec<(Signal, u8)>, job: &Arc<Job>, terminal: &Arc<Terminal>) -> Arc<AtomicU8> {
    let code = Arc::new(AtomicU8::new(0));
    for (mut signals, number) in signals {
        let (job, code, terminal) = (Arc::downgrade(job), Arc::clone(&code), Arc::clone(terminal));
        spawn_task("signals", async move {
            while signals.recv().await.is_some() {
                if code.swap(number, Ordering::SeqCst) > 0 {
                    std::process::exit(number.into());
                }
                terminal.line("Stopping; once more to stop at once.");
                if let Some(job) = job.upgrade() {
                    job.cancel();
                }
            }
        });
    }
    code
}

/// How often progress is shown, once a job has run for a while.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
const SHOWN_FROM: Duration = Duration::from_millis(500);

/// Shows progress until what it returns first is dropped.
fn show_progress(
    job: &Arc<Job>,
    clock: &Clock,
    terminal: &Arc<Terminal>,
) -> (SyncSender<()>, JoinHandle<()>) {
    let (stop, stopped) = sync_channel(1);
    let (job, clock, terminal) = (Arc::clone(job), clock.clone(), Arc::clone(terminal));
    let watcher = spawn_thread("progress", move || {
        let (start, mut before) = (clock.now(), (clock.now(), 0));
        while stopped.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
            let (now, progress) = (clock.now(), job.progress());
            if now - start < SHOWN_FROM {
                continue;
            }
            let rate = (progress.rows_in - before.1) as f64 / (now - before.0).as_secs_f64().max(1e-3);
            before = (now, progress.rows_in);
            let mut line = progress_line(&progress, rate, now - start);
            if let Some(time) = job.event_time() {
                line.push_str(&format!(" · {}", time.text()));
            }
            terminal.progress(&line);
        }
        terminal.end_progress();
    });
    (stop, watcher)
}

fn progress_line(progress: &Progress, rate: f64, took: Duration) -> String {
    let read = match progress.bytes_total {
        Some(total) if total > 0 => format!(
            "{} of {} ({:.0} %)",
            bytes(progress.bytes_read),
            bytes(total),
            100.0 * progress.bytes_read as f64 / total as f64
        ),
        _ => bytes(progress.bytes_read),
    };
    format!(
        "{:.0} s · {read} · {} rows in, {}/s · {} rows out",
        took.as_secs_f64(),
        count(progress.rows_in),
        count(rate as u64),
        count(progress.rows_out)
    )
}

fn rows(n: u64) -> String {
    format!("{} row{}", count(n), if n == 1 { "" } else { "s" })
}

/// What is said at the end.
fn summary(job: &Job, title: &str, nodes: &[String], outcome: &JobOutcome, took: Duration) -> Vec<String> {
    let progress = job.progress();
    let ended = match outcome {
        JobOutcome::Finished => "finished",
        JobOutcome::Cancelled => "was stopped",
        JobOutcome::Failed(_) => "failed",
    };
    let mut line = format!(
        "Job {title} {ended} after {:.2} s: {} in ({}), {} out",
        took.as_secs_f64(),
        rows(progress.rows_in),
        bytes(progress.bytes_read),
        rows(progress.rows_out)
    );
    for (n, what) in [
        (progress.rows_skipped, "failed and skipped"),
        (progress.rows_diverted, "failed and sent aside"),
        (progress.timers_fired, "timers fired"),
        (progress.timers_skipped, "timers failed and were dropped"),
        (progress.tables_failed, "tables could not be read again"),
        (progress.traps, "traps"),
    ] {
        if n > 0 {
            line.push_str(&format!(", {} {what}", count(n)));
        }
    }
    let mut lines = vec![line];
    // Why nothing came, where a job had to be stopped.
    if let (JobOutcome::Cancelled, Some(time)) = (outcome, job.event_time()) {
        lines.push(format!("event time: {}", time.text()));
    }
    lines.extend(job.summary());
    let metrics = job.user_metrics();
    let node = |id: u32| nodes.get(id as usize).map_or("", String::as_str);
    // Sorted by function and name, whatever their kind.
    let mut own: BTreeMap<(u32, &str), String> = BTreeMap::new();
    for ((id, name), value) in &metrics.counters {
        own.insert((*id, name), count(*value));
    }
    for ((id, name), value) in &metrics.gauges {
        own.insert((*id, name), value.to_string());
    }
    for ((id, name), all) in &metrics.histograms {
        let mean = all.sum / all.count.max(1) as f64;
        let text =
            format!("{} samples, least {}, mean {mean:.3}, greatest {}", count(all.count), all.min, all.max);
        own.insert((*id, name), text);
    }
    lines.extend(own.iter().map(|((id, name), value)| format!("metric {}.{name}: {value}", node(*id))));
    lines
}
