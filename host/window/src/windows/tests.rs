//! Windows of every kind against windows by brute force, over any order and cut of rows.

mod phases;
mod rows;
mod timing;
mod triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use chrono::DateTime;
use model::Batch;
use model::job_graph::{Aggregate, Assigner, Grid, NodeKind, TimeDomain, Trigger, Window};
use proptest::prelude::*;

use crate::test_support::{Run, SetUp, Step};
use crate::window_schema;

#[derive(Clone, Copy, Debug)]
struct Row {
    key: i64,
    time: i64,
    n: Option<i64>,
}

#[derive(Clone, Debug)]
enum Event {
    Rows(Vec<Row>),
    Watermark(i64),
}

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.key)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.n).collect::<Int64Array>()),
    ];
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    Batch::new(RecordBatch::try_new(input(), columns).unwrap()).with_event_times(Some(times.into()))
}

fn aggregate(function: &str, distinct: bool) -> Aggregate {
    let options =
        if distinct { BTreeMap::from([("distinct".into(), "true".into())]) } else { BTreeMap::new() };
    let columns = if function == "rows" { Vec::new() } else { vec![1] };
    let function = if function == "rows" { "count" } else { function };
    Aggregate { function: function.into(), columns, options }
}

/// What is computed: those that can be taken back, those that cannot, those that need all rows.
fn lists() -> [Vec<Aggregate>; 4] {
    let of = |names: &[&str]| names.iter().map(|name| aggregate(name, false)).collect::<Vec<_>>();
    let mut all = of(&["rows", "first", "last"]);
    all.extend([aggregate("count", true), aggregate("sum", true)]);
    [of(&["rows", "count", "sum", "avg"]), of(&["min", "max", "sum", "rows"]), all, tops()]
}

/// The first values in every order.
fn tops() -> Vec<Aggregate> {
    let top = |limit: &str, order: &str, distinct: &str| {
        let options = [("limit", limit), ("order", order), ("distinct", distinct)];
        let options = options.map(|(name, value)| (name.to_string(), value.to_string())).into();
        Aggregate { function: "top".into(), columns: vec![1], options }
    };
    vec![top("1", "descending", "false"), top("2", "ascending", "false"), top("3", "descending", "true")]
}

fn result(list: &[Aggregate], rows: &[Row]) -> Vec<String> {
    let some: Vec<i64> = rows.iter().filter_map(|row| row.n).collect();
    let distinct: BTreeSet<i64> = some.iter().copied().collect();
    let text = |value: Option<i64>| value.map_or("null".into(), |value| value.to_string());
    list.iter()
        .map(|aggregate| {
            if aggregate.function == "top" {
                let is = |option: &str, value: &str| aggregate.options[option] == value;
                let mut values = some.clone();
                values.sort_unstable();
                if is("order", "descending") {
                    values.reverse();
                }
                if is("distinct", "true") {
                    values.dedup();
                }
                values.truncate(aggregate.options["limit"].parse().unwrap());
                return format!("{values:?}");
            }
            let values: Vec<i64> =
                if aggregate.options.is_empty() { some.clone() } else { distinct.iter().copied().collect() };
            match (aggregate.function.as_str(), aggregate.columns.is_empty()) {
                ("count", true) => rows.len().to_string(),
                ("count", false) => values.len().to_string(),
                ("sum", _) => text((!values.is_empty()).then(|| values.iter().sum())),
                ("min", _) => text(values.iter().min().copied()),
                ("max", _) => text(values.iter().max().copied()),
                ("first", _) => text(values.first().copied()),
                ("last", _) => text(values.last().copied()),
                _ if values.is_empty() => "null".into(),
                _ => format!("{:?}", values.iter().sum::<i64>() as f64 / values.len() as f64),
            }
        })
        .collect()
}

fn instant(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).unwrap().naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string()
}

/// A window of a key, with its rows.
#[derive(Clone, Debug)]
struct Plain {
    start: i64,
    end: i64,
    rows: Vec<Row>,
}

/// The windows of a grid that an instant is in, found by looking at every one.
fn windows_of(assigner: &Assigner, time: i64) -> Vec<(i64, i64)> {
    let (Assigner::Tumbling(grid) | Assigner::Sliding(grid) | Assigner::Cumulating(grid)) = assigner else {
        return Vec::new();
    };
    let (size, step) = (super::millis(grid.size), super::millis(grid.step));
    let is_cumulating = matches!(assigner, Assigner::Cumulating(_));
    let every = if is_cumulating { size } else { step };
    let first = (time - grid.offset).div_euclid(every) - size / every - 1;
    let starts = (first..first + size / every + 4).map(|k| grid.offset + k * every);
    let ends = |start: i64| -> Vec<i64> {
        if is_cumulating { (1..=size / step).map(|k| start + k * step).collect() } else { vec![start + size] }
    };
    starts
        .flat_map(|start| ends(start).into_iter().map(move |end| (start, end)))
        .filter(|(start, end)| (*start..*end).contains(&time))
        .collect()
}

struct Expected {
    /// By key, start and end.
    results: BTreeMap<(i64, i64, i64), Vec<String>>,
    late: usize,
}

/// Row by row, as Flink's window operator does.
fn expected(assigner: &Assigner, list: &[Aggregate], lateness: i64, events: &[Event]) -> Expected {
    let mut open: BTreeMap<i64, Vec<Plain>> = BTreeMap::new();
    let (mut results, mut late, mut watermark) = (BTreeMap::new(), 0, i64::MIN);
    let events = events.iter().cloned().chain([Event::Watermark(i64::MAX)]);
    for event in events {
        match event {
            Event::Rows(rows) => {
                for row in rows {
                    let windows = open.entry(row.key).or_default();
                    let is_over = |end: i64| end - 1 + lateness <= watermark;
                    let mut taken = false;
                    if let Assigner::Session(gap) = assigner {
                        let (mut start, mut end) = (row.time, row.time + super::millis(*gap));
                        let mut rows = Vec::new();
                        let touches =
                            |w: &Plain| w.start <= row.time + super::millis(*gap) && w.end >= row.time;
                        for window in windows.iter().filter(|w| touches(w)) {
                            (start, end) = (start.min(window.start), end.max(window.end));
                            rows.extend(window.rows.iter().copied());
                        }
                        if !is_over(end) {
                            windows.retain(|w| !touches(w));
                            rows.push(row);
                            windows.push(Plain { start, end, rows });
                            taken = true;
                        }
                    } else {
                        for (start, end) in windows_of(assigner, row.time) {
                            if is_over(end) {
                                continue;
                            }
                            taken = true;
                            match windows.iter_mut().find(|w| (w.start, w.end) == (start, end)) {
                                Some(window) => window.rows.push(row),
                                None => windows.push(Plain { start, end, rows: vec![row] }),
                            }
                        }
                    }
                    late += usize::from(!taken);
                }
            }
            Event::Watermark(time) => {
                watermark = watermark.max(time);
                for (key, windows) in &mut open {
                    for window in windows.iter().filter(|w| w.end - 1 + lateness <= watermark) {
                        results.insert((*key, window.start, window.end), result(list, &window.rows));
                    }
                    windows.retain(|w| w.end - 1 + lateness > watermark);
                }
            }
        }
    }
    Expected { results, late }
}

fn run(window: Window, changes: bool, events: &[Event]) -> Run {
    let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[output],
        changes,
        from_changes: &[false],
        batch: false,
    };
    let mut run = Run::new(&NodeKind::Window(window), &set_up);
    let mut watermark = i64::MIN;
    for event in events {
        match event {
            Event::Rows(rows) => run.step(&Step::Rows(0, batch(rows))),
            Event::Watermark(time) => {
                watermark = watermark.max(*time);
                run.step(&Step::Watermark(watermark));
            }
        }
        // Without early results nothing comes before its time.
        assert!(run.times.iter().all(|time| time.unwrap() <= watermark), "too early");
    }
    run.end();
    run
}

fn grid(size: u64, step: u64, offset: i64) -> Grid {
    Grid { size: Duration::from_millis(size), step: Duration::from_millis(step), offset, zone: None }
}

fn assigners() -> impl Strategy<Value = Assigner> {
    let tumbling = (1u64..30).prop_flat_map(|size| {
        (0..size as i64).prop_map(move |offset| Assigner::Tumbling(grid(size, size, offset)))
    });
    let sliding = (1u64..40).prop_flat_map(|size| {
        (1..=size).prop_flat_map(move |step| {
            (1 - step as i64..step as i64).prop_map(move |offset| Assigner::Sliding(grid(size, step, offset)))
        })
    });
    let cumulating = (1u64..8, 1u64..8).prop_flat_map(|(step, count)| {
        (1 - step as i64..step as i64)
            .prop_map(move |offset| Assigner::Cumulating(grid(step * count, step, offset)))
    });
    let sessions = (1u64..15).prop_map(|gap| Assigner::Session(Duration::from_millis(gap)));
    prop_oneof![tumbling, sliding, cumulating, sessions]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let row =
        |clock: i64| {
            (0i64..3, -25i64..15, proptest::option::weighted(0.8, 0i64..6))
                .prop_map(move |(key, by, n)| Row { key, time: clock + by, n })
        };
    (-500i64..500).prop_flat_map(move |start| {
        let event = (0i64..12).prop_flat_map(move |_| {
            prop_oneof![
                3 => proptest::collection::vec(row(0), 1..8).prop_map(Event::Rows),
                2 => (-10i64..10).prop_map(Event::Watermark),
            ]
        });
        proptest::collection::vec(event, 1..25).prop_map(move |events| {
            // Time goes on.
            let at = |i: usize| start + 6 * i as i64;
            let moved = |(i, event): (usize, Event)| match event {
                Event::Rows(rows) => {
                    Event::Rows(rows.into_iter().map(|row| Row { time: row.time + at(i), ..row }).collect())
                }
                Event::Watermark(by) => Event::Watermark(at(i) - 5 + by),
            };
            events.into_iter().enumerate().map(moved).collect()
        })
    })
}

/// The rows of a run as results by key, start and end: the last one of each.
fn last_results(run: &Run) -> BTreeMap<(String, String, String), Vec<String>> {
    let of = |row: &Vec<String>| ((row[0].clone(), row[1].clone(), row[2].clone()), row[3..].to_vec());
    run.given.iter().filter(|(port, ..)| *port == 0).map(|(_, _, row)| of(row)).collect()
}

fn as_texts(expected: &Expected) -> BTreeMap<(String, String, String), Vec<String>> {
    let text = |((key, start, end), result): (&(i64, i64, i64), &Vec<String>)| {
        ((key.to_string(), instant(*start), instant(*end)), result.clone())
    };
    expected.results.iter().map(text).collect()
}

fn check(
    assigner: &Assigner,
    list: &[Aggregate],
    lateness: i64,
    changes: bool,
    early: Option<u64>,
    events: &[Event],
) -> Result<(), TestCaseError> {
    let window = Window {
        assigner: assigner.clone(),
        time: TimeDomain::EventTime,
        lateness: Duration::from_millis(lateness as u64),
        late_port: None,
        trigger: early.map_or(Trigger::AtEnd, |each| Trigger::Early(Duration::from_millis(each))),
        purging: false,
        aggregates: list.to_vec(),
    };
    let expected = expected(assigner, list, lateness, events);
    let run = run(window, changes, events);
    prop_assert_eq!(run.late, expected.late, "late rows");
    if changes {
        let table: Vec<_> = run.table().into_iter().collect();
        let wanted: BTreeMap<_, _> = as_texts(&expected);
        let wanted: Vec<(Vec<String>, usize)> = wanted
            .into_iter()
            .map(|((key, start, end), result)| ([vec![key, start, end], result].concat(), 1))
            .collect();
        let mut wanted = wanted;
        wanted.sort();
        prop_assert_eq!(table, wanted);
        return Ok(());
    }
    let (given, wanted) = (last_results(&run), as_texts(&expected));
    if lateness == 0 && early.is_none() {
        prop_assert_eq!(run.given.len(), wanted.len(), "one row a window");
        prop_assert_eq!(given, wanted);
    } else {
        for (window, result) in wanted {
            prop_assert_eq!(given.get(&window), Some(&result), "{:?}", window);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Of every kind, with and without lateness, as rows and as a changelog.
    #[test]
    fn windows_are_those_by_brute_force(
        assigner in assigners(),
        which in 0usize..4,
        lateness in prop_oneof![Just(0i64), 1i64..30],
        changes in any::<bool>(),
        events in events(),
    ) {
        let is_session = matches!(assigner, Assigner::Session(_));
        let list = if is_session && which == 2 {
            ["first", "last"].map(|function| aggregate(function, false)).to_vec()
        } else {
            lists()[which].clone()
        };
        // Which of two sessions' values came first is not kept.
        prop_assume!(!(is_session && which == 2 && has_merges(&assigner, &events)));
        check(&assigner, &list, lateness, changes, None, &events)?;
    }
}

/// Whether sessions that both have rows are merged.
fn has_merges(assigner: &Assigner, events: &[Event]) -> bool {
    let Assigner::Session(gap) = assigner else { return false };
    let gap = super::millis(*gap);
    let mut windows: Vec<(i64, i64, i64)> = Vec::new();
    for row in events.iter().flat_map(|e| if let Event::Rows(rows) = e { rows.clone() } else { Vec::new() }) {
        let touching: Vec<_> = windows
            .iter()
            .copied()
            .filter(|(key, start, end)| *key == row.key && *start <= row.time + gap && *end >= row.time)
            .collect();
        if touching.len() > 1 {
            return true;
        }
        windows.retain(|w| !touching.contains(w));
        let start = touching.first().map_or(row.time, |w| w.1.min(row.time));
        let end = touching.first().map_or(row.time + gap, |w| w.2.max(row.time + gap));
        windows.push((row.key, start, end));
    }
    false
}

/// A window of ten milliseconds that counts.
fn counting(assigner: Assigner) -> Window {
    Window {
        assigner,
        time: TimeDomain::EventTime,
        lateness: Duration::ZERO,
        late_port: None,
        trigger: Trigger::AtEnd,
        purging: false,
        aggregates: vec![aggregate("rows", false)],
    }
}

fn row(key: i64, time: i64) -> Row {
    Row { key, time, n: Some(1) }
}

#[test]
fn late_rows_leave_as_they_came() {
    let window = Window { late_port: Some(1), ..counting(Assigner::Tumbling(grid(10, 10, 0))) };
    let outputs = [window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap(), input()];
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &outputs,
        changes: false,
        from_changes: &[false],
        batch: false,
    };
    let kinds = [
        window.assigner.clone(),
        Assigner::Sliding(grid(10, 5, 0)),
        Assigner::Session(Duration::from_millis(5)),
    ];
    for assigner in kinds {
        let mut run = Run::new(&NodeKind::Window(Window { assigner, ..window.clone() }), &set_up);
        run.step(&Step::Rows(0, batch(&[row(1, 3)])));
        run.step(&Step::Watermark(30));
        run.step(&Step::Rows(0, batch(&[row(2, 4), row(1, 35)])));
        let late: Vec<_> =
            run.given.iter().filter(|(port, ..)| *port == 1).map(|(.., row)| row.clone()).collect();
        assert_eq!(late, [["2", "1"]]);
        assert_eq!(run.late, 0);
    }
}

#[test]
fn early_results_come_where_there_is_something_new() {
    let window = Window {
        trigger: Trigger::Early(Duration::from_millis(2)),
        ..counting(Assigner::Tumbling(grid(10, 10, 0)))
    };
    let counts_after = |changes: bool| -> Vec<Vec<(u8, String)>> {
        let output = window_schema(&input(), &[0], &window.assigner, &window.aggregates).unwrap();
        let set_up = SetUp {
            inputs: &[input()],
            keys: &[vec![0]],
            outputs: &[output],
            changes,
            from_changes: &[false],
            batch: false,
        };
        let mut run = Run::new(&NodeKind::Window(window.clone()), &set_up);
        let mut all = Vec::new();
        let steps = [
            Step::Rows(0, batch(&[row(1, 0)])),
            Step::Watermark(1),
            Step::Watermark(5),
            Step::Rows(0, batch(&[row(1, 6), row(1, 7)])),
            Step::Watermark(8),
            Step::Rows(0, batch(&[row(1, 9)])),
            Step::Watermark(9),
        ];
        for step in steps {
            let before = run.given.len();
            run.step(&step);
            all.push(run.given[before..].iter().map(|(_, kind, row)| (*kind, row[3].clone())).collect());
        }
        all
    };
    let some = |kind: u8, count: &str| (kind, count.to_string());
    let none = Vec::new;
    assert_eq!(
        counts_after(false),
        [none(), vec![some(0, "1")], none(), none(), vec![some(0, "3")], none(), vec![some(0, "4")]]
    );
    let update = |from: &str, to: &str| vec![some(1, from), some(2, to)];
    assert_eq!(
        counts_after(true),
        [none(), vec![some(0, "1")], none(), none(), update("1", "3"), none(), update("3", "4")]
    );
}

#[test]
fn windows_of_processing_time_end_by_the_clock() {
    let kinds = [
        (Assigner::Tumbling(grid(10, 10, 0)), vec!["2", "1"]),
        (Assigner::Sliding(grid(10, 5, 0)), vec!["2", "2", "1", "1"]),
        (Assigner::Cumulating(grid(10, 5, 0)), vec!["2", "2", "1", "1"]),
        (Assigner::Session(Duration::from_millis(8)), vec!["3"]),
    ];
    for (assigner, counts) in kinds {
        let window = Window { time: TimeDomain::ProcessingTime, ..counting(assigner) };
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
        run.step(&Step::Clock(4));
        // Event times do not matter.
        run.step(&Step::Rows(0, batch(&[row(1, 500), row(1, -500)])));
        run.step(&Step::Watermark(1_000));
        run.step(&Step::Clock(11));
        run.step(&Step::Rows(0, batch(&[row(1, 0)])));
        run.end();
        let given: Vec<&str> = run.given.iter().map(|(.., row)| row[3].as_str()).collect();
        assert_eq!(given, counts);
    }
}

#[test]
fn a_window_that_ends_early_is_noticed() {
    let events = [Event::Rows(vec![row(1, 3)]), Event::Watermark(8)];
    let faulty = Assigner::Tumbling(grid(5, 5, 0));
    let list = [aggregate("rows", false)];
    let expected = expected(&Assigner::Tumbling(grid(10, 10, 0)), &list, 0, &events);
    let run = run(counting(faulty), false, &events);
    assert_ne!(last_results(&run), as_texts(&expected));
}

#[test]
fn aggregates_that_cannot_be_are_refused() {
    let top = |options: &[(&str, &str)], function: &str| Aggregate {
        function: function.into(),
        columns: vec![1],
        options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    let of = |aggregate: &Aggregate| {
        let window = Window { aggregates: vec![aggregate.clone()], ..counting(Assigner::Everything) };
        super::check_aggregates(&window, &input()).map_err(|error| error.to_string())
    };
    assert_eq!(of(&top(&[("limit", "10000"), ("order", "ascending")], "top")), Ok(()));
    for limit in ["0", "10001", "-1", "many"] {
        let expected = format!("`top` keeps 1 to 10000 values, and its option `limit` says {limit}");
        assert_eq!(of(&top(&[("limit", limit)], "top")), Err(expected));
    }
    let none = of(&top(&[], "top")).unwrap_err();
    assert_eq!(none, "`top` keeps 1 to 10000 values, and its option `limit` says nothing");
    assert!(of(&top(&[("limit", "1"), ("order", "up")], "top")).is_err());
    assert!(of(&top(&[("limit", "1")], "max")).is_err());
    // Not as a running aggregate, and nothing distinct over windows of so many rows.
    let list = vec![top(&[("limit", "1")], "top")];
    let running = crate::native_schema(&NodeKind::Aggregate(list), &[input()], &[vec![0]], true);
    assert_eq!(running.unwrap_err().to_string(), "`top` is there in windows only");
    let count = Assigner::Count { size: 2, step: 1 };
    let window = Window { aggregates: vec![aggregate("sum", true)], ..counting(count) };
    assert!(super::check_aggregates(&window, &input()).is_err());
}
