//! The coordinator by example, and against a history of random events of which every rule holds.

use proptest::prelude::*;

use super::*;

const SUBTASKS: u32 = 3;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings() -> Settings {
    Settings {
        interval: Some(ms(100)),
        timeout: ms(1_000),
        min_pause: ms(50),
        tolerable_failures: Some(1),
        retained: 2,
    }
}

fn coordinator(settings: Settings) -> Coordinator<u32> {
    Coordinator::new(settings, 0..SUBTASKS, 1, [], ms(0))
}

fn acknowledge(it: &mut Coordinator<u32>, checkpoint: u64, at: u64) -> Vec<Action<u32>> {
    let mut actions = Vec::new();
    for subtask in 0..SUBTASKS {
        actions.extend(it.on(Event::Acknowledged { checkpoint, subtask, part: subtask * 10 }, ms(at)));
    }
    actions
}

fn complete(it: &mut Coordinator<u32>, checkpoint: u64, at: u64) -> Vec<Action<u32>> {
    acknowledge(it, checkpoint, at);
    it.on(Event::Stored { checkpoint }, ms(at))
}

#[test]
fn a_checkpoint_is_complete_when_all_have_answered_and_its_manifest_is_there() {
    let mut it = coordinator(settings());
    assert_eq!(it.wakes_at(), Some(ms(100)));
    assert_eq!(it.on(Event::Tick, ms(99)), []);
    let kind = Kind::Checkpoint;
    assert_eq!(it.on(Event::Tick, ms(100)), [Action::Trigger { checkpoint: 1, kind }]);
    assert_eq!(it.wakes_at(), Some(ms(1_100)));
    let parts = BTreeMap::from([(0, 0), (1, 10), (2, 20)]);
    let store = Action::Store { checkpoint: 1, kind, request: None, parts };
    assert_eq!(acknowledge(&mut it, 1, 110), [store]);
    assert_eq!(it.wakes_at(), None);
    // While it is stored no other begins, and it is not given up.
    assert_eq!(it.on(Event::Tick, ms(5_000)), []);
    let stored = it.on(Event::Stored { checkpoint: 1 }, ms(5_000));
    assert_eq!(stored, [Action::Complete { checkpoint: 1, kind }]);
    // The next was due long ago, and waits for the pause alone.
    assert_eq!(it.wakes_at(), Some(ms(5_050)));
    assert_eq!(it.on(Event::Tick, ms(5_050)), [Action::Trigger { checkpoint: 2, kind }]);
    complete(&mut it, 2, 5_060);
    assert_eq!(it.wakes_at(), Some(ms(5_150)));
    drop(it.on(Event::Tick, ms(5_150)));
    let done = complete(&mut it, 3, 5_160);
    assert_eq!(done, [Action::Complete { checkpoint: 3, kind }, Action::Remove { checkpoint: 1 }]);
}

#[test]
fn the_first_after_a_restore_comes_soon() {
    let kind = Kind::Checkpoint;
    for (interval, first) in [(Some(10_000), Some(5_100)), (Some(40), Some(5_040)), (None, None)] {
        let mut it = coordinator(Settings { interval: interval.map(ms), ..settings() });
        it.goes_on(ms(5_000));
        assert_eq!(it.wakes_at(), first.map(ms));
        let Some((first, interval)) = first.zip(interval) else { continue };
        assert_eq!(it.on(Event::Tick, ms(first)), [Action::Trigger { checkpoint: 1, kind }]);
        complete(&mut it, 1, first + 1);
        // From there on they come as always: not before the pause is over.
        assert_eq!(it.wakes_at(), Some(ms((first + interval).max(first + 1 + 50))));
    }
}

#[test]
fn what_is_late_twice_or_of_nobody_changes_nothing() {
    let mut it = coordinator(settings());
    drop(it.on(Event::Tick, ms(100)));
    for (checkpoint, subtask) in [(7, 0), (1, 9), (1, 0), (1, 0)] {
        assert_eq!(it.on(Event::Acknowledged { checkpoint, subtask, part: 1 }, ms(101)), []);
    }
    assert_eq!(it.on(Event::Stored { checkpoint: 1 }, ms(101)), []);
    assert_eq!(it.on(Event::NotStored { checkpoint: 1, reason: String::new() }, ms(101)), []);
    let reason = "disk full".to_owned();
    let declined = it.on(Event::Declined { checkpoint: 1, reason: reason.clone() }, ms(102));
    assert_eq!(declined, [Action::Abort { checkpoint: 1, reason }]);
    assert_eq!(acknowledge(&mut it, 1, 103), []);
}

#[test]
fn one_that_takes_too_long_is_given_up_and_too_many_fail_the_job() {
    let mut it = coordinator(settings());
    drop(it.on(Event::Tick, ms(100)));
    drop(it.on(Event::Acknowledged { checkpoint: 1, subtask: 0, part: 1 }, ms(101)));
    let reason = "it took longer than 1000 ms, and 2 of 3 subtasks had not answered".to_owned();
    let given_up = it.on(Event::Tick, ms(1_100));
    assert_eq!(given_up, [Action::Abort { checkpoint: 1, reason }]);
    assert_eq!(it.wakes_at(), Some(ms(1_150)));
    drop(it.on(Event::Tick, ms(1_150)));
    acknowledge(&mut it, 2, 1_160);
    let reason = "no room".to_owned();
    let failed = it.on(Event::NotStored { checkpoint: 2, reason: reason.clone() }, ms(1_170));
    let abort = Action::Abort { checkpoint: 2, reason: reason.clone() };
    assert_eq!(failed, [abort, Action::Fail { reason, is_overtaken: false }]);
    assert_eq!((it.wakes_at(), it.on(Event::Tick, ms(9_000))), (None, vec![]));
}

#[test]
fn where_another_process_has_put_the_same_one_nothing_is_removed_and_the_job_fails() {
    let mut it = coordinator(settings());
    drop(it.on(Event::Tick, ms(100)));
    assert_eq!(it.on(Event::Overtaken { checkpoint: 1 }, ms(101)), []);
    acknowledge(&mut it, 1, 110);
    let kind = Kind::Savepoint { stop: None };
    assert_eq!(it.on(Event::Asked { request: 5, kind }, ms(111)), []);
    let reason = "checkpoint 1 is there already: another process runs this job".to_owned();
    let answer = Action::Answer { request: 5, result: Err(reason.clone()) };
    let fail = Action::Fail { reason, is_overtaken: true };
    assert_eq!(it.on(Event::Overtaken { checkpoint: 1 }, ms(120)), [answer, fail]);
    assert_eq!((it.wakes_at(), it.on(Event::Tick, ms(9_000))), (None, vec![]));
}

#[test]
fn savepoints_come_when_they_are_asked_for_and_stay() {
    let mut it = coordinator(Settings { interval: None, retained: 1, ..settings() });
    assert_eq!(it.wakes_at(), None);
    let kind = Kind::Savepoint { stop: None };
    let begun = it.on(Event::Asked { request: 5, kind }, ms(1));
    assert_eq!(begun, [Action::Trigger { checkpoint: 1, kind }]);
    let stop = Kind::Savepoint { stop: Some(Stop::Drain) };
    assert_eq!(it.on(Event::Asked { request: 6, kind: stop }, ms(1)), []);
    assert_eq!(it.on(Event::Asked { request: 7, kind }, ms(1)), []);
    let stored = acknowledge(&mut it, 1, 2);
    assert!(matches!(stored[..], [Action::Store { request: Some(5), .. }]), "{stored:?}");
    let done = it.on(Event::Stored { checkpoint: 1 }, ms(3));
    let answer = |request, result| Action::Answer { request, result };
    assert_eq!(
        done,
        [
            Action::Complete { checkpoint: 1, kind },
            answer(5, Ok(1)),
            Action::Trigger { checkpoint: 2, kind: stop },
        ]
    );
    acknowledge(&mut it, 2, 4);
    assert_eq!(
        it.on(Event::Stored { checkpoint: 2 }, ms(5)),
        [
            Action::Complete { checkpoint: 2, kind: stop },
            answer(6, Ok(2)),
            answer(7, Err("the job has stopped".into())),
            Action::Finish,
        ]
    );
}

#[test]
fn a_checkpoint_that_is_asked_for_comes_at_once_and_counts_as_a_regular_one() {
    let mut it = coordinator(settings());
    drop(it.on(Event::Tick, ms(100)));
    complete(&mut it, 1, 110);
    // It waits neither for the interval nor for the pause, only for its turn.
    let kind = Kind::Full;
    assert_eq!(it.on(Event::Asked { request: 7, kind }, ms(120)), [Action::Trigger { checkpoint: 2, kind }]);
    assert_eq!(it.on(Event::Asked { request: 8, kind: Kind::Checkpoint }, ms(121)), []);
    let kind_of_next = Kind::Checkpoint;
    assert_eq!(
        complete(&mut it, 2, 130),
        [
            Action::Complete { checkpoint: 2, kind },
            Action::Answer { request: 7, result: Ok(2) },
            Action::Trigger { checkpoint: 3, kind: kind_of_next },
        ]
    );
    assert_eq!(
        complete(&mut it, 3, 140),
        [
            Action::Complete { checkpoint: 3, kind: kind_of_next },
            Action::Remove { checkpoint: 1 },
            Action::Answer { request: 8, result: Ok(3) },
        ]
    );
    // The next regular one is due an interval after it.
    assert_eq!(it.wakes_at(), Some(ms(230)));
    // One that fails is a failure.
    drop(it.on(Event::Asked { request: 9, kind }, ms(150)));
    let reason = "no".to_owned();
    let failed = it.on(Event::Declined { checkpoint: 4, reason: reason.clone() }, ms(151));
    assert!(failed.contains(&Action::Answer { request: 9, result: Err(reason) }), "{failed:?}");
    drop(it.on(Event::Asked { request: 10, kind }, ms(160)));
    let failed = it.on(Event::Declined { checkpoint: 5, reason: "no".into() }, ms(161));
    assert!(failed.iter().any(|action| matches!(action, Action::Fail { .. })), "{failed:?}");
}

#[test]
fn the_end_of_all_input_is_committed_at_once_and_tried_again() {
    let mut it = coordinator(Settings { tolerable_failures: None, ..settings() });
    for subtask in [0, 1, 1, 9] {
        assert_eq!(it.on(Event::Ended { subtask }, ms(10)), []);
    }
    let kind = Kind::Final;
    assert_eq!(it.on(Event::Ended { subtask: 2 }, ms(10)), [Action::Trigger { checkpoint: 1, kind }]);
    drop(it.on(Event::Declined { checkpoint: 1, reason: "no".into() }, ms(20)));
    assert_eq!(it.wakes_at(), Some(ms(1_070)));
    assert_eq!(it.on(Event::Tick, ms(1_070)), [Action::Trigger { checkpoint: 2, kind }]);
    let done = complete(&mut it, 2, 1_080);
    assert_eq!(done, [Action::Complete { checkpoint: 2, kind }, Action::Finish]);
}

#[test]
fn what_is_disturbed_is_given_up_and_nobody_has_failed() {
    let mut it = coordinator(Settings { tolerable_failures: Some(0), ..settings() });
    let asked = it.on(Event::Asked { request: 1, kind: Kind::Full }, ms(10));
    assert_eq!(asked, [Action::Trigger { checkpoint: 1, kind: Kind::Full }]);
    drop(it.on(Event::Asked { request: 2, kind: Kind::Full }, ms(11)));
    // Who comes first does before what was asked for earlier.
    let first = Some((3, Kind::Swap));
    let given_up = it.on(Event::Disturbed { reason: "no".into(), first }, ms(12));
    let result = Err("no".to_owned());
    assert_eq!(
        given_up,
        [
            Action::Abort { checkpoint: 1, reason: "no".into() },
            Action::Answer { request: 1, result },
            Action::Trigger { checkpoint: 2, kind: Kind::Swap },
        ]
    );
    // What is being stored is not of two versions.
    for subtask in 0..SUBTASKS {
        drop(it.on(Event::Acknowledged { checkpoint: 2, subtask, part: subtask }, ms(13)));
    }
    assert!(it.is_storing());
    assert_eq!(it.on(Event::Disturbed { reason: "late".into(), first: None }, ms(14)), []);
    let stored = it.on(Event::Stored { checkpoint: 2 }, ms(15));
    assert!(stored.contains(&Action::Answer { request: 3, result: Ok(2) }), "{stored:?}");
}

#[test]
fn one_that_is_held_stays_until_it_is_not() {
    let mut it = coordinator(Settings { interval: None, retained: 1, ..settings() });
    let make = |it: &mut Coordinator<u32>, checkpoint: u64| {
        drop(it.on(Event::Asked { request: checkpoint, kind: Kind::Checkpoint }, ms(checkpoint * 10)));
        let actions = complete(it, checkpoint, checkpoint * 10 + 1);
        let removed = actions.into_iter().filter_map(|action| match action {
            Action::Remove { checkpoint } => Some(checkpoint),
            _ => None,
        });
        removed.collect::<Vec<_>>()
    };
    assert!(make(&mut it, 1).is_empty());
    it.hold(it.newest());
    assert_eq!([make(&mut it, 2), make(&mut it, 3)], [vec![], vec![2]]);
    it.hold(None);
    assert_eq!(make(&mut it, 4), [1, 3]);
}

/// An event of a random history; which checkpoint it is about is said from the newest one back.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Time(u64),
    Asked(bool),
    Acknowledged(u64, u32),
    Declined(u64),
    Ended(u32),
    Stored(u64),
    NotStored(u64),
    Overtaken(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        80 => (1..400u64).prop_map(Happens::Time),
        20 => prop::bool::weighted(0.1).prop_map(Happens::Asked),
        240 => (0..2u64, 0..SUBTASKS + 1).prop_map(|(back, subtask)| Happens::Acknowledged(back, subtask)),
        20 => (0..2u64).prop_map(Happens::Declined),
        20 => (0..SUBTASKS).prop_map(Happens::Ended),
        100 => (0..2u64).prop_map(Happens::Stored),
        20 => (0..2u64).prop_map(Happens::NotStored),
        1 => (0..2u64).prop_map(Happens::Overtaken),
    ]
}

/// What has come of each checkpoint.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: BTreeSet<SubtaskId>,
    stored: bool,
    ended: bool,
}

/// The rules, of a history as it is seen from outside.
#[derive(Debug, Default)]
struct Rules {
    seen: BTreeMap<CheckpointId, Seen>,
    open: Option<CheckpointId>,
    kept: BTreeSet<CheckpointId>,
    asked: BTreeSet<u64>,
    is_over: bool,
}

impl Rules {
    fn on(&mut self, action: &Action<u32>, retained: usize) -> Result<(), String> {
        if self.is_over && !matches!(action, Action::Answer { result: Err(_), .. }) {
            return Err(format!("{action:?} after the end"));
        }
        match action {
            Action::Trigger { checkpoint, .. } => {
                if self.open.is_some() || self.seen.keys().any(|id| id >= checkpoint) {
                    return Err(format!("{checkpoint} begins beside another, or again"));
                }
                self.open = Some(*checkpoint);
                self.seen.insert(*checkpoint, Seen::default());
            }
            Action::Store { checkpoint, parts, .. } => {
                let all: BTreeSet<_> = (0..SUBTASKS).collect();
                let answered = &self.seen[checkpoint].acknowledged;
                if self.open != Some(*checkpoint) || *answered != all || parts.len() != all.len() {
                    return Err(format!("{checkpoint} is stored, and {answered:?} have answered"));
                }
            }
            Action::Complete { checkpoint, kind } => {
                let seen = self.seen.get_mut(checkpoint).ok_or("unknown")?;
                if self.open.take() != Some(*checkpoint) || !seen.stored || seen.ended {
                    return Err(format!("{checkpoint} is complete, and was not stored or is over"));
                }
                seen.ended = true;
                if !matches!(kind, Kind::Savepoint { .. }) {
                    self.kept.insert(*checkpoint);
                }
            }
            Action::Abort { checkpoint, .. } => {
                let seen = self.seen.get_mut(checkpoint).ok_or("unknown")?;
                if self.open.take() != Some(*checkpoint) || std::mem::replace(&mut seen.ended, true) {
                    return Err(format!("{checkpoint} is given up, and is not under way"));
                }
            }
            Action::Remove { checkpoint } => {
                if self.kept.first() != Some(checkpoint) || self.kept.len() <= retained {
                    return Err(format!("{checkpoint} is removed of {:?}", self.kept));
                }
                self.kept.remove(checkpoint);
            }
            Action::Answer { request, .. } => {
                if !self.asked.remove(request) {
                    return Err(format!("{request} is answered twice"));
                }
            }
            Action::Fail { .. } | Action::Finish => self.is_over = true,
        }
        Ok(())
    }
}

/// Lets a coordinator live through a history; what rule it breaks.
fn live(it: &mut Coordinator<u32>, history: &[Happens], forgetful: bool) -> Result<Rules, String> {
    let (mut rules, mut now) = (Rules::default(), ms(0));
    let retained = it.settings.retained.max(1);
    for (number, one) in (0..).zip(history) {
        let newest = rules.seen.keys().next_back().copied().unwrap_or(0);
        let back = |back: u64| newest.saturating_sub(back);
        let event = match *one {
            Happens::Time(ms) => {
                now += Duration::from_millis(ms);
                Event::Tick
            }
            Happens::Asked(stop) => {
                rules.asked.insert(number);
                Event::Asked {
                    request: number,
                    kind: Kind::Savepoint { stop: stop.then_some(Stop::Suspend) },
                }
            }
            Happens::Acknowledged(ago, subtask) => {
                let is_open = rules.open == Some(back(ago));
                if is_open && subtask < SUBTASKS && !(forgetful && subtask == 0) {
                    rules.seen.entry(back(ago)).or_default().acknowledged.insert(subtask);
                }
                Event::Acknowledged { checkpoint: back(ago), subtask, part: number as u32 }
            }
            Happens::Declined(ago) => Event::Declined { checkpoint: back(ago), reason: "declined".into() },
            Happens::Ended(subtask) => Event::Ended { subtask },
            // A store answers only what it was asked.
            Happens::Stored(ago) => {
                let all =
                    rules.seen.get(&back(ago)).is_some_and(|s| s.acknowledged.len() == SUBTASKS as usize);
                if rules.open == Some(back(ago)) && all {
                    rules.seen.entry(back(ago)).or_default().stored = true;
                }
                Event::Stored { checkpoint: back(ago) }
            }
            Happens::Overtaken(ago) => Event::Overtaken { checkpoint: back(ago) },
            Happens::NotStored(ago) => Event::NotStored { checkpoint: back(ago), reason: "no room".into() },
        };
        for action in it.on(event, now) {
            rules.on(&action, retained)?;
        }
        if it.wakes_at().is_some_and(|at| at <= now) {
            return Err("it wants to be woken in the past".to_owned());
        }
        if rules.kept.len() > retained {
            return Err(format!("{:?} are kept", rules.kept));
        }
    }
    // Whatever came before: from here on all goes well, and every question is answered.
    for _ in 0..200 {
        if rules.asked.is_empty() || rules.is_over {
            break;
        }
        let mut actions = it.on(Event::Tick, now);
        if let Some(open) = rules.open {
            for subtask in 0..SUBTASKS {
                rules.seen.entry(open).or_default().acknowledged.insert(subtask);
                actions.extend(it.on(Event::Acknowledged { checkpoint: open, subtask, part: 0 }, now));
            }
            rules.seen.entry(open).or_default().stored = true;
            for action in actions.drain(..) {
                rules.on(&action, retained)?;
            }
            actions = it.on(Event::Stored { checkpoint: open }, now);
        }
        for action in actions {
            rules.on(&action, retained)?;
        }
    }
    match rules.asked.is_empty() || rules.is_over {
        true => Ok(rules),
        false => Err(format!("{:?} were never answered", rules.asked)),
    }
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let times = (prop::option::of(1..500u64), 1..2_000u64, 0..300u64);
    (times, prop::option::of(0..4u32), 0..4usize).prop_map(|(times, tolerable_failures, retained)| Settings {
        interval: times.0.map(ms),
        timeout: ms(times.1),
        min_pause: ms(times.2),
        tolerable_failures,
        retained,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn every_rule_holds_whatever_happens(
        settings in any_settings(),
        history in prop::collection::vec(happens(), 0..300),
    ) {
        let lived = live(&mut coordinator(settings), &history, false);
        prop_assert!(lived.is_ok(), "{}", lived.unwrap_err());
    }
}

#[test]
fn a_coordinator_that_does_not_wait_for_all_is_reported() {
    // Whoever watches has lost what subtask 0 said: so the coordinator seems to be too early.
    let mut history = vec![Happens::Time(100)];
    history.extend((0..SUBTASKS).map(|subtask| Happens::Acknowledged(0, subtask)));
    assert!(live(&mut coordinator(settings()), &history, false).is_ok());
    let reported = live(&mut coordinator(settings()), &history, true).unwrap_err();
    assert_eq!(reported, "1 is stored, and {1, 2} have answered");
}
