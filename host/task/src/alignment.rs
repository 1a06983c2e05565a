//! Watermark alignment: sources of one group stay near each other in event time.
//!
//! A subtask whose watermark is more than the drift ahead of the group's least takes no more rows
//! until the others have followed; what they read meanwhile waits in queues that are bounded.
//! Source: Flink, `SourceCoordinator.announceCombinedWatermark` (there by a message each second).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// The subtasks that are aligned with each other.
#[derive(Default)]
pub(crate) struct AlignmentGroup {
    members: Mutex<Vec<Member>>,
}

/// One subtask's place in its group.
pub(crate) struct Alignment {
    group: Arc<AlignmentGroup>,
    number: usize,
    drift_ms: i64,
}

struct Member {
    /// None while it holds nobody back: it is idle, or has ended.
    watermark: Option<i64>,
    /// It waits for the others.
    waiting: bool,
    waker: Waker,
}

fn lock(group: &AlignmentGroup) -> MutexGuard<'_, Vec<Member>> {
    group.members.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Alignment {
    /// Joins a group. `waker` wakes the subtask.
    pub(crate) fn join(group: &Arc<AlignmentGroup>, drift: Duration, waker: Waker) -> Self {
        let mut members = lock(group);
        members.push(Member { watermark: Some(i64::MIN), waiting: false, waker });
        let drift_ms = i64::try_from(drift.as_millis()).unwrap_or(i64::MAX);
        Self { group: Arc::clone(group), number: members.len() - 1, drift_ms }
    }

    /// Says how far the subtask is; none = it holds nobody back.
    pub(crate) fn report(&self, watermark: Option<i64>) {
        let mut members = lock(&self.group);
        members[self.number].watermark = watermark;
        for member in members.iter_mut().filter(|member| member.waiting) {
            member.waiting = false;
            member.waker.wake_by_ref();
        }
    }

    /// Whether the subtask, this far, may go on. If not, it is woken when that may have changed.
    pub(crate) fn may_go_on(&self, watermark: i64) -> bool {
        let mut members = lock(&self.group);
        let least = members.iter().filter_map(|member| member.watermark).min().unwrap_or(watermark);
        // A subtask without a watermark has not begun: it is not ahead.
        let may = watermark == i64::MIN || watermark <= least.saturating_add(self.drift_ms);
        members[self.number].waiting = !may;
        may
    }
}

impl Drop for Alignment {
    /// What is gone holds nobody back.
    fn drop(&mut self) {
        self.report(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead_waits_for_the_least() {
        let group = Arc::new(AlignmentGroup::default());
        let set = platform::ReadySet::new(2);
        let [fast, slow] = [0, 1].map(|i| Alignment::join(&group, Duration::from_millis(10), set.waker(i)));
        assert!(fast.may_go_on(i64::MIN));
        fast.report(Some(100));
        assert!(!fast.may_go_on(100), "the other has not begun");
        slow.report(Some(80));
        let mut woken = Vec::new();
        set.take(&mut woken);
        assert_eq!(woken, [0]);
        assert!(!fast.may_go_on(100) && slow.may_go_on(80));
        slow.report(Some(90));
        assert!(fast.may_go_on(100));
        // Who is idle holds nobody back, nor who has ended.
        fast.report(Some(200));
        assert!(!fast.may_go_on(200));
        slow.report(None);
        assert!(fast.may_go_on(200));
        slow.report(Some(95));
        assert!(!fast.may_go_on(200));
        woken.clear();
        set.take(&mut woken);
        drop(slow);
        woken.clear();
        set.take(&mut woken);
        assert_eq!(woken, [0]);
        assert!(fast.may_go_on(200));
    }

    /// Subtasks that report, idle, end and ask in random order, against the rule: who may go on is
    /// no more than the drift ahead, who waits is woken by every report, and somebody may go on.
    #[test]
    fn at_every_schedule_somebody_goes_on_and_nobody_runs_ahead() {
        for seed in 0..500 {
            let mut random = platform::Random::of_seed(seed);
            let count = 1 + random.below(6) as usize;
            let drift = random.below(50) as i64;
            let group = Arc::new(AlignmentGroup::default());
            let set = platform::ReadySet::new(count);
            let drift_time = Duration::from_millis(drift as u64);
            let mut members: Vec<Option<Alignment>> =
                (0..count).map(|i| Some(Alignment::join(&group, drift_time, set.waker(i)))).collect();
            // What each has reported: none = it is idle or has ended.
            let mut reported = vec![Some(i64::MIN); count];
            let mut at = vec![i64::MIN; count];
            let (mut waiting, mut woken) = (vec![false; count], Vec::new());
            for _ in 0..200 {
                let i = random.below(count as u64) as usize;
                let Some(member) = &members[i] else { continue };
                let before = waiting.clone();
                let reports = match random.below(40) {
                    0 => {
                        members[i] = None;
                        reported[i] = None;
                        true
                    }
                    1..4 => {
                        member.report(None);
                        reported[i] = None;
                        true
                    }
                    _ => {
                        let least = reported.iter().flatten().min().copied().unwrap_or(at[i]);
                        let may = at[i] == i64::MIN || at[i] <= least.saturating_add(drift);
                        assert_eq!(member.may_go_on(at[i]), may, "seed {seed}");
                        waiting[i] = !may;
                        if may {
                            at[i] = at[i].max(0) + random.below(40) as i64;
                            member.report(Some(at[i]));
                            reported[i] = Some(at[i]);
                        }
                        may
                    }
                };
                set.take(&mut woken);
                for (other, waited) in before.iter().enumerate().filter(|_| reports) {
                    assert!(!waited || woken.contains(&other), "seed {seed}: {other} sleeps on");
                    waiting[other] = false;
                }
                woken.clear();
                let mut live = (0..count).filter(|i| reported[*i].is_some()).peekable();
                let any = live.peek().is_none()
                    || live.any(|i| members[i].as_ref().is_some_and(|member| member.may_go_on(at[i])));
                assert!(any, "seed {seed}: all wait");
            }
        }
    }
}
