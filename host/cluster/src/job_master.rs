//! One job: does what its [`Lifecycle`] says, and shows what becomes of it.

mod versions;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint::Savepoint;
use checkpoint::coordinator::{CheckpointId, Stop};
use checkpoint::manifest::Version as Ran;
use model::Diagnostic;
use platform::{Random, spawn_thread};
use task::metrics::report::JobMetrics;
use task::swap::{RollBack, Standing};
use task::{Form, Job, JobOutcome, LogSink, RestartStrategy, RunOptions, SavepointRequest};

use crate::attempts::{Attempts, Code, Origin, Planned};
use crate::checkpoints::{self, Restore, SavepointFolder};
use crate::lifecycle::{Action, Event, Failure, JobStatus, Lifecycle, Spell};
use crate::slots::Slots;

/// A savepoint, as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct SavepointAsk {
    /// Where; none = as the configuration says.
    pub target: Option<String>,
    /// In which form; none = as the configuration says.
    pub form: Option<Form>,
    /// That the job stops with it, and how.
    pub stop: Option<Stop>,
}

/// Hears what came of it: the path of a savepoint, the number of a checkpoint; or why nothing did.
pub type Answered<T> = Box<dyn FnOnce(Result<T, Diagnostic>) + Send>;

/// A job that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub outcome: JobOutcome,
    /// How often it was restarted.
    pub restarts: u32,
}

/// A job, from its submission to its end. All that is asked of it returns at once, but for [`wait`](Self::wait).
pub struct JobMaster {
    id: String,
    attempts: Attempts,
    /// How many slots it needs.
    slots: AtomicU32,
    /// Where it has them from.
    all_slots: Arc<Slots>,
    events: SyncSender<Event>,
    seen: Mutex<Seen>,
    changed: Condvar,
    /// Told whenever the job's state is another.
    on_change: Box<dyn Fn(&JobMaster) + Send + Sync>,
}

/// What is seen of a job from outside.
struct Seen {
    status: JobStatus,
    /// When it came to each state, in milliseconds since the epoch; 0 = it has not.
    timestamps: [i64; JobStatus::ALL.len()],
    /// The attempt that runs, or the last that did.
    job: Option<Arc<Job>>,
    ended: Option<Ended>,
    failures: Vec<Failure>,
    restarts: u32,
    spell: Spell,
    /// It is to be cancelled as soon as it runs.
    is_cancelled: bool,
    /// What it goes on from after its pause.
    paused_at: Option<String>,
    /// Savepoints of pauses before that one.
    paused_before: Vec<String>,
    /// Its checkpoints from this one on were made since it began, or went on after its pause.
    since: Option<CheckpointId>,
    /// The version that runs, or is the next to.
    code: Arc<Code>,
    /// The one before it in this process.
    code_before: Option<Arc<Code>>,
    /// Which have run, the first first.
    versions: Vec<Ran>,
    /// How the attempt runs; without what it has gone on from.
    options: Option<RunOptions>,
    /// The version with which it goes on after the pause that is made for it.
    next: Option<versions::Next>,
    /// How the version stands that was last on probation.
    standing: Option<Standing>,
    /// No thread is its hands any more.
    is_over: bool,
}

impl Seen {
    /// It has been paused with this savepoint.
    fn paused_with(&mut self, path: String) {
        let before = self.paused_at.replace(path);
        self.paused_before.extend(before);
    }
}

/// How a job begins.
pub enum Begin {
    /// As it says; the plan of the first attempt, where it has been made.
    Anew(Option<Box<Planned>>),
    /// It has been begun by a process that died: its checkpoints from `since` on are its own, and without any it
    /// begins with the savepoint of its pause, or from the beginning.
    Again {
        /// The first of its checkpoints.
        since: CheckpointId,
        /// The savepoint of its pause.
        paused_at: Option<String>,
    },
    /// It was paused then, and begins with that savepoint; at once, or when it is resumed.
    Paused {
        /// The savepoint.
        path: String,
        /// It goes on at once.
        resumes: bool,
    },
}

/// How often is looked whether what a failed attempt has under way is over.
const QUIET_EVERY: Duration = Duration::from_millis(5);

/// Events that may wait; each is taken at once.
const EVENTS: usize = 1_024;

/// What the thread that is a job's hands has.
struct Hands {
    events: Receiver<Event>,
    log: LogSink,
    lifecycle: Lifecycle,
    /// The plan of the first attempt.
    plan: Option<Planned>,
    /// The checkpoints from this one on are of earlier attempts of the job.
    since: Option<CheckpointId>,
    /// What an attempt goes on from without any of these.
    from: Option<Restore>,
    /// So many it has.
    has_slots: u32,
    /// The next attempt goes on as the version before, from here at the latest; and when that was known.
    roll_back: Option<(RollBack, Duration)>,
}

impl JobMaster {
    /// Starts a job's life: in a thread of its own it asks for slots, and so on.
    ///
    /// # Errors
    /// If the job makes no sense.
    pub fn start(
        (id, began): (String, i64),
        attempts: Attempts,
        (strategy, slots): (RestartStrategy, Arc<Slots>),
        (begin, log): (Begin, LogSink),
        on_change: impl Fn(&Self) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Diagnostic> {
        let needed = match &begin {
            Begin::Anew(Some(planned)) => planned.plan.physical.slots(),
            _ => attempts.first.slots()?,
        };
        let (sender, events) = sync_channel(EVENTS);
        let mut timestamps = [0; JobStatus::ALL.len()];
        timestamps[JobStatus::Initializing as usize] = began;
        let lifecycle = Lifecycle::new(strategy, Random::of_seed(Random::unpredictable_seed()));
        let first = match &begin {
            Begin::Paused { resumes: false, .. } => Event::SubmittedPaused,
            _ => Event::Submitted,
        };
        let mut hands = Hands {
            events,
            log,
            lifecycle,
            plan: None,
            since: None,
            from: attempts.restore.clone(),
            has_slots: 0,
            roll_back: None,
        };
        let mut paused_at = None;
        match begin {
            Begin::Anew(plan) => hands.plan = plan.map(|plan| *plan),
            Begin::Again { since, paused_at: path } => (hands.since, paused_at) = (Some(since), path),
            Begin::Paused { path, .. } => paused_at = Some(path),
        }
        if let Some(path) = &paused_at {
            hands.from = Some(Restore::Path(path.into()));
        }
        let seen = Seen {
            status: JobStatus::Initializing,
            timestamps,
            job: None,
            ended: None,
            failures: Vec::new(),
            restarts: 0,
            spell: Spell::new(began),
            is_cancelled: false,
            paused_at,
            paused_before: Vec::new(),
            since: hands.since,
            code: Arc::clone(&attempts.first),
            code_before: None,
            versions: vec![attempts.first.ran(0)],
            options: None,
            next: None,
            standing: None,
            is_over: false,
        };
        let master = Arc::new(Self {
            id,
            attempts,
            slots: AtomicU32::new(needed),
            all_slots: slots,
            events: sender,
            seen: Mutex::new(seen),
            changed: Condvar::new(),
            on_change: Box::new(on_change),
        });
        master.tell(first);
        let this = Arc::clone(&master);
        spawn_thread("job-master", move || this.live(hands));
        Ok(master)
    }

    /// Its id: 32 hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.attempts.first.graph.name
    }

    /// What it is made of.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// How many slots it needs.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// Where it is.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.lock().status
    }

    /// When it came to a state, in milliseconds since the epoch; 0 = it has not.
    #[must_use]
    pub fn timestamp(&self, status: JobStatus) -> i64 {
        self.lock().timestamps[status as usize]
    }

    /// The attempt that runs, or the last that did; none = none has yet.
    #[must_use]
    pub fn job(&self) -> Option<Arc<Job>> {
        self.lock().job.clone()
    }

    /// What an attempt of it has counted, and how long the job has been up or down over all of them.
    #[must_use]
    pub fn metrics(&self, job: &Job) -> JobMetrics {
        let spell = self.lock().spell;
        let metrics = job.metrics();
        JobMetrics { availability: Some(spell.availability(metrics.now_ms)), ..metrics }
    }

    /// Lets go of the attempt that has ended, which may hold folders.
    pub fn forget_job(&self) {
        self.lock().job = None;
    }

    /// How it has ended; none = it has not.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    /// Its last failures, the oldest first.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        self.lock().failures.clone()
    }

    /// How often it has been restarted.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.lock().restarts
    }

    /// The savepoint that it goes on from after its pause.
    #[must_use]
    pub fn paused_at(&self) -> Option<String> {
        self.lock().paused_at.clone()
    }

    /// The first of its checkpoints that came after that; none = it has not gone on.
    #[must_use]
    pub fn since(&self) -> Option<CheckpointId> {
        self.lock().since
    }

    /// Waits until it has ended.
    #[must_use]
    pub fn wait(&self) -> Ended {
        let mut seen = self.lock();
        loop {
            if let (Some(ended), true) = (&seen.ended, seen.is_over) {
                return ended.clone();
            }
            seen = self.changed.wait(seen).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for so long, or until the state is one that is wanted. Whether it is.
    #[must_use]
    pub fn wait_for(&self, time: Duration, wanted: impl Fn(JobStatus) -> bool) -> bool {
        let clock = &self.attempts.platform.clock;
        let end = clock.now() + time;
        let mut seen = self.lock();
        loop {
            let left = end.saturating_sub(clock.now());
            if wanted(seen.status) || left.is_zero() {
                return wanted(seen.status);
            }
            let (guard, _) = self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner);
            seen = guard;
        }
    }

    /// Cancels it. One that has ended stays as it is.
    pub fn cancel(&self) {
        self.lock().is_cancelled = true;
        self.tell(Event::Cancel);
    }

    /// Asks for a savepoint.
    ///
    /// # Errors
    /// If it does not run, or there is no place for one.
    pub fn savepoint(&self, ask: &SavepointAsk, answered: Answered<String>) -> Result<(), Diagnostic> {
        let folder = self.savepoint_folder(ask.target.as_deref())?;
        self.savepoint_in(&folder, (ask.form.unwrap_or(folder.form), ask.stop), answered)
    }

    /// Makes a savepoint with which the job ends for now; [`resume`](Self::resume) goes on from it. `answered` hears
    /// its path.
    ///
    /// # Errors
    /// If it does not run, or makes no checkpoints.
    pub fn pause(self: &Arc<Self>, answered: Answered<String>) -> Result<(), Diagnostic> {
        let folder = self.pause_folder()?;
        let this = Arc::clone(self);
        let paused: Answered<String> = Box::new(move |result| {
            if let Ok(path) = &result {
                this.lock().paused_with(path.clone());
                this.tell(Event::Paused);
            }
            answered(result);
        });
        self.savepoint_in(&folder, (Form::Native, Some(Stop::Suspend)), paused)
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// If it is not paused.
    pub fn resume(&self) -> Result<(), Diagnostic> {
        match self.status() {
            JobStatus::Suspended => {
                self.tell(Event::Resume);
                Ok(())
            }
            status => Err(self.is_not("paused", status)),
        }
    }

    /// Where it makes the savepoints of its pauses.
    fn pause_folder(&self) -> Result<SavepointFolder, Diagnostic> {
        let code = self.code();
        let storage = code.config.get("execution.checkpointing.dir").0;
        if storage.is_empty() {
            return Err(no_checkpoints());
        }
        let root = format!("{}/{}/paused", storage.trim_end_matches('/'), self.id);
        self.savepoint_folder(Some(&root))
    }

    fn savepoint_folder(&self, root: Option<&str>) -> Result<SavepointFolder, Diagnostic> {
        let folder =
            SavepointFolder::of(&self.code().config, root, &self.id, &self.attempts.platform.faults)?;
        folder.ok_or_else(|| {
            Diagnostic::user("no savepoint directory configured")
                .detail(
                    "a savepoint is put in the folder that is named with it, or in that of the configuration",
                )
                .hint("name one, or set execution.checkpointing.savepoint-dir")
        })
    }

    fn savepoint_in(
        &self,
        folder: &SavepointFolder,
        (form, stop): (Form, Option<Stop>),
        answered: Answered<String>,
    ) -> Result<(), Diagnostic> {
        let job = self.running()?;
        let (savepoint, path) = folder.new_savepoint();
        let mut answer = Once { answered: Some(answered), not: "the savepoint has failed", unknown: None };
        let told = Box::new(move |result: Result<CheckpointId, String>| answer.give(result.map(|_| path)));
        job.savepoint(SavepointRequest { savepoint, form, stop }, told)
    }

    /// The attempt that runs.
    pub(crate) fn running(&self) -> Result<Arc<Job>, Diagnostic> {
        let seen = self.lock();
        match (seen.status, &seen.job) {
            (JobStatus::Running, Some(job)) => Ok(Arc::clone(job)),
            (status, _) => Err(self.is_not("running", status)),
        }
    }

    fn is_not(&self, what: &str, status: JobStatus) -> Diagnostic {
        Diagnostic::user(format!("job {} is not {what}", self.id))
            .detail(format!("its state is {}", status.name()))
    }

    fn tell(&self, event: Event) {
        // Nobody hears it when the job has ended.
        drop(self.events.send(event));
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(self: Arc<Self>, mut hands: Hands) {
        let clock = self.attempts.platform.clock.clone();
        let mut due: Option<Duration> = None;
        let mut is_over = false;
        while !is_over {
            let left = due.map(|due| due.saturating_sub(clock.now()));
            let event = match left {
                Some(left) => match hands.events.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) => Ok(Event::Due),
                    Err(RecvTimeoutError::Disconnected) => Err(()),
                    Ok(event) => Ok(event),
                },
                None => hands.events.recv().map_err(drop),
            };
            let Ok(event) = event else { return };
            if matches!(event, Event::Due) {
                due = None;
            }
            match &event {
                Event::Changed => (self.on_change)(&self),
                Event::RolledBack(_) => {
                    let to = self.job().and_then(|job| job.roll_back());
                    hands.roll_back = to.map(|to| (to, clock.now()));
                }
                _ => {}
            }
            let mut events = vec![event];
            while let Some(event) = events.pop() {
                let (now, wall_ms) = (clock.now(), clock.wall_ms());
                let failed = match &event {
                    Event::Ended(JobOutcome::Failed(error)) => Some(error.clone()),
                    _ => None,
                };
                let actions = hands.lifecycle.on(event, now, wall_ms);
                self.publish(&hands.lifecycle, wall_ms);
                for action in actions {
                    match action {
                        Action::AskForSlots => self.ask_for_slots(),
                        Action::Start { attempt } => {
                            hands.has_slots = self.slots();
                            events.push(self.attempt(&mut hands, attempt));
                        }
                        Action::CancelAttempt => self.job().iter().for_each(|job| job.cancel()),
                        Action::Wait(after) => {
                            due = Some(now + after);
                            if let Some(error) = &failed {
                                self.say_restart(hands.lifecycle.restarts(), after, error);
                            }
                        }
                        Action::GiveSlotsBack => {
                            due = None;
                            let has = std::mem::take(&mut hands.has_slots);
                            if !self.all_slots.forget(&self.id) && has > 0 {
                                self.all_slots.give_back(has);
                            }
                        }
                        Action::Over => is_over = true,
                    }
                }
                // Paused: the next attempt goes on from there, whatever checkpoints there are.
                if hands.lifecycle.status() == JobStatus::Suspended
                    && let Some(path) = self.paused_at()
                {
                    // That has been kept by now.
                    self.forget_pauses_before();
                    (hands.from, hands.since) = (Some(Restore::Path(path.into())), None);
                    events.extend(self.goes_on_as_another().then_some(Event::Resume));
                }
            }
        }
        let outcome = hands.lifecycle.outcome().cloned();
        let mut is_pause_needed = false;
        if let (Some(outcome), Some(storage)) = (&outcome, self.storage()) {
            // One that has failed before its first checkpoint after a pause has nothing else to go on from.
            is_pause_needed = matches!(outcome, JobOutcome::Failed(_)) && !self.has_checkpoint(&storage);
            checkpoints::retain(&self.code().config, &storage, outcome, &*self.attempts.tell);
        }
        match self.paused_at().filter(|_| is_pause_needed) {
            Some(path) => {
                self.attempts.tell.say(&format!("the job can go on from the savepoint of its pause: {path}"));
            }
            None => self.forget_pause(),
        }
        // Of a pause that came as the job ended.
        self.forget_pauses_before();
        drop(hands);
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Where its checkpoints are.
    fn storage(&self) -> Option<checkpoint::Storage> {
        self.attempts.storage(&self.id).ok().flatten()
    }

    /// Whether there is a checkpoint that it has made since it began, or went on after its pause.
    fn has_checkpoint(&self, storage: &checkpoint::Storage) -> bool {
        let since = self.since();
        let traces = storage.traces().unwrap_or_default();
        traces.iter().any(|(id, is_complete)| *is_complete && since.is_some_and(|since| *id >= since))
    }

    /// Where another run of the job goes on from, once it has ended: its last checkpoint, else the savepoint of its
    /// pause; none = it has neither.
    #[must_use]
    pub fn last(&self) -> Option<Restore> {
        match self.storage().is_some_and(|storage| self.has_checkpoint(&storage)) {
            true => Some(Restore::Latest),
            false => self.paused_at().map(|path| Restore::Path(path.into())),
        }
    }

    /// Removes the savepoint of the last pause, which nobody needs any more.
    fn forget_pause(&self) {
        let last = self.lock().paused_at.take();
        last.iter().for_each(|path| self.remove_pause(path));
    }

    /// Removes those of the pauses before it.
    fn forget_pauses_before(&self) {
        let before = std::mem::take(&mut self.lock().paused_before);
        before.iter().for_each(|path| self.remove_pause(path));
    }

    fn remove_pause(&self, path: &str) {
        let removed = checkpoints::savepoint_at(&self.code().config, path)
            .and_then(|savepoint: Savepoint| savepoint.remove().map_err(|error| error.to_string()));
        if let Err(error) = removed {
            self.attempts.tell.warn(&format!("the savepoint of a pause, {path}, cannot be removed: {error}"));
        }
    }

    fn publish(&self, lifecycle: &Lifecycle, wall_ms: i64) {
        let is_new = {
            let mut seen = self.lock();
            let is_new = seen.status != lifecycle.status();
            seen.status = lifecycle.status();
            if is_new {
                seen.timestamps[lifecycle.status() as usize] = wall_ms;
            }
            seen.restarts = lifecycle.restarts();
            seen.spell = lifecycle.spell().unwrap_or(seen.spell);
            seen.failures = lifecycle.failures().iter().cloned().collect();
            let restarts = lifecycle.restarts();
            seen.ended = lifecycle.outcome().map(|outcome| Ended { outcome: outcome.clone(), restarts });
            is_new
        };
        if is_new {
            (self.on_change)(self);
            self.changed.notify_all();
        }
    }

    fn ask_for_slots(self: &Arc<Self>) {
        let (this, slots) = (Arc::clone(self), &self.all_slots);
        slots.ask(&self.id, self.slots(), move || this.tell(Event::SlotsGiven));
        let time = self.code().config.duration("slot.request.timeout");
        if let Some(why) = slots.waits_for(&self.id) {
            self.attempts.tell.say(&format!("job {} waits for slots: {why}", self.name()));
            let (this, slots) = (Arc::downgrade(self), Arc::clone(slots));
            platform::spawn_task("slots", async move {
                platform::network::sleep(time).await;
                if let Some(this) = this.upgrade()
                    && let Some(why) = slots.waits_for(&this.id)
                {
                    this.tell(Event::NoSlots(why));
                }
            });
        }
    }

    fn say_restart(&self, number: u32, after: Duration, error: &Diagnostic) {
        let seconds = after.as_secs_f64();
        let told = format!("job {} has failed; restart {number} follows in {seconds:.2} s", self.name());
        self.attempts.tell.warn_of(&told, error);
    }

    /// Starts an attempt, and a thread that waits for its end.
    fn attempt(self: &Arc<Self>, hands: &mut Hands, attempt: u32) -> Event {
        // What the attempt before has under way is to be over before the next looks what there is.
        let platform = &self.attempts.platform;
        while attempt > 0 && !platform.io.is_quiet() && !self.lock().is_cancelled {
            platform.clock.sleep(QUIET_EVERY);
        }
        let next = self.lock().next.take();
        if let Some(versions::Next { code, path, answered, .. }) = next {
            match self.begin(hands, attempt, &code) {
                Ok(begun) => {
                    self.has_slots_to_spare(hands);
                    answered(Ok(path));
                    return begun;
                }
                // It goes on as what it was.
                Err(error) => answered(Err(error)),
            }
        }
        let code = self.code();
        let begun = self.begin(hands, attempt, &code);
        self.has_slots_to_spare(hands);
        begun.unwrap_or_else(|error| not_started(attempt, error))
    }

    /// Starts an attempt of a version, or of what a checkpoint says.
    fn begin(
        self: &Arc<Self>,
        hands: &mut Hands,
        attempt: u32,
        code: &Arc<Code>,
    ) -> Result<Event, Diagnostic> {
        let back = hands.roll_back.as_ref().map(|(to, _)| to);
        let before = back.map(|to| self.roll_back(to)).transpose()?;
        let code = before.as_ref().unwrap_or(code);
        let origin = Origin { since: hands.since, restore: hands.from.as_ref(), back };
        let planned = match hands.plan.take() {
            Some(planned) => planned,
            None => self.attempts.plan_from(attempt, &origin, code)?,
        };
        if planned.is_finished {
            // Only to show its last rows was left, and that is done.
            return Ok(Event::Ended(JobOutcome::Finished));
        }
        let Planned { plan, code, versions, .. } = planned;
        if hands.since.is_none() {
            hands.since = plan.options().checkpoints.as_ref().map(|of| of.next);
        }
        let options = plan.options().of_next_version();
        let job = Arc::new(task::start(plan, &self.attempts.platform, Arc::clone(&hands.log))?);
        let is_cancelled = {
            let mut seen = self.lock();
            (seen.job, seen.since) = (Some(Arc::clone(&job)), hands.since);
            (seen.versions, seen.options) = (versions, Some(options));
            seen.runs(code);
            let rolled_back = hands.roll_back.take();
            let took = |since: Duration| self.attempts.platform.clock.now().saturating_sub(since);
            seen.begins_anew(rolled_back.map(|(to, since)| (to.newest, took(since))));
            seen.is_cancelled
        };
        if is_cancelled {
            job.cancel();
        }
        let this = Arc::clone(self);
        spawn_thread("job-end", move || {
            let outcome = job.wait();
            let rolls_back = job.roll_back().is_some();
            drop(job);
            this.tell(match outcome {
                JobOutcome::Failed(error) if rolls_back => Event::RolledBack(error),
                outcome => Event::Ended(outcome),
            });
        });
        Ok(Event::Started)
    }
}

/// What cannot be started the first time is not tried again.
fn not_started(attempt: u32, error: Diagnostic) -> Event {
    match attempt {
        0 => Event::Refused(error),
        _ => Event::Ended(JobOutcome::Failed(error)),
    }
}

fn no_checkpoints() -> Diagnostic {
    Diagnostic::user("a job without checkpoints cannot be paused")
        .hint("give it a folder for them: -D execution.checkpointing.dir=DIR")
}

/// Answers once; at the latest when it is dropped, as the job has ended before.
pub(crate) struct Once<T> {
    pub(crate) answered: Option<Answered<T>>,
    /// What is said of it when nothing came of it.
    pub(crate) not: &'static str,
    /// And when it is not known whether something did.
    pub(crate) unknown: Option<Diagnostic>,
}

impl<T> Once<T> {
    pub(crate) fn give(&mut self, result: Result<T, String>) {
        if let Some(answered) = self.answered.take() {
            answered(result.map_err(|why| Diagnostic::external(self.not).detail(why)));
        }
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        match (self.unknown.take(), self.answered.take()) {
            (Some(unknown), Some(answered)) => answered(Err(unknown)),
            (None, Some(answered)) => {
                let why = "the job has ended before it was complete";
                answered(Err(Diagnostic::external(self.not).detail(why)));
            }
            (_, None) => {}
        }
    }
}
