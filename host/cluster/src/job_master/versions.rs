//! The versions of a running job: what differs, and how it changes from one to another.

use std::sync::Arc;

use checkpoint::coordinator::{CheckpointId, Stop};
use checkpoint::manifest::Version as Ran;
use model::Diagnostic;
use task::swap::{Difference, SwapOptions, diff};
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
    /// ready. What differs; `answered` hears the checkpoint.
    ///
    /// # Errors
    /// If the job does not run, makes no checkpoints or is changing already, or the version is none that it can take
    /// over. Then nothing has happened.
    pub fn swap(
        self: &Arc<Self>,
        code: Code,
        answered: Answered<CheckpointId>,
    ) -> Result<Difference, Diagnostic> {
        let (job, plan) = self.beside(&code)?;
        let this = Arc::clone(self);
        let mut answer = Once { answered: Some(answered), not: "the job has not changed" };
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
        job.swap(&plan, SwapOptions::default(), told)
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
                (seen.paused_at, seen.next) = (Some(path), Some(next));
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
        let (versions, before) = {
            let seen = self.lock();
            (seen.versions.clone(), seen.code_before.clone())
        };
        let last = versions.last();
        let is_other = |version: &&Ran| last.is_some_and(|last| !version.is_same(last));
        let Some(ran) = versions.iter().rev().find(is_other) else {
            return Err(Diagnostic::user(format!("job {} has been no other version", self.id)));
        };
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
