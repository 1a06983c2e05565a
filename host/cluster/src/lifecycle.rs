//! What becomes of a job: a pure function of what happens to it and when.
//!
//! Source: Flink's `JobStatus` and the transitions of its `SchedulerBase` and `DefaultExecutionGraph`.

use std::collections::VecDeque;
use std::time::Duration;

use model::{Diagnostic, Retry};
use platform::Random;
use serde::{Deserialize, Serialize};
use task::metrics::report::Availability;
use task::restarts::Decision;
use task::{JobOutcome, RestartStrategy, Restarts};

#[cfg(test)]
mod tests;

/// Flink's states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// It has been submitted.
    Initializing,
    /// It waits for slots.
    Created,
    /// An attempt runs.
    Running,
    /// An attempt has failed, and its parts end.
    Failing,
    /// It has failed for good.
    Failed,
    /// It was cancelled, and its parts end.
    Cancelling,
    /// It was cancelled.
    Canceled,
    /// It has handled all of its input, or was stopped with a savepoint.
    Finished,
    /// The next attempt follows.
    Restarting,
    /// It was paused, or its session has ended: position and state are kept.
    Suspended,
    /// What a job of an earlier process is doing is not known yet.
    Reconciling,
}

impl JobStatus {
    /// All, in Flink's order.
    pub const ALL: [Self; 11] = [
        Self::Initializing,
        Self::Created,
        Self::Running,
        Self::Failing,
        Self::Failed,
        Self::Cancelling,
        Self::Canceled,
        Self::Finished,
        Self::Restarting,
        Self::Suspended,
        Self::Reconciling,
    ];

    /// Nothing comes after it.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }

    /// Flink's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
            Self::Suspended => "SUSPENDED",
            Self::Reconciling => "RECONCILING",
        }
    }
}

/// What happens to a job.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is submitted.
    Submitted,
    /// It was paused when its session ended, and stays so.
    SubmittedPaused,
    /// It has its slots.
    SlotsGiven,
    /// It has waited for slots for too long.
    NoSlots(String),
    /// An attempt runs.
    Started,
    /// An attempt has ended, or could not be started.
    Ended(JobOutcome),
    /// The first attempt makes no sense: it is not tried again.
    Refused(Diagnostic),
    /// The time that was to be waited for has come.
    Due,
    /// Somebody cancels it.
    Cancel,
    /// It has made the savepoint with which it is paused, and ends.
    Paused,
    /// It goes on after a pause.
    Resume,
    /// It runs as another version: nothing follows, but that it is kept.
    Changed,
    /// A version on probation has trapped, and its attempt has ended: the next goes on as the version before, at once.
    RolledBack(Diagnostic),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks for slots; [`Event::SlotsGiven`] or [`Event::NoSlots`] follows.
    AskForSlots,
    /// Starts an attempt; [`Event::Started`] or [`Event::Ended`] follows.
    Start {
        /// Its number, from 0.
        attempt: u32,
    },
    /// Tells the attempt to end; [`Event::Ended`] follows.
    CancelAttempt,
    /// [`Event::Due`] is to follow after this time.
    Wait(Duration),
    /// Gives the slots back, or stops waiting for them.
    GiveSlotsBack,
    /// Nothing will happen any more.
    Over,
}

/// A failure of a job, as it is remembered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it was.
    pub error: Diagnostic,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Whether a restart followed.
    pub restarted: bool,
}

/// Since when a job is what it is, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    status: JobStatus,
    since: i64,
    /// How long its last restart took; 0 = there was none.
    restart: i64,
}

impl Spell {
    /// Of a job that begins then.
    #[must_use]
    pub fn new(wall_ms: i64) -> Self {
        Self { status: JobStatus::Initializing, since: wall_ms, restart: 0 }
    }

    fn comes_to(&mut self, status: JobStatus, wall_ms: i64) {
        if status == self.status {
            return;
        }
        if (self.status, status) == (JobStatus::Restarting, JobStatus::Running) {
            self.restart = self.so_far(wall_ms);
        }
        (self.status, self.since) = (status, wall_ms);
    }

    /// The calendar's clock may go back.
    fn so_far(&self, wall_ms: i64) -> i64 {
        wall_ms.saturating_sub(self.since).max(0)
    }

    /// How long the job has been up or down, at this time. Source: Flink's `UpTimeGauge` and `DownTimeGauge`.
    #[must_use]
    pub fn availability(&self, wall_ms: i64) -> Availability {
        let (so_far, restarting) = (self.so_far(wall_ms), self.restart);
        match self.status {
            JobStatus::Running => Availability { up: so_far, down: 0, restarting },
            JobStatus::Failing | JobStatus::Restarting => {
                Availability { up: 0, down: so_far, restarting: so_far }
            }
            status if status.is_terminal() => Availability { up: -1, down: -1, restarting },
            _ => Availability { up: 0, down: 0, restarting },
        }
    }
}

/// So many failures are remembered, the last. Flink: `web.exception-history-size`.
const FAILURES: usize = 16;

/// The life of one job.
pub struct Lifecycle {
    status: JobStatus,
    restarts: Restarts,
    /// The attempt that runs, or the next.
    attempt: u32,
    /// It has made the savepoint of its pause.
    is_pausing: bool,
    /// None = nothing has happened yet.
    spell: Option<Spell>,
    /// How it has ended.
    outcome: Option<JobOutcome>,
    failures: VecDeque<Failure>,
}

impl Lifecycle {
    /// Of a job that has not been submitted yet.
    #[must_use]
    pub fn new(strategy: RestartStrategy, random: Random) -> Self {
        Self {
            status: JobStatus::Initializing,
            restarts: Restarts::new(strategy, random),
            attempt: 0,
            is_pausing: false,
            spell: None,
            outcome: None,
            failures: VecDeque::new(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        self.status
    }

    /// How it has ended; none = it has not.
    #[must_use]
    pub fn outcome(&self) -> Option<&JobOutcome> {
        self.outcome.as_ref()
    }

    /// How often it has been restarted.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.count()
    }

    /// Its last failures, the oldest first.
    #[must_use]
    pub fn failures(&self) -> &VecDeque<Failure> {
        &self.failures
    }

    /// Since when it is what it is; none = nothing has happened yet.
    #[must_use]
    pub fn spell(&self) -> Option<Spell> {
        self.spell
    }

    /// What is to be done when something happens, at a time of the monotonic clock and of the calendar's.
    pub fn on(&mut self, event: Event, now: Duration, wall_ms: i64) -> Vec<Action> {
        let actions = self.decide(event, now, wall_ms);
        let status = self.status;
        self.spell.get_or_insert(Spell::new(wall_ms)).comes_to(status, wall_ms);
        actions
    }

    fn decide(&mut self, event: Event, now: Duration, wall_ms: i64) -> Vec<Action> {
        use JobStatus::{Cancelling, Created, Failing, Initializing, Restarting, Running, Suspended};
        match (event, self.status) {
            (_, status) if status.is_terminal() => Vec::new(),
            (Event::Submitted, Initializing) => {
                self.status = Created;
                vec![Action::AskForSlots]
            }
            (Event::SubmittedPaused, Initializing) => {
                self.status = Suspended;
                Vec::new()
            }
            (Event::SlotsGiven, Created) => vec![Action::Start { attempt: self.attempt }],
            (Event::SlotsGiven, _) => vec![Action::GiveSlotsBack],
            (Event::NoSlots(why), Created) => {
                let error = Diagnostic::external("Could not acquire the minimum required resources.");
                self.end(JobOutcome::Failed(error.detail(why)), wall_ms)
            }
            (Event::Started, Created | Restarting) => {
                self.status = Running;
                Vec::new()
            }
            // It was cancelled while it started.
            (Event::Started, Cancelling) => vec![Action::CancelAttempt],
            (Event::Refused(error), _) => self.end(JobOutcome::Failed(error), wall_ms),
            (Event::Ended(JobOutcome::Finished), _) if std::mem::take(&mut self.is_pausing) => {
                self.status = Suspended;
                self.attempt += 1;
                vec![Action::GiveSlotsBack]
            }
            (Event::Ended(JobOutcome::Failed(error)), status) if status != Cancelling => {
                self.status = Failing;
                self.failed(error, now, wall_ms)
            }
            (Event::RolledBack(error), Running) => {
                self.remember(error, wall_ms, true);
                self.status = Restarting;
                self.attempt += 1;
                vec![Action::Wait(Duration::ZERO)]
            }
            (Event::RolledBack(error), _) => self.end(
                match self.status {
                    Cancelling => JobOutcome::Cancelled,
                    _ => JobOutcome::Failed(error),
                },
                wall_ms,
            ),
            (Event::Ended(outcome), _) => self.end(outcome, wall_ms),
            (Event::Due, Restarting) => vec![Action::Start { attempt: self.attempt }],
            (Event::Cancel, Running) => {
                self.status = Cancelling;
                vec![Action::CancelAttempt]
            }
            (Event::Cancel, Created | Restarting | Suspended | Initializing) => {
                self.end(JobOutcome::Cancelled, wall_ms)
            }
            (Event::Paused, Running) => {
                self.is_pausing = true;
                Vec::new()
            }
            (Event::Resume, Suspended) => {
                self.status = Created;
                vec![Action::AskForSlots]
            }
            _ => Vec::new(),
        }
    }

    fn failed(&mut self, error: Diagnostic, now: Duration, wall_ms: i64) -> Vec<Action> {
        if error.retry == Retry::GiveUp {
            return self.end(JobOutcome::Failed(error), wall_ms);
        }
        match self.restarts.on_failure(now) {
            Decision::Restart { after } => {
                self.remember(error, wall_ms, true);
                self.status = JobStatus::Restarting;
                self.attempt += 1;
                vec![Action::Wait(after)]
            }
            Decision::GiveUp { why: None } => self.end(JobOutcome::Failed(error), wall_ms),
            Decision::GiveUp { why: Some(why) } => {
                let told = [error.detail.clone(), Some(format!("it is not restarted: {why}"))];
                let detail: Vec<String> = told.into_iter().flatten().collect();
                self.end(JobOutcome::Failed(error.detail(detail.join("\n"))), wall_ms)
            }
        }
    }

    fn remember(&mut self, error: Diagnostic, at: i64, restarted: bool) {
        if self.failures.len() == FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Failure { error, at, restarted });
    }

    fn end(&mut self, outcome: JobOutcome, wall_ms: i64) -> Vec<Action> {
        self.status = match &outcome {
            JobOutcome::Finished => JobStatus::Finished,
            JobOutcome::Cancelled => JobStatus::Canceled,
            JobOutcome::Failed(error) => {
                self.remember(error.clone(), wall_ms, false);
                JobStatus::Failed
            }
        };
        self.outcome = Some(outcome);
        vec![Action::GiveSlotsBack, Action::Over]
    }
}
