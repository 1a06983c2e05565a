//! The count and the checksum say the same of the same rows.

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::test_support::{World, connection, error_of, with_format};

fn rows(words: &[(String, i64)]) -> Batch {
    let texts: ArrayRef =
        Arc::new(words.iter().map(|(word, _)| Some(word.as_str())).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new(words.iter().map(|(_, number)| *number).collect::<Int64Array>());
    Batch::new(RecordBatch::try_from_iter([("word", texts), ("number", numbers)]).unwrap())
}

/// What a blackhole says of batches that go in turn into so many subtasks.
fn summary(batches: &[Batch], parallelism: usize) -> String {
    let factory = BlackholeFactory::of(&connection("blackhole", &[])).unwrap();
    let mut world = World::simulated(1);
    let mut sinks: Vec<_> = (0..parallelism)
        .map(|i| factory.open(world.context(i as u32, parallelism as u32)).unwrap())
        .collect();
    for (i, batch) in batches.iter().enumerate() {
        world.write_one(sinks[i % parallelism].as_mut(), batch).unwrap();
    }
    sinks.iter_mut().for_each(|sink| world.finish(sink.as_mut()).unwrap());
    factory.summary().join("\n")
}

fn words() -> impl Strategy<Value = Vec<(String, i64)>> {
    vec(("[ab]{0,3}", 0..3i64), 1..30)
}

proptest! {
    #[test]
    fn order_batching_and_parallelism_do_not_matter(
        (before, after) in words().prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle())),
        size in 1..10usize,
        parallelism in 1..4usize,
    ) {
        let batches: Vec<Batch> = after.chunks(size).map(rows).collect();
        let expected = summary(&[rows(&before)], 1);
        let begin = format!("blackhole: {} rows, checksum ", before.len());
        prop_assert!(expected.starts_with(&begin));
        prop_assert_eq!(summary(&batches, parallelism), expected);
    }

    #[test]
    fn another_row_is_noticed(words in words(), other in any::<prop::sample::Index>()) {
        let mut changed = words.clone();
        changed[other.index(words.len())].1 += 1;
        prop_assert_ne!(summary(&[rows(&words)], 1), summary(&[rows(&changed)], 1));
    }
}

/// The hash of a key is the same in every process and release; so is its sum.
#[test]
fn the_checksum_is_the_sum_of_the_rows_hashes() {
    let few = rows(&[("to".to_owned(), 1), ("be".to_owned(), 2)]);
    let mut hashes = Vec::new();
    hash_keys(&[few.column(0), few.column(1)], 2, &mut hashes);
    let sum = hashes[0].wrapping_add(hashes[1]);
    assert_eq!(summary(&[few], 1), format!("blackhole: 2 rows, checksum {sum:016x}"));
    assert_eq!(summary(&[], 1), "blackhole: 0 rows, checksum 0000000000000000");
}

/// However a changelog gets there: the sum is that of the table.
#[test]
fn changes_sum_up_to_the_table_that_they_lead_to() {
    let words =
        |words: &[(&str, i64)]| rows(&words.iter().map(|(w, n)| ((*w).into(), *n)).collect::<Vec<_>>());
    let sum = |batch: Batch| summary(&[batch], 1).rsplit(' ').next().unwrap().to_owned();
    let changes = words(&[("a", 1), ("b", 1), ("a", 1), ("a", 2), ("b", 1)]);
    let changes = changes.with_kinds(Some(vec![0u8, 0, 1, 2, 3].into()));
    assert_eq!(sum(changes.clone()), sum(words(&[("a", 2)])));
    assert_ne!(sum(changes.slice(0, 4)), sum(words(&[("a", 2)])));
}

#[test]
fn a_format_is_taken_and_options_are_not() {
    let blackhole = connection("blackhole", &[]);
    assert!(BlackholeFactory::of(&with_format(blackhole, "json", &[])).is_ok());
    let error = error_of(BlackholeFactory::of(&connection("blackhole", &[("path", "x")])));
    assert_eq!(error.message, "`blackhole` has no option `path`");
}
