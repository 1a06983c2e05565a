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
}
