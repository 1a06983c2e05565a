//! Chains as the host opens and calls them.

use millstream_sys::bindings::exports::millstream::job::functions::{NodePort, Task};
use millstream_sys::bindings::millstream::job::calls::{
    KeyedBatch, KeyedOutcome, KeyedRows, Moment, Outcome,
};
use millstream_sys::bindings::millstream::job::graph::{FailurePolicy, JobGraph, NodeKind, Partition};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values};
use millstream_sys::host::stub;

use crate as millstream;
use crate::job::{Definition, plan};
use crate::prelude::*;
use crate::record::reader_of;
use crate::testing::batch_of;

use super::{open, process, process_keyed};

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
