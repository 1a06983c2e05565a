use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{Join, JoinForm, JoinSides, NodeKind, TimeDomain};
use proptest::prelude::*;

use crate::test_support::{Run, SetUp, Step, operator};

/// A row: its key, its value, its event time, its kind.
#[derive(Clone, Debug)]
struct Row {
    key: Option<i64>,
    value: i64,
    time: i64,
    kind: u8,
}

#[derive(Clone, Debug)]
enum Deed {
    Rows(usize, Vec<Row>),
    Watermark(i64),
    /// The state moves to another subtask, by a snapshot.
    Moves,
}

/// The right side's rows are wide, and nested.
fn schema(side: usize) -> SchemaRef {
    let key = Field::new("k", DataType::Int64, true);
    let value = Field::new(["v", "w"][side], DataType::Utf8, false);
    let nested =
        [Field::new("list", list_type(), false), Field::new("pair", DataType::Struct(pair_fields()), false)];
    let fields = [key, value].into_iter().chain(nested.into_iter().filter(|_| side == 1));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn list_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
}

fn pair_fields() -> Fields {
    Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, false)])
}

fn batch(side: usize, rows: &[Row]) -> Batch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>());
    let values: ArrayRef =
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.value.to_string())));
    let mut columns = vec![keys, values];
    if side == 1 {
        let lists = rows.iter().map(|row| Some(vec![Some(row.value); (row.value % 3) as usize]));
        columns.push(Arc::new(ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>(lists)));
        let a: ArrayRef = Arc::new(
            rows.iter().map(|row| (row.value % 2 == 0).then_some(row.value)).collect::<Int64Array>(),
        );
        let b: ArrayRef =
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("b{}", row.value))));
        columns.push(Arc::new(StructArray::new(pair_fields(), vec![a, b], None)));
    }
    let kinds: Vec<u8> = rows.iter().map(|row| row.kind).collect();
    let kinds = kinds.iter().any(|kind| *kind != 0).then(|| kinds.into());
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    Batch::of(schema(side), rows.len(), columns)
        .unwrap()
        .with_kinds(kinds)
        .with_event_times(Some(times.into()))
}

/// The columns of a row of a side as they are compared.
fn text(side: usize, row: Option<&Row>) -> Vec<String> {
    let Some(row) = row else { return vec!["null".into(); if side == 1 { 4 } else { 2 }] };
    let mut text = vec![key_text(row.key), row.value.to_string()];
    if side == 1 {
        let list = vec![row.value.to_string(); (row.value % 3) as usize];
        text.push(format!("[{}]", list.join(", ")));
        let a = if row.value % 2 == 0 { row.value.to_string() } else { "null".into() };
        text.push(format!("{{a: {a}, b: b{}}}", row.value));
    }
    text
}

fn key_text(key: Option<i64>) -> String {
    key.map_or("null".into(), |key| key.to_string())
}

fn with_set_up<R>(sides: JoinSides, time: TimeDomain, make: impl FnOnce(&NodeKind, &SetUp<'_>) -> R) -> R {
    let inputs = [schema(0), schema(1)];
    let fields: Vec<Field> = inputs
        .iter()
        .flat_map(|schema| schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)))
        .collect();
    let set_up = SetUp {
        inputs: &inputs,
        keys: &[vec![0], vec![0]],
        outputs: &[Arc::new(Schema::new(fields))],
        changes: false,
        from_changes: &[false, true],
        batch: false,
    };
    make(&NodeKind::Join(Join { sides, form: JoinForm::Temporal(time) }), &set_up)
}

fn new_run(sides: JoinSides, time: TimeDomain) -> Run {
    with_set_up(sides, time, Run::new)
}

/// What leaves, by key, in its order: the row and its time.
type Given = BTreeMap<String, Vec<(Vec<String>, Option<i64>)>>;

/// Runs the deeds that are kept.
fn run(sides: JoinSides, time: TimeDomain, deeds: &[Deed], keep: impl Fn(usize) -> bool) -> (Given, Run) {
    let mut run = new_run(sides, time);
    let mut watermark = i64::MIN;
    for (_, deed) in deeds.iter().enumerate().filter(|(at, _)| keep(*at)) {
        match deed {
            Deed::Rows(side, rows) => run.step(&Step::Rows(*side as u32, batch(*side, rows))),
            Deed::Watermark(time) => {
                watermark = watermark.max(*time);
                run.step(&Step::Watermark(watermark));
            }
            Deed::Moves => {
                let other = with_set_up(sides, time, operator);
                run.move_to(other);
            }
        }
    }
    run.end();
    let mut given = Given::new();
    for ((_, kind, row), time) in run.given.iter().zip(&run.times) {
        assert_eq!(*kind, 0);
        given.entry(row[0].clone()).or_default().push((row.clone(), *time));
    }
    (given, run)
}

/// A key as the definition has it.
#[derive(Default)]
struct Key {
    waiting: Vec<Row>,
    versions: BTreeMap<i64, Option<Row>>,
}

/// The temporal join by event time, from the definition.
fn by_event_time(sides: JoinSides, deeds: &[Deed]) -> (Given, usize) {
    let mut keys: BTreeMap<i64, Key> = BTreeMap::new();
    let mut given = Given::new();
    let mut give = |left: &Row, right: Option<&Row>| {
        if right.is_some() || sides == JoinSides::Left {
            let row = [text(0, Some(left)), text(1, right)].concat();
            given.entry(key_text(left.key)).or_default().push((row, Some(left.time)));
        }
    };
    let mut watermark = i64::MIN;
    for deed in deeds.iter().chain([&Deed::Watermark(i64::MAX)]) {
        match deed {
            Deed::Rows(side, rows) => {
                for row in rows {
                    match (side, row.key) {
                        (0, None) => give(row, None),
                        (0, Some(key)) => keys.entry(key).or_default().waiting.push(row.clone()),
                        (_, Some(key)) if row.kind != 1 => {
                            let version = (row.kind != 3).then(|| row.clone());
                            keys.entry(key).or_default().versions.insert(row.time, version);
                        }
                        _ => {}
                    }
                }
            }
            Deed::Watermark(time) => {
                watermark = watermark.max(*time);
                for key in keys.values_mut() {
                    let (mut due, waiting): (Vec<Row>, Vec<Row>) =
                        key.waiting.drain(..).partition(|row| row.time <= watermark);
                    key.waiting = waiting;
                    due.sort_by_key(|row| row.time);
                    for left in due {
                        let version = key.versions.range(..=left.time).next_back();
                        give(&left, version.and_then(|(_, row)| row.as_ref()));
                    }
                    let valid = key.versions.range(..=watermark).next_back();
                    if let Some((valid, row)) = valid.map(|(time, row)| (*time, row.is_some())) {
                        key.versions.retain(|time, _| *time > valid || (*time == valid && row));
                    }
                }
            }
            Deed::Moves => {}
        }
    }
    // A version each, and nothing else.
    (given, keys.values().map(|key| key.versions.len()).sum())
}

/// The same by processing time.
fn by_processing_time(sides: JoinSides, deeds: &[Deed]) -> (Given, usize) {
    let mut last: BTreeMap<i64, Row> = BTreeMap::new();
    let mut given = Given::new();
    for (side, row) in deeds.iter().flat_map(|deed| match deed {
        Deed::Rows(side, rows) => rows.iter().map(|row| (*side, row)).collect(),
        _ => Vec::new(),
    }) {
        match (side, row.key, row.kind) {
            (0, key, _) => {
                let right = key.and_then(|key| last.get(&key));
                if right.is_some() || sides == JoinSides::Left {
                    let pair = [text(0, Some(row)), text(1, right)].concat();
                    given.entry(key_text(key)).or_default().push((pair, Some(row.time)));
                }
            }
            (_, Some(key), 3) => _ = last.remove(&key),
            (_, Some(key), 0 | 2) => _ = last.insert(key, row.clone()),
            _ => {}
        }
    }
    (given, last.len())
}

/// Rows of both sides in any order, and watermarks between them; times move on with the watermark, and
/// some rows are late.
fn deeds(has_changes: bool, most: usize) -> impl Strategy<Value = Vec<Deed>> {
    let key = prop_oneof![1 => Just(None), 8 => (0i64..3).prop_map(Some)];
    let kind = if has_changes {
        prop_oneof![2 => Just(0u8), 1 => Just(1), 2 => Just(2), 1 => Just(3)].boxed()
    } else {
        Just(0u8).boxed()
    };
    let row = (key, 0i64..1000, -10i64..40, kind).prop_map(|(key, value, time, kind)| Row {
        key,
        value,
        time,
        kind,
    });
    let rows =
        (0usize..2, prop::collection::vec(row, 1..most)).prop_map(|(side, rows)| Deed::Rows(side, rows));
    let deed = prop_oneof![6 => rows, 3 => (0i64..30).prop_map(Deed::Watermark), 1 => Just(Deed::Moves)];
    (prop::collection::vec(deed, 1..30), prop_oneof![Just(0i64), Just(1_000_000_007), Just(-3_000_000_011)])
        .prop_map(|(deeds, origin)| {
            let mut at = 0;
            let deed = |deed| match deed {
                Deed::Rows(side, rows) => {
                    let row = |row: Row| Row {
                        time: origin + at + row.time,
                        kind: if side == 0 { 0 } else { row.kind },
                        ..row
                    };
                    Deed::Rows(side, rows.into_iter().map(row).collect())
                }
                Deed::Watermark(by) => {
                    at += by;
                    Deed::Watermark(origin + at)
                }
                Deed::Moves => Deed::Moves,
            };
            deeds.into_iter().map(deed).collect()
        })
}

proptest! {
    #[test]
    fn event_time_is_right(
        deeds in any::<bool>().prop_flat_map(|changes| prop_oneof![4 => deeds(changes, 8), 1 => deeds(changes, 120)]),
    ) {
        for sides in [JoinSides::Inner, JoinSides::Left] {
            let (given, mut run) = run(sides, TimeDomain::EventTime, &deeds, |_| true);
            let (expected, versions) = by_event_time(sides, &deeds);
            prop_assert_eq!(given, expected, "{:?}", sides);
            prop_assert_eq!(run.rows_kept(), versions);
        }
    }

    #[test]
    fn processing_time_is_right(deeds in any::<bool>().prop_flat_map(|changes| deeds(changes, 20))) {
        for sides in [JoinSides::Inner, JoinSides::Left] {
            let (given, mut run) = run(sides, TimeDomain::ProcessingTime, &deeds, |_| true);
            let (expected, kept) = by_processing_time(sides, &deeds);
            prop_assert_eq!(given, expected, "{:?}", sides);
            prop_assert_eq!(run.rows_kept(), kept);
        }
    }

    /// What comes in time leaves in time, and does not depend on how inputs were cut and when watermarks
    /// came: also as with one at the end, as in batch execution.
    #[test]
    fn rows_in_time_are_joined_alike(deeds in deeds(true, 12)) {
        let mut watermark = i64::MIN;
        let mut in_time = Vec::new();
        for deed in deeds {
            match deed {
                Deed::Rows(side, rows) => {
                    in_time.push(Deed::Rows(side, rows.into_iter().filter(|row| row.time > watermark).collect()));
                }
                Deed::Watermark(time) => {
                    watermark = watermark.max(time);
                    in_time.push(deed);
                }
                Deed::Moves => {}
            }
        }
        let (given, first) = run(JoinSides::Left, TimeDomain::EventTime, &in_time, |_| true);
        prop_assert!(first.is_in_time, "a row behind the watermark that went on");
        let at_the_end = |at: usize| matches!(in_time[at], Deed::Rows(..));
        let (once, _) = run(JoinSides::Left, TimeDomain::EventTime, &in_time, at_the_end);
        prop_assert_eq!(given, once);
    }
}

/// A batch that is not given, or a watermark that is not, is missed.
#[test]
fn what_is_not_given_is_missed() {
    let row = |value, time| Row { key: Some(1), value, time, kind: 0 };
    let deeds = [
        Deed::Rows(1, vec![row(1, 10)]),
        Deed::Rows(0, vec![row(2, 15)]),
        Deed::Watermark(20),
        // Late, so it comes into nothing: the left row has left.
        Deed::Rows(1, vec![row(3, 12)]),
    ];
    for sides in [JoinSides::Inner, JoinSides::Left] {
        let expected = by_event_time(sides, &deeds).0;
        assert_eq!(run(sides, TimeDomain::EventTime, &deeds, |_| true).0, expected);
        for missing in 0..3 {
            let (given, _) = run(sides, TimeDomain::EventTime, &deeds, |at| at != missing);
            assert_ne!(given, expected, "{sides:?} without {missing}");
        }
        let expected = by_processing_time(sides, &deeds).0;
        assert_ne!(run(sides, TimeDomain::ProcessingTime, &deeds, |at| at != 0).0, expected);
    }
}

/// A late left row waits for the next watermark; versions before the last one have gone.
#[test]
fn late_rows() {
    let row = |value, time| Row { key: Some(1), value, time, kind: 0 };
    let mut run = new_run(JoinSides::Left, TimeDomain::EventTime);
    run.step(&Step::Rows(1, batch(1, &[row(1, 10), row(2, 20)])));
    run.step(&Step::Watermark(25));
    run.step(&Step::Rows(0, batch(0, &[row(3, 15), row(4, 22)])));
    assert!(run.given.is_empty());
    run.step(&Step::Watermark(26));
    let right: Vec<&str> = run.given.iter().map(|(_, _, row)| &*row[3]).collect();
    assert_eq!(right, ["null", "2"]);
    assert_eq!(run.late, 0);
}

/// Two thousand versions and two thousand rows of one key, that interleave: short steps, and no more
/// than each is read about once.
#[test]
fn a_hot_key_goes_in_steps() {
    let rows = |side: i64| -> Vec<Row> {
        (0..2_000).map(|at| Row { key: Some(7), value: at, time: 2 * at + 1 - side, kind: 0 }).collect()
    };
    for every in [i64::MAX, 100] {
        let mut run = new_run(JoinSides::Inner, TimeDomain::EventTime);
        run.step(&Step::Rows(0, batch(0, &rows(0))));
        run.step(&Step::Rows(1, batch(1, &rows(1))));
        let calls = run.calls;
        let mut watermark = 0;
        while every < i64::MAX && watermark < 4_000 {
            run.step(&Step::Watermark(watermark));
            watermark += every;
        }
        run.end();
        assert_eq!(run.given.len(), 2_000);
        assert!(run.given.iter().all(|(_, _, row)| row[1] == row[3]));
        assert!(run.most <= 2 * 1024, "{} rows in a step", run.most);
        let calls = run.calls - calls;
        assert!(calls < 250, "{calls} steps");
    }
}

/// Rows so large that a page of them has only one.
#[test]
fn very_wide_rows() {
    let schema = |name: &str| {
        let wide = Field::new(name, DataType::Utf8, true);
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), wide]))
    };
    let inputs: [SchemaRef; 2] = [schema("v"), schema("w")];
    let output = inputs.iter().flat_map(|schema| schema.fields().iter().cloned()).collect::<Vec<_>>();
    let set_up = SetUp {
        inputs: &inputs,
        keys: &[vec![0], vec![0]],
        outputs: &[Arc::new(Schema::new(output))],
        changes: false,
        from_changes: &[false, false],
        batch: false,
    };
    let form = JoinForm::Temporal(TimeDomain::EventTime);
    let mut run = Run::new(&NodeKind::Join(Join { sides: JoinSides::Left, form }), &set_up);
    let wide = |side: usize, times: &[i64]| {
        let keys: ArrayRef = Arc::new(times.iter().map(|at| Some(at % 3)).collect::<Int64Array>());
        let texts = times.iter().map(|at| format!("{at}{}", " ".repeat(700_000)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let times = Some(times.to_vec().into());
        Batch::of(Arc::clone(&inputs[side]), keys.len(), vec![keys, texts]).unwrap().with_event_times(times)
    };
    run.step(&Step::Rows(1, wide(1, &(6..24).collect::<Vec<_>>())));
    run.step(&Step::Rows(0, wide(0, &(0..30).collect::<Vec<_>>())));
    run.step(&Step::Watermark(15));
    run.end();
    let mut met: Vec<(i64, Option<i64>)> = run
        .given
        .iter()
        .map(|(_, _, row)| (row[1].trim().parse().unwrap(), row[3].trim().parse().ok()))
        .collect();
    met.sort_unstable();
    let expected = |left: i64| (left, (6..24).rev().find(|right| *right <= left && (left - right) % 3 == 0));
    assert_eq!(met, (0..30).map(expected).collect::<Vec<_>>());
    assert_eq!(run.rows_kept(), 3);
}

/// Times at the ends of all time.
#[test]
fn extreme_times() {
    let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    let rows: Vec<Row> = times.map(|time| Row { key: Some(1), value: 5, time, kind: 0 }).to_vec();
    let deeds = [Deed::Rows(0, rows.clone()), Deed::Rows(1, rows[1..].to_vec()), Deed::Watermark(0)];
    let (given, _) = run(JoinSides::Left, TimeDomain::EventTime, &deeds, |_| true);
    assert_eq!(given, by_event_time(JoinSides::Left, &deeds).0);
}

/// Rows without an event time are told.
#[test]
fn rows_without_a_time() {
    let row = Row { key: Some(1), value: 1, time: 0, kind: 0 };
    let mut join = with_set_up(JoinSides::Inner, TimeDomain::EventTime, operator);
    let now = crate::Now { watermark: i64::MIN, processing_time: 0 };
    let refused = join.prefetch(0, &batch(0, &[row]).with_event_times(None), now).unwrap_err().to_string();
    assert!(refused.contains("no event time"), "{refused}");
}
