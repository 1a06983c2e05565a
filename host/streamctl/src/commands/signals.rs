//! Signals of `streamctl run` and `dev`: the first stops the job, or what there is to wait for, and the second the
//! process; others make savepoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use checkpoint::coordinator::Stop;
use cluster::{JobMaster, SavepointAsk};
use model::Diagnostic;
use platform::network::runtime;
use platform::spawn_task;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal::Terminal;

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Signals that do not end the process any more.
pub(crate) struct Caught {
    /// What the process is to end with, each.
    stops: [(Signal, u8); 2],
    /// Whether the job stops with the savepoint, each.
    savepoints: [(Signal, bool); 2],
}

/// Whether a signal has come.
pub(crate) struct Signals {
    /// What the process is to end with; 0 = none has come.
    code: AtomicU8,
}

impl Signals {
    /// From now on signals do not end the process. Before the job starts: none may find it half-way.
    pub(crate) fn catch() -> Result<Caught, Diagnostic> {
        Ok(Caught {
            stops: [
                (catch(SignalKind::interrupt())?, INTERRUPTED),
                (catch(SignalKind::terminate())?, TERMINATED),
            ],
            savepoints: [
                (catch(SignalKind::user_defined1())?, false),
                (catch(SignalKind::user_defined2())?, true),
            ],
        })
    }

    /// The code of the signal that has come; 0 = none has.
    pub(crate) fn code(&self) -> u8 {
        self.code.load(Ordering::SeqCst)
    }

    fn stop(self: &Arc<Self>, mut signals: Signal, number: u8, (stop, terminal): (Stops, Arc<Terminal>)) {
        let this = Arc::clone(self);
        spawn_task("signals", async move {
            while signals.recv().await.is_some() {
                if this.code.swap(number, Ordering::SeqCst) > 0 {
                    std::process::exit(number.into());
                }
                terminal.line("Stopping; once more to stop at once.");
                stop();
            }
        });
    }
}

/// Called by the first signal that stops.
type Stops = Arc<dyn Fn() + Send + Sync>;
/// The job that savepoints are made of; none = there is none now.
type Job = Arc<dyn Fn() -> Option<Arc<JobMaster>> + Send + Sync>;

impl Caught {
    /// They are for this job. Of savepoints nothing is said but warnings where it is to be quiet.
    pub(crate) fn are_for(self, job: &Arc<JobMaster>, quiet: bool, terminal: &Arc<Terminal>) -> Arc<Signals> {
        let (stopped, of) = (Arc::clone(job), Arc::clone(job));
        self.are_told(move || stopped.cancel(), move || Some(Arc::clone(&of)), quiet, terminal)
    }

    /// `stop` hears the first that stops; savepoints are made of the job that there is then.
    pub(crate) fn are_told(
        self,
        stop: impl Fn() + Send + Sync + 'static,
        job: impl Fn() -> Option<Arc<JobMaster>> + Send + Sync + 'static,
        quiet: bool,
        terminal: &Arc<Terminal>,
    ) -> Arc<Signals> {
        let this = Arc::new(Signals { code: AtomicU8::new(0) });
        let (stop, job): (Stops, Job) = (Arc::new(stop), Arc::new(job));
        for (signals, stops) in self.savepoints {
            make_savepoints(signals, stops, quiet, (Arc::clone(&job), Arc::clone(terminal)));
        }
        for (signals, code) in self.stops {
            this.stop(signals, code, (Arc::clone(&stop), Arc::clone(terminal)));
        }
        this
    }
}

fn make_savepoints(mut signals: Signal, stops: bool, quiet: bool, (job, terminal): (Job, Arc<Terminal>)) {
    spawn_task("savepoints", async move {
        while signals.recv().await.is_some() {
            let Some(job) = job() else {
                terminal.warning("there is no savepoint: no job runs");
                continue;
            };
            let said = Arc::clone(&terminal);
            let answered = Box::new(move |result: Result<String, Diagnostic>| match result {
                Ok(_) if quiet => {}
                Ok(path) => said.line(&format!("Savepoint completed. Path: {path}")),
                Err(error) => said.warning_of("there is no savepoint", &error),
            });
            let stop = stops.then_some(Stop::Suspend);
            if let Err(error) = job.savepoint(&SavepointAsk { stop, ..SavepointAsk::default() }, answered) {
                terminal.warning_of("there is no savepoint", &error);
            }
        }
    });
}

fn catch(kind: SignalKind) -> Result<Signal, Diagnostic> {
    let _network = runtime().enter();
    signal(kind).map_err(|error| Diagnostic::external("cannot catch signals").detail(error.to_string()))
}
