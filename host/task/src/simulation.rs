//! Runs a job in one thread under a seed: which subtask steps next, and which blocking work ends
//! next, is drawn. The same seed gives the same run.
//!
//! A subtask runs only when it was woken, so a lost wake-up shows as a job that stands still.

mod far_state;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Diagnostic;
use platform::{Platform, Random};
use state::tiered::{InMemoryStore, TieredBackend};
use xxhash_rust::xxh3::Xxh3;

use crate::backends::NewBackend;
use crate::checkpoints::savepoint::{self, Ask};
use crate::deploy::deploy;
use crate::metrics::LogSink;
use crate::subtask::{Operator, Step};
use crate::swap::{RollBack, SwapOptions};
use crate::{AggPhase, JobOutcome, Plan, Progress, RunOptions, SavepointRequest, Sizes, StateBackend};
use far_state::FarState;

/// What a simulated run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the job ended; none = it stands still: nothing is ready, nothing under way.
    pub outcome: Option<JobOutcome>,
    /// How many steps subtasks made.
    pub steps: u64,
    /// A hash over all that happened, in its order.
    pub trace: u64,
    /// The job's counts.
    pub progress: Progress,
    /// What came of the savepoint that was asked for: its number, or why there is none. None = nothing was said.
    pub savepoint: Option<Result<u64, String>>,
    /// What came of each change to another version that was asked for, in their order: its checkpoint, or why there is
    /// none. None = nothing was said.
    pub swaps: Vec<Option<Result<u64, String>>>,
    /// Where the job is to go on from after an exact rollback.
    pub roll_back: Option<RollBack>,
}

/// A fault put in on purpose, which a simulation has to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Once in so many steps, a wake-up is lost.
    LostWakeUp(u64),
    /// A subtask makes one watermark of all the splits that it reads.
    SplitsMerged,
    /// Keyed state says that it is near when it is not.
    StateNotAwaited,
    /// Stages change to another version when they hear of it, and not at the barrier.
    SwapsEarly,
    /// The process ends after so many steps.
    Crash(u64),
}

/// Options of a simulated run: sizes drawn small, so that queues fill and calls are cut.
#[must_use]
pub fn options(seed: u64, parallelism: u32) -> RunOptions {
    let mut random = Random::of_seed(seed ^ 0x0005_EED0);
    let mut draw = |from: u64, below: u64| usize::try_from(from + random.below(below - from)).unwrap_or(1);
    let sizes = Sizes {
        batch_rows: draw(1, 60),
        batch_bytes: draw(16, 4_000),
        call_rows: draw(1, 50),
        native_rows: draw(1, 100),
        queue_rows: Some(draw(1, 200)),
        flight_bytes: draw(1, 100_000),
        step_time: Duration::from_millis(1),
        step_runs: draw(1, 6),
    };
    let agg_phase = [AggPhase::OnePhase, AggPhase::TwoPhase, AggPhase::Auto][draw(0, 3)];
    // In a third of all runs state lies in a store, of which the simulation has a model.
    let in_store = StateBackend::RocksDb { folder: PathBuf::new(), slot_bytes: 0 };
    let state_backend = if seed.is_multiple_of(3) { in_store } else { StateBackend::HashMap };
    RunOptions { parallelism, seed: Some(seed), sizes, agg_phase, state_backend, ..RunOptions::default() }
}

/// Steps after which a run is given up as endless.
const STEPS_MAX: u64 = 10_000_000;

/// Runs a plan under a seed. `platform` is [`Platform::simulated`], the same that the guest
/// runtime has.
///
/// # Errors
/// If the job cannot be deployed.
pub fn run(
    plan: Plan,
    platform: &Platform,
    log: &LogSink,
    seed: u64,
    fault: Option<Fault>,
) -> Result<Report, Diagnostic> {
    run_asking(plan, platform, log, seed, fault, None)
}

/// The same, and after so many steps a savepoint is asked for.
///
/// # Errors
/// If the job cannot be deployed.
pub fn run_asking(
    plan: Plan,
    platform: &Platform,
    log: &LogSink,
    seed: u64,
    fault: Option<Fault>,
    ask: Option<(u64, SavepointRequest)>,
) -> Result<Report, Diagnostic> {
    let ask = ask.map(|(at, request)| (at, Asked::Savepoint(request)));
    run_with(plan, platform, log, (seed, fault), ask.into_iter().collect())
}

/// What a simulated job is asked for.
pub enum Asked {
    /// A savepoint.
    Savepoint(SavepointRequest),
    /// To change to the version of this plan.
    Swap(Box<Plan>, SwapOptions),
}

/// The same, and after so many steps each of these is asked for.
///
/// # Errors
/// If the job cannot be deployed.
pub fn run_with(
    plan: Plan,
    platform: &Platform,
    log: &LogSink,
    (seed, fault): (u64, Option<Fault>),
    asked: Vec<(u64, Asked)>,
) -> Result<Report, Diagnostic> {
    let mut asked = VecDeque::from(asked);
    let swapped = Arc::new(Mutex::new(Vec::new()));
    let answer = Arc::new(Mutex::new(None));
    let mut random = Random::of_seed(seed);
    let says_ready = fault == Some(Fault::StateNotAwaited);
    // State that is in memory is, in half of the runs, not near at once.
    let kind = match plan.options.keeps_state_on_disk() {
        _ if says_ready => 0,
        true => 1,
        false => 2 * (seed % 2),
    };
    let budget = 1 << random.below(16);
    let mut deployed = deploy(plan, platform, log, &mut |new: &NewBackend<'_>| match kind {
        0 => {
            let (io, seed) = (platform.io.clone(), random.bits());
            Ok(Box::new(FarState::new(new.in_memory()?, io, new.waker.clone(), seed, says_ready)))
        }
        1 => {
            let (store, pool) = (Arc::new(InMemoryStore::default()), (platform.io.clone(), new.waker));
            let budget = Box::new(move || budget);
            let made = TieredBackend::new(new.key_types, new.states, new.seed, store, budget, pool)?;
            Ok(Box::new(made))
        }
        _ => new.in_memory(),
    })?;
    if fault == Some(Fault::SplitsMerged) {
        let subtasks = deployed.workers.iter_mut().flat_map(|worker| worker.subtasks.iter_mut().flatten());
        for stage in subtasks.flat_map(|subtask| &mut subtask.stages) {
            if let Operator::Watermarks(_, watermarks) = &mut stage.operator {
                watermarks.splits = None;
            }
        }
    }
    if fault == Some(Fault::SwapsEarly) {
        let subtasks = deployed.workers.iter_mut().flat_map(|worker| worker.subtasks.iter_mut().flatten());
        subtasks.for_each(|subtask| subtask.swaps_early = true);
    }
    let mut trace = Xxh3::new();
    let mut steps = 0;
    // What is ready, over all workers; taken from their ready sets as it is marked.
    let mut ready: Vec<(usize, usize)> = Vec::new();
    let mut marked = Vec::new();
    let mut live: usize = deployed.workers.iter().map(crate::worker::Worker::live).sum();
    // The number of the checkpointer among the workers.
    let checkpoints = deployed.workers.len();
    let mut checkpoint_at: Option<Duration> = None;
    while live > 0 && !deployed.control.is_stopping() && steps < STEPS_MAX {
        if let Some((checkpointer, _)) = &deployed.checkpointer
            && let Some((_, asked)) = asked.pop_front_if(|(at, _)| steps >= *at)
        {
            match asked {
                Asked::Savepoint(request) => {
                    let said = Arc::clone(&answer);
                    let answer = Box::new(move |result| {
                        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                    });
                    checkpointer.asks().put(Ask { asked: savepoint::Asked::Savepoint(request), answer });
                }
                Asked::Swap(plan, options) => {
                    let number = {
                        let mut swapped = swapped.lock().unwrap_or_else(PoisonError::into_inner);
                        swapped.push(None);
                        swapped.len() - 1
                    };
                    let said = move |told: &Mutex<Vec<_>>, result| {
                        told.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
                    };
                    let told = Arc::clone(&swapped);
                    let answer = Box::new(move |result| said(&told, result));
                    if let Err(error) = deployed.swaps.swap(&plan, options, answer) {
                        said(&swapped, Err(error.to_string()));
                    }
                }
            }
        }
        if let Some((_, set)) = &deployed.checkpointer {
            set.take(&mut marked);
            let is_due = checkpoint_at.is_some_and(|at| at <= platform.clock.now());
            if (marked.drain(..).next().is_some() || is_due) && !ready.contains(&(checkpoints, 0)) {
                ready.push((checkpoints, 0));
            }
        }
        for (number, worker) in deployed.workers.iter_mut().enumerate() {
            worker.wake_due();
            worker.ready.take(&mut marked);
            for index in marked.drain(..) {
                let lost = matches!(fault, Some(Fault::LostWakeUp(n)) if random.one_in(n));
                if !lost && !ready.contains(&(number, index)) {
                    ready.push((number, index));
                }
            }
        }
        // Blocking work ends now and then, and always when nothing else can go on.
        if (ready.is_empty() || random.one_in(4)) && platform.io.run_one(&mut random) {
            trace.update(b"io");
            continue;
        }
        if ready.is_empty() {
            // Nothing goes on before the next timer: the time is moved there.
            let next = deployed.workers.iter().filter_map(|worker| worker.wakes.next());
            let next = next.chain(checkpoint_at).min();
            let Some(next) = next else { break };
            platform.clock.advance(next.saturating_sub(platform.clock.now()));
            trace.update(b"time");
            continue;
        }
        let chosen = usize::try_from(random.below(ready.len() as u64)).unwrap_or(0);
        let (number, index) = ready.swap_remove(chosen);
        if matches!(fault, Some(Fault::Crash(at)) if steps >= at) {
            let progress = deployed.watch.progress();
            // Nothing outside is cleaned up.
            let subtasks =
                deployed.workers.iter_mut().flat_map(|worker| worker.subtasks.iter_mut().flatten());
            for stage in subtasks.flat_map(|subtask| subtask.stages.drain(..)) {
                if let Operator::Sink(sink) = stage.operator {
                    std::mem::forget(sink);
                }
            }
            let savepoint = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let swaps = std::mem::take(&mut *swapped.lock().unwrap_or_else(PoisonError::into_inner));
            let roll_back = deployed.swaps.roll_back();
            return Ok(Report {
                outcome: None,
                steps,
                trace: trace.digest(),
                progress,
                savepoint,
                swaps,
                roll_back,
            });
        }
        if number == checkpoints {
            checkpoint_at = deployed.checkpointer.as_mut().and_then(|(checkpointer, _)| checkpointer.step());
            trace.update(b"checkpoint");
            continue;
        }
        let worker = &mut deployed.workers[number];
        let step = worker.step(index);
        match step {
            Some(Step::More) => worker.ready.mark(index),
            Some(Step::Done) => live -= 1,
            Some(Step::Idle) | None => {}
        }
        steps += 1;
        platform.clock.advance(Duration::from_micros(1 + random.below(500)));
        let progress = deployed.watch.progress();
        for fact in [
            number as u64,
            index as u64,
            step.map_or(9, |step| step as u64),
            progress.rows_in,
            progress.rows_out,
            progress.calls,
        ] {
            trace.update(&fact.to_le_bytes());
        }
    }
    let stopped = deployed.control.is_stopping();
    let outcome = (live == 0 || stopped).then(|| deployed.control.outcome());
    let savepoint = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let progress = deployed.watch.progress();
    let swaps = std::mem::take(&mut *swapped.lock().unwrap_or_else(PoisonError::into_inner));
    let roll_back = deployed.swaps.roll_back();
    Ok(Report { outcome, steps, trace: trace.digest(), progress, savepoint, swaps, roll_back })
}
