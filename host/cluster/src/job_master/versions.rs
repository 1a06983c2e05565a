//! The versions of a running job: what differs, and how it changes from one to another.

use std::sync::Arc;
use std::time::Duration;

use checkpoint::coordinator::{CheckpointId, Stop};
use checkpoint::manifest::Version as Ran;
use model::Diagnostic;
use task::swap::{Difference, Observer, Probation, RollBack, Rollback, Standing, SwapOptions, diff};
use task::{Form, Job, Plan, RunOptions};

use super::{Answered, JobMaster, Once, Ordering, Seen};
use crate::attempts::Code;
use crate::lifecycle::Event;

/// A version with which the job goes on after a pause that is made for it.
pub(super) struct Next {
    pub(super) code: Arc<Code>,
    /// The savepoint of the pause.
    pub(super) path: String,
    /// How many slots it needs.
    pub(super) slots: u32,
    pub(super) answered: Answered<String>,
}

impl Seen {
    /// The job runs as this version.
    pub(super) fn runs(&mut self, code: Arc<Code>) {
        if !Arc::ptr_eq(&self.code, &code) {
            self.code_before = Some(std::mem::replace(&mut self.code, code));
        }
    }

    /// An attempt begins; the probation of the one before is over. `rolled_back`: from which checkpoint it goes on as
    /// the version before, and how long that took.
    pub(super) fn begins_anew(&mut self, rolled_back: Option<(CheckpointId, Duration)>) {
        self.standing = match (self.standing.take(), rolled_back) {
            (Some(Standing::GoingBack { trap }), Some((newest, took))) => {
                Some(Standing::WentBack { trap, at: Some(newest), took })
            }
            (Some(Standing::Changing | Standing::GoingBack { .. }), _) => {
                Some(Standing::NotChanged { reason: "the attempt ended meanwhile".to_owned() })
            }
            // It goes on from a checkpoint of its own.
            (Some(Standing::OnProbation { .. }), _) => Some(Standing::Kept { traps: 0 }),
            (standing, _) => standing,
        };
    }
}

impl JobMaster {
    /// The version that runs, or is the next to.
    #[must_use]
    pub fn code(&self) -> Arc<Code> {
        Arc::clone(&self.lock().code)
    }

    /// Which versions have run and from which checkpoint on, the first first; the last is the one that runs.
    #[must_use]
    pub fn versions(&self) -> Vec<Ran> {
        self.lock().versions.clone()
    }

    /// It is about to go on as another version.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.lock().next.is_some()
    }

    /// What differs between the version that runs and another.
    ///
    /// # Errors
    /// If the job does not run, or the other cannot be planned.
    pub fn difference(&self, code: &Code) -> Result<Difference, Diagnostic> {
        let (job, plan) = self.beside(code)?;
        Ok(diff(&job.version(), &plan.version()))
    }

    /// Changes the running job to another version, at the barrier of a checkpoint. It blocks while the version is made
    /// ready. What differs; `answered` hears the checkpoint. On probation it may go back: [`standing`](Self::standing).
    ///
    /// # Errors
    /// If the job does not run, makes no checkpoints or is changing already, or the version is none that it can take
    /// over. Then nothing has happened.
    pub fn swap(
        self: &Arc<Self>,
        code: Code,
        probation: Option<Probation>,
        answered: Answered<CheckpointId>,
    ) -> Result<Difference, Diagnostic> {
        let (job, plan) = self.beside(&code)?;
        let this = Arc::clone(self);
        let observer = probation.map(|probation| self.observer(probation.rollback));
        let unknown = Diagnostic::external("the attempt of the job has ended while it was changing")
            .detail("if it goes on, then as the version that its last complete checkpoint was made for")
            .hint(format!("streamctl versions {} says which that is", self.id));
        let not = "the job has not changed";
        let mut answer = Once { answered: Some(answered), not, unknown: Some(unknown) };
        let told = Box::new(move |result: Result<CheckpointId, String>| {
            if let Ok(checkpoint) = &result {
                let mut seen = this.lock();
                seen.versions.push(code.ran(*checkpoint));
                seen.runs(Arc::new(code));
                drop(seen);
                this.tell(Event::Changed);
            }
            answer.give(result);
        });
        job.swap(&plan, SwapOptions { probation, observer }, told)
    }

    /// How the version stands that was last on probation; none = none was in this process.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let (told, job) = {
            let seen = self.lock();
            (seen.standing.clone(), seen.job.clone())
        };
        // What the attempt that runs says is newer.
        job.and_then(|job| job.standing()).filter(|_| !self.status().is_terminal()).or(told)
    }

    /// Takes note of how a version on probation stands.
    fn observer(self: &Arc<Self>, rollback: Rollback) -> Observer {
        let this = Arc::downgrade(self);
        let (before, ran) = {
            let seen = self.lock();
            (Arc::clone(&seen.code), seen.versions.last().cloned())
        };
        Arc::new(move |standing: &Standing| {
            let Some(this) = this.upgrade() else { return };
            let mut seen = this.lock();
            seen.standing = Some(standing.clone());
            let goes_back = match standing {
                Standing::WentBack { at, .. } if rollback == Rollback::Forward => Some(*at),
                _ => None,
            };
            if let Some(at) = goes_back {
                // Without a checkpoint the new version has never been.
                match (at, seen.versions.last() == ran.as_ref()) {
                    (Some(at), false) => seen.versions.push(before.ran(at)),
                    (None, false) => drop(seen.versions.pop()),
                    (_, true) => {}
                }
                seen.runs(Arc::clone(&before));
            }
            drop(seen);
            if goes_back.is_some() {
                this.tell(Event::Changed);
            }
            let tell = &this.attempts.tell;
            match standing {
                Standing::Kept { .. } => tell.say(&format!("job {} stays as the new version", this.id)),
                Standing::GoingBack { trap } => {
                    tell.warn_of(&format!("job {} goes back to the version before", this.id), &trap.error);
                }
                _ => {}
            }
        })
    }

    /// Makes ready what an exact rollback goes on from, and as what: what came after is gone.
    pub(super) fn roll_back(&self, to: &RollBack) -> Result<Arc<Code>, Diagnostic> {
        let code = self.version_like(&to.version)?;
        if let Some(storage) = self.storage() {
            let later = storage.traces().and_then(|all| {
                let mut later = all.iter().rev().filter(|(id, _)| *id > to.newest);
                later.try_for_each(|(id, _)| storage.remove(*id))
            });
            later.map_err(|error| {
                Diagnostic::external("the checkpoints after a rollback's cannot be removed")
                    .detail(error.to_string())
            })?;
        }
        Ok(Arc::new(code))
    }

    /// Stops the job with a savepoint, and starts it from that as another version, which may be any; if that does not
    /// start, as what it was. What differs; `answered` hears the savepoint.
    ///
    /// # Errors
    /// If the job does not run, makes no checkpoints, is changing already, or the version can never run. Then nothing
    /// has happened.
    pub fn restart_as(
        self: &Arc<Self>,
        code: Code,
        answered: Answered<String>,
    ) -> Result<Difference, Diagnostic> {
        let job = self.running()?;
        let plan = code.plan(code.options.clone())?;
        plan.check_grants()?;
        let (needed, (total, _)) = (plan.physical.slots(), self.all_slots.count());
        if needed > total {
            return Err(Diagnostic::user("the version cannot run in this session")
                .detail(format!("it needs {needed} slots, and there are {total}")));
        }
        let difference = diff(&job.version(), &plan.version());
        let folder = self.pause_folder()?;
        let this = Arc::clone(self);
        // If it does not start there is to be room for what it was.
        let slots = needed.max(self.slots());
        let paused: Answered<String> = Box::new(move |result| match result {
            Err(error) => answered(Err(error)),
            Ok(path) => {
                let next = Next { code: Arc::new(code), path: path.clone(), slots, answered };
                let mut seen = this.lock();
                seen.paused_with(path);
                seen.next = Some(next);
                drop(seen);
                this.tell(Event::Paused);
            }
        });
        self.savepoint_in(&folder, (Form::Canonical, Some(Stop::Suspend)), paused)?;
        Ok(difference)
    }

    /// The version before the one that runs.
    ///
    /// # Errors
    /// If there is none, or its component is not there any more.
    pub fn version_before(&self) -> Result<Code, Diagnostic> {
        let versions = self.versions();
        let last = versions.last();
        let is_other = |version: &&Ran| last.is_some_and(|last| !version.is_same(last));
        let Some(ran) = versions.iter().rev().find(is_other) else {
            return Err(Diagnostic::user(format!("job {} has been no other version", self.id)));
        };
        self.version_like(ran)
    }

    /// A version that has run.
    fn version_like(&self, ran: &Ran) -> Result<Code, Diagnostic> {
        let before = self.lock().code_before.clone();
        let program = match before.filter(|before| before.program.digest() == ran.component) {
            Some(before) => before.program.clone(),
            None => {
                let gone = |why: String| {
                    Diagnostic::user("the component of the version before is not there any more")
                        .detail(why)
                        .hint("give its file: streamctl swap JOB FILE")
                };
                let storage = self.storage().ok_or_else(|| gone("there are no checkpoints".into()))?;
                let bytes = storage.component(&ran.component).map_err(|error| gone(error.to_string()))?;
                let program = self.attempts.runtime.load(&bytes).map_err(|error| error.diagnostic())?;
                if program.digest() != ran.component {
                    return Err(gone("what lies in its place is another".into()));
                }
                program
            }
        };
        self.attempts.version(&program, Some(&ran.job), &ran.args)
    }

    /// The attempt that runs, and the plan of another version beside it.
    fn beside(&self, code: &Code) -> Result<(Arc<Job>, Plan), Diagnostic> {
        let job = self.running()?;
        let (options, now) = {
            let seen = self.lock();
            (seen.options.clone().unwrap_or_else(|| code.options.clone()), Arc::clone(&seen.code))
        };
        // What it has gone on from has said how many key groups there are, unless the version says otherwise.
        let is_other = code.options.max_parallelism != now.options.max_parallelism;
        let max_parallelism = if is_other { code.options.max_parallelism } else { options.max_parallelism };
        let options = RunOptions {
            checkpoints: options.checkpoints,
            attempt: options.attempt,
            max_parallelism,
            ..code.options.clone()
        };
        Ok((job, code.plan(options)?))
    }

    /// Whether the pause was made to go on as another version; then it needs as many slots.
    pub(super) fn goes_on_as_another(&self) -> bool {
        let seen = self.lock();
        if let Some(next) = &seen.next {
            self.slots.store(next.slots, Ordering::Relaxed);
        }
        seen.next.is_some()
    }

    /// What it has more than the version that runs needs is free for others.
    pub(super) fn has_slots_to_spare(&self, hands: &mut super::Hands) {
        let needed = self.job().map_or(hands.has_slots, |job| job.version().physical.slots());
        if needed < hands.has_slots {
            self.all_slots.give_back(hands.has_slots - needed);
            hands.has_slots = needed;
            self.slots.store(needed, Ordering::Relaxed);
        }
    }
}
