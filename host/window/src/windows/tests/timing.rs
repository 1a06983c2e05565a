//! Windows whose times change while they run, against rows taken one by one.

use super::triggers::{Model, Name, Result, given, wanted};
use super::*;
use crate::windows::timing::{Timing, keep_alike};

/// What happens, and after so many of it other times.
type Changes = Vec<(usize, Timing)>;

fn timings() -> impl Strategy<Value = Timing> {
    let trigger = prop_oneof![
        2 => Just(Trigger::AtEnd),
        2 => (1u64..12).prop_map(|each| Trigger::Early(Duration::from_millis(each))),
        2 => (1u64..6).prop_map(Trigger::Count),
    ];
    let lateness = prop_oneof![1 => Just(0u64), 3 => 1u64..60].prop_map(Duration::from_millis);
    (lateness, trigger, any::<bool>()).prop_map(|(lateness, trigger, purging)| Timing {
        lateness,
        trigger,
        purging,
    })
}

fn changes() -> impl Strategy<Value = Changes> {
    proptest::collection::vec((0usize..25, timings()), 1..4).prop_map(|mut changes| {
        changes.sort_by_key(|(at, _)| *at);
        changes
    })
}

fn set_up<'a>(
    outputs: &'a [SchemaRef],
    inputs: &'a [SchemaRef],
    keys: &'a [Vec<usize>],
    changes: bool,
) -> SetUp<'a> {
    SetUp { inputs, keys, outputs, changes, from_changes: &[false], batch: false }
}

/// How often the times have changed.
fn check_changes(
    window: &Window,
    changelog: bool,
    events: &[Event],
    changes: &Changes,
    forgets_gone: bool,
) -> std::result::Result<usize, TestCaseError> {
    let output = [window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap()];
    let (inputs, keys) = ([input()], [vec![0]]);
    let by_clock = window.time == TimeDomain::ProcessingTime;
    let mut run = Run::new(&NodeKind::Window(window.clone()), &set_up(&output, &inputs, &keys, changelog));
    let has_ends = window.assigner != Assigner::Everything;
    let put = |timing: &Timing| Timing { purging: timing.purging && !changelog, ..*timing }.put_into(window);
    let windows: Vec<Window> = changes.iter().map(|(_, timing)| put(timing)).collect();
    let mut model = Model::new(window, false, if by_clock { -1 } else { i64::MIN });
    let mut time = if by_clock { 0 } else { i64::MIN };
    let (mut now, mut changed) = (window, 0);
    for (at, event) in events.iter().enumerate() {
        for (_, other) in changes.iter().zip(&windows).filter(|((after, _), _)| *after == at) {
            let is_alike = keep_alike(now, other, &input()).unwrap();
            // With another trigger it has to be.
            let fires = other.trigger != now.trigger || at % 2 == 0;
            let has_changed = is_alike && run.change(&Timing::of(other), fires);
            prop_assert_eq!(has_changed, is_alike);
            if is_alike {
                model.change(other, forgets_gone);
                (now, changed) = (other, changed + 1);
            }
        }
        let (from, from_model) = (run.given.len(), model.given.len());
        match event {
            Event::Rows(rows) => {
                run.step(&Step::Rows(0, batch(rows)));
                let mut rows = rows.clone();
                if by_clock && (has_ends || matches!(now.trigger, Trigger::Early(_))) {
                    rows.iter_mut().for_each(|row| row.time = time);
                }
                model.rows(&rows);
            }
            Event::Watermark(to) => {
                time = time.max(*to);
                run.step(&if by_clock { Step::Clock(time) } else { Step::Watermark(time) });
                model.pass(if by_clock { time - 1 } else { time });
            }
        }
        prop_assert_eq!(given(&run, from, has_ends), wanted(&model.given[from_model..], has_ends));
    }
    let (from, from_model) = (run.given.len(), model.given.len());
    run.end();
    model.end();
    prop_assert_eq!(run.late, model.late);
    prop_assert_eq!(given(&run, from, has_ends), wanted(&model.given[from_model..], has_ends));
    if changelog {
        // Each result took back the one before.
        let last: BTreeMap<Name, &Result> = model.given.iter().map(|result| (result.0, result)).collect();
        prop_assert_eq!(run.table().len(), last.len());
    }
    Ok(changed)
}

fn window(assigner: Assigner, timing: &Timing, changelog: bool, which: usize) -> Window {
    let Timing { lateness, trigger, purging } = *timing;
    Window {
        lateness,
        trigger,
        purging: purging && !changelog,
        aggregates: lists()[which].clone(),
        ..counting(assigner)
    }
}

fn fixed() -> impl Strategy<Value = Assigner> {
    let of_time = assigners().prop_filter("sessions", |assigner| !matches!(assigner, Assigner::Session(_)));
    prop_oneof![4 => of_time, 1 => Just(Assigner::Everything)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Rows before a change by the old times, rows after it by the new; what has gone stays gone.
    #[test]
    fn windows_change_their_times_where_they_stand(
        assigner in fixed(),
        timing in timings(),
        changelog in any::<bool>(),
        which in 0usize..3,
        events in events(),
        changes in changes(),
    ) {
        let window = window(assigner, &timing, changelog, which);
        check_changes(&window, changelog, &events, &changes, false)?;
    }

    /// Of sessions the lateness changes.
    #[test]
    fn sessions_change_their_lateness_where_they_stand(
        gap in 1u64..15,
        first in 0u64..40,
        changelog in any::<bool>(),
        events in events(),
        changes in proptest::collection::vec((0usize..25, 0u64..60), 1..4),
    ) {
        check_sessions(gap, first, changelog, &events, &changes)?;
    }
}

fn check_sessions(
    gap: u64,
    first: u64,
    changelog: bool,
    events: &[Event],
    changes: &[(usize, u64)],
) -> std::result::Result<(), TestCaseError> {
    let list = lists()[0].clone();
    let with = |lateness: u64| Window {
        lateness: Duration::from_millis(lateness),
        aggregates: list.clone(),
        ..counting(Assigner::Session(Duration::from_millis(gap)))
    };
    let first_window = with(first);
    let output = [window_schema(&input(), &[0], &first_window.assigner, &list).unwrap()];
    let (inputs, keys) = ([input()], [vec![0]]);
    let mut run = Run::new(&NodeKind::Window(first_window), &set_up(&output, &inputs, &keys, changelog));
    let (gap, mut lateness) = (gap as i64, first as i64);
    let (mut watermark, mut gone, mut late) = (i64::MIN, i64::MIN, 0);
    let mut open: BTreeMap<i64, Vec<Plain>> = BTreeMap::new();
    let mut results = BTreeMap::new();
    let events = events.iter().cloned().chain([Event::Watermark(i64::MAX)]);
    for (at, event) in events.enumerate() {
        for (_, other) in changes.iter().filter(|(after, _)| *after == at) {
            prop_assert!(run.change(&Timing::of(&with(*other)), *other % 2 == 0));
            gone = gone.max(watermark.saturating_sub(lateness).saturating_add(1));
            lateness = *other as i64;
        }
        let mut clear = |open: &mut BTreeMap<i64, Vec<Plain>>, watermark: i64| {
            for (key, windows) in open {
                let is_over = |w: &Plain| w.end <= gone || (w.end - 1).saturating_add(lateness) <= watermark;
                for window in windows.iter().filter(|w| is_over(w)) {
                    results.insert((*key, window.start, window.end), result(&list, &window.rows));
                }
                windows.retain(|w| !is_over(w));
            }
        };
        clear(&mut open, watermark);
        match event {
            Event::Rows(rows) => {
                run.step(&Step::Rows(0, batch(&rows)));
                for row in rows {
                    let windows = open.entry(row.key).or_default();
                    let (mut start, mut end, mut rows) = (row.time, row.time + gap, Vec::new());
                    let touches = |w: &Plain| w.start <= row.time + gap && w.end >= row.time;
                    for window in windows.iter().filter(|w| touches(w)) {
                        (start, end) = (start.min(window.start), end.max(window.end));
                        rows.extend(window.rows.iter().copied());
                    }
                    if end <= gone || (end - 1).saturating_add(lateness) <= watermark {
                        late += 1;
                        continue;
                    }
                    windows.retain(|w| !touches(w));
                    rows.push(row);
                    windows.push(Plain { start, end, rows });
                }
            }
            Event::Watermark(time) => {
                watermark = watermark.max(time);
                run.step(&Step::Watermark(watermark));
                clear(&mut open, watermark);
            }
        }
    }
    run.end();
    prop_assert_eq!(run.late, late);
    let wanted = as_texts(&Expected { results, late });
    if changelog {
        let rows =
            wanted.into_iter().map(|((key, start, end), result)| [vec![key, start, end], result].concat());
        let mut rows: Vec<(Vec<String>, usize)> = rows.map(|row| (row, 1)).collect();
        rows.sort();
        prop_assert_eq!(run.table().into_iter().collect::<Vec<_>>(), rows);
    } else {
        let given = last_results(&run);
        for (window, result) in wanted {
            prop_assert_eq!(given.get(&window), Some(&result), "{:?}", window);
        }
    }
    Ok(())
}

fn millis(length: u64) -> Duration {
    Duration::from_millis(length)
}

/// A greater lateness does not bring back what had gone: an account that forgets that differs.
#[test]
fn windows_that_have_gone_stay_gone() {
    let assigner = Assigner::Tumbling(grid(10, 10, 0));
    let timing = |lateness| Timing { lateness: millis(lateness), trigger: Trigger::AtEnd, purging: false };
    let window = window(assigner, &timing(0), false, 0);
    let rows = |time| Event::Rows(vec![row(1, time)]);
    let events = [rows(3), Event::Watermark(12), rows(4), rows(14), Event::Watermark(25), rows(15)];
    let changes = vec![(2, timing(100))];
    assert_eq!(check_changes(&window, false, &events, &changes, false).unwrap(), 1);
    assert!(check_changes(&window, false, &events, &changes, true).is_err());
}

/// A shorter lateness lets go at once of what has been kept too long by it; a longer one keeps what is there.
#[test]
fn what_is_kept_follows_the_lateness() {
    let timing = |lateness| Timing { lateness: millis(lateness), trigger: Trigger::AtEnd, purging: false };
    for assigner in [Assigner::Tumbling(grid(10, 10, 0)), Assigner::Session(millis(5))] {
        let first = Window { lateness: millis(1_000), ..counting(assigner) };
        let output = [window_schema(&input(), &[0], &first.assigner, &first.aggregates).unwrap()];
        let (inputs, keys) = ([input()], [vec![0]]);
        let mut run = Run::new(&NodeKind::Window(first), &set_up(&output, &inputs, &keys, false));
        let rows: Vec<Row> = (0..5_000).map(|key| row(key, 3)).collect();
        run.step(&Step::Rows(0, batch(&rows)));
        run.step(&Step::Watermark(500));
        assert_eq!(run.count_kept(), 5_000);
        assert!(run.change(&timing(5_000), false));
        run.step(&Step::Watermark(1_500));
        assert_eq!(run.count_kept(), 5_000);
        assert!(run.change(&timing(100), false));
        run.step(&Step::Watermark(1_501));
        assert_eq!(run.count_kept(), 0);
        assert_eq!(run.given.len(), 5_000);
    }
}

#[test]
fn windows_that_are_kept_otherwise_do_not_become_each_other() {
    let sliding = || counting(Assigner::Sliding(grid(20, 10, 0)));
    let late = |window: Window| Window { lateness: millis(5), ..window };
    let count = |window: Window| Window { trigger: Trigger::Count(3), ..window };
    let alike = |a: &Window, b: &Window| keep_alike(a, b, &input()).unwrap();
    assert!(!alike(&sliding(), &late(sliding())), "slices, and windows each");
    let distinct = |window| Window { aggregates: vec![aggregate("count", true)], ..window };
    assert!(alike(&distinct(sliding()), &late(distinct(sliding()))), "windows each");
    let tumbling = || counting(Assigner::Tumbling(grid(20, 20, 0)));
    assert!(alike(&tumbling(), &late(tumbling())));
    assert!(!alike(&tumbling(), &count(tumbling())));
    let more = Window { trigger: Trigger::Count(4), ..tumbling() };
    assert!(alike(&late(count(tumbling())), &more));
}
