use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Float64Array, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;

type Key = (Option<i64>, Option<u8>);

fn columns(keys: &[Key]) -> Vec<ArrayRef> {
    let text = |part: u8| "x".repeat(part as usize);
    vec![
        Arc::new(keys.iter().map(|key| key.0).collect::<Int64Array>()),
        Arc::new(keys.iter().map(|key| key.1.map(text)).collect::<StringArray>()),
    ]
}

fn table(batches: &[Vec<Key>]) -> LookupTable {
    let fields = ["a", "b", "place"];
    let types = [DataType::Int64, DataType::Utf8, DataType::Int64];
    let fields = fields.into_iter().zip(types).map(|(name, of)| Field::new(name, of, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut place = 0;
    let batches: Vec<RecordBatch> = batches
        .iter()
        .map(|keys| {
            let mut columns = columns(keys);
            columns.push(Arc::new((place..place + keys.len() as i64).map(Some).collect::<Int64Array>()));
            place += keys.len() as i64;
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        })
        .collect();
    LookupTable::new(&schema, &batches, &[0, 1], 7).unwrap()
}

/// Pairs of a row and the table's place, as the operator takes them.
fn found(table: &LookupTable, keys: &[Key], outer: bool, max: usize) -> Vec<(u32, Option<i64>)> {
    let mut found = table.look_up(&columns(keys)).unwrap();
    let mut pairs = Vec::new();
    while !found.is_done() {
        let next = found.next(table, outer, max);
        assert!(next.rows.len() <= max);
        let taken = table.take(&next.partners).unwrap();
        let places = taken[2].as_primitive::<Int64Type>();
        pairs.extend(next.rows.into_iter().zip(places.iter()));
    }
    assert_eq!(found.next(table, outer, max), Pairs::default());
    pairs
}

/// The same from the definition.
fn by_definition(table: &[Key], keys: &[Key], outer: bool) -> Vec<(u32, Option<i64>)> {
    let mut pairs = Vec::new();
    for (row, key) in (0u32..).zip(keys) {
        let before = pairs.len();
        for (place, of_table) in (0i64..).zip(table) {
            if key.0.is_some() && key.1.is_some() && key == of_table {
                pairs.push((row, Some(place)));
            }
        }
        if pairs.len() == before && outer {
            pairs.push((row, None));
        }
    }
    pairs
}

fn keys(most: usize) -> impl Strategy<Value = Vec<Key>> {
    let key = (
        prop_oneof![1 => Just(None), 6 => (0i64..4).prop_map(Some)],
        prop_oneof![1 => Just(None), 6 => (0u8..3).prop_map(Some)],
    );
    prop::collection::vec(key, 0..most)
}

proptest! {
    #[test]
    fn pairs_are_right(batches in prop::collection::vec(keys(12), 0..4), rows in keys(30), outer: bool, max in 1usize..40) {
        let of_table = table(&batches);
        prop_assert_eq!(of_table.num_rows(), batches.concat().len());
        prop_assert_eq!(found(&of_table, &rows, outer, max), by_definition(&batches.concat(), &rows, outer));
    }
}

/// A row of the table that is not there is missed.
#[test]
fn what_is_not_there_is_missed() {
    let rows = [(Some(1), Some(1)), (Some(2), Some(1))];
    let expected = by_definition(&rows, &rows, false);
    assert_eq!(found(&table(&[rows.to_vec()]), &rows, false, 10), expected);
    assert_ne!(found(&table(&[rows[..1].to_vec()]), &rows, false, 10), expected);
}

/// The zeros are one key, and so are values that are no number.
#[test]
fn floats_are_canonical() {
    let schema = Arc::new(Schema::new(vec![Field::new("f", DataType::Float64, false)]));
    let column = |values: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column(&[0.0, f64::NAN])]).unwrap();
    let table = LookupTable::new(&schema, &[rows], &[0], 1).unwrap();
    let mut found = table.look_up(&[column(&[-0.0, -f64::NAN, 1.0])]).unwrap();
    assert_eq!(found.next(&table, true, 9).partners, [Some(0), Some(1), None]);
}
