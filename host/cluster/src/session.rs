//! A session: jobs that are submitted to one process, which share its slots and come back when it has died.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest::{Program, Runtime};
use model::Diagnostic;
use platform::disk::SystemDisk;
use platform::store::FileStore;
use platform::{IoPool, Platform, Random};
use task::{Execution, JobDescription, JobOutcome};

use crate::attempts::{self, Attempts, Code, Terms};
use crate::checkpoints::{self, Restore};
use crate::config::Origin;
use crate::job_master::{Begin, JobMaster};
use crate::lifecycle::JobStatus;
use crate::log::JobLog;
use crate::slots::Slots;
use crate::store::{JobRecord, JobStore, Submission};
use crate::{Config, Tell, program};

/// What a session is.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Where it keeps its jobs; none = nowhere: they end with its process.
    pub folder: Option<PathBuf>,
    /// How many task slots it has.
    pub slots: u32,
    /// How many jobs that have ended it remembers. Flink: `jobstore.max-capacity`.
    pub remembered: usize,
}

/// Why a session does not do what it is asked.
#[derive(Clone, Debug)]
pub enum SessionError {
    /// It has no job of this id.
    NoJob(String),
    /// It has no component of this name.
    NoUpload(String),
    /// It ends, and takes nothing new.
    Ending,
    /// What is asked makes no sense, or does not work now.
    Refused(Diagnostic),
}

impl From<Diagnostic> for SessionError {
    fn from(error: Diagnostic) -> Self {
        Self::Refused(error)
    }
}

/// A job, as its session knows it.
#[derive(Clone)]
pub enum Known {
    /// Of this process.
    Live {
        /// The job.
        master: Arc<JobMaster>,
        /// What it has said.
        log: Arc<JobLog>,
    },
    /// It ended in an earlier process.
    Past(Arc<JobRecord>),
}

impl Known {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Live { master, .. } => master.id(),
            Self::Past(record) => &record.id,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Live { master, .. } => master.name(),
            Self::Past(record) => &record.name,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        match self {
            Self::Live { master, .. } => master.status(),
            Self::Past(record) => record.status,
        }
    }

    /// When it came to a state, in milliseconds since the epoch; 0 = it has not.
    #[must_use]
    pub fn timestamp(&self, status: JobStatus) -> i64 {
        match self {
            Self::Live { master, .. } => master.timestamp(status),
            Self::Past(record) => record.timestamps.get(status.name()).copied().unwrap_or_default(),
        }
    }

    /// When it ended; none = it has not.
    #[must_use]
    pub fn ended_at(&self) -> Option<i64> {
        let status = self.status();
        status.is_terminal().then(|| self.timestamp(status))
    }
}

/// A component that was uploaded.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its name in the session: `<uuid>_<name>`.
    pub id: String,
    /// Its name as it was uploaded.
    pub name: String,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// The names of its jobs.
    pub jobs: Vec<String>,
}

/// Jobs of one process.
pub struct Session {
    settings: SessionSettings,
    config: Config,
    platform: Platform,
    runtime: Arc<Runtime>,
    slots: Arc<Slots>,
    store: Option<JobStore>,
    inner: Mutex<Inner>,
    tell: Arc<dyn Tell>,
    began: i64,
    /// It is around one job, and takes no other.
    is_of_one: bool,
}

#[derive(Default)]
struct Inner {
    /// In the order in which they began.
    jobs: Vec<Known>,
    uploads: BTreeMap<String, (Upload, Program)>,
    is_ending: bool,
}

/// How long the jobs of a session that ends may take for their savepoints.
const DRAIN: Duration = Duration::from_secs(60);

impl Session {
    /// Opens a session; the jobs that an earlier process had begun and not ended go on.
    ///
    /// # Errors
    /// If its folder cannot be read or written.
    pub fn open(
        settings: SessionSettings,
        config: Config,
        platform: Platform,
        tell: Arc<dyn Tell>,
    ) -> Result<Arc<Self>, Diagnostic> {
        let runtime = program::runtime(&config, &platform)?;
        let store = settings.folder.as_ref().map(|folder| {
            let disk = Arc::new(SystemDisk::new(folder));
            JobStore::new(Arc::new(FileStore::new(disk, platform.faults.clone())))
        });
        let began = platform.clock.wall_ms();
        let slots = Arc::new(Slots::new(settings.slots));
        let (inner, is_of_one) = (Mutex::default(), false);
        let this = Self { settings, config, platform, runtime, slots, store, inner, tell, began, is_of_one };
        let this = Arc::new(this);
        this.come_back()?;
        Ok(this)
    }

    /// A session around a job that this process runs, with the slots that are the job's. It takes no other, and keeps
    /// nothing.
    #[must_use]
    pub fn around(
        master: &Arc<JobMaster>,
        (log, tell): (Arc<JobLog>, Arc<dyn Tell>),
        (runtime, slots): (Arc<Runtime>, Arc<Slots>),
    ) -> Arc<Self> {
        let (config, platform) = (master.code().config.clone(), master.attempts().platform.clone());
        let (began, settings) = (
            platform.clock.wall_ms(),
            SessionSettings { folder: None, slots: slots.count().0, remembered: 1 },
        );
        let jobs = vec![Known::Live { master: Arc::clone(master), log }];
        let inner = Mutex::new(Inner { jobs, ..Inner::default() });
        let (store, is_of_one) = (None, true);
        Arc::new(Self { settings, config, platform, runtime, slots, store, inner, tell, began, is_of_one })
    }

    /// The job of a session around one has begun anew: this one takes its place.
    pub fn goes_on_around(&self, master: &Arc<JobMaster>, log: Arc<JobLog>) {
        self.lock().jobs = vec![Known::Live { master: Arc::clone(master), log }];
    }

    /// When it began, in milliseconds since the epoch.
    #[must_use]
    pub fn began(&self) -> i64 {
        self.began
    }

    /// Its time.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.platform.clock.wall_ms()
    }

    /// The values in effect.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many slots there are, and how many are free.
    #[must_use]
    pub fn slots(&self) -> (u32, u32) {
        self.slots.count()
    }

    /// What a job waits for; none = it does not.
    #[must_use]
    pub fn waits_for(&self, id: &str) -> Option<String> {
        self.slots.waits_for(id)
    }

    /// All jobs, in the order in which they began.
    #[must_use]
    pub fn jobs(&self) -> Vec<Known> {
        self.lock().jobs.clone()
    }

    /// A job.
    ///
    /// # Errors
    /// If there is none of this id.
    pub fn job(&self, id: &str) -> Result<Known, SessionError> {
        let found = self.lock().jobs.iter().find(|known| known.id() == id).cloned();
        found.ok_or_else(|| SessionError::NoJob(id.to_owned()))
    }

    /// A job of this process.
    ///
    /// # Errors
    /// If there is none of this id.
    pub fn master(&self, id: &str) -> Result<Arc<JobMaster>, SessionError> {
        match self.job(id)? {
            Known::Live { master, .. } => Ok(master),
            Known::Past(record) => Err(Diagnostic::user(format!("job {id} has ended"))
                .detail(format!("its state is {}", record.status.name()))
                .into()),
        }
    }

    /// The jobs of this process that have not ended.
    #[must_use]
    pub fn masters(&self) -> Vec<Arc<JobMaster>> {
        let live = self.jobs().into_iter().filter_map(|known| match known {
            Known::Live { master, .. } => Some(master),
            Known::Past(_) => None,
        });
        live.filter(|master| !master.status().is_terminal()).collect()
    }

    /// Keeps a component for jobs to come.
    ///
    /// # Errors
    /// If it is none, or cannot be kept.
    pub fn upload(&self, name: &str, bytes: &[u8]) -> Result<Upload, SessionError> {
        self.takes_new()?;
        // It becomes part of a path.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).take(200).collect();
        let name = &name;
        let id = format!("{}_{name}", uuid());
        let upload = self.keep_upload(&id, name, bytes, self.now())?;
        if let Some(store) = &self.store {
            let kept = store.upload(&format!("{id}@{}", upload.at), bytes);
            kept.map_err(|error| not_kept(&id, &error))?;
        }
        Ok(upload)
    }

    fn keep_upload(&self, id: &str, name: &str, bytes: &[u8], at: i64) -> Result<Upload, SessionError> {
        let program = self.runtime.load(bytes).map_err(|error| error.diagnostic())?;
        let jobs = program.jobs().map_err(|error| error.diagnostic())?;
        let jobs = jobs.into_iter().map(|job| job.name).collect();
        let upload = Upload { id: id.to_owned(), name: name.to_owned(), at, jobs };
        self.lock().uploads.insert(id.to_owned(), (upload.clone(), program));
        Ok(upload)
    }

    /// The components that were uploaded.
    #[must_use]
    pub fn uploads(&self) -> Vec<Upload> {
        self.lock().uploads.values().map(|(upload, ..)| upload.clone()).collect()
    }

    fn uploaded(&self, id: &str) -> Result<Program, SessionError> {
        let found = self.lock().uploads.get(id).map(|(_, program)| program.clone());
        found.ok_or_else(|| SessionError::NoUpload(id.to_owned()))
    }

    /// Removes one.
    ///
    /// # Errors
    /// If it is not there, or may still be.
    pub fn remove_upload(&self, id: &str) -> Result<(), SessionError> {
        let removed = self.lock().uploads.remove(id);
        let (upload, _) = removed.ok_or_else(|| SessionError::NoUpload(id.to_owned()))?;
        if let Some(store) = &self.store {
            let removed = store.remove_upload(&format!("{id}@{}", upload.at));
            removed.map_err(|error| not_kept(id, &error))?;
        }
        Ok(())
    }

    /// Submits a job of a component that was uploaded. Its id.
    ///
    /// # Errors
    /// If it makes no sense, or cannot be kept.
    pub fn run(self: &Arc<Self>, upload: &str, submission: Submission) -> Result<String, SessionError> {
        if self.is_of_one {
            return Err(Diagnostic::user("this process runs one job only")
                .hint("`streamctl session start` starts a session, which takes others")
                .into());
        }
        self.takes_new()?;
        let program = self.uploaded(upload)?;
        let id = new_id();
        let log = JobLog::new(&id, self.platform.clock.clone(), None);
        let attempts = self.attempts(&id, &program, &submission, &log)?;
        // What can never run is refused at once.
        attempts.first.slots()?;
        let now = self.now();
        let record = JobRecord {
            id: id.clone(),
            name: attempts.first.graph.name.clone(),
            component: program.digest().to_owned(),
            submission,
            status: JobStatus::Initializing,
            timestamps: BTreeMap::from([(JobStatus::Initializing.name().to_owned(), now)]),
            error: None,
            paused_at: None,
            since: None,
            resumes: false,
        };
        if let Some(store) = &self.store {
            store.add(&record, program.source()).map_err(|error| not_kept(&id, &error))?;
        }
        self.begin(record, attempts, Begin::Anew(None), log)?;
        Ok(id)
    }

    /// A version of a job, made of a component that was uploaded, or of the one that runs where none is named. Without
    /// arguments of its own it has those of the version that runs.
    ///
    /// # Errors
    /// If there is no such component, or it has no such job, or does not take the arguments.
    pub fn version(
        &self,
        master: &JobMaster,
        upload: Option<&str>,
        job: Option<&str>,
        args: Option<&[String]>,
    ) -> Result<Code, SessionError> {
        let now = master.code();
        let program = match upload {
            None => now.program.clone(),
            Some(id) => self.uploaded(id)?,
        };
        // A job of the same name is meant, if the component has one.
        let jobs = program.jobs().map_err(|error| error.diagnostic())?;
        let same = jobs.iter().any(|job| job.name == now.job).then_some(now.job.as_str());
        let args = args.unwrap_or(&now.args);
        Ok(master.attempts().version(&program, job.or(same), args)?)
    }

    /// The plan of a job of a component that was uploaded, which is not run.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn plan(&self, upload: &str, submission: &Submission) -> Result<JobDescription, SessionError> {
        let program = self.uploaded(upload)?;
        let id = new_id();
        let log = JobLog::new(&id, self.platform.clock.clone(), None);
        Ok(self.attempts(&id, &program, submission, &log)?.first.description()?)
    }

    /// The file that the session's messages go to, where it has one.
    #[must_use]
    pub fn log_file(&self) -> Option<PathBuf> {
        let file = self.settings.folder.as_ref()?.join("session.log");
        file.is_file().then_some(file)
    }

    fn takes_new(&self) -> Result<(), SessionError> {
        if self.lock().is_ending { Err(SessionError::Ending) } else { Ok(()) }
    }

    /// What the attempts of a job are made of.
    fn attempts(
        &self,
        id: &str,
        program: &Program,
        submission: &Submission,
        log: &Arc<JobLog>,
    ) -> Result<Attempts, Diagnostic> {
        let mut config = self.config.clone();
        for (key, value) in &submission.config {
            config.set(key, value, Origin::CommandLine)?;
        }
        // Whoever names no folder has its checkpoints with the session: savepoints and pauses need one.
        if config.get("execution.checkpointing.dir").0.is_empty()
            && let Some(folder) = &self.settings.folder
        {
            let folder = folder.join("checkpoints");
            config.set("execution.checkpointing.dir", &folder.to_string_lossy(), Origin::CommandLine)?;
        }
        let execution = submission.batch.map(|batch| match batch {
            true => Execution::Batch,
            false => Execution::Streaming,
        });
        let (job, graph) = program::graph(program, submission.job.as_deref(), &submission.args)?;
        let mut terms = Terms::new(config);
        (terms.parallelism, terms.execution) = (submission.parallelism, execution);
        terms.allow.clone_from(&submission.allow);
        terms.allow_non_restored = submission.allow_non_restored;
        let first = Arc::new(terms.version(program, (&job, &submission.args), graph)?);
        Ok(Attempts {
            first,
            terms,
            runtime: Arc::clone(&self.runtime),
            own_id: Some(id.to_owned()),
            restore: submission.restore.as_ref().map(|path| Restore::Path(path.into())),
            // What a job has under way is its own.
            platform: Platform { io: IoPool::threads(), ..self.platform.clone() },
            tell: Arc::clone(log) as Arc<dyn Tell>,
        })
    }

    fn begin(
        self: &Arc<Self>,
        record: JobRecord,
        attempts: Attempts,
        begin: Begin,
        log: Arc<JobLog>,
    ) -> Result<(), Diagnostic> {
        let strategy = attempts::strategy(&attempts.first.config)?;
        let began = record.timestamps.get(JobStatus::Initializing.name()).copied().unwrap_or_default();
        let (id, session) = (record.id.clone(), Arc::downgrade(self));
        let record = Mutex::new(record);
        let (said, before) = (Arc::clone(&log), Mutex::new(JobStatus::Initializing));
        let on_change = move |master: &JobMaster| {
            let status = master.status();
            let before =
                std::mem::replace(&mut *before.lock().unwrap_or_else(PoisonError::into_inner), status);
            if before != status {
                let (from, to) = (before.name(), status.name());
                said.say(&format!("job {} switched from state {from} to {to}", master.name()));
            }
            if let Some(session) = session.upgrade() {
                session.keep(&mut record.lock().unwrap_or_else(PoisonError::into_inner), master);
            }
        };
        let slots = Arc::clone(&self.slots);
        let sink = log.sink();
        let master = JobMaster::start((id, began), attempts, (strategy, slots), (begin, sink), on_change)?;
        self.lock().jobs.push(Known::Live { master, log });
        Ok(())
    }

    /// Keeps what a job is now, where that is more than that it runs: it has ended, is paused, has gone on after a
    /// pause, or is another version.
    fn keep(&self, record: &mut JobRecord, master: &JobMaster) {
        let (status, paused_at, code) = (master.status(), master.paused_at(), master.code());
        let goes_on = status == JobStatus::Running && paused_at.is_some();
        let (job, args) = (Some(&code.job), &code.args);
        let has_other_component = record.component != code.program.digest();
        let is_other = has_other_component || record.submission.args != *args;
        let is_told = status.is_terminal() || status == JobStatus::Suspended || goes_on || is_other;
        let (Some(store), true) = (&self.store, is_told) else { return };
        record.status = status;
        record.timestamps = JobStatus::ALL
            .iter()
            .map(|status| (status.name().to_owned(), master.timestamp(*status)))
            .filter(|(_, at)| *at > 0)
            .collect();
        record.error = master.ended().and_then(|ended| match ended.outcome {
            JobOutcome::Failed(error) => Some(error.to_string()),
            JobOutcome::Finished | JobOutcome::Cancelled => None,
        });
        record.paused_at = paused_at.filter(|_| !status.is_terminal());
        record.since = master.since().filter(|_| goes_on);
        record.resumes = status == JobStatus::Suspended && (self.lock().is_ending || master.is_restarting());
        if is_other {
            code.program.digest().clone_into(&mut record.component);
            (record.submission.job, record.submission.args) = (job.cloned(), args.clone());
        }
        let kept = match has_other_component {
            true => store.change(record, code.program.source()),
            false => store.put(record),
        };
        if let Err(error) = kept {
            self.tell.warn(&format!("job {} cannot be kept: {error}", record.id));
        }
        if status.is_terminal() {
            self.forget_the_oldest();
        }
    }

    fn forget_the_oldest(&self) {
        let ended = |known: &&Known| known.status().is_terminal();
        let mut inner = self.lock();
        let over = inner.jobs.iter().filter(ended).count().saturating_sub(self.settings.remembered);
        let oldest: Vec<String> =
            inner.jobs.iter().filter(ended).take(over).map(|known| known.id().to_owned()).collect();
        inner.jobs.retain(|known| !oldest.iter().any(|id| id == known.id()));
        drop(inner);
        for id in oldest {
            if let Some(store) = &self.store
                && let Err(error) = store.remove(&id)
            {
                self.tell.warn(&format!("job {id} cannot be forgotten: {error}"));
            }
        }
    }

    /// Brings back what the store has.
    fn come_back(self: &Arc<Self>) -> Result<(), Diagnostic> {
        let Some(store) = &self.store else { return Ok(()) };
        let unreadable = |error: std::io::Error| {
            let folder = self.settings.folder.clone().unwrap_or_default();
            Diagnostic::external(format!("`{}` cannot have a session", folder.display()))
                .detail(error.to_string())
        };
        let (records, wrong) = store.all().map_err(unreadable)?;
        for error in wrong {
            self.tell.warn(&error.to_string());
        }
        for name in store.uploads().map_err(unreadable)? {
            let Some((id, at)) = name.rsplit_once('@') else { continue };
            let (Some((_, of)), Ok(at)) = (id.split_once('_'), at.parse()) else { continue };
            let kept = store.uploaded(&name).map_err(|error| SessionError::Refused(unreadable(error)));
            if kept.and_then(|bytes| self.keep_upload(id, of, &bytes, at)).is_err() {
                self.tell.warn(&format!("the component {id} cannot be used any more"));
            }
        }
        for record in records {
            if record.status.is_terminal() {
                self.lock().jobs.push(Known::Past(Arc::new(record)));
                continue;
            }
            let (id, name) = (record.id.clone(), record.name.clone());
            let begin = match &record.paused_at {
                Some(path) if record.status == JobStatus::Suspended => {
                    Begin::Paused { path: path.clone(), resumes: record.resumes }
                }
                paused_at => {
                    Begin::Again { since: record.since.unwrap_or_default(), paused_at: paused_at.clone() }
                }
            };
            match self.bring_back(record, begin) {
                Ok(()) => self.tell.say(&format!("job {name} ({id}) is back")),
                Err(error) => self.tell.warn_of(&format!("job {name} ({id}) cannot go on"), &error),
            }
        }
        Ok(())
    }

    fn bring_back(self: &Arc<Self>, record: JobRecord, begin: Begin) -> Result<(), Diagnostic> {
        let Some(store) = &self.store else { return Ok(()) };
        let bytes = store.component(&record).map_err(|error| {
            Diagnostic::external("its component cannot be read").detail(error.to_string())
        })?;
        let program = self.runtime.load(&bytes).map_err(|error| error.diagnostic())?;
        let log = JobLog::new(&record.id, self.platform.clock.clone(), None);
        let attempts = self.attempts(&record.id, &program, &record.submission, &log)?;
        self.begin(record, attempts, begin, log)
    }

    /// Removes a savepoint. Whatever else lies in its folder stays.
    ///
    /// # Errors
    /// If there is none at the path, or it may still be there.
    pub fn dispose(&self, path: &str) -> Result<(), Diagnostic> {
        let not = |why: String| Diagnostic::user(format!("`{path}` cannot be disposed of")).detail(why);
        let savepoint = checkpoints::savepoint_at(&self.config, path).map_err(not)?;
        savepoint.dispose().map_err(|error| not(error.to_string()))
    }

    /// Ends the session: nothing new is taken, and each job makes a savepoint with which it goes on when the session
    /// comes back. A job that cannot is cut off, and goes on from its last checkpoint.
    pub fn end(&self) {
        self.lock().is_ending = true;
        let masters = self.masters();
        let running = |status: JobStatus| status == JobStatus::Running;
        let (tell, end) = (&self.tell, self.platform.clock.now() + DRAIN);
        let paused: Vec<_> = masters.iter().filter(|master| running(master.status())).collect();
        for master in &paused {
            let (tell, id) = (Arc::clone(tell), master.id().to_owned());
            let answered = Box::new(move |result: Result<String, Diagnostic>| {
                if let Err(error) = result {
                    tell.warn_of(&format!("job {id} goes on from its last checkpoint"), &error);
                }
            });
            if self.store.is_none() || master.pause(answered).is_err() {
                master.cancel();
            }
        }
        for master in paused {
            let left = end.saturating_sub(self.platform.clock.now());
            if !master.wait_for(left, |status| !running(status)) {
                self.tell.warn(&format!("job {} is cut off", master.id()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_kept(what: &str, error: &std::io::Error) -> Diagnostic {
    Diagnostic::external(format!("{what} cannot be kept")).detail(error.to_string())
}

/// A random id, as Flink has them: 32 hex digits.
#[must_use]
pub fn new_id() -> String {
    format!("{:016x}{:016x}", Random::unpredictable_seed(), Random::unpredictable_seed())
}

/// Whether a text is such an id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A random name, in the form of a UUID (version 4).
fn uuid() -> String {
    let bits = (u128::from(Random::unpredictable_seed()) << 64) | u128::from(Random::unpredictable_seed());
    let bits = bits & !(0xf << 76) | (4 << 76);
    let bits = bits & !(0x3 << 62) | (2 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}
