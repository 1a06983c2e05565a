//! New code on probation: how often it may trap, who counts that, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint::coordinator::CheckpointId;
use checkpoint::manifest::Version as Ran;
use model::Diagnostic;
use platform::Clock;

/// How a running job is to change to another version.
#[derive(Clone, Default)]
pub struct SwapOptions {
    /// The new version may lead back to the old one; none = it stays, whatever it does.
    pub probation: Option<Probation>,
    /// Hears how the new version stands, whenever that changes, in a thread of the job's; it is not to block. Only of
    /// a version on probation.
    pub observer: Option<Observer>,
}

/// That a new version is on probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    /// For so long, from when the change is complete.
    pub time: Duration,
    /// So many traps in the whole job are handled as at any time; the next one leads back. A row that traps when it is
    /// tried again is one, and so is a call that traps once and then does not.
    pub max_traps: u32,
    /// How it leads back.
    pub rollback: Rollback,
}

/// How a trap leads back to the old version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollback {
    /// The subtask that trapped goes back at that row, the others at the next barrier. What the new version has done
    /// stays done. Only where the old version loses nothing of the state.
    #[default]
    Forward,
    /// The attempt ends, and the job is to go on from the checkpoint of the change as the old version, as if there had
    /// been no other ([`crate::Job::roll_back`]). Meanwhile no sink commits what came after that checkpoint. Only where
    /// all sinks hold back what they take, and all sources can go back.
    Exact,
}

/// Where a job is to go on from after an [exact](Rollback::Exact) rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollBack {
    /// From the newest of its own checkpoints up to this one; or, where there is none, from where it began. Those after
    /// it are not to be gone on from any more. What is read is to be [taken back](crate::Restored::take_back).
    pub newest: CheckpointId,
    /// As this version.
    pub version: Ran,
    /// What operators are called in it that are called otherwise in the checkpoint of the change.
    pub(crate) uids: BTreeMap<String, String>,
}

/// Hears how a version stands.
pub type Observer = Arc<dyn Fn(&Standing) + Send + Sync>;

/// How a version stands that a job has changed to on probation.
#[derive(Clone, Debug)]
pub enum Standing {
    /// The checkpoint at whose barrier it begins is not complete.
    Changing,
    /// It runs.
    OnProbation {
        /// From this checkpoint's barrier on.
        from: CheckpointId,
        /// For so long, from then.
        time: Duration,
    },
    /// It stays.
    Kept {
        /// Traps that it has had.
        traps: u32,
    },
    /// It has trapped too often. That subtask runs the old code, from that row on; the others do at the next barrier.
    /// If the rollback is exact the attempt ends.
    GoingBack {
        /// Why.
        trap: Trap,
    },
    /// All subtasks run the old code.
    WentBack {
        /// Why.
        trap: Trap,
        /// The checkpoint from whose barrier on; none = the new version's checkpoint was not complete, or the one that
        /// leads back was given up, and all went back at once.
        at: Option<CheckpointId>,
        /// From the trap until the last subtask ran the old code.
        took: Duration,
    },
    /// The job has not changed, for another reason than a trap.
    NotChanged {
        /// Why.
        reason: String,
    },
}

/// The trap that was one too many.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Which function, which subtask, which row, and what the guest said.
    pub error: Diagnostic,
    /// From the trap until that subtask ran the old code.
    pub took: Duration,
}

/// The probation of a version: all its instances count in it.
pub(crate) struct Trial {
    probation: Probation,
    clock: Clock,
    traps: AtomicU32,
    /// What an exact rollback goes back to; 0 = not known yet.
    newest: AtomicU64,
    verdict: Mutex<Verdict>,
    /// When a subtask went back last, in nanoseconds of the clock.
    last_back: AtomicU64,
}

#[derive(Default)]
struct Verdict {
    fall: Option<Fall>,
    /// The version stays.
    is_kept: bool,
}

/// That a version has trapped too often.
#[derive(Clone)]
pub(crate) struct Fall {
    /// When, by the clock.
    pub(crate) at: Duration,
    pub(crate) error: Diagnostic,
}

impl Trial {
    pub(crate) fn new(probation: Probation, clock: Clock) -> Self {
        Self {
            probation,
            clock,
            traps: AtomicU32::new(0),
            newest: AtomicU64::new(0),
            verdict: Mutex::default(),
            last_back: AtomicU64::new(0),
        }
    }

    pub(crate) fn time(&self) -> Duration {
        self.probation.time
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.probation.rollback == Rollback::Exact
    }

    /// An exact rollback goes back to this checkpoint at the latest.
    pub(crate) fn goes_back_to(&self, newest: CheckpointId) {
        self.newest.store(newest, Ordering::Relaxed);
    }

    pub(crate) fn newest(&self) -> CheckpointId {
        self.newest.load(Ordering::Relaxed)
    }

    /// Whether sinks are not to commit a checkpoint before the version stays.
    pub(crate) fn holds_back(&self, checkpoint: CheckpointId) -> bool {
        self.is_exact() && checkpoint > self.newest()
    }

    /// How many traps there were.
    pub(crate) fn traps(&self) -> u32 {
        self.traps.load(Ordering::Relaxed)
    }

    /// Whether the next trap leads back.
    pub(crate) fn is_last_chance(&self) -> bool {
        self.traps() >= self.probation.max_traps
    }

    /// One more trap. Whether it leads back.
    pub(crate) fn count(&self) -> bool {
        self.traps.fetch_add(1, Ordering::Relaxed) >= self.probation.max_traps
    }

    fn verdict(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version has trapped too often: whether that counts, since it was not to stay already.
    pub(crate) fn fails(&self, fall: Fall) -> bool {
        let mut verdict = self.verdict();
        if verdict.is_kept {
            return false;
        }
        verdict.fall.get_or_insert(fall);
        true
    }

    /// The time is over: whether the version stays.
    pub(crate) fn is_passed(&self) -> bool {
        let mut verdict = self.verdict();
        verdict.is_kept = verdict.fall.is_none();
        verdict.is_kept
    }

    /// A subtask runs the old code again.
    pub(crate) fn is_back(&self) {
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.last_back.fetch_max(now, Ordering::Relaxed);
    }

    /// The first trap that led back, and how long after it a subtask went back last.
    pub(crate) fn fall(&self) -> Option<Trap> {
        let Fall { at, error } = self.verdict().fall.clone()?;
        let last = Duration::from_nanos(self.last_back.load(Ordering::Relaxed));
        Some(Trap { error, took: last.saturating_sub(at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(max_traps: u32) -> Trial {
        let rollback = Rollback::Forward;
        Trial::new(Probation { time: Duration::from_secs(1), max_traps, rollback }, Clock::simulated())
    }

    #[test]
    fn the_trap_beyond_the_limit_leads_back() {
        let trial = trial(2);
        assert_eq!([trial.count(), trial.is_last_chance(), trial.count()], [false, false, false]);
        assert!(trial.is_last_chance() && trial.count());
    }

    #[test]
    fn what_stays_does_not_go_back() {
        let fall = |text: &str| Fall { at: Duration::ZERO, error: Diagnostic::user(text) };
        let kept = trial(0);
        assert!(kept.is_passed() && !kept.fails(fall("late")) && kept.fall().is_none());
        let fallen = trial(0);
        assert!(fallen.fails(fall("first")) && fallen.fails(fall("second")) && !fallen.is_passed());
        assert_eq!(fallen.fall().unwrap().error.message, "first");
    }
}
