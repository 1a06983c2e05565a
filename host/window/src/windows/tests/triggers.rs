//! Triggers, purging and the window for everything, against rows taken one by one.

use super::*;

/// What a window of a key is by brute force.
#[derive(Clone, Debug, Default)]
struct Slow {
    rows: Vec<Row>,
    /// Rows since the last result.
    count: u64,
    is_changed: bool,
    is_touched: bool,
    /// When the next early result is due.
    early: Option<i64>,
}

/// Key, start and end (of a window without: all time).
pub(super) type Name = (i64, i64, i64);

/// A result, and its event time.
pub(super) type Result = (Name, Vec<String>, Option<i64>);

pub(super) struct Model<'a> {
    window: &'a Window,
    batch: bool,
    open: BTreeMap<Name, Slow>,
    pub(super) given: Vec<Result>,
    /// Times up to this one have passed.
    passed: i64,
    /// Windows that end up to this instant have gone by a lateness before.
    gone: i64,
    pub(super) late: usize,
}

impl<'a> Model<'a> {
    pub(super) fn new(window: &'a Window, batch: bool, passed: i64) -> Self {
        Self { window, batch, open: BTreeMap::new(), given: Vec::new(), passed, gone: i64::MIN, late: 0 }
    }

    /// From now on the windows' times are these. `forgets_gone`: a fault on purpose.
    pub(super) fn change(&mut self, window: &'a Window, forgets_gone: bool) {
        if !forgets_gone {
            self.gone = self.gone.max(self.passed.saturating_sub(self.lateness()).saturating_add(1));
        }
        let is_by_times = |window: &Window| (window.lateness, self.batch, early_of(window));
        let is_other = is_by_times(window) != is_by_times(self.window);
        let early_before = self.early().unwrap_or(0);
        self.window = window;
        let (passed, lateness, early) = (self.passed, self.lateness(), self.early());
        if !self.is_everything() {
            self.open.retain(|name, _| (name.2 - 1).saturating_add(lateness) > passed);
        }
        let is_everything = self.is_everything();
        for (name, slow) in self.open.iter_mut().filter(|_| is_other) {
            slow.early = match early {
                Some(early) if is_everything && slow.is_changed => {
                    // What is new is of that instant or later.
                    let first = match slow.early {
                        Some(due) => Some((due - early_before + 1).max(passed.saturating_add(1))),
                        None => (passed > i64::MIN).then_some(passed + 1),
                    };
                    first.map(|first| first.div_euclid(early) * early + early - 1)
                }
                Some(_) if is_everything => None,
                Some(early) if !slow.rows.is_empty() => next_early(name.1, name.2, early, passed),
                _ => None,
            };
        }
    }

    fn lateness(&self) -> i64 {
        super::super::millis(self.window.lateness)
    }

    fn early(&self) -> Option<i64> {
        match self.window.trigger {
            Trigger::Early(each) if !self.batch => Some(super::super::millis(each)),
            _ => None,
        }
    }

    fn is_everything(&self) -> bool {
        self.window.assigner == Assigner::Everything
    }

    fn give(&mut self, name: Name, time: Option<i64>) {
        let slow = self.open.get_mut(&name).unwrap();
        let values = result(&self.window.aggregates, &slow.rows);
        (slow.is_changed, slow.count) = (false, 0);
        if self.window.purging {
            *slow = Slow::default();
        }
        let time = if self.is_everything() { time } else { Some(name.2 - 1) };
        self.given.push((name, values, time));
    }

    pub(super) fn rows(&mut self, rows: &[Row]) {
        for row in rows {
            let windows: Vec<(i64, i64)> = if self.is_everything() {
                vec![(i64::MIN, i64::MAX)]
            } else {
                let all = windows_of(&self.window.assigner, row.time).into_iter();
                all.filter(|(_, end)| *end > self.gone && end - 1 + self.lateness() > self.passed).collect()
            };
            self.late += usize::from(windows.is_empty());
            for (start, end) in windows {
                let name = (row.key, start, end);
                let (passed, early) = (self.passed, self.early());
                let is_everything = self.is_everything();
                let slow = self.open.entry(name).or_default();
                let is_new = slow.rows.is_empty();
                slow.rows.push(*row);
                slow.count += 1;
                (slow.is_changed, slow.is_touched) = (true, true);
                if let Some(early) = early {
                    if is_everything {
                        let mut due = (row.time - 1000).div_euclid(early) * early - 1;
                        while due < row.time || due <= passed {
                            due += early;
                        }
                        slow.early = Some(slow.early.map_or(due, |before| before.min(due)));
                    } else if is_new {
                        slow.early = next_early(start, end, early, passed);
                    }
                }
                if matches!(self.window.trigger, Trigger::Count(each) if each <= slow.count) {
                    self.give(name, Some(row.time));
                }
            }
        }
        if !matches!(self.window.trigger, Trigger::Count(_)) {
            let is_over = |(name, slow): &(&Name, &Slow)| name.2 - 1 <= self.passed && slow.is_touched;
            let over: Vec<Name> = self.open.iter().filter(is_over).map(|(name, _)| *name).collect();
            over.into_iter().for_each(|name| self.give(name, None));
        }
        self.open.values_mut().for_each(|slow| slow.is_touched = false);
    }

    /// Times up to this one have passed.
    pub(super) fn pass(&mut self, passed: i64) {
        self.passed = self.passed.max(passed);
        let names: Vec<Name> = self.open.keys().copied().collect();
        for name in names {
            let slow = &self.open[&name];
            let early = slow.early.filter(|due| *due <= self.passed);
            if let Some(due) = early {
                let is_changed = slow.is_changed;
                self.open.get_mut(&name).unwrap().early = None;
                if is_changed {
                    let time = (self.window.time == TimeDomain::EventTime).then_some(due);
                    self.give(name, time);
                }
                let (passed, early) = (self.passed, self.early().unwrap());
                let slow = self.open.get_mut(&name).unwrap();
                let is_purged = is_changed && self.window.purging;
                if !is_purged && self.window.assigner != Assigner::Everything {
                    slow.early = next_early(name.1, name.2, early, passed);
                }
            }
            let is_count = matches!(self.window.trigger, Trigger::Count(_));
            let is_over = !self.is_everything() && name.2 - 1 <= self.passed;
            if is_over && self.open[&name].is_changed && !is_count {
                self.give(name, None);
            }
            if !self.is_everything() && (name.2 - 1).saturating_add(self.lateness()) <= self.passed {
                self.open.remove(&name);
            }
        }
    }

    pub(super) fn end(&mut self) {
        if self.window.time == TimeDomain::EventTime || !self.is_everything() {
            self.pass(i64::MAX);
        }
        if self.is_everything() && !matches!(self.window.trigger, Trigger::Count(_)) {
            let names: Vec<Name> =
                self.open.iter().filter(|(_, slow)| slow.is_changed).map(|(name, _)| *name).collect();
            names.into_iter().for_each(|name| self.give(name, None));
        }
    }
}

fn early_of(window: &Window) -> Option<Duration> {
    match window.trigger {
        Trigger::Early(each) => Some(each),
        _ => None,
    }
}

/// In the last millisecond of each interval from the window's start, before its end.
fn next_early(start: i64, end: i64, early: i64, passed: i64) -> Option<i64> {
    (1..).map(|k| start + k * early - 1).take_while(|due| *due < end - 1).find(|due| *due > passed)
}

/// What a run gave in a step, as the model says it; those of one window in their order.
pub(super) fn given(run: &Run, from: usize, has_ends: bool) -> Vec<(Vec<String>, Option<i64>)> {
    let rows = run.given[from..].iter().zip(&run.times[from..]);
    let mut rows: Vec<_> = rows
        .filter(|((port, kind, _), _)| *port == 0 && matches!(kind, 0 | 2))
        .map(|((.., row), time)| (row.clone(), *time))
        .collect();
    rows.sort_by(|(a, _), (b, _)| a[..if has_ends { 3 } else { 1 }].cmp(&b[..if has_ends { 3 } else { 1 }]));
    rows
}

pub(super) fn wanted(given: &[Result], has_ends: bool) -> Vec<(Vec<String>, Option<i64>)> {
    let row = |((key, start, end), values, time): &Result| {
        let mut row = vec![key.to_string()];
        if has_ends {
            row.extend([instant(*start), instant(*end)]);
        }
        (row.into_iter().chain(values.iter().cloned()).collect::<Vec<_>>(), *time)
    };
    let mut rows: Vec<_> = given.iter().map(row).collect();
    let names = if has_ends { 3 } else { 1 };
    rows.sort_by(|(a, _), (b, _)| a[..names].cmp(&b[..names]));
    rows
}

fn check_triggers(
    window: &Window,
    changes: bool,
    batch_mode: bool,
    events: &[Event],
) -> std::result::Result<(), TestCaseError> {
    let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[output],
        changes,
        from_changes: &[false],
        batch: batch_mode,
    };
    let by_clock = window.time == TimeDomain::ProcessingTime;
    let mut run = Run::new(&NodeKind::Window(window.clone()), &set_up);
    let has_ends = window.assigner != Assigner::Everything;
    let mut model = Model::new(window, batch_mode, if by_clock { -1 } else { i64::MIN });
    let is_withheld = batch_mode && changes && matches!(window.trigger, Trigger::Count(_));
    let mut time = if by_clock { 0 } else { i64::MIN };
    for event in events {
        let (from, from_model) = (run.given.len(), model.given.len());
        match event {
            Event::Rows(rows) => {
                run.step(&Step::Rows(0, batch(rows)));
                let mut rows = rows.clone();
                if by_clock && (has_ends || matches!(window.trigger, Trigger::Early(_))) {
                    rows.iter_mut().for_each(|row| row.time = time);
                }
                model.rows(&rows);
            }
            Event::Watermark(_) if batch_mode => continue,
            Event::Watermark(to) => {
                time = time.max(*to);
                run.step(&if by_clock { Step::Clock(time) } else { Step::Watermark(time) });
                model.pass(if by_clock { time - 1 } else { time });
            }
        }
        if !is_withheld {
            prop_assert_eq!(given(&run, from, has_ends), wanted(&model.given[from_model..], has_ends));
        }
    }
    let (from, from_model) = (run.given.len(), model.given.len());
    run.end();
    model.end();
    prop_assert_eq!(run.late, model.late);
    if is_withheld {
        // A table has its last rows only.
        let last: BTreeMap<Name, Result> =
            model.given.iter().map(|result| (result.0, result.clone())).collect();
        let last: Vec<Result> = last.into_values().collect();
        let without_times =
            |rows: Vec<(Vec<String>, Option<i64>)>| rows.into_iter().map(|(row, _)| row).collect::<Vec<_>>();
        prop_assert!(run.given.iter().all(|(_, kind, _)| *kind == 0));
        prop_assert_eq!(without_times(given(&run, 0, has_ends)), without_times(wanted(&last, has_ends)));
        return Ok(());
    }
    prop_assert_eq!(given(&run, from, has_ends), wanted(&model.given[from_model..], has_ends));
    if changes {
        // Each result took back the one before.
        let last: BTreeMap<Name, &Result> = model.given.iter().map(|result| (result.0, result)).collect();
        prop_assert_eq!(run.table().len(), last.len());
    } else {
        prop_assert!(run.given.iter().all(|(_, kind, _)| *kind == 0));
    }
    Ok(())
}

fn triggers() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        1 => Just(Trigger::AtEnd),
        2 => (1u64..12).prop_map(|each| Trigger::Early(Duration::from_millis(each))),
        3 => (1u64..6).prop_map(Trigger::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Of every trigger, purged or not, as rows and as a changelog, by both clocks, at the end only.
    #[test]
    fn triggers_fire_as_row_by_row(
        assigner in prop_oneof![1 => Just(Assigner::Everything), 2 => assigners()],
        trigger in triggers(),
        which in 0usize..4,
        lateness in prop_oneof![Just(0u64), 1u64..30],
        purging in any::<bool>(),
        changes in any::<bool>(),
        by_clock in any::<bool>(),
        batch_mode in proptest::bool::weighted(0.2),
        events in events(),
    ) {
        prop_assume!(!matches!(assigner, Assigner::Session(_)));
        // As plans are: what is purged is not updated, and by the clock nothing is late.
        let window = Window {
            assigner,
            time: if by_clock && !batch_mode { TimeDomain::ProcessingTime } else { TimeDomain::EventTime },
            lateness: Duration::from_millis(lateness),
            late_port: None,
            trigger,
            purging,
            aggregates: lists()[which].clone(),
        };
        check_triggers(&window, changes && !purging, batch_mode, &events)?;
    }
}

#[test]
fn a_window_that_is_purged_too_late_is_noticed() {
    let window = Window { trigger: Trigger::Count(2), purging: true, ..counting(Assigner::Everything) };
    let faulty = Window { purging: false, ..window.clone() };
    let events = [Event::Rows(vec![row(1, 3), row(1, 4), row(1, 5), row(1, 6)])];
    assert!(check_triggers(&window, false, false, &events).is_ok());
    let mut model = Model::new(&faulty, false, i64::MIN);
    let Event::Rows(rows) = &events[0] else { panic!() };
    model.rows(rows);
    let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[output],
        changes: false,
        from_changes: &[false],
        batch: false,
    };
    let mut run = Run::new(&NodeKind::Window(window.clone()), &set_up);
    run.step(&Step::Rows(0, batch(rows)));
    assert_ne!(given(&run, 0, false), wanted(&model.given, false));
}

/// Many results of one window out of one batch, each step short; and the least and greatest instants.
#[test]
fn extreme_instants_have_their_windows() {
    let early = Trigger::Early(Duration::from_millis(10));
    let window = Window { trigger: early, ..counting(Assigner::Everything) };
    let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[output],
        changes: false,
        from_changes: &[false],
        batch: false,
    };
    let mut run = Run::new(&NodeKind::Window(window), &set_up);
    run.step(&Step::Rows(0, batch(&[row(1, i64::MIN), row(2, i64::MAX), row(3, i64::MAX - 1)])));
    run.step(&Step::Watermark(i64::MIN + 20));
    assert_eq!(run.given.len(), 1);
    run.step(&Step::Watermark(i64::MAX - 1));
    assert_eq!(run.given.len(), 1);
    run.end();
    assert_eq!(run.given.len(), 3);
}
