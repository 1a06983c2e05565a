//! The job that `dev` runs: it begins, goes over to other versions, ends, and begins anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::attempts::{self, Attempts, Code};
use cluster::checkpoints::Restore;
use cluster::config::Origin;
use cluster::job_master::Begin;
use cluster::log::JobLog;
use cluster::slots::Slots;
use cluster::{Config, Ended, JobMaster, JobStatus, Session, Tell};
use connectors::sinks::print::CLOSED;
use guest::{LogLevel, Program, Runtime};
use model::Diagnostic;
use platform::{IoPool, Platform};
use rest::{Access, Server};
use task::swap::Difference;
use task::{Execution, JobOutcome};

use super::bell::Bell;
use crate::Stop;
use crate::cli::DevArgs;
use crate::commands::run::{PIPE_CLOSED, join, let_go, log_to, planned, summary};
use crate::commands::{embedded, load};
use crate::terminal::{Terminal, Told};

/// What is set unless somebody sets it otherwise.
const DEFAULTS: [(&str, &str); 3] = [
    ("execution.checkpointing.interval", "1s"),
    // After a failure the next version goes on; the same code would fail again.
    ("restart-strategy.type", "none"),
    // From a checkpoint what was built last goes on, whatever has run before.
    ("millstream.restore.version", "given"),
];
const CHECKPOINTS: &str = "execution.checkpointing.dir";

/// A folder that is removed with all that is in it when it is not needed any more.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // One of the system's temporary files may stay.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A component that was built.
pub(super) struct Component {
    /// Where it lay then.
    pub(super) file: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// What a change does.
pub(super) enum Change {
    /// It is under way; the bell is rung when it is done.
    Begun,
    /// There is nothing to change.
    Same,
    /// The job takes none now: the bell is rung when its state is another.
    Later,
}

/// The job of a project.
pub(super) struct Project<'a> {
    args: &'a DevArgs,
    config: Config,
    platform: Platform,
    sandbox: Arc<Runtime>,
    terminal: Arc<Terminal>,
    told: Arc<dyn Tell>,
    bell: Arc<Bell>,
    slots: Arc<Slots>,
    /// Where its checkpoints are, in a folder for each time that it begins anew.
    folder: Temporary,
    begun: u32,
    /// Its id, once it has begun.
    id: Option<String>,
    /// What it goes on from when it begins the next time; none = from the beginning.
    from: Option<Restore>,
    running: Option<Running>,
    /// It is cancelled to go on from its last checkpoint.
    goes_on: bool,
    /// The one that runs, for signals.
    current: Arc<Mutex<Option<Arc<JobMaster>>>>,
    session: Option<Arc<Session>>,
    /// How that is to be reached; none = not at all.
    access: Option<Arc<Access>>,
    server: Option<Server>,
}

/// From a start to the end that follows.
struct Running {
    master: Arc<JobMaster>,
    platform: Platform,
    printer: JoinHandle<()>,
    since: Duration,
}

impl<'a> Project<'a> {
    pub(super) fn new(args: &'a DevArgs, terminal: &Arc<Terminal>, bell: &Arc<Bell>) -> Result<Self, Stop> {
        let mut platform = Platform::system();
        platform.faults = crate::commands::run::faults(&platform.clock).map_err(Stop::Refused)?;
        let mut config = Config::load(&args.job.define).map_err(Stop::Refused)?;
        for (key, value) in DEFAULTS {
            config.set(key, value, Origin::Default).map_err(Stop::Refused)?;
        }
        if let Some(port) = &args.rest_port {
            config.set("rest.bind-port", port, Origin::CommandLine).map_err(Stop::Refused)?;
        }
        let access = embedded::access(&config)?;
        let sandbox = load::runtime(&config, &platform)?;
        let folder = std::env::temp_dir().join(format!("streamctl-dev-{}", std::process::id()));
        Ok(Self {
            args,
            config,
            platform,
            sandbox,
            terminal: Arc::clone(terminal),
            told: Arc::new(Told { terminal: Arc::clone(terminal), quiet: args.quiet }),
            bell: Arc::clone(bell),
            slots: Arc::new(Slots::new(0)),
            folder: Temporary(folder),
            begun: 0,
            id: None,
            from: args.from_savepoint.clone().map(Restore::Path),
            running: None,
            goes_on: false,
            current: Arc::default(),
            session: None,
            access,
            server: None,
        })
    }

    /// The job that runs, whenever it is asked.
    pub(super) fn current(&self) -> impl Fn() -> Option<Arc<JobMaster>> + Send + Sync + use<> {
        let current = Arc::clone(&self.current);
        move || current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.platform.clock.now()
    }

    /// Whether there is one that has not ended, as far as is known.
    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    fn load(&self, component: &Component) -> Result<Program, Stop> {
        let loaded = self.sandbox.load(&component.bytes);
        loaded.map_err(|error| Stop::Refused(load::of_file(error.diagnostic(), &component.file)))
    }

    /// The job in a component: the one that is asked for, the one that runs, or its first.
    fn job_in(&self, program: &Program, file: &Path) -> Result<String, Stop> {
        let jobs = load::jobs(program, file)?;
        let runs = self.running.as_ref().map(|running| running.master.code().job.clone());
        let same = runs.filter(|name| jobs.iter().any(|job| job.name == *name));
        let wanted = self.args.job.job.as_deref().or(same.as_deref());
        Ok(load::job(&jobs, file, wanted)?.name.clone())
    }

    /// Starts the job of a component; from its last checkpoint if it has failed, else from the beginning.
    pub(super) fn start(&mut self, component: &Component) -> Result<(), Stop> {
        let (program, file) = (self.load(component)?, &component.file);
        let name = self.job_in(&program, file)?;
        let args = &self.args.job.args;
        let graph = load::graph(&program, file, &name, args)?;
        let mut config = self.config.clone();
        if self.from.is_none() {
            self.begun += 1;
        }
        let folder = self.folder.0.join(self.begun.to_string());
        config.set(CHECKPOINTS, &folder.to_string_lossy(), Origin::Default).map_err(Stop::Refused)?;
        let mut terms = load::terms(&self.args.job, config);
        terms.allow_non_restored = self.args.allow_non_restored_state;
        let first = terms.version(&program, (&name, args), graph).map_err(Stop::Refused)?;
        let strategy = attempts::strategy(&first.config).map_err(Stop::Refused)?;
        // What the job has under way is its own.
        let platform = Platform { io: IoPool::threads(), ..self.platform.clone() };
        let said = JobLog::new(&name, platform.clock.clone(), Some(Arc::clone(&self.told)));
        let attempts = Attempts {
            first: Arc::new(first),
            terms,
            runtime: Arc::clone(&self.sandbox),
            own_id: self.id.clone(),
            restore: self.from.clone(),
            platform: platform.clone(),
            tell: Arc::clone(&said) as Arc<dyn Tell>,
        };
        let Some((planned, id)) = planned(&attempts, &strategy, &self.terminal)? else { return Ok(()) };
        self.slots.at_least(planned.plan.physical.slots());
        let least = if self.args.quiet { LogLevel::Warn } else { LogLevel::Trace };
        let (log, printer) = log_to(&self.terminal, least, said.sink());
        let bell = Arc::clone(&self.bell);
        let on_change = move |_: &JobMaster| bell.ring(|news| news.job = true);
        let began = (id.clone(), platform.clock.wall_ms());
        let (of, begin) = ((strategy, Arc::clone(&self.slots)), Begin::Anew(Some(Box::new(planned))));
        let master = JobMaster::start(began, attempts, of, (begin, log), on_change).map_err(Stop::Failed)?;
        self.id = Some(id);
        self.serve(&master, said);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&master));
        self.running = Some(Running { master, platform, printer, since: self.now() });
        Ok(())
    }

    /// The REST interface is of this job.
    fn serve(&mut self, master: &Arc<JobMaster>, said: Arc<JobLog>) {
        if let Some(session) = &self.session {
            session.goes_on_around(master, said);
            return;
        }
        let of = (Arc::clone(&self.sandbox), Arc::clone(&self.slots));
        let session = Session::around(master, (said, Arc::clone(&self.told)), of);
        let bell = Arc::clone(&self.bell);
        // Who ends the session ends all.
        let on_end = move || bell.ring(|news| news.stop = true);
        self.server = embedded::serve(&session, master, self.access.as_ref(), &*self.told, on_end);
        self.session = Some(session);
    }

    /// Has the running job go over to what a component has.
    ///
    /// # Errors
    /// If it cannot. Then it runs on as it is.
    pub(super) fn change(&mut self, component: &Component) -> Result<Change, Stop> {
        let Some(master) = self.running.as_ref().map(|running| Arc::clone(&running.master)) else {
            return Ok(Change::Later);
        };
        match master.status() {
            JobStatus::Running => {}
            // It waits to run the same code once more.
            JobStatus::Restarting => {
                self.goes_on = true;
                master.cancel();
                return Ok(Change::Later);
            }
            JobStatus::Suspended => {
                self.told.say("The job is paused: it changes when it is resumed.");
                return Ok(Change::Later);
            }
            _ => return Ok(Change::Later),
        }
        let program = self.load(component)?;
        let now = master.code();
        if program.digest() == now.program.digest() {
            return Ok(Change::Same);
        }
        let name = self.job_in(&program, &component.file)?;
        let code = master.attempts().version(&program, Some(&name), &self.args.job.args);
        let mut code = code.map_err(Stop::Refused)?;
        code.allow_non_restored = self.args.allow_non_restored_state;
        if code.options.execution == Execution::Batch {
            self.told.say("Final results only come of all rows: the job begins anew.");
            master.cancel();
            return Ok(Change::Later);
        }
        match self.ask(&master, code) {
            Ok(()) => Ok(Change::Begun),
            // It has come to another state meanwhile.
            Err(_) if master.status() != JobStatus::Running => Ok(Change::Later),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    fn ask(&self, master: &Arc<JobMaster>, code: Code) -> Result<(), Diagnostic> {
        let difference = master.difference(&code)?;
        let bell = Arc::clone(&self.bell);
        if difference.is_live() {
            let answered = Box::new(move |result: Result<u64, Diagnostic>| {
                let told = result.map(|checkpoint| format!("at checkpoint {checkpoint}"));
                bell.ring(|news| news.changed = Some(told));
            });
            return master.swap(code, None, answered).map(drop);
        }
        self.say_why(&difference);
        self.slots.at_least(code.slots()?);
        let answered = Box::new(move |result: Result<String, Diagnostic>| {
            let told = result.map(|path| format!("by a restart from savepoint {path}"));
            bell.ring(|news| news.changed = Some(told));
        });
        master.restart_as(code, answered).map(drop)
    }

    fn say_why(&self, difference: &Difference) {
        self.told.say("The running job cannot go over to this version:");
        difference.obstacles.iter().for_each(|obstacle| self.told.say(&format!("  {obstacle}")));
        self.told.say("It is stopped with a savepoint, and started from that.");
    }

    /// What the running job's component is called.
    pub(super) fn component(&self) -> Option<String> {
        Some(self.running.as_ref()?.master.code().program.digest().to_owned())
    }

    /// If the job has ended: takes note of it, and says it. How it has ended.
    ///
    /// # Errors
    /// If nobody reads its rows any more.
    pub(super) fn ended(&mut self) -> Result<Option<JobOutcome>, Stop> {
        let has_ended = self.running.as_ref().is_some_and(|running| running.master.ended().is_some());
        let Some(running) = self.running.take_if(|_| has_ended) else { return Ok(None) };
        let Running { master, platform, printer, since } = running;
        let Ended { outcome, restarts } = master.wait();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        join(printer);
        let unread = matches!(&outcome, JobOutcome::Failed(error) if error.message == CLOSED);
        if unread {
            return Err(Stop::Code(PIPE_CLOSED));
        }
        let code = master.code();
        if let (Some(job), false) = (master.job(), self.args.quiet) {
            let (took, title) = (self.now() - since, &code.graph.name);
            let lines = summary(&job, title, &outcome, (took, restarts));
            lines.iter().for_each(|line| self.terminal.line(line));
        }
        let goes_on = std::mem::take(&mut self.goes_on) || matches!(outcome, JobOutcome::Failed(_));
        self.from = match goes_on {
            true => master.last().or(self.from.take()),
            false => self.args.from_savepoint.clone().map(Restore::Path),
        };
        master.forget_job();
        // What is under way holds folders, and what it writes the next is to find.
        let_go(&platform);
        Ok(Some(outcome))
    }

    /// Ends the job, and its REST interface.
    pub(super) fn end(&mut self) -> Result<(), Stop> {
        if let Some(running) = &self.running {
            running.master.cancel();
            // How it has ended is asked below.
            drop(running.master.wait());
        }
        let ended = self.ended();
        self.server.take().into_iter().for_each(|server| embedded::end(server, &self.platform.clock));
        ended.map(drop)
    }
}
