//! Rows are kept by name, once.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};

use super::*;
use crate::test_support::{World, connection, error_of, numbers};

fn rows(values: &[i64]) -> Batch {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap())
}

fn collect(name: &str) -> CollectFactory {
    CollectFactory::of(&connection("collect", &[("name", name)])).unwrap()
}

#[test]
fn rows_are_kept_in_order_with_their_subtask_and_taken_once() {
    let factory = collect("kept in order");
    let mut world = World::system();
    let mut sinks: Vec<_> = (0..2).map(|subtask| factory.open(world.context(subtask, 2)).unwrap()).collect();
    for (subtask, values) in [(1, &[1, 2][..]), (0, &[3]), (1, &[4])] {
        world.write_one(sinks[subtask].as_mut(), &rows(values)).unwrap();
    }
    sinks.iter_mut().for_each(|sink| world.finish(sink.as_mut()).unwrap());
    let kept: Vec<_> =
        collected("kept in order").iter().map(|(subtask, batch)| (*subtask, numbers(batch))).collect();
    assert_eq!(kept, [(1, vec![1, 2]), (0, vec![3]), (1, vec![4])]);
    assert!(collected("kept in order").is_empty());
}

#[test]
fn names_are_kept_apart() {
    for (name, value) in [("apart 1", 1), ("apart 2", 2)] {
        World::system().write(&collect(name), &[rows(&[value])]).unwrap();
    }
    assert_eq!(numbers(&collected("apart 2")[0].1), [2]);
    assert_eq!(numbers(&collected("apart 1")[0].1), [1]);
    assert!(collected("apart 3").is_empty());
}

#[test]
fn a_name_is_needed() {
    let error = error_of(CollectFactory::of(&connection("collect", &[])));
    assert_eq!(error.message, "`collect` needs the option `name`");
}
