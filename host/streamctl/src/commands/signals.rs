//! Signals of `streamctl run`: the first stops the job, or the wait for its restart, and the second the process;
//! others make savepoints.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use model::Diagnostic;
use platform::network::runtime;
use platform::{Clock, ReadySet, spawn_task};
use task::{Job, SavepointRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::checkpoints::SavepointFolder;
use crate::terminal::Terminal;

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Whom signals are for, and whether one has come.
pub(crate) struct Signals {
    /// The attempt that runs.
    job: Mutex<Weak<Job>>,
    /// What the process is to end with; 0 = no signal has come.
    code: AtomicU8,
    /// Wakes who waits.
    woken: Arc<ReadySet>,
}

impl Signals {
    /// From now on signals do not end the process. Before the job starts: none may find it half-way. Of savepoints
    /// nothing is said but warnings where it is to be quiet.
    pub(crate) fn watch(
        savepoints: Option<SavepointFolder>,
        quiet: bool,
        terminal: &Arc<Terminal>,
    ) -> Result<Arc<Self>, Diagnostic> {
        let this = Arc::new(Self { job: Mutex::default(), code: AtomicU8::new(0), woken: ReadySet::new(1) });
        if let Some(to) = savepoints {
            for (kind, stops) in [(SignalKind::user_defined1(), false), (SignalKind::user_defined2(), true)] {
                this.make_savepoints(catch(kind)?, stops, (to.clone(), quiet), terminal);
            }
        }
        let stops = [(SignalKind::interrupt(), INTERRUPTED), (SignalKind::terminate(), TERMINATED)];
        // All are caught before the first is waited for.
        let stops = stops.map(|(kind, code)| (catch(kind), code));
        for (signals, code) in stops {
            this.stop(signals?, code, terminal);
        }
        Ok(this)
    }

    /// The code of the signal that has come; 0 = none has.
    pub(crate) fn code(&self) -> u8 {
        self.code.load(Ordering::SeqCst)
    }

    /// Signals are for this job from now on; one that has come stops it.
    pub(crate) fn are_for(&self, job: &Arc<Job>) {
        *self.job() = Arc::downgrade(job);
        if self.code() > 0 {
            job.cancel();
        }
    }

    /// No job runs any more, or for now.
    pub(crate) fn are_for_none(&self) {
        *self.job() = Weak::new();
    }

    /// Waits for so long, or until a signal comes. Whether none has.
    pub(crate) fn sleep(&self, time: Duration, clock: &Clock) -> bool {
        let end = clock.now() + time;
        let mut marked = Vec::new();
        while self.code() == 0 {
            let left = end.saturating_sub(clock.now());
            if left.is_zero() {
                return true;
            }
            self.woken.park(Some(left));
            self.woken.take(&mut marked);
        }
        false
    }

    fn job(&self) -> MutexGuard<'_, Weak<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(self: &Arc<Self>, mut signals: Signal, number: u8, terminal: &Arc<Terminal>) {
        let (this, terminal) = (Arc::clone(self), Arc::clone(terminal));
        spawn_task("signals", async move {
            while signals.recv().await.is_some() {
                if this.code.swap(number, Ordering::SeqCst) > 0 {
                    std::process::exit(number.into());
                }
                terminal.line("Stopping; once more to stop at once.");
                let job = this.job().upgrade();
                job.iter().for_each(|job| job.cancel());
                this.woken.mark(0);
            }
        });
    }

    fn make_savepoints(
        self: &Arc<Self>,
        mut signals: Signal,
        stops: bool,
        (to, quiet): (SavepointFolder, bool),
        terminal: &Arc<Terminal>,
    ) {
        let (this, terminal) = (Arc::clone(self), Arc::clone(terminal));
        spawn_task("savepoints", async move {
            while signals.recv().await.is_some() {
                let Some(job) = this.job().upgrade() else {
                    terminal.warning("there is no savepoint: the job does not run now");
                    continue;
                };
                let (savepoint, path) = to.new_savepoint();
                let stop = stops.then_some(checkpoint::coordinator::Stop::Suspend);
                let said = Arc::clone(&terminal);
                let answer = Box::new(move |result: Result<u64, String>| match result {
                    Ok(_) if quiet => {}
                    Ok(_) => said.line(&format!("Savepoint completed. Path: {path}")),
                    Err(why) => said.warning(&format!("there is no savepoint: {why}")),
                });
                if let Err(error) = job.savepoint(SavepointRequest { savepoint, form: to.form, stop }, answer)
                {
                    terminal.warning(&error.message);
                }
            }
        });
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Diagnostic> {
    let _network = runtime().enter();
    signal(kind).map_err(|error| Diagnostic::external("cannot catch signals").detail(error.to_string()))
}
