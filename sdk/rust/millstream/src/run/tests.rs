//! Chains as the host opens and calls them.

use millstream_sys::bindings::exports::millstream::job::functions::{NodePort, Task};
use millstream_sys::bindings::millstream::job::calls::{
    KeyedBatch, KeyedOutcome, KeyedRows, Moment, Outcome,
};
use millstream_sys::bindings::millstream::job::graph::{
    self, FailurePolicy, JobGraph, NodeKind, Partition, WatermarkStrategy,
};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values};
use millstream_sys::host::stub;

use crate as millstream;
use crate::job::{Definition, plan};
use crate::prelude::*;
use crate::record::reader_of;
use crate::testing::batch_of;

use super::{on_timers, open, process, process_keyed};

mod windowed;

/// Opens nodes of a job in a thread of its own, as an instance is, and does something with it.
#[expect(clippy::disallowed_methods, reason = "the SDK knows nothing of the host's platform")]
fn opened<R: Send + 'static>(
    build: fn(&Job) -> std::result::Result<(), millstream::Refusal>,
    chain: &'static [u32],
    outputs: &'static [(u32, u32)],
    call: impl FnOnce() -> R + Send + 'static,
) -> R {
    let thread = std::thread::Builder::new().name("instance".into()).spawn(move || {
        let definition = Definition { name: "job", description: "", build };
        let outputs: Vec<NodePort> =
            outputs.iter().map(|(node, port)| NodePort { node: *node, port: *port }).collect();
        open(&[definition], &task(), chain, &outputs).unwrap();
        call()
    });
    match thread.unwrap().join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn task() -> Task {
    Task { job: "job".into(), args: vec![], subtask: 0, parallelism: 1, attempt: 0 }
}

const NOW: Moment = Moment { watermark: i64::MIN, processing_time: 0 };

fn rows_of<T: Record>(batch: &Batch) -> Vec<T> {
    let reader = reader_of::<T>(batch);
    (0..batch.length as usize).map(|row| T::from_row(T::get(&reader, row))).collect()
}

fn failures(outcome: &Outcome) -> Vec<(u32, u32, &str)> {
    outcome.failures.iter().map(|failure| (failure.node, failure.row, failure.message.as_str())).collect()
}

/// 1: numbers, failing 13; 2: doubles, failing 7; 3: leaves the even ones.
#[job]
fn numbers(job: &Job) -> Result<()> {
    let seen = Counter::new("seen");
    job.lines(Connector::stdin())
        .try_flat_map(move |line, out| {
            seen.increment();
            for number in line.split(' ') {
                let number: i64 = number.parse()?;
                out.emit(number);
                ensure!(number != 13, "thirteen");
            }
            Ok(())
        })
        .try_map(|number| {
            ensure!(number != 7, "seven");
            Ok((number, number.to_string()))
        })
        .filter(|(number, _)| number % 2 == 0)
        .print();
    Ok(())
}

fn build_numbers(job: &Job) -> std::result::Result<(), millstream::Refusal> {
    millstream::JobFunction::build(&numbers, job)
}

fn call_numbers(lines: &'static [&'static str]) -> Outcome {
    opened(build_numbers, &[1, 2, 3], &[(3, 0)], move || {
        let times = (0..lines.len() as i64).collect();
        process(NOW, 0, Batch { event_times: Some(times), ..batch_of::<String>(lines.iter().copied()) })
    })
}

#[test]
fn a_chain_is_one_call() {
    let outcome = call_numbers(&["1 2", "3", "4 6"]);
    assert!(outcome.failures.is_empty());
    let rows = &outcome.outputs[0].rows;
    let expected = [2i64, 4, 6].map(|number| (number, number.to_string()));
    assert_eq!(rows_of::<(i64, String)>(rows), expected);
    assert_eq!(rows.event_times.as_deref(), Some(&[0, 2, 2][..]));
}

#[test]
fn a_row_that_fails_in_the_head_leaves_nothing() {
    let outcome = call_numbers(&["2", "4 13", "6 x", "8"]);
    assert_eq!(failures(&outcome), [(1, 1, "thirteen"), (1, 2, "invalid digit found in string")]);
    assert_eq!(rows_of::<(i64, String)>(&outcome.outputs[0].rows), [2i64, 8].map(|n| (n, n.to_string())));
}

#[test]
fn a_row_that_fails_further_on_takes_its_kin_along() {
    // Row 1 is split into three; the second fails in the next function, and 10 goes with it.
    let outcome = call_numbers(&["2", "4 7 10", "13", "12"]);
    assert_eq!(failures(&outcome), [(2, 1, "seven"), (1, 2, "thirteen")]);
    let rows = &outcome.outputs[0].rows;
    assert_eq!(rows_of::<(i64, String)>(rows), [2i64, 12].map(|n| (n, n.to_string())));
    assert_eq!(rows.event_times.as_deref(), Some(&[0, 3][..]));
}

#[test]
fn what_runs_again_counts_once() {
    let told = opened(build_numbers, &[1, 2, 3], &[(3, 0)], || {
        process(NOW, 0, batch_of::<String>(["7", "2"]));
        stub::take()
    });
    assert_eq!(told.counts, [(1, "seen".to_string(), 2)]);
}

#[test]
fn no_rows_give_no_output() {
    let outcome = call_numbers(&["1", "3"]);
    assert!(outcome.outputs.is_empty());
}

#[test]
fn an_output_in_the_middle_of_a_chain_goes_both_ways() {
    let outcome =
        opened(build_numbers, &[1, 2], &[(1, 0), (2, 0)], || process(NOW, 0, batch_of::<String>(["5"])));
    let ports: Vec<u32> = outcome.outputs.iter().map(|output| output.port).collect();
    assert_eq!(ports, [0, 1]);
    assert_eq!(rows_of::<i64>(&outcome.outputs[0].rows), [5]);
}

#[test]
fn a_chain_that_is_none_is_refused() {
    let definition = Definition { name: "job", description: "", build: build_numbers };
    for (chain, outputs) in
        [(&[0u32][..], vec![]), (&[9], vec![]), (&[1, 3], vec![(2, 0)]), (&[2, 1], vec![])]
    {
        let outputs: Vec<NodePort> =
            outputs.iter().map(|(node, port)| NodePort { node: *node, port: *port }).collect();
        assert!(open(&[definition], &task(), chain, &outputs).is_err(), "{chain:?} {outputs:?}");
    }
    assert!(open(&[], &task(), &[1], &[]).is_err());
}

/// 1: the longest line by its first word.
#[job]
fn longest(job: &Job) -> Result<()> {
    let words = job.source::<(String, i64)>(Connector::of("stdin"), Some("json"));
    words
        .key_by(F0)
        .try_reduce(|so_far, next| {
            ensure!(next.1 >= 0, "{} is negative", next.1);
            Ok((so_far.0.to_string(), so_far.1.max(next.1)))
        })
        .print();
    Ok(())
}

fn call_longest(rows: &'static [(&'static str, i64)], state: &'static [Option<i64>]) -> KeyedOutcome {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&longest, job);
    opened(build, &[1], &[(1, 0)], move || {
        let keys = ["a", "b", "c"];
        let groups = rows.iter().map(|(key, _)| keys.iter().position(|k| k == key).unwrap() as u32).collect();
        let state = state.iter().zip(keys).map(|(value, key)| value.map(|value| (key, value)));
        process_keyed(
            NOW,
            KeyedBatch {
                group_count: 3,
                keys: batch_of::<String>(keys).columns,
                state: batch_of::<Option<(String, i64)>>(state).columns,
                inputs: vec![KeyedRows {
                    input: 0,
                    groups,
                    rows: batch_of::<(String, i64)>(rows.iter().copied()),
                    entries: Vec::new(),
                }],
            },
        )
    })
}

#[test]
fn reduce_keeps_one_row_a_key() {
    let outcome = call_longest(&[("b", 3), ("a", 5), ("b", 9), ("b", 4)], &[Some(7), None, Some(1)]);
    let rows: Vec<(String, i64)> = rows_of(&outcome.outputs[0].rows);
    assert_eq!(rows, [("b", 3), ("a", 7), ("b", 9), ("b", 9)].map(|(k, v)| (k.to_string(), v)));
    let update = &outcome.updates[0];
    // c had no rows: its state stays.
    assert_eq!(update.written.as_deref(), Some(&[0b011][..]));
    let Values::Int64(values) = &update.columns[2].values else { panic!("a number") };
    assert_eq!(values[..2], [7, 9]);
}

#[test]
fn a_row_that_fails_leaves_the_state() {
    let outcome = call_longest(&[("a", -1), ("b", 2), ("b", -1)], &[Some(7), None, None]);
    assert_eq!(outcome.failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(outcome.updates[0].written.as_deref(), Some(&[0b010][..]));
}

/// Sums a key's numbers, and sets a timer for each; a negative one fails when all that is done.
struct Summing;

impl ProcessFunction for Summing {
    type In = (String, i64);
    type Key = String;
    type State = i64;
    type Out = (String, i64);

    fn process(&self, row: (&str, i64), context: &mut Context<'_, Self>) -> Result<()> {
        ensure!(row.1 != 0, "nothing");
        let sum = context.state_or_default();
        *sum += row.1;
        let sum = *sum;
        context.set_timer(row.1);
        context.emit((context.key(), sum));
        ensure!(row.1 > 0, "negative");
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        context.delete_processing_timer(timer.time);
        let sum = context.take_state().unwrap_or(-1);
        context.emit((context.key(), sum));
        ensure!(timer.time != 4, "four");
        Ok(())
    }

    fn state_ttl(&self) -> Option<Ttl> {
        Some(Ttl::after_use(std::time::Duration::from_secs(5)))
    }
}

/// 1: watermarks; 2: sums; 3: fails 7.
#[job]
fn summed(job: &Job) -> Result<()> {
    let rows = job.json::<(String, i64)>(Connector::stdin());
    rows.watermarks(Watermarks::monotonous())
        .key_by(F0)
        .process(Summing)
        .try_map(|(key, sum)| {
            ensure!(sum != 7, "seven");
            Ok((key.to_string(), sum))
        })
        .print();
    Ok(())
}

fn call_summed(call: impl FnOnce() -> KeyedOutcome + Send + 'static) -> KeyedOutcome {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&summed, job);
    opened(build, &[2, 3], &[(3, 0)], call)
}

fn keys_and_state(state: [Option<i64>; 3]) -> KeyedBatch {
    KeyedBatch {
        group_count: 3,
        keys: batch_of::<String>(["a", "b", "c"]).columns,
        state: batch_of::<Option<i64>>(state).columns,
        inputs: Vec::new(),
    }
}

fn sums_of(rows: &'static [(&'static str, i64)]) -> KeyedOutcome {
    call_summed(move || {
        let groups = rows.iter().map(|(key, _)| u32::from(key.as_bytes()[0] - b'a')).collect();
        let times = (0..rows.len() as i64).collect();
        let rows = Batch { event_times: Some(times), ..batch_of::<(String, i64)>(rows.iter().copied()) };
        let inputs = vec![KeyedRows { input: 0, groups, rows, entries: Vec::new() }];
        process_keyed(NOW, KeyedBatch { inputs, ..keys_and_state([None, Some(10), None]) })
    })
}

type Rows = Vec<(String, i64)>;
type TimersSet = Vec<(u32, i64)>;
type Failures = Vec<(u32, u32, String)>;

fn result_of(outcome: &KeyedOutcome) -> (Rows, TimersSet, Failures) {
    let rows = outcome.outputs.first().map_or_else(Vec::new, |output| rows_of(&output.rows));
    let timers = outcome.timers.groups.iter().copied().zip(outcome.timers.times.iter().copied()).collect();
    let failures = &outcome.failures;
    let failures = failures.iter().map(|failure| (failure.node, failure.row, failure.message.clone()));
    (rows, timers, failures.collect())
}

fn named(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter().map(|(key, value)| (key.to_string(), *value)).collect()
}

/// Each group's new state, where there is one.
fn written(outcome: &KeyedOutcome) -> Vec<Option<i64>> {
    let Some(update) = outcome.updates.first() else { return vec![None; 3] };
    let Values::Int64(values) = &update.columns[0].values else { panic!("a number") };
    let is =
        |bits: Option<&Vec<u8>>, group: usize| bits.is_none_or(|bits| crate::record::is_set(bits, group));
    let value = |group: usize| match is(update.columns[0].validity.as_ref(), group) {
        true => values[group],
        false => i64::MIN,
    };
    (0..3).map(|group| is(update.written.as_ref(), group).then(|| value(group))).collect()
}

#[test]
fn a_process_function_writes_what_it_touched() {
    let outcome = sums_of(&[("a", 1), ("b", 2), ("a", 3)]);
    let (rows, timers, failures) = result_of(&outcome);
    assert_eq!(rows, named(&[("a", 1), ("b", 12), ("a", 4)]));
    assert_eq!(outcome.outputs[0].rows.event_times.as_deref(), Some(&[0, 1, 2][..]));
    assert_eq!((timers, failures), (vec![(0, 1), (1, 2), (0, 3)], vec![]));
    assert_eq!(outcome.timers.changes, [0, 0, 0]);
    assert_eq!(written(&outcome), [Some(4), Some(12), None]);
}

#[test]
fn rows_that_fail_in_a_process_function_leave_no_state_and_no_timer() {
    let outcome = sums_of(&[("a", -5), ("a", 1), ("a", 0), ("b", 2), ("a", -1), ("c", -1), ("a", 3)]);
    let (rows, timers, failures) = result_of(&outcome);
    assert_eq!(rows, named(&[("a", 1), ("b", 12), ("a", 4)]));
    assert_eq!(outcome.outputs[0].rows.event_times.as_deref(), Some(&[1, 3, 6][..]));
    assert_eq!(timers, [(0, 1), (1, 2), (0, 3)]);
    let told: Vec<(u32, &str)> = failures.iter().map(|(_, row, message)| (*row, message.as_str())).collect();
    assert_eq!(told, [(0, "negative"), (2, "nothing"), (4, "negative"), (5, "negative")]);
    assert_eq!(written(&outcome), [Some(4), Some(12), None]);
}

#[test]
fn a_row_that_fails_after_the_process_function_leaves_its_state() {
    // 3 + 4 fails further on; without the 4, 5 makes 8. 8 - 1 would make 7, and fails before.
    let outcome = sums_of(&[("a", 3), ("a", 4), ("a", 5), ("a", -1), ("b", 2), ("a", 4), ("c", 7), ("c", 1)]);
    let (rows, timers, failures) = result_of(&outcome);
    assert_eq!(rows, named(&[("a", 3), ("a", 8), ("b", 12), ("a", 12), ("c", 1)]));
    assert_eq!(timers, [(0, 3), (0, 5), (1, 2), (0, 4), (2, 1)]);
    let told = [(3, 1, "seven"), (2, 3, "negative"), (3, 6, "seven")];
    assert_eq!(failures, told.map(|(node, row, message)| (node, row, message.to_string())));
    assert_eq!(written(&outcome), [Some(12), Some(12), Some(1)]);
}

#[test]
fn timers_are_called_with_their_state() {
    let fire = |domain, times: Vec<i64>| {
        call_summed(move || on_timers(NOW, domain, times, keys_and_state([Some(5), Some(6), Some(7)])))
    };
    let outcome = fire(graph::TimeDomain::EventTime, vec![3, 4, 5]);
    let (rows, timers, failures) = result_of(&outcome);
    assert_eq!(rows, named(&[("a", 5)]));
    assert_eq!(outcome.outputs[0].rows.event_times.as_deref(), Some(&[3][..]));
    assert_eq!((timers, &outcome.timers.changes[..]), (vec![(0, 3)], &[3][..]));
    assert_eq!(failures, [(2, 1, "four".to_string()), (3, 2, "seven".to_string())]);
    // Taken: written, and null.
    assert_eq!(written(&outcome), [Some(i64::MIN), None, None]);
    let outcome = fire(graph::TimeDomain::ProcessingTime, vec![1, 2, 3]);
    assert_eq!(outcome.outputs[0].rows.event_times, None);
}

#[test]
fn the_graph_has_watermarks_state_and_timers() {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&summed, job);
    let graph = plan(&[Definition { name: "job", description: "", build }], "job", &[]).unwrap();
    let NodeKind::Watermarks(watermarks) = &graph.nodes[1].kind else { panic!("watermarks") };
    assert!(matches!(watermarks.strategy, WatermarkStrategy::Bounded(0)));
    let node = &graph.nodes[2];
    assert_eq!((node.name.as_str(), node.uid.as_deref()), ("Summing", Some("process-Summing-by-f0")));
    let NodeKind::Function(function) = &node.kind else { panic!("a function") };
    assert!(function.timers);
    let state = &function.states[0];
    assert_eq!((state.name.as_str(), state.value.len(), state.value[0].nullable), ("state", 1, true));
    assert!(matches!(state.ttl, Some(graph::Ttl { after: 5_000, on_read: true })));
}

#[job]
fn graph_of_all(job: &Job) -> Result<()> {
    let lines = job.lines(Connector::stdin()).name("input").parallelism(1);
    let (good, bad) = lines.try_map(|line| Ok(line.parse::<i64>()?)).uid("parse").divert_failures();
    bad.rebalance().print();
    let (even, odd) = good
        .start_new_chain()
        .side_output("odd")
        .flat_map(|number, even, odd| if number % 2 == 0 { even.emit(number) } else { odd.emit(number) });
    let all = even.broadcast().union([odd.global()]);
    all.partition_custom(|number| number as u32).filter(|_| true).disable_chaining().print();
    good.map(|number| (number % 3, Some(number), 0.5f32))
        .key_by((F0, F2))
        .aggregate((sum(F1), avg(F1), count(), max(F1)))
        .print();
    Ok(())
}

#[test]
fn the_graph_says_what_the_job_does() {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&graph_of_all, job);
    let graph = plan(&[Definition { name: "job", description: "", build }], "job", &[]).unwrap();
    let node = |name: &str| graph.nodes.iter().position(|node| node.name == name).unwrap();
    assert_eq!(graph.nodes[node("input")].parallelism, Some(1));
    let parse = &graph.nodes[node("Map")];
    assert!(matches!(parse.on_failure, FailurePolicy::Divert));
    let names: Vec<&str> = parse.outputs[1].schema.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["line", "failure"]);
    assert_eq!(parse.origin.as_deref().map(|origin| origin.contains("tests.rs:")), Some(true));
    let flat_map = &graph.nodes[node("Flat Map")];
    assert_eq!(flat_map.outputs[1].name, "odd");
    let aggregate = graph.nodes.iter().find(|node| matches!(node.kind, NodeKind::Aggregate(_))).unwrap();
    assert_eq!(aggregate.uid.as_deref(), Some("aggregate-sum-avg-count-max-by-f0-f2"));
    let fields: Vec<(&str, bool)> =
        aggregate.outputs[0].schema.iter().map(|field| (field.name.as_str(), field.nullable)).collect();
    let expected =
        [("f0", false), ("f2", false), ("f1", true), ("avg_f1", true), ("count", false), ("max_f1", true)];
    assert_eq!(fields, expected);
    let into = |consumer: usize| -> Vec<&Partition> {
        let edges = graph.edges.iter().filter(|edge| edge.consumer as usize == consumer);
        edges.map(|edge| &edge.partition).collect()
    };
    assert!(matches!(into(node("Partition"))[..], [Partition::Broadcast, Partition::Global]));
    assert!(matches!(into(node("Filter"))[..], [Partition::Chosen(1)]));
    let aggregate = node(&aggregate.name);
    assert!(matches!(&into(aggregate)[..], [Partition::Hash(keys)] if *keys == [0, 2]));
    assert!(matches!(&into(node("Flat Map"))[..], [Partition::Forward]));
    same_again(&graph, build);
}

/// A plan is a pure function.
fn same_again(graph: &JobGraph, build: fn(&Job) -> std::result::Result<(), millstream::Refusal>) {
    let again = plan(&[Definition { name: "job", description: "", build }], "job", &[]).unwrap();
    assert_eq!(format!("{graph:?}"), format!("{again:?}"));
}

#[test]
fn a_custom_partition_is_the_last_column() {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&graph_of_all, job);
    let outcome = opened(build, &[4], &[(4, 0)], || process(NOW, 0, batch_of::<i64>([3, -1])));
    let [Column { values: Values::Int64(values), .. }, Column { values: Values::Int32(chosen), .. }] =
        &outcome.outputs[0].rows.columns[..]
    else {
        panic!("a number and a partition")
    };
    assert_eq!((&values[..], &chosen[..]), (&[3, -1][..], &[3, i32::MAX][..]));
}

/// 1: doubles twice; 2: leaves what is above 4; 3: takes numbers apart.
#[job]
fn of_changes(job: &Job) -> Result<()> {
    let numbers = job.source::<i64>(Connector::stdin(), Some("json"));
    let twice = numbers.try_flat_map(|number, out| {
        ensure!(number != 13, "unlucky");
        out.emit(number);
        out.emit(number * 2);
        Ok(())
    });
    let (even, odd) = twice
        .filter(|number| number > 4)
        .side_output("odd")
        .flat_map(|number, even, odd| if number % 2 == 0 { even.emit(number) } else { odd.emit(number) });
    even.print();
    odd.print();
    Ok(())
}

/// Numbers with their kinds.
type Kinds = Vec<(u8, i64)>;

/// What comes out of the chain for numbers with their kinds.
fn call_of_changes(rows: &'static [(u8, i64)]) -> (Kinds, Kinds, usize) {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&of_changes, job);
    let outcome = opened(build, &[1, 2, 3], &[(3, 0), (3, 1)], || {
        let kinds = Some(rows.iter().map(|(kind, _)| *kind).collect());
        process(NOW, 0, Batch { kinds, ..batch_of::<i64>(rows.iter().map(|(_, number)| *number)) })
    });
    let of = |port: u32| {
        let output = outcome.outputs.iter().find(|output| output.port == port);
        output.map_or_else(Vec::new, |output| {
            let kinds = output.rows.kinds.clone().unwrap();
            assert_eq!(kinds.len(), output.rows.length as usize);
            kinds.into_iter().zip(rows_of::<i64>(&output.rows)).collect()
        })
    };
    (of(0), of(1), outcome.failures.len())
}

#[test]
fn rows_have_the_kinds_of_the_rows_that_they_are_made_of() {
    let (even, odd, _) = call_of_changes(&[(0, 3), (1, 3), (2, 5), (3, 1)]);
    assert_eq!(even, [(0, 6), (1, 6), (2, 10)]);
    assert_eq!(odd, [(2, 5)]);
    // All rows pass the filter, so that its batch goes on as it is.
    let (even, odd, _) = call_of_changes(&[(3, 7), (0, 6)]);
    assert_eq!((even, odd), (vec![(3, 14), (0, 6), (0, 12)], vec![(3, 7)]));
}

#[test]
fn a_row_that_fails_takes_its_kind_along() {
    let (even, odd, failed) = call_of_changes(&[(3, 5), (1, 13), (2, 7)]);
    assert_eq!((even, odd, failed), (vec![(3, 10), (2, 14)], vec![(3, 5), (2, 7)], 1));
}

/// 1: leaves some columns; 2: fails what is negative.
#[job]
fn selection(job: &Job) -> Result<()> {
    let rows = job.source::<(i64, (String, bool), Option<i64>)>(Connector::stdin(), Some("json"));
    rows.select((F2, F1, F0, F0))
        .try_filter(|row| {
            ensure!(row.2 >= 0, "{} is negative", row.2);
            Ok(true)
        })
        .print();
    Ok(())
}

#[test]
fn selected_columns_are_those_of_their_rows() {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&selection, job);
    let outcome = opened(build, &[1, 2], &[(2, 0)], || {
        let rows = [(1, ("a", true), None), (-2, ("b", true), Some(5)), (3, ("c", false), Some(6))];
        let times = Some(vec![10, 20, 30]);
        process(NOW, 0, Batch { event_times: times, ..batch_of::<(i64, (String, bool), Option<i64>)>(rows) })
    });
    assert_eq!(failures(&outcome), [(2, 1, "-2 is negative")]);
    let rows = &outcome.outputs[0].rows;
    assert_eq!(rows.event_times, Some(vec![10, 30]));
    type Selected = (Option<i64>, (String, bool), i64, i64);
    let rows: Vec<Selected> = rows_of(rows);
    assert_eq!(rows, [(None, ("a".to_string(), true), 1, 1), (Some(6), ("c".to_string(), false), 3, 3)]);
}

/// Gives each row with its kind; the state has the sum of what is in the table.
struct Signed;

impl ProcessFunction for Signed {
    type In = (String, i64);
    type Key = String;
    type State = i64;
    type Out = (String, i64);

    fn process(&self, row: (&str, i64), context: &mut Context<'_, Self>) -> Result<()> {
        let sign = if context.row_kind().is_added() { 1 } else { -1 };
        *context.state_or_default() += sign * row.1;
        context.emit((format!("{:?}", context.row_kind()).as_str(), sign * row.1));
        Ok(())
    }
}

/// 1: a changelog; 2: takes it.
#[job]
fn taking_changes(job: &Job) -> Result<()> {
    let rows = job.json::<(String, i64)>(Connector::stdin());
    rows.key_by(F0).deduplicate_last(F1).key_by(F0).changes().process(Signed).print();
    Ok(())
}

#[test]
fn a_process_function_may_take_a_changelog() {
    let build: fn(&Job) -> _ = |job| millstream::JobFunction::build(&taking_changes, job);
    let definition = Definition { name: "job", description: "", build };
    let node = plan(&[definition], "job", &[]).unwrap().nodes.swap_remove(2);
    let NodeKind::Function(function) = &node.kind else { panic!("a function") };
    assert!(function.changes && node.outputs[0].changes);
    let outcome = opened(build, &[2], &[(2, 0)], || {
        let rows = [("a", 3), ("a", 3), ("a", 5), ("a", 5)];
        let rows = Batch { kinds: Some(vec![0, 1, 2, 3]), ..batch_of::<(String, i64)>(rows) };
        let call = KeyedBatch {
            group_count: 1,
            keys: batch_of::<String>(["a"]).columns,
            state: batch_of::<Option<i64>>([Some(7)]).columns,
            inputs: vec![KeyedRows { input: 0, groups: vec![0; 4], rows, entries: Vec::new() }],
        };
        process_keyed(NOW, call)
    });
    let rows = &outcome.outputs[0].rows;
    assert_eq!(rows.kinds, Some(vec![0, 1, 2, 3]));
    let expected = [("Insert", 3), ("UpdateBefore", -3), ("UpdateAfter", 5), ("Delete", -5)];
    assert_eq!(rows_of::<(String, i64)>(rows), expected.map(|(kind, sum)| (kind.to_string(), sum)));
    let Values::Int64(sums) = &outcome.updates[0].columns[0].values else { panic!("a number") };
    assert_eq!(sums, &[7]);
}
