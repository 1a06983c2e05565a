//! Whoever applies what a sink writes has the table that the changes describe.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::Int64Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::DataType;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::test_support::{connection, error_of, schema};

const INSERT: u8 = RowKind::Insert as u8;
const BEFORE: u8 = RowKind::UpdateBefore as u8;
const AFTER: u8 = RowKind::UpdateAfter as u8;
const DELETE: u8 = RowKind::Delete as u8;

/// A kind, a key, a value.
type Change = (u8, i64, i64);

fn arriving(changes: bool) -> Arriving {
    let schema = schema(&[("value", DataType::Int64, false), ("key", DataType::Int64, true)]);
    Arriving { schema, changes }
}

fn changelog(options: &[(&str, &str)], changes: bool) -> Result<Changelog, Diagnostic> {
    let connection = connection("print", options);
    Changelog::of("print", &Options::new("print", &connection.options, &OPTIONS)?, &arriving(changes))
}

fn batch(changes: &[Change]) -> Batch {
    let column = |of: fn(&Change) -> i64| Arc::new(changes.iter().map(of).collect::<Int64Array>()) as _;
    let columns = vec![column(|change| change.2), column(|change| change.1)];
    let kinds: Vec<u8> = changes.iter().map(|change| change.0).collect();
    Batch::of(arriving(true).schema, changes.len(), columns).unwrap().with_kinds(Some(kinds.into()))
}

fn changes_of(batch: &Batch) -> Vec<Change> {
    let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
    let kinds = batch.kinds().unwrap();
    kinds.iter().zip(column(1)).zip(column(0)).map(|((kind, key), value)| (*kind, key, value)).collect()
}

/// What an upserting reader keeps: the last value of each key.
fn table(written: &[Change]) -> BTreeMap<i64, i64> {
    let mut table = BTreeMap::new();
    for (kind, key, value) in written {
        match *kind {
            DELETE => table.remove(key),
            _ => table.insert(*key, *value),
        };
    }
    table
}

/// Changes of a table with unique keys, as an operator makes them: an update may move a row to
/// another key.
fn changes_to(operations: &[(i64, i64, i64)]) -> (Vec<Change>, BTreeMap<i64, i64>) {
    let (mut table, mut changes) = (BTreeMap::new(), Vec::new());
    for (key, other, value) in operations {
        match (table.get(key).copied(), *value) {
            (None, _) => {
                table.insert(*key, *value);
                changes.push((INSERT, *key, *value));
            }
            (Some(old), 0) => {
                table.remove(key);
                changes.push((DELETE, *key, old));
            }
            (Some(old), _) => {
                table.remove(key);
                let target = if table.contains_key(other) { *key } else { *other };
                table.insert(target, *value);
                changes.extend([(BEFORE, *key, old), (AFTER, target, *value)]);
            }
        }
    }
    (changes, table)
}

/// What is written for changes that come in batches cut at these places.
fn written(changes: &[Change], cuts: &[usize]) -> Vec<Change> {
    let upsert = changelog(&[("changelog", "upsert"), ("key", "key")], true).unwrap();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (changes.len() + 1)).collect();
    cuts.extend([0, changes.len()]);
    cuts.sort_unstable();
    let parts = cuts.windows(2).map(|cut| batch(&changes[cut[0]..cut[1]]));
    parts
        .flat_map(|part| if part.num_rows() == 0 { vec![] } else { changes_of(&upsert.rows(&part).unwrap()) })
        .collect()
}

fn operations() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
    vec((0..5i64, 0..5i64, 0..4i64), 0..40)
}

proptest! {
    #[test]
    fn upserts_lead_to_the_table(operations in operations(), cuts in vec(any::<usize>(), 0..5)) {
        let (changes, expected) = changes_to(&operations);
        let written = written(&changes, &cuts);
        prop_assert!(written.iter().all(|change| [AFTER, DELETE].contains(&change.0)));
        prop_assert_eq!(table(&written), expected);
    }
}

/// That the account sees it when the old form of a row that moves to another key is left out.
#[test]
fn a_dropped_old_form_is_missed() {
    let (changes, expected) = changes_to(&[(1, 1, 5), (1, 2, 6)]);
    assert_eq!(table(&written(&changes, &[])), expected);
    let careless: Vec<Change> = changes.into_iter().filter(|change| change.0 != BEFORE).collect();
    assert_ne!(table(&careless), expected);
}

#[test]
fn an_update_of_a_key_is_one_row() {
    let changes =
        [(INSERT, 1, 1), (BEFORE, 1, 1), (AFTER, 1, 2), (BEFORE, 1, 2), (AFTER, 3, 4), (DELETE, 3, 4)];
    let expected = [(AFTER, 1, 1), (AFTER, 1, 2), (DELETE, 1, 2), (AFTER, 3, 4), (DELETE, 3, 4)];
    assert_eq!(written(&changes, &[]), expected);
}

#[test]
fn rows_without_kinds_are_inserts() {
    let upsert = changelog(&[("changelog", "upsert"), ("key", "key,value")], true).unwrap();
    let rows = batch(&[(INSERT, 1, 2)]).with_kinds(None);
    assert_eq!(changes_of(&upsert.rows(&rows).unwrap()), [(AFTER, 1, 2)]);
}

#[test]
fn all_changes_are_written_unless_told_otherwise() {
    for options in [&[][..], &[("changelog", "retract")]] {
        let changes = [(INSERT, 1, 1), (BEFORE, 1, 1), (AFTER, 1, 2), (DELETE, 1, 2)];
        let retract = changelog(options, true).unwrap();
        assert!(retract.has_kinds());
        assert_eq!(changes_of(&retract.rows(&batch(&changes)).unwrap()), changes);
        assert!(!changelog(options, false).unwrap().has_kinds());
    }
    // The same job, run in batches, has inserts only.
    assert!(!changelog(&[("changelog", "upsert"), ("key", "key")], false).unwrap().has_kinds());
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let message = |options: &[(&str, &str)]| error_of(changelog(options, true)).message;
    assert_eq!(message(&[("key", "key")]), "the option `key` of `print` is for `changelog` = `upsert`");
    assert_eq!(message(&[("changelog", "upsert")]), "`print` needs the option `key`");
    assert_eq!(message(&[("changelog", "append")]), "there is no `changelog` of `print` `append`");
    let error = error_of(changelog(&[("changelog", "upsert"), ("key", "key, valu")], false));
    assert_eq!(error.message, "the option `key` names a column `valu`, which there is not");
    assert_eq!(error.hint.as_deref(), Some("did you mean `value`?"));
}
