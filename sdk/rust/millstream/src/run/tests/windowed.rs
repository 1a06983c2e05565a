//! Functions in windows as the host calls them.

use std::collections::BTreeMap;
use std::rc::Rc;

use millstream_sys::bindings::millstream::job::graph::TimeDomain as Clock;
use millstream_sys::bindings::millstream::job::state::Entries;
use millstream_sys::host::stub::{StateSource, with_state};

use super::*;
use crate::record::{Cursor, is_set};
use crate::run::merge;

type Pair = (String, i64);

/// Rows of sequences, by state and group, of which the host gives a few at a time.
struct Kept(BTreeMap<(u32, u32), Vec<Pair>>);

/// Entries a page.
const PAGE: usize = 2;

impl StateSource for Kept {
    fn get(&self, _: u32, _: u32, _: &[u32], _: &[Column]) -> Vec<Column> {
        panic!("a sequence is scanned")
    }

    fn scan(&self, state: u32, groups: &[u32], after: &[Column], limit: u32) -> Entries {
        assert_eq!(limit, 1_000);
        let mut entries =
            Entries { offsets: vec![0], keys: Vec::new(), values: Vec::new(), more: Vec::new() };
        let (mut places, mut values) = (Vec::new(), <Pair as Record>::Builder::default());
        let mut more = crate::record::Bits::default();
        for group in groups {
            let empty = Vec::new();
            let rows = self.0.get(&(state, *group)).unwrap_or(&empty);
            // Places rise, and have gaps.
            let from = match after {
                [Column { values: Values::Int64(after), .. }] => after[0] as usize / 3 + 1,
                _ => 0,
            };
            let page = rows.iter().enumerate().skip(from).take(PAGE);
            for (place, row) in page {
                places.push(place as i64 * 3);
                row.append_to(&mut values);
            }
            more.push(from + PAGE < rows.len());
            entries.offsets.push(places.len() as u32);
        }
        entries.keys = vec![Column { values: Values::Int64(places), validity: None }];
        crate::record::Builder::finish(&mut values, &mut entries.values);
        entries.more = more.take();
        entries
    }

    fn version(&self, _: u32) -> u64 {
        0
    }
}

/// Groups `a` in [0, 10), `b` in [0, 10), `a` in [10, 20), with these values of the first state.
fn groups<V: Record>(state: [Option<V::Ref<'_>>; 3]) -> KeyedBatch
where
    for<'a> Option<V::Ref<'a>>: Row<Option<V>>,
{
    let keys = [("a", 0, 10), ("b", 0, 10), ("a", 10, 20)];
    let keys = keys.map(|(key, start, end)| (key, Timestamp(start), Timestamp(end)));
    KeyedBatch {
        group_count: 3,
        keys: batch_of::<(String, Timestamp, Timestamp)>(keys).columns,
        state: batch_of::<Option<V>>(state).columns,
        inputs: Vec::new(),
    }
}

/// Rows with their groups; their event times are their places.
fn rows(rows: &[(u32, i64)]) -> Vec<KeyedRows> {
    let names = ["a", "b", "a"];
    let pairs = rows.iter().map(|(group, number)| (names[*group as usize], *number));
    let rows_of = Batch { event_times: Some((0..rows.len() as i64).collect()), ..batch_of::<Pair>(pairs) };
    let groups = rows.iter().map(|(group, _)| *group).collect();
    vec![KeyedRows { input: 0, groups, rows: rows_of, entries: Vec::new() }]
}

/// A number of rows and their sum, and how often it was created; a negative number fails when it is added.
struct Sums;

impl AggregateFunction for Sums {
    type In = Pair;
    type Key = String;
    type Accumulator = (i64, i64);
    type Out = (String, i64, i64, i64);
    const MERGES: bool = true;

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add(&self, (_, number): (&str, i64), (count, sum): &mut (i64, i64)) -> Result<()> {
        (*count, *sum) = (*count + 1, *sum + number);
        ensure!(number >= 0, "{number} is negative after {count}");
        Ok(())
    }

    fn result(&self, _: &str, _: &(i64, i64)) -> Self::Out {
        panic!("in windows it is asked for the window's result")
    }

    fn window_result(&self, key: &str, window: &Window, (count, sum): &(i64, i64)) -> Self::Out {
        (key.into(), window.start, *count, *sum)
    }

    fn merge(&self, (count, sum): &mut (i64, i64), (more, other): (i64, i64)) {
        (*count, *sum) = (*count + more, *sum + other);
    }
}

/// The rows of a window and their number.
struct All;

impl WindowFunction for All {
    type In = Pair;
    type Key = String;
    type Out = (String, i64, i64, Vec<i64>);

    fn apply(
        &self,
        key: &str,
        window: &Window,
        rows: &WindowRows<'_, Pair>,
        out: &mut Emit<Self::Out>,
    ) -> Result<()> {
        let count = rows.iter().count() as i64;
        let numbers: Vec<i64> = rows.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers.len() as i64, count);
        assert_eq!(rows.to_vec().iter().map(|row| row.1).collect::<Vec<_>>(), numbers);
        out.emit((key, window.end, count, &numbers));
        ensure!(!numbers.contains(&13), "thirteen");
        Ok(())
    }
}

/// The numbers of both sides.
struct Both;

impl CoGroupFunction for Both {
    type First = Pair;
    type Second = Pair;
    type Key = String;
    type Out = (String, Vec<i64>, Vec<i64>);

    fn co_group(
        &self,
        key: &str,
        _: &Window,
        first: &WindowRows<'_, Pair>,
        second: &WindowRows<'_, Pair>,
        out: &mut Emit<Self::Out>,
    ) -> Result<()> {
        let [first, second] =
            [first, second].map(|rows| rows.iter().map(|(_, number)| number).collect::<Vec<_>>());
        out.emit((key, &first, &second));
        Ok(())
    }
}

/// Fires at a number above a hundred, purges at 0, fires and purges at 1; counts rows, and sets a timer for the
/// count; fails to fire at its end.
struct Numbers;

impl Trigger<Pair> for Numbers {
    type State = i64;
    const MERGES: bool = true;

    fn on_row(
        &self,
        (_, number): (&str, i64),
        window: &Window,
        context: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        *context.state_or_default() += 1;
        let count = *context.state().unwrap();
        context.set_timer(window.start + count);
        match number {
            0 => TriggerResult::Purge,
            1 => TriggerResult::FireAndPurge,
            100.. => TriggerResult::Fire,
            _ => TriggerResult::Continue,
        }
    }

    fn on_event_time(
        &self,
        time: i64,
        window: &Window,
        context: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        if time == window.max_timestamp() {
            return TriggerResult::Continue;
        }
        assert_eq!(context.timestamp(), Some(time));
        context.set_state(-time);
        TriggerResult::Fire
    }

    fn merge(&self, into: &mut i64, other: i64) {
        *into = 1_000 * *into + other;
    }
}

fn stream(job: &Job) -> KeyedStream<'_, Pair, (String,)> {
    job.json::<Pair>(Connector::stdin()).watermarks(Watermarks::monotonous()).key_by(F0)
}

const TEN: std::time::Duration = std::time::Duration::from_millis(10);

type Build = fn(&Job) -> std::result::Result<(), millstream::Refusal>;

/// Calls the function that the third node is.
fn called<R: Send + 'static>(build: Build, call: impl FnOnce() -> R + Send + 'static) -> R {
    opened(build, &[2], &[(2, 0)], call)
}

fn aggregated(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    stream(job).window(Tumbling::of(TEN)).aggregate_with(Sums).print();
    Ok(())
}

fn collected(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    stream(job).window(Tumbling::of(TEN)).apply(All).print();
    Ok(())
}

fn each_two(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    stream(job).window(Tumbling::of(TEN)).each_rows(2).purging().aggregate_with(Sums).print();
    Ok(())
}

fn with_trigger(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    stream(job).window(Tumbling::of(TEN)).trigger(Numbers).aggregate_with(Sums).print();
    Ok(())
}

fn rows_with_trigger(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    stream(job).window(Tumbling::of(TEN)).trigger(Numbers).apply(All).print();
    Ok(())
}

fn early(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    let each = std::time::Duration::from_millis(4);
    stream(job).window(Tumbling::of(TEN)).early(each).aggregate_with(Sums).print();
    Ok(())
}

fn grouped(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    let stream = job.json::<Pair>(Connector::stdin()).watermarks(Watermarks::monotonous());
    stream.key_by(F0).co_group(stream.key_by(F0)).window(Tumbling::of(TEN)).apply(Both).print();
    Ok(())
}

fn made<T: Record>(outcome: &KeyedOutcome) -> Vec<T> {
    outcome.outputs.first().map_or_else(Vec::new, |output| rows_of::<T>(&output.rows))
}

fn event_times(outcome: &KeyedOutcome) -> &[i64] {
    outcome.outputs[0].rows.event_times.as_deref().unwrap()
}

/// The values of the first state, where they are written.
fn values<V: Record>(outcome: &KeyedOutcome) -> Vec<Option<Option<V>>> {
    let [update] = &outcome.updates[..] else {
        return vec![None; 3].into_iter().map(|_: Option<()>| None).collect();
    };
    assert_eq!(update.state, 0);
    let reader = Option::<V>::read(&mut Cursor::new(&update.columns, false));
    let is_written = |group| update.written.as_ref().is_none_or(|bits| is_set(bits, group));
    let value = |group: usize| Option::<V>::get(&reader, group).map(V::from_row);
    (0..3).map(|group| is_written(group).then(|| value(group))).collect()
}

fn told(outcome: &KeyedOutcome) -> Vec<(u32, &str)> {
    outcome.failures.iter().map(|failure| (failure.row, failure.message.as_str())).collect()
}

#[test]
fn an_aggregate_keeps_an_accumulator_a_window() {
    let outcome = called(aggregated, || {
        let call = groups::<(i64, i64)>([None, Some((3, 30)), Some((4, 40))]);
        process_keyed(NOW, KeyedBatch { inputs: rows(&[(0, 5), (1, 2), (0, 6)]), ..call })
    });
    assert!(outcome.outputs.is_empty() && outcome.failures.is_empty() && outcome.timers.groups.is_empty());
    assert_eq!(values::<(i64, i64)>(&outcome), [Some(Some((2, 11))), Some(Some((4, 32))), None]);
}

#[test]
fn a_row_that_fails_is_not_in_the_accumulator() {
    let outcome = called(aggregated, || {
        let call = groups::<(i64, i64)>([None, Some((3, 30)), None]);
        let numbers = [(0, -1), (0, 5), (1, 1), (0, -2), (1, -3), (0, 6), (2, -4)];
        process_keyed(NOW, KeyedBatch { inputs: rows(&numbers), ..call })
    });
    let expected = [
        (0, "-1 is negative after 1"),
        (3, "-2 is negative after 2"),
        (4, "-3 is negative after 5"),
        (6, "-4 is negative after 1"),
    ];
    assert_eq!(told(&outcome), expected);
    assert_eq!(values::<(i64, i64)>(&outcome), [Some(Some((2, 11))), Some(Some((4, 31))), None]);
}

#[test]
fn the_end_of_a_window_gives_its_result() {
    let outcome = called(aggregated, || {
        let call = groups::<(i64, i64)>([Some((1, 5)), None, Some((2, 7))]);
        on_timers(NOW, Clock::EventTime, vec![9, 9, 19], call)
    });
    assert_eq!(made::<(String, i64, i64, i64)>(&outcome), [("a".into(), 0, 1, 5), ("a".into(), 10, 2, 7)]);
    assert_eq!(event_times(&outcome), [9, 19]);
    // It stays for rows that come late: the host lets it go.
    assert!(outcome.updates.is_empty());
}

#[test]
fn accumulators_of_windows_that_meet_are_merged() {
    let merged = called(aggregated, || {
        let of = |values: [Option<(i64, i64)>; 4]| batch_of::<Option<(i64, i64)>>(values).columns;
        let left = of([Some((1, 2)), None, Some((3, 4)), None]);
        let right = of([Some((10, 20)), Some((5, 6)), None, None]);
        merge(4, left, right)
    });
    let reader = Option::<(i64, i64)>::read(&mut Cursor::new(&merged, false));
    let merged: Vec<_> = (0..4).map(|row| Option::<(i64, i64)>::get(&reader, row)).collect();
    assert_eq!(merged, [Some((11, 22)), Some((5, 6)), Some((3, 4)), None]);
}

fn kept(rows: &[(u32, u32, &[i64])]) -> Rc<Kept> {
    let row = |number: &i64| ("x".to_string(), *number);
    let of =
        |(state, group, numbers): &(u32, u32, &[i64])| ((*state, *group), numbers.iter().map(row).collect());
    Rc::new(Kept(rows.iter().map(of).collect()))
}

#[test]
fn a_window_function_reads_rows_page_by_page() {
    let outcome = called(collected, || {
        let call = KeyedBatch { state: Vec::new(), ..groups::<bool>([None; 3]) };
        let kept = kept(&[(0, 0, &[1, 2, 3, 4, 5]), (0, 1, &[13]), (0, 2, &[6, 7])]);
        with_state(kept, || on_timers(NOW, Clock::EventTime, vec![9, 9, 19], call))
    });
    let expected = [("a".to_string(), 10, 5, vec![1, 2, 3, 4, 5]), ("a".to_string(), 20, 2, vec![6, 7])];
    assert_eq!(made::<(String, i64, i64, Vec<i64>)>(&outcome), expected);
    assert_eq!(event_times(&outcome), [9, 19]);
    assert_eq!(told(&outcome), [(1, "thirteen")]);
}

#[test]
fn a_co_group_has_the_rows_of_both_sides() {
    let outcome = called(grouped, || {
        let call = KeyedBatch { state: Vec::new(), ..groups::<bool>([None; 3]) };
        let kept = kept(&[(0, 0, &[1, 2, 3]), (1, 0, &[4]), (1, 1, &[5, 6, 7, 8])]);
        with_state(kept, || on_timers(NOW, Clock::EventTime, vec![9, 9, 19], call))
    });
    let expected = [
        ("a".to_string(), vec![1, 2, 3], vec![4]),
        ("b".to_string(), vec![], vec![5, 6, 7, 8]),
        ("a".to_string(), vec![], vec![]),
    ];
    assert_eq!(made::<(String, Vec<i64>, Vec<i64>)>(&outcome), expected);
}

type Counted = (Option<(i64, i64)>, Option<i64>);

#[test]
fn each_so_many_rows_a_window_fires_and_forgets() {
    let outcome = called(each_two, || {
        let call = groups::<Counted>([None, Some((Some((1, 30)), Some(1))), None]);
        let numbers = [(0, 5), (1, 2), (0, 6), (0, 7), (2, -1), (2, 8)];
        process_keyed(NOW, KeyedBatch { inputs: rows(&numbers), ..call })
    });
    assert_eq!(made::<(String, i64, i64, i64)>(&outcome), [("b".into(), 0, 2, 32), ("a".into(), 0, 2, 11)]);
    // A window's row has the time of its last instant.
    assert_eq!(event_times(&outcome), [9, 9]);
    assert_eq!(told(&outcome), [(4, "-1 is negative after 1")]);
    let expected: [Option<Option<Counted>>; 3] =
        [Some(Some((Some((1, 7)), Some(1)))), Some(None), Some(Some((Some((1, 8)), Some(1))))];
    assert_eq!(values::<Counted>(&outcome), expected);
}

#[test]
fn the_end_is_no_trigger_where_rows_are_counted() {
    let outcome = called(each_two, || {
        let call = groups::<Counted>([None, Some((Some((1, 30)), Some(1))), None]);
        on_timers(NOW, Clock::EventTime, vec![9, 9, 19], call)
    });
    assert!(outcome.outputs.is_empty() && outcome.updates.is_empty());
}

#[test]
fn early_results_come_where_a_window_has_changed() {
    let outcome = called(early, || {
        let now = Moment { watermark: 3, processing_time: 0 };
        let call = groups::<Counted>([None, Some((Some((1, 30)), Some(7))), None]);
        process_keyed(now, KeyedBatch { inputs: rows(&[(0, 5), (1, 2), (0, 6), (2, 3)]), ..call })
    });
    let timers: Vec<_> = outcome.timers.groups.iter().zip(&outcome.timers.times).collect();
    assert_eq!(timers, [(&0, &7), (&2, &13)]);
    let outcome = called(early, || {
        let state =
            [Some((Some((1, 5)), Some(7))), Some((Some((1, 6)), None)), Some((Some((1, 7)), Some(13)))];
        on_timers(NOW, Clock::EventTime, vec![7, 7, 19], groups::<Counted>(state))
    });
    // The second has not changed since; the third is at its end.
    assert_eq!(made::<(String, i64, i64, i64)>(&outcome), [("a".into(), 0, 1, 5), ("a".into(), 10, 1, 7)]);
    assert_eq!(values::<Counted>(&outcome), [Some(Some((Some((1, 5)), None))), None, None]);
}

#[test]
fn a_trigger_says_when_a_window_is_emitted() {
    let outcome = called(with_trigger, || {
        let call = groups::<Counted>([None, Some((Some((1, 30)), Some(4))), None]);
        let numbers = [(0, 5), (1, 0), (0, 100), (0, 1), (1, 2), (0, 7)];
        process_keyed(NOW, KeyedBatch { inputs: rows(&numbers), ..call })
    });
    assert_eq!(made::<(String, i64, i64, i64)>(&outcome), [("a".into(), 0, 2, 105), ("a".into(), 0, 3, 106)]);
    let expected = [Some(Some((Some((1, 7)), Some(4)))), Some(Some((Some((1, 2)), Some(6)))), None];
    assert_eq!(values::<Counted>(&outcome), expected);
    assert_eq!(outcome.timers.groups, [0, 1, 0, 0, 1, 0]);
    assert_eq!(outcome.timers.times, [1, 5, 2, 3, 6, 4]);
    assert_eq!(outcome.timers.changes, [0; 6]);
    let outcome = called(with_trigger, || {
        let state = [Some((Some((1, 5)), Some(7))), None, Some((Some((1, 7)), None))];
        on_timers(NOW, Clock::EventTime, vec![7, 7, 19], groups::<Counted>(state))
    });
    assert_eq!(made::<(String, i64, i64, i64)>(&outcome), [("a".into(), 0, 1, 5)]);
    let expected = [Some(Some((Some((1, 5)), Some(-7)))), Some(Some((None, Some(-7)))), None];
    assert_eq!(values::<Counted>(&outcome), expected);
}

#[test]
fn a_triggers_state_is_merged_too() {
    let merged = called(with_trigger, || {
        let of = |values: [Option<Counted>; 3]| batch_of::<Option<Counted>>(values).columns;
        let left = of([Some((Some((1, 2)), Some(3))), Some((None, Some(4))), None]);
        let right = of([Some((Some((10, 20)), Some(5))), Some((Some((6, 7)), None)), None]);
        merge(3, left, right)
    });
    let reader = Option::<Counted>::read(&mut Cursor::new(&merged, false));
    let merged: Vec<_> = (0..3).map(|row| Option::<Counted>::get(&reader, row)).collect();
    assert_eq!(merged, [Some((Some((11, 22)), Some(3_005))), Some((Some((6, 7)), Some(4))), None]);
}

type Listed = (Option<bool>, Option<i64>);

#[test]
fn with_a_trigger_a_window_function_keeps_its_rows_itself() {
    let outcome = called(rows_with_trigger, || {
        let call = groups::<Listed>([None, None, Some((None, Some(4)))]);
        let numbers = [(0, 100), (2, 8), (0, 13), (0, 1), (0, 200), (1, 1), (2, 0), (2, 300)];
        let kept = kept(&[(1, 0, &[2, 3, 4]), (1, 2, &[5])]);
        with_state(kept, || process_keyed(NOW, KeyedBatch { inputs: rows(&numbers), ..call }))
    });
    // Row 2 lets row 3 fail; and what is left of the first group comes without it.
    let expected = [
        ("a".to_string(), 10, 4, vec![2, 3, 4, 100]),
        ("b".to_string(), 10, 1, vec![1]),
        ("a".to_string(), 20, 1, vec![300]),
    ];
    assert_eq!(told(&outcome), [(3, "thirteen"), (4, "thirteen")]);
    assert_eq!(made::<(String, i64, i64, Vec<i64>)>(&outcome), expected);
    assert_eq!(event_times(&outcome), [9, 9, 19]);
    let [changes] = &outcome.entries[..] else { panic!("changes of one state") };
    assert_eq!((changes.state, changes.keys.len()), (1, 0));
    assert_eq!(changes.changes, [0, 0, 0, 0, 2, 0, 2, 0]);
    assert_eq!(changes.groups, [0, 2, 0, 1, 1, 2, 2, 2]);
    let values_of = <Pair as Record>::read(&mut Cursor::new(&changes.values, false));
    let numbers: Vec<i64> = (0..8).map(|row| <Pair as Record>::get(&values_of, row).1).collect();
    assert_eq!(numbers, [100, 8, 13, 1, 0, 0, 0, 300]);
    let expected: [Option<Option<Listed>>; 3] =
        [Some(Some((None, Some(2)))), Some(Some((None, Some(1)))), Some(Some((None, Some(7))))];
    assert_eq!(values::<Listed>(&outcome), expected);
}

#[test]
fn rows_of_one_column_are_kept_as_structures() {
    /// The sum of numbers of one key.
    struct Sum;
    impl WindowFunction for Sum {
        type In = i64;
        type Key = i64;
        type Out = i64;

        fn apply(&self, _: i64, _: &Window, rows: &WindowRows<'_, i64>, out: &mut Emit<i64>) -> Result<()> {
            out.emit(rows.iter().sum::<i64>());
            Ok(())
        }
    }
    /// Fires at 3.
    struct AtThree;
    impl Trigger<i64> for AtThree {
        type State = i64;

        fn on_row(&self, row: i64, _: &Window, _: &mut TriggerContext<'_, i64>) -> TriggerResult {
            if row == 3 { TriggerResult::Fire } else { TriggerResult::Continue }
        }
    }
    fn build(job: &Job) -> std::result::Result<(), millstream::Refusal> {
        let numbers = job.sequence(None, None).watermarks(Watermarks::monotonous());
        numbers
            .key_by(millstream::Field::<i64, i64>::new(0))
            .window(Global)
            .trigger(AtThree)
            .apply(Sum)
            .print();
        Ok(())
    }
    struct Numbers;
    impl StateSource for Numbers {
        fn get(&self, _: u32, _: u32, _: &[u32], _: &[Column]) -> Vec<Column> {
            panic!("a sequence is scanned")
        }

        fn scan(&self, _: u32, _: &[u32], after: &[Column], _: u32) -> Entries {
            assert!(after.is_empty());
            let column = |values| Column { values, validity: None };
            Entries {
                offsets: vec![0, 2],
                keys: vec![column(Values::Int64(vec![0, 1]))],
                values: vec![column(Values::Nothing), column(Values::Int64(vec![10, 20]))],
                more: vec![0],
            }
        }

        fn version(&self, _: u32) -> u64 {
            0
        }
    }
    let outcome = called(build, || {
        let ends = [(7, Timestamp(i64::MIN), Timestamp(i64::MAX))];
        let call = KeyedBatch {
            group_count: 1,
            keys: batch_of::<(i64, Timestamp, Timestamp)>(ends).columns,
            state: batch_of::<Option<Listed>>([None::<Listed>]).columns,
            inputs: vec![KeyedRows {
                input: 0,
                groups: vec![0, 0],
                rows: Batch { event_times: Some(vec![4, 5]), ..batch_of::<i64>([1, 3]) },
                entries: Vec::new(),
            }],
        };
        with_state(Rc::new(Numbers), || process_keyed(NOW, call))
    });
    assert_eq!(made::<i64>(&outcome), [34]);
    // A window without an end has no last instant.
    assert_eq!(event_times(&outcome), [5]);
    let [changes] = &outcome.entries[..] else { panic!("changes of one state") };
    let [Column { values: Values::Nothing, .. }, Column { values: Values::Int64(numbers), .. }] =
        &changes.values[..]
    else {
        panic!("a structure of a number")
    };
    assert_eq!(numbers, &[1, 3]);
}
