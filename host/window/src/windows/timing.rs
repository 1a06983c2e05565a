//! What of windows can change while they run: how long they take late rows, and when they are emitted.
//!
//! Timers that are there were set by the times before. They are set anew, some at once, before anything fires. A
//! window that had gone by the old lateness stays gone by a greater one: its rows are late.

use std::time::Duration;

use arrow_schema::Schema;
use model::job_graph::{TimeDomain, Trigger, Window};
use state::key_index::KeyId;
use state::{Backend, TimerChange};

use super::{Keeping, millis};
use crate::AggregateError;
use crate::accumulator::Accumulator;
use crate::aggregates::Aggregates;
use crate::assigner::WindowClock;

/// How long windows take late rows, and when they are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long after its end a window still takes rows.
    pub lateness: Duration,
    /// When it is emitted.
    pub trigger: Trigger,
    /// What has been emitted is forgotten.
    pub purging: bool,
}

impl Timing {
    /// That of a window.
    #[must_use]
    pub fn of(window: &Window) -> Self {
        Self { lateness: window.lateness, trigger: window.trigger, purging: window.purging }
    }

    /// The window with this one in the place of its own.
    #[must_use]
    pub fn put_into(self, window: &Window) -> Window {
        let Self { lateness, trigger, purging } = self;
        Window { lateness, trigger, purging, ..window.clone() }
    }

    /// From one early result to the next, in milliseconds.
    pub(super) fn early(&self) -> Option<i64> {
        match self.trigger {
            Trigger::Early(each) => Some(millis(each)),
            _ => None,
        }
    }
}

/// Whether windows that differ in their times only keep the same state of what is in them, over rows of this schema:
/// then one can become the other while it runs.
///
/// # Errors
/// If the aggregates cannot be taken over this input.
pub fn keep_alike(one: &Window, other: &Window, input: &Schema) -> Result<bool, AggregateError> {
    let list = Aggregates::new(&one.aggregates, input)?.list;
    let is_mergeable = list.iter().all(Accumulator::is_mergeable);
    // From one result to the next there may be another number of rows.
    let kept = |window| match Keeping::of(window, is_mergeable) {
        Keeping::EachRows(_) => Keeping::EachRows(1),
        keeping => keeping,
    };
    Ok(kept(one) == kept(other))
}

/// What windows know beside their keyed state, as a checkpoint keeps it. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The lateness that timers are set by.
    pub lateness: i64,
    /// The time between early results that they are set by; 0 = there are none.
    pub early: i64,
    /// Windows that end up to this instant have gone, whatever the lateness is.
    pub gone: i64,
    /// What was due up to this instant has fired.
    pub passed: i64,
    /// All timers are set by these; else some are set by others, which were there between them.
    pub is_settled: bool,
}

impl Standing {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { lateness, early, gone, passed, is_settled } = self;
        format!("lateness {lateness}, early {early}, gone {gone}, passed {passed}, settled {is_settled}")
    }

    /// Of a text; none = it is not one of these.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let mut values = text.split(", ").map(|part| part.split_once(' '));
        let mut value = |name: &str| match values.next()? {
            Some((found, value)) if found == name => Some(value),
            _ => None,
        };
        Some(Self {
            lateness: value("lateness")?.parse().ok()?,
            early: value("early")?.parse().ok()?,
            gone: value("gone")?.parse().ok()?,
            passed: value("passed")?.parse().ok()?,
            is_settled: value("settled")?.parse().ok()?,
        })
    }

    /// That of all the subtasks that a snapshot is of, which have stopped at one barrier.
    #[must_use]
    pub fn of_all(texts: &[String]) -> Option<Self> {
        let all = texts.iter().filter_map(|text| Self::of_text(text));
        all.reduce(|a, b| Self {
            gone: a.gone.max(b.gone),
            passed: a.passed.min(b.passed),
            is_settled: a.is_settled && b.is_settled,
            ..a
        })
    }
}

/// Timers that were set by other times, and are set anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resets {
    /// The lateness and the time between early results that they were set by.
    by: (i64, i64),
    /// What was due up to this instant had fired then.
    passed: i64,
    /// Of keys with numbers below this they are.
    next: usize,
}

/// How long windows are kept, by one of the two clocks, in milliseconds; and whether timers are set by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    clock: WindowClock,
    /// From one early result to the next; 0 = there are none.
    early: i64,
    resets: Option<Resets>,
}

/// Keys whose timers are set anew in one call.
const RESET: usize = 2 * 1024;

impl Lateness {
    pub(super) fn new(domain: TimeDomain, lateness: i64, early: Option<i64>) -> Self {
        Self { clock: WindowClock::new(domain, lateness), early: early.unwrap_or(0), resets: None }
    }

    /// By which clock, and for how long, windows take rows.
    pub(super) fn clock(&self) -> WindowClock {
        self.clock
    }

    /// What timers are set by.
    fn own(&self) -> (i64, i64) {
        (self.clock.lateness(), self.early)
    }

    /// From one early result to the next.
    pub(super) fn early(&self) -> Option<i64> {
        (self.early > 0).then_some(self.early)
    }

    /// The same, as it was by the times that timers are still set by; 0 = there were none.
    pub(super) fn early_before(&self) -> i64 {
        self.resets.map_or(0, |resets| resets.by.1)
    }

    /// Other times, when this instant has passed.
    pub(super) fn change(&mut self, lateness: i64, early: Option<i64>, passed: i64) {
        let before = self.own();
        let early = early.unwrap_or(0);
        if before == (lateness, early) {
            return;
        }
        self.clock = self.clock.with_lateness(lateness, passed);
        self.early = early;
        let by = self.resets.map_or(before, |resets| resets.by);
        self.resets = Some(Resets { by, passed, next: 0 });
    }

    /// What a checkpoint keeps, when this instant has passed.
    pub(super) fn standing(&self, passed: i64) -> Standing {
        let (lateness, early) = self.resets.map_or_else(|| self.own(), |resets| resets.by);
        let passed = self.resets.map_or(passed, |resets| resets.passed);
        Standing { early, is_settled: self.resets.is_none(), ..self.clock.standing(lateness, passed) }
    }

    /// Goes on from what a checkpoint has kept.
    pub(super) fn stand(&mut self, standing: Standing) {
        let own = self.own();
        (self.clock, self.early) = (self.clock.of_standing(standing), standing.early);
        self.change(own.0, Some(own.1), standing.passed);
        if !standing.is_settled && self.resets.is_none() {
            self.resets = Some(Resets { by: own, passed: standing.passed, next: 0 });
        }
    }

    /// Whether timers are to be set anew before anything fires.
    pub(super) fn is_resetting(&self) -> bool {
        self.resets.is_some()
    }

    /// The next numbers of keys whose timers are to be set anew, some of them nobody's; and the instant up to which
    /// all had fired. None: there are no more.
    pub(super) fn next_resets(&mut self, backend: &dyn Backend) -> Option<(i64, Vec<KeyId>)> {
        let Resets { by, passed, next } = self.resets?;
        let end = backend.bound().min(next + RESET);
        self.resets = (end > next).then_some(Resets { by, passed, next: end });
        // Key numbers are of 32 bits.
        (end > next).then(|| (passed, (next as KeyId..end as KeyId).collect()))
    }

    /// Those of these keys that have timers, with these.
    pub(super) fn with_timers(&self, ids: &[KeyId], backend: &dyn Backend) -> Vec<(KeyId, Vec<i64>)> {
        let of = ids.iter().map(|id| (*id, backend.timers_of(*id, self.clock.domain())));
        of.filter(|(_, timers)| !timers.is_empty()).collect()
    }

    /// When the state of the window of this end goes, of a timer that is set after this instant.
    pub(super) fn cleared_after(&self, end: i64, passed: i64) -> i64 {
        self.clock.cleared_at(end).max(passed.saturating_add(1))
    }

    /// What makes a key's timers those that it should have.
    pub(super) fn changes(&self, key: KeyId, had: &[i64], wanted: &[i64], changes: &mut Vec<TimerChange>) {
        let change = |time: &i64, set| TimerChange { key, domain: self.clock.domain(), time: *time, set };
        changes.extend(had.iter().filter(|time| !wanted.contains(time)).map(|time| change(time, false)));
        changes.extend(wanted.iter().filter(|time| !had.contains(time)).map(|time| change(time, true)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_what_its_text_says() {
        let standing = Standing { lateness: 5, early: 0, gone: i64::MIN, passed: -7, is_settled: true };
        assert_eq!(Standing::of_text(&standing.text()), Some(standing));
        let no_number = "lateness x, early 0, gone 0, passed 0, settled true";
        for wrong in ["", "lateness 5", no_number, "early 5, lateness 5"] {
            assert_eq!(Standing::of_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_has_gone_stays_gone() {
        let mut lateness = Lateness::new(TimeDomain::EventTime, 0, None);
        lateness.change(100, None, 50);
        let takes = |lateness: &Lateness, end, passed| lateness.clock().takes(end, passed);
        assert!(!takes(&lateness, 51, 50) && takes(&lateness, 52, 50) && lateness.is_resetting());
        lateness.change(0, None, 60);
        // Those that end up to 51 by the first lateness; none by the second.
        assert!(!takes(&lateness, 51, 50) && lateness.clock().cleared_by(60) == 61);
        let again = {
            let mut again = Lateness::new(TimeDomain::EventTime, 100, None);
            again.stand(lateness.standing(60));
            again
        };
        assert!(!takes(&again, 51, 60) && takes(&again, 62, 60) && again.is_resetting());
    }
}
