//! `streamctl run`: a job from its component to its last row.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use checkpoint::Statistics;
use cluster::attempts::{self, Attempts, Planned};
use cluster::checkpoints::{Restore, SavepointFolder, id_of};
use cluster::config::Origin;
use cluster::job_master::Begin;
use cluster::log::JobLog;
use cluster::slots::Slots;
use cluster::{Config, Ended, JobMaster, JobStatus, Session, Tell};
use connectors::sinks::print::CLOSED;
use guest::LogLevel;
use model::Diagnostic;
use model::job_graph::{JobGraph, NodeId, NodeKind};
use platform::{Clock, Faults, Platform, spawn_thread};
use task::metrics::OperatorDescription;
use task::{Job, JobOutcome, LogRecord, LogSink, Plan, Progress, RestartStrategy};

use super::signals::Signals;
use super::{embedded, load};
use crate::cli::RunArgs;
use crate::terminal::{Style, Terminal, Told, bytes, count, duration};
use crate::{Done, Stop};

/// Faults on purpose, for tests: `MILLSTREAM_FAULTS=store.sync@3=kill`.
const FAULTS: &str = "MILLSTREAM_FAULTS";
/// As of programs that end by SIGPIPE, without a word.
pub(super) const PIPE_CLOSED: u8 = 141;

pub(crate) fn run(args: &RunArgs, terminal: &Arc<Terminal>) -> Done {
    if args.detached || args.jobmanager.is_some() {
        return super::jobs::run(args);
    }
    let mut platform = Platform::system();
    platform.faults = faults(&platform.clock).map_err(Stop::Refused)?;
    let mut config = Config::load(&args.job.define).map_err(Stop::Refused)?;
    if let Some(port) = &args.rest_port {
        config.set("rest.bind-port", port, Origin::CommandLine).map_err(Stop::Refused)?;
    }
    let access = embedded::access(&config)?;
    let sandbox = load::runtime(&config, &platform)?;
    let file = &args.job.file;
    let program = load::program(&sandbox, file)?;
    let jobs = load::jobs(&program, file)?;
    let name = load::job(&jobs, file, args.job.job.as_deref())?.name.clone();
    let graph = load::graph(&program, file, &name, &args.job.args)?;
    let mut terms = load::terms(&args.job, config);
    terms.chaos_instances = args.chaos_instances;
    terms.allow_non_restored = args.allow_non_restored_state;
    let first = terms.version(&program, (&name, &args.job.args), graph).map_err(Stop::Refused)?;
    let is_on_disk = first.options.keeps_state_on_disk();
    let from_savepoint = args.from_savepoint.clone().map(Restore::Path);
    let strategy = attempts::strategy(&first.config).map_err(Stop::Refused)?;
    let prints = prints(&first.graph);
    let told: Arc<dyn Tell> = Arc::new(Told { terminal: Arc::clone(terminal), quiet: args.quiet });
    let said = JobLog::new(&name, platform.clock.clone(), Some(Arc::clone(&told)));
    let attempts = Attempts {
        first: Arc::new(first),
        terms,
        runtime: Arc::clone(&sandbox),
        own_id: None,
        restore: args.restore.clone().or(from_savepoint),
        platform: platform.clone(),
        tell: Arc::clone(&said) as Arc<dyn Tell>,
    };
    let Some((planned, id)) = planned(&attempts, &strategy, terminal)? else { return Ok(()) };
    let title = planned.plan.physical.job.name.clone();

    let least = if args.quiet { LogLevel::Warn } else { LogLevel::Trace };
    let (log, printer) = log_to(terminal, least, said.sink());
    let start = platform.clock.now();
    let shown = !args.quiet && Terminal::is_terminal() && !(prints && std::io::stdout().is_terminal());
    let signals = Signals::catch().map_err(Stop::Failed)?;
    let slots = Arc::new(Slots::new(planned.plan.physical.slots()));
    let id = (id, platform.clock.wall_ms());
    let begin = (Begin::Anew(Some(Box::new(planned))), log);
    let of = (strategy, Arc::clone(&slots));
    let master = JobMaster::start(id, attempts, of, begin, |_| {}).map_err(Stop::Failed)?;
    let signals = signals.are_for(&master, args.quiet, terminal);
    let session = Session::around(&master, (said, Arc::clone(&told)), (sandbox, slots));
    // Who ends the session ends the job.
    let job = Arc::downgrade(&master);
    let on_end = move || job.upgrade().iter().for_each(|job| job.cancel());
    let server = embedded::serve(&session, &master, access.as_ref(), &*told, on_end);
    let watcher = shown.then(|| show_progress(&master, &platform.clock, terminal));
    let Ended { outcome, restarts } = master.wait();
    if let Some((stop, watcher)) = watcher {
        drop(stop);
        join(watcher);
    }
    server.into_iter().for_each(|server| embedded::end(server, &platform.clock));
    // Who asks for the job may hold what it has.
    drop(session);
    // The log is whole before anything is said of the end.
    join(printer);
    let took = platform.clock.now() - start;
    let unread = matches!(&outcome, JobOutcome::Failed(error) if error.message == CLOSED);
    if let (Some(job), false) = (master.job(), args.quiet || unread) {
        let lines = summary(&job, &title, &outcome, (took, restarts));
        lines.iter().for_each(|line| terminal.line(line));
    }
    master.forget_job();
    if is_on_disk {
        // What is under way holds the folder of the state, which goes with the last that holds it.
        let_go(&platform);
    }
    match (outcome, signals.code()) {
        (JobOutcome::Failed(_), _) if unread => Err(Stop::Code(PIPE_CLOSED)),
        (JobOutcome::Failed(error), _) => Err(Stop::Failed(error)),
        (JobOutcome::Cancelled, code) if code > 0 => Err(Stop::Code(code)),
        // Not by a signal: by somebody who asked for it.
        (JobOutcome::Cancelled, _) => {
            Err(Stop::Failed(Diagnostic::external(format!("Job was cancelled (JobID: {})", master.id()))))
        }
        _ => Ok(()),
    }
}

/// The first attempt of a job that this process runs, and the job's id; none: it has finished before.
pub(super) fn planned(
    attempts: &Attempts,
    strategy: &RestartStrategy,
    terminal: &Terminal,
) -> Result<Option<(Planned, String)>, Stop> {
    let planned = attempts.plan().map_err(Stop::Refused)?;
    if planned.is_finished {
        attempts.tell.say("the job has finished before: nothing is left to do");
        return Ok(None);
    }
    warn_of_once(&planned.plan, strategy, terminal);
    let id = planned.plan.options().checkpoints.as_ref().map(|of| of.job_id.clone());
    let id = id.unwrap_or_else(|| id_of(&attempts.first.job));
    // Where there can be no savepoints is told before the job runs.
    let config = &attempts.first.config;
    SavepointFolder::of(config, None, &id, &attempts.platform.faults).map_err(Stop::Refused)?;
    Ok(Some((planned, id)))
}

/// How often is looked whether what a job has under way is over.
const QUIET_EVERY: Duration = Duration::from_millis(5);

/// How long what a job has under way on the disk may hold its end up.
const LETS_GO: Duration = Duration::from_secs(1);

/// Waits until nothing is under way on the disk any more.
pub(super) fn let_go(platform: &Platform) {
    let end = platform.clock.now() + LETS_GO;
    while !platform.io.is_quiet() && platform.clock.now() < end {
        platform.clock.sleep(QUIET_EVERY);
    }
}

/// Warns of sources whose rows come once only, where a failure is not the end of the job.
fn warn_of_once(plan: &Plan, strategy: &RestartStrategy, terminal: &Terminal) {
    let since = match plan.options().checkpoints {
        Some(_) => "since the last checkpoint",
        None => "",
    };
    if since.is_empty() && *strategy == RestartStrategy::None {
        return;
    }
    for source in plan.sources_that_cannot_go_back() {
        let given = ["what it has given", since].join(" ");
        terminal.warning(&format!(
            "`{source}` cannot be read again: {} is lost when the job fails (at most once)",
            given.trim_end()
        ));
    }
}

/// What is to fail.
pub(super) fn faults(clock: &Clock) -> Result<Faults, Diagnostic> {
    let told = std::env::var(FAULTS).unwrap_or_default();
    Faults::parse(&told, clock)
        .map_err(|error| Diagnostic::user(format!("`{FAULTS}` says no faults")).detail(error.to_string()))
}

/// Whether rows go to standard output.
fn prints(graph: &JobGraph) -> bool {
    graph.nodes.iter().any(|node| matches!(&node.kind, NodeKind::Sink(to) if to.connector == "print"))
}

/// A panic of a thread that only shows something is no reason to fail.
pub(super) fn join(thread: JoinHandle<()>) {
    drop(thread.join());
}

/// Messages that may wait for standard error; more are counted and dropped.
const MESSAGES_MAX: usize = 1_024;

/// Where guests' messages go: they are kept, and a thread writes them, so that a slow reader of standard error holds
/// no worker back.
pub(super) fn log_to(terminal: &Arc<Terminal>, least: LogLevel, kept: LogSink) -> (LogSink, JoinHandle<()>) {
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
        kept(record.clone());
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
    let subtask = record.subtask.map(|subtask| format!(" ({})", subtask + 1)).unwrap_or_default();
    format!("{level} {}{subtask}: {}", record.function, record.message)
}

/// How often progress is shown, once a job has run for a while.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
const SHOWN_FROM: Duration = Duration::from_millis(500);

/// Shows progress until what it returns first is dropped.
fn show_progress(
    master: &Arc<JobMaster>,
    clock: &Clock,
    terminal: &Arc<Terminal>,
) -> (SyncSender<()>, JoinHandle<()>) {
    let (stop, stopped) = sync_channel(1);
    let (master, clock, terminal) = (Arc::clone(master), clock.clone(), Arc::clone(terminal));
    let watcher = spawn_thread("progress", move || {
        let (start, mut before) = (clock.now(), (clock.now(), 0));
        while stopped.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
            let Some(job) = master.job().filter(|_| master.status() == JobStatus::Running) else {
                terminal.end_progress();
                continue;
            };
            let (now, progress) = (clock.now(), job.progress());
            if now - start < SHOWN_FROM {
                continue;
            }
            let rate =
                progress.rows_in.saturating_sub(before.1) as f64 / (now - before.0).as_secs_f64().max(1e-3);
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
pub(super) fn summary(
    job: &Job,
    title: &str,
    outcome: &JobOutcome,
    (took, restarts): (Duration, u32),
) -> Vec<String> {
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
    match restarts {
        0 => {}
        1 => line.push_str(", all since its restart"),
        n => line.push_str(&format!(", all since the last of its {} restarts", count(n.into()))),
    }
    let mut lines = vec![line];
    // Why nothing came, where a job had to be stopped.
    if let (JobOutcome::Cancelled, Some(time)) = (outcome, job.event_time()) {
        lines.push(format!("event time: {}", time.text()));
    }
    lines.extend(job.summary());
    lines.extend(of_checkpoints(&job.checkpoints()));
    let metrics = job.user_metrics();
    let description = job.description();
    let operators: BTreeMap<&str, &OperatorDescription> = description
        .vertices
        .iter()
        .flat_map(|vertex| &vertex.operators)
        .map(|operator| (operator.uid.as_str(), operator))
        .collect();
    // Those of a version that does not run any more come first.
    let place = |uid: &str| operators.get(uid).map(|operator| operator.node);
    // Sorted by function and name, whatever their kind.
    let mut own: BTreeMap<(Option<NodeId>, &str, &str), String> = BTreeMap::new();
    for ((uid, name), value) in &metrics.counters {
        own.insert((place(uid), uid, name), count(*value));
    }
    for ((uid, name), value) in &metrics.gauges {
        own.insert((place(uid), uid, name), value.to_string());
    }
    for ((uid, name), all) in &metrics.histograms {
        let mean = all.sum / all.count.max(1) as f64;
        let text =
            format!("{} samples, least {}, mean {mean:.3}, greatest {}", count(all.count), all.min, all.max);
        own.insert((place(uid), uid, name), text);
    }
    let name_of = |uid| operators.get(uid).map_or(uid, |operator| operator.name.as_str());
    lines
        .extend(own.iter().map(|((_, uid, name), value)| format!("metric {}.{name}: {value}", name_of(uid))));
    lines
}

/// What is said of checkpoints, where there were any.
fn of_checkpoints(all: &Statistics) -> Vec<String> {
    if all.counts.total + all.counts.restored == 0 {
        return Vec::new();
    }
    let mut line = format!("checkpoints: {} complete", count(all.counts.completed));
    for (n, what) in [(all.counts.failed, "failed"), (all.counts.restored, "restored")] {
        if n > 0 {
            line.push_str(&format!(", {} {what}", count(n)));
        }
    }
    let last = [&all.latest.completed, &all.latest.savepoint].into_iter().flatten();
    if let Some(last) = last.max_by_key(|report| report.id) {
        let (durations, alignments) = (&all.summary.end_to_end_duration, &all.summary.alignment_duration);
        line.push_str(&format!(
            "; {} on average, p50 {}, p95 {}, p99 {}, at most {}; alignment at most {}; {} on average, the last {}",
            duration(durations.avg),
            duration(durations.p50),
            duration(durations.p95),
            duration(durations.p99),
            duration(durations.max),
            duration(alignments.max),
            bytes(all.summary.state_size.avg),
            bytes(last.state_size),
        ));
        if last.checkpointed_size != last.state_size {
            line.push_str(&format!(", {} of them written for it", bytes(last.checkpointed_size)));
        }
    }
    let failed = all.latest.failed.iter().map(|report| {
        let why = report.failure_message.as_deref().unwrap_or_default();
        format!("the last that failed was {}: {why}", report.id)
    });
    [line].into_iter().chain(failed).collect()
}
