use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{Assigner, Grid, Join, JoinForm, JoinSides, NodeKind, Ttl};
use proptest::prelude::*;

use super::regular::RegularJoin;
use crate::operator::{KeyedOperator, Now};
use crate::test_support::{Run, SetUp, Step, operator, with_setting};

const SIDES: [JoinSides; 6] =
    [JoinSides::Inner, JoinSides::Left, JoinSides::Right, JoinSides::Full, JoinSides::Semi, JoinSides::Anti];

/// A row: its key, its value, its event time, its kind.
#[derive(Clone, Debug)]
struct Row {
    key: Option<i64>,
    value: i64,
    time: i64,
    kind: u8,
}

fn schema(side: usize) -> SchemaRef {
    let value = Field::new(["v", "w"][side], DataType::Utf8, false);
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), value]))
}

fn batch(side: usize, rows: &[Row], has_times: bool) -> Batch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>());
    let values: ArrayRef =
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| text(side, row.value))));
    let kinds: Vec<u8> = rows.iter().map(|row| row.kind).collect();
    let kinds = kinds.iter().any(|kind| *kind != 0).then(|| kinds.into());
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    Batch::of(schema(side), rows.len(), vec![keys, values])
        .unwrap()
        .with_kinds(kinds)
        .with_event_times(has_times.then(|| times.into()))
}

fn text(side: usize, value: i64) -> String {
    format!("{}{value}", ["left of some length ", "r"][side])
}

struct Case {
    sides: JoinSides,
    form: JoinForm,
    from_changes: [bool; 2],
    batch: bool,
}

fn run(case: &Case) -> Run {
    let kind = NodeKind::Join(Join { sides: case.sides, form: case.form.clone() });
    with_set_up(case, |set_up| Run::new(&kind, set_up))
}

fn with_set_up<R>(case: &Case, make: impl FnOnce(&SetUp<'_>) -> R) -> R {
    let inputs = [schema(0), schema(1)];
    let fields =
        |side: usize| inputs[side].fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let output: Vec<Field> = match case.sides {
        JoinSides::Semi | JoinSides::Anti => fields(0).collect(),
        _ => fields(0).chain(fields(1)).collect(),
    };
    let set_up = SetUp {
        inputs: &inputs,
        keys: &[vec![0], vec![0]],
        outputs: &[Arc::new(Schema::new(output))],
        changes: true,
        from_changes: &case.from_changes,
        batch: case.batch,
    };
    make(&set_up)
}

type Table = BTreeMap<Vec<String>, usize>;

/// The join of two lists of rows, from the definition.
fn by_definition(
    sides: JoinSides,
    lefts: &[Row],
    rights: &[Row],
    meet: impl Fn(&Row, &Row) -> bool,
) -> Table {
    let mut table = Table::new();
    let key = |row: &Row| row.key.map_or("null".to_owned(), |key| key.to_string());
    let of = |side: usize, row: Option<&Row>| match row {
        Some(row) => vec![key(row), text(side, row.value)],
        None => vec!["null".to_owned(); 2],
    };
    let mut add = |row: Vec<String>| *table.entry(row).or_insert(0) += 1;
    let meets = |left: &Row, right: &Row| left.key.is_some() && left.key == right.key && meet(left, right);
    let alone = |side: usize| match sides {
        JoinSides::Left => side == 0,
        JoinSides::Right => side == 1,
        JoinSides::Full => true,
        _ => false,
    };
    for left in lefts {
        let partners: Vec<&Row> = rights.iter().filter(|right| meets(left, right)).collect();
        match sides {
            JoinSides::Semi if !partners.is_empty() => add(of(0, Some(left))),
            JoinSides::Anti if partners.is_empty() => add(of(0, Some(left))),
            JoinSides::Semi | JoinSides::Anti => {}
            _ => {
                partners.iter().for_each(|right| add([of(0, Some(left)), of(1, Some(right))].concat()));
                if partners.is_empty() && alone(0) {
                    add([of(0, Some(left)), of(1, None)].concat());
                }
            }
        }
    }
    for right in rights {
        if alone(1) && !lefts.iter().any(|left| meets(left, right)) {
            add([of(0, None), of(1, Some(right))].concat());
        }
    }
    table
}

/// Batches of rows by side, changelogs valid.
fn batches(from_changes: [bool; 2]) -> impl Strategy<Value = Vec<(usize, Vec<Row>)>> {
    let key = prop_oneof![1 => Just(None), 8 => (0i64..4).prop_map(Some)];
    let deed = (key, 0i64..3, any::<bool>(), any::<bool>());
    let list = prop::collection::vec((0usize..2, prop::collection::vec(deed, 1..12)), 1..25);
    list.prop_map(move |list| {
        let mut there: [Vec<(Option<i64>, i64)>; 2] = [Vec::new(), Vec::new()];
        let batches = list.into_iter().map(|(side, deeds)| {
            let rows = deeds.into_iter().map(|(key, value, is_back, is_update)| {
                let found = there[side].iter().position(|row| *row == (key, value));
                match found {
                    Some(at) if is_back && from_changes[side] => {
                        there[side].swap_remove(at);
                        Row { key, value, time: 0, kind: if is_update { 1 } else { 3 } }
                    }
                    _ => {
                        there[side].push((key, value));
                        let kind = if is_update && from_changes[side] { 2 } else { 0 };
                        Row { key, value, time: 0, kind }
                    }
                }
            });
            (side, rows.collect())
        });
        batches.collect()
    })
}

fn apply(live: &mut Vec<Row>, rows: &[Row]) {
    for row in rows {
        if matches!(row.kind, 1 | 3) {
            let at = live.iter().position(|other| (other.key, other.value) == (row.key, row.value)).unwrap();
            live.swap_remove(at);
        } else {
            live.push(row.clone());
        }
    }
}

/// Whether a regular join gives what the definition says, after each batch.
fn is_regular_join(
    sides: JoinSides,
    from_changes: [bool; 2],
    batches: &[(usize, Vec<Row>)],
    batch_mode: bool,
    ttl: Option<Ttl>,
    keep: impl Fn(usize) -> bool,
) -> bool {
    let mut run = run(&Case { sides, form: JoinForm::Unbounded(ttl), from_changes, batch: batch_mode });
    let mut live = [Vec::new(), Vec::new()];
    for (at, (side, rows)) in batches.iter().enumerate() {
        if keep(at) {
            run.step(&Step::Rows(*side as u32, batch(*side, rows, at % 2 == 0)));
        }
        apply(&mut live[*side], rows);
        if !batch_mode && run.table() != by_definition(sides, &live[0], &live[1], |_, _| true) {
            return false;
        }
    }
    run.end();
    let is_insert = run.given.iter().all(|(_, kind, _)| *kind == 0);
    (is_insert || !batch_mode) && run.table() == by_definition(sides, &live[0], &live[1], |_, _| true)
}

fn cases() -> impl Strategy<Value = ([bool; 2], Vec<(usize, Vec<Row>)>)> {
    any::<[bool; 2]>().prop_flat_map(|changes| (Just(changes), batches(changes)))
}

proptest! {
    #[test]
    fn regular_joins_are_right_after_each_batch((from_changes, batches) in cases(), batch_mode in any::<bool>()) {
        for sides in SIDES {
            prop_assert!(is_regular_join(sides, from_changes, &batches, batch_mode, None, |_| true), "{sides:?}");
        }
    }

    /// Rows that do not grow old are as if they had no time to live.
    #[test]
    fn long_lives_change_nothing((from_changes, batches) in cases(), on_read in any::<bool>()) {
        let ttl = Some(Ttl { after: Duration::from_secs(1), on_read });
        for sides in SIDES {
            prop_assert!(is_regular_join(sides, from_changes, &batches, false, ttl, |_| true), "{sides:?}");
        }
    }
}

proptest! {
    /// Different rows that come to the same slots are told apart.
    #[test]
    fn crowded_slots_keep_rows_apart(batches in batches([true; 2])) {
        let case = Case {
            sides: JoinSides::Full,
            form: JoinForm::Unbounded(None),
            from_changes: [true; 2],
            batch: false,
        };
        let mut run = with_set_up(&case, |set_up| {
            Run::of(with_setting(set_up, |setting| {
                let mut join = RegularJoin::new(case.sides, None, setting).unwrap();
                join.crowd();
                Box::new(join) as Box<dyn KeyedOperator>
            }))
        });
        let mut live = [Vec::new(), Vec::new()];
        for (side, rows) in &batches {
            run.step(&Step::Rows(*side as u32, batch(*side, rows, false)));
            apply(&mut live[*side], rows);
            prop_assert_eq!(run.table(), by_definition(case.sides, &live[0], &live[1], |_, _| true));
        }
        // All is taken back: nothing stays but slots that were passed by.
        for (side, rows) in live.into_iter().enumerate() {
            let rows: Vec<Row> = rows.into_iter().map(|row| Row { kind: 3, ..row }).collect();
            run.step(&Step::Rows(side as u32, batch(side, &rows, false)));
        }
        prop_assert!(run.table().is_empty());
        prop_assert!(run.rows_kept() <= 4 * 2 * 9, "{} rows stay", run.rows_kept());
    }

    /// Where nothing collides, nothing stays at all.
    #[test]
    fn what_is_taken_back_leaves_nothing(batches in batches([true; 2])) {
        let case = Case {
            sides: JoinSides::Inner,
            form: JoinForm::Unbounded(None),
            from_changes: [true; 2],
            batch: false,
        };
        let mut run = run(&case);
        let mut live = [Vec::new(), Vec::new()];
        for (side, rows) in &batches {
            run.step(&Step::Rows(*side as u32, batch(*side, rows, false)));
            apply(&mut live[*side], rows);
        }
        for (side, rows) in live.into_iter().enumerate() {
            let rows: Vec<Row> = rows.into_iter().map(|row| Row { kind: 3, ..row }).collect();
            run.step(&Step::Rows(side as u32, batch(side, &rows, false)));
        }
        prop_assert!(run.table().is_empty());
        prop_assert_eq!(run.rows_kept(), 0);
    }
}

/// Times at the ends of all time meet as others do, or are refused.
#[test]
fn extreme_times() {
    let row = |time| Row { key: Some(1), value: 1, time, kind: 0 };
    let times = [i64::MIN + 1, i64::MIN + 2, -1, 0, i64::MAX - 1, i64::MAX];
    let rows: Vec<Row> = times.into_iter().map(row).collect();
    for (lower, upper) in [(0, 0), (-1, 1), (1, 1)] {
        let form = JoinForm::Interval { lower, upper };
        let mut run = run(&Case { sides: JoinSides::Full, form, from_changes: [false; 2], batch: false });
        run.step(&Step::Rows(0, batch(0, &rows, true)));
        run.step(&Step::Rows(1, batch(1, &rows, true)));
        run.end();
        let meet = |left: &Row, right: &Row| {
            let apart = i128::from(right.time) - i128::from(left.time);
            (i128::from(lower)..=i128::from(upper)).contains(&apart)
        };
        assert_eq!(run.table(), by_definition(JoinSides::Full, &rows, &rows, meet));
        assert_eq!(run.rows_kept(), 0);
    }
    let tumbling = || JoinForm::Window(Assigner::Tumbling(grid(10, 10, 0)));
    let case = |form| Case { sides: JoinSides::Inner, form, from_changes: [false; 2], batch: false };
    let refused = with_set_up(&case(tumbling()), |set_up| {
        let mut join = operator(&NodeKind::Join(Join { sides: JoinSides::Inner, form: tumbling() }), set_up);
        let now = Now { watermark: i64::MIN, processing_time: 0 };
        join.prefetch(0, &batch(0, &[row(i64::MAX)], true), now).unwrap_err().to_string()
    });
    assert!(refused.contains("too far from the epoch"), "{refused}");
    let refused = with_set_up(&case(tumbling()), |set_up| {
        let mut join = operator(&NodeKind::Join(Join { sides: JoinSides::Inner, form: tumbling() }), set_up);
        let now = Now { watermark: i64::MIN, processing_time: 0 };
        join.prefetch(0, &batch(0, &[row(0)], false), now).unwrap_err().to_string()
    });
    assert!(refused.contains("no event time"), "{refused}");
}

/// A batch that is not given is missed.
#[test]
fn what_is_not_given_is_missed() {
    let row = |key| Row { key: Some(key), value: 1, time: 0, kind: 0 };
    let batches = [(0, vec![row(1), row(2)]), (1, vec![row(1)]), (1, vec![row(2)])];
    for sides in SIDES {
        assert!(is_regular_join(sides, [false; 2], &batches, false, None, |_| true));
        assert!(!is_regular_join(sides, [false; 2], &batches, false, None, |at| at != 1), "{sides:?}");
    }
}

/// Appends only, whose pairs are inserts.
#[test]
fn inserts_give_inserts() {
    let row = |key, value| Row { key: Some(key), value, time: 0, kind: 0 };
    for sides in [JoinSides::Inner, JoinSides::Semi] {
        let mut run =
            run(&Case { sides, form: JoinForm::Unbounded(None), from_changes: [false; 2], batch: false });
        for value in 0..5 {
            run.step(&Step::Rows(0, batch(0, &[row(1, value), row(2, value)], false)));
            run.step(&Step::Rows(1, batch(1, &[row(1, value)], false)));
        }
        assert!(run.given.iter().all(|(_, kind, _)| *kind == 0));
        let expected = if sides == JoinSides::Inner { 25 } else { 5 };
        assert_eq!(run.given.len(), expected);
    }
}

/// What has grown too old has no partners; what has left stays, and only what is there is taken back.
#[test]
fn rows_grow_old() {
    let row = |value| Row { key: Some(1), value, time: 0, kind: 0 };
    let ttl = Some(Ttl { after: Duration::from_millis(100), on_read: false });
    // How many rows there are after each: a left row with its partner; one whose partner is too old; a
    // right row for the second left row, the first being too old; a right row for none.
    for (sides, expected) in [
        (JoinSides::Inner, [1, 1, 2, 2]),
        (JoinSides::Left, [1, 2, 2, 2]),
        (JoinSides::Full, [1, 2, 2, 3]),
        (JoinSides::Semi, [1, 1, 2, 2]),
        (JoinSides::Anti, [0, 1, 0, 0]),
    ] {
        let form = JoinForm::Unbounded(ttl);
        let mut run = run(&Case { sides, form, from_changes: [false; 2], batch: false });
        run.step(&Step::Rows(1, batch(1, &[row(1)], false)));
        for ((clock, side, value), expected) in
            [(60, 0, 1), (120, 0, 2), (200, 1, 3), (500, 1, 4)].into_iter().zip(expected)
        {
            run.step(&Step::Clock(clock));
            run.step(&Step::Rows(side, batch(side as usize, &[row(value)], false)));
            assert_eq!(run.table().values().sum::<usize>(), expected, "{sides:?} at {clock}");
        }
    }
}

/// Keys that never come again are forgotten with their rows.
#[test]
fn old_keys_are_forgotten() {
    let ttl = Some(Ttl { after: Duration::from_millis(10), on_read: false });
    for from_changes in [[false; 2], [true; 2]] {
        let form = JoinForm::Unbounded(ttl);
        let mut run = run(&Case { sides: JoinSides::Inner, form, from_changes, batch: false });
        for at in 0..200i64 {
            let rows: Vec<Row> =
                (0..100).map(|key| Row { key: Some(100 * at + key), value: 1, time: 0, kind: 0 }).collect();
            run.step(&Step::Clock(at));
            run.step(&Step::Rows((at % 2) as u32, batch((at % 2) as usize, &rows, false)));
        }
        // Of 20,000 keys, and as many slots of a changelog.
        assert!(run.key_bound() < 16_000, "{} keys", run.key_bound());
    }
}

/// One key of very many rows: every step is short.
#[test]
fn a_hot_key_goes_in_steps() {
    let rows: Vec<Row> =
        (0..2_000).map(|value| Row { key: Some(7), value, time: value % 10, kind: 0 }).collect();
    let tumbling = Assigner::Tumbling(grid(100, 100, 0));
    let forms =
        [JoinForm::Unbounded(None), JoinForm::Interval { lower: -20, upper: 20 }, JoinForm::Window(tumbling)];
    for form in forms {
        let mut run = run(&Case { sides: JoinSides::Inner, form, from_changes: [false; 2], batch: false });
        run.counts_only = true;
        run.step(&Step::Rows(0, batch(0, &rows, true)));
        run.step(&Step::Rows(1, batch(1, &rows, true)));
        run.end();
        assert!(run.most < 8 * 1024, "{} rows in a step", run.most);
        assert_eq!(run.count, 4_000_000);
    }
}

fn grid(size: u64, step: u64, offset: i64) -> Grid {
    Grid { size: Duration::from_millis(size), step: Duration::from_millis(step), offset, zone: None }
}

/// Rows with times, and watermarks between them.
#[derive(Clone, Debug)]
enum Deed {
    Rows(usize, Vec<Row>),
    Watermark(i64),
}

fn timed() -> impl Strategy<Value = Vec<Deed>> {
    let key = prop_oneof![1 => Just(None), 8 => (0i64..3).prop_map(Some)];
    let row = (key, 0i64..50, -60i64..60).prop_map(|(key, value, time)| Row { key, value, time, kind: 0 });
    let rows = (0usize..2, prop::collection::vec(row, 1..8)).prop_map(|(side, rows)| Deed::Rows(side, rows));
    let deeds =
        prop::collection::vec(prop_oneof![4 => rows, 1 => (0i64..30).prop_map(Deed::Watermark)], 1..30);
    // Times and watermarks move on together.
    (deeds, prop_oneof![Just(0i64), Just(1_000_000_007), Just(-3_000_000_011)]).prop_map(|(deeds, origin)| {
        let mut at = -30;
        deeds
            .into_iter()
            .map(|deed| match deed {
                Deed::Rows(side, rows) => {
                    let moved = rows.into_iter().map(|row| Row { time: origin + at + row.time, ..row });
                    Deed::Rows(side, moved.collect())
                }
                Deed::Watermark(by) => {
                    at += by;
                    Deed::Watermark(origin + at)
                }
            })
            .collect()
    })
}

/// Runs a join by time; gives the rows of each side that were not late, and what was.
fn run_timed(run: &mut Run, deeds: &[Deed], is_late: impl Fn(&Row, i64) -> bool) -> ([Vec<Row>; 2], usize) {
    let mut watermark = i64::MIN;
    let (mut taken, mut late) = ([Vec::new(), Vec::new()], 0);
    for deed in deeds {
        match deed {
            Deed::Rows(side, rows) => {
                run.step(&Step::Rows(*side as u32, batch(*side, rows, true)));
                for row in rows {
                    if is_late(row, watermark) {
                        late += 1;
                    } else {
                        taken[*side].push(row.clone());
                    }
                }
            }
            Deed::Watermark(time) => {
                watermark = watermark.max(*time);
                run.step(&Step::Watermark(watermark));
            }
        }
    }
    run.end();
    (taken, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn interval_joins_are_right(deeds in timed(), lower in -40i64..40, length in 0i64..50) {
        let bounds = lower..=lower + length;
        for sides in SIDES {
            let form = JoinForm::Interval { lower, upper: lower + length };
            let mut run = run(&Case { sides, form, from_changes: [false; 2], batch: false });
            let (taken, late) = run_timed(&mut run, &deeds, |row, watermark| row.time <= watermark);
            prop_assert_eq!(run.late, late);
            prop_assert!(run.given.iter().all(|(_, kind, _)| *kind == 0));
            let meet = |left: &Row, right: &Row| bounds.contains(&(right.time - left.time));
            prop_assert_eq!(run.table(), by_definition(sides, &taken[0], &taken[1], meet), "{:?}", sides);
            prop_assert_eq!(run.rows_kept(), 0);
            prop_assert!(run.is_in_time, "a row behind the watermark that went on");
        }
    }

    #[test]
    fn window_joins_are_right(
        deeds in timed(), step in 1i64..20, more in 0i64..30, kind in 0u8..3, offset in 0i64..20,
    ) {
        let offset = offset % step;
        let size = if kind == 1 { step + more } else { step * (1 + more / 6) };
        let length = |ms: i64| ms.cast_unsigned();
        let assigner = match kind {
            0 => Assigner::Tumbling(grid(length(step), length(step), offset)),
            1 => Assigner::Sliding(grid(length(size), length(step), offset)),
            _ => Assigner::Cumulating(grid(length(size), length(step), offset)),
        };
        let windows = |time: i64| -> Vec<(i64, i64)> {
            let (every, lengths): (i64, Vec<i64>) = match kind {
                0 => (step, vec![step]),
                1 => (step, vec![size]),
                _ => (size, (1..=size / step).map(|steps| steps * step).collect()),
            };
            let starts = (time - size - step..=time).filter(|start| (start - offset).rem_euclid(every) == 0);
            let all = starts.flat_map(|start| lengths.iter().map(move |length| (start, start + length)));
            all.filter(|(start, end)| (*start..*end).contains(&time)).collect()
        };
        for sides in SIDES {
            let form = JoinForm::Window(assigner.clone());
            let mut run = run(&Case { sides, form, from_changes: [false; 2], batch: false });
            let is_late = |row: &Row, watermark| windows(row.time).iter().all(|window| window.1 - 1 <= watermark);
            let (_, late) = run_timed(&mut run, &deeds, is_late);
            // A row is in its windows that have not passed when it comes.
            let mut by_window: BTreeMap<(i64, i64), [Vec<Row>; 2]> = BTreeMap::new();
            let mut watermark = i64::MIN;
            for deed in &deeds {
                match deed {
                    Deed::Watermark(time) => watermark = watermark.max(*time),
                    Deed::Rows(side, rows) => for row in rows {
                        for window in windows(row.time).into_iter().filter(|window| window.1 - 1 > watermark) {
                            by_window.entry(window).or_default()[*side].push(row.clone());
                        }
                    },
                }
            }
            let mut expected = Table::new();
            for [lefts, rights] in by_window.values() {
                for (row, count) in by_definition(sides, lefts, rights, |_, _| true) {
                    *expected.entry(row).or_insert(0) += count;
                }
            }
            prop_assert_eq!(run.late, late);
            prop_assert_eq!(run.table(), expected, "{:?}", sides);
            prop_assert_eq!(run.rows_kept(), 0);
            prop_assert!(run.is_in_time, "a row behind the watermark that went on");
        }
    }
}
