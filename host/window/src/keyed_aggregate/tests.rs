//! Aggregates against plain arithmetic, running and final, over any cut into batches.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use proptest::prelude::*;

use super::*;

fn aggregate(function: &str, columns: &[u32]) -> Aggregate {
    Aggregate { function: function.into(), columns: columns.to_vec(), options: BTreeMap::new() }
}

fn all() -> Vec<Aggregate> {
    let mut all = vec![aggregate("count", &[])];
    all.extend(["count", "sum", "min", "max", "avg"].map(|function| aggregate(function, &[1])));
    all.extend(["min", "max"].map(|function| aggregate(function, &[2])));
    all
}

fn input() -> Schema {
    Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ])
}

type Row = (Option<String>, Option<i64>, Option<String>);
type Expected =
    (i64, i64, Option<i64>, Option<i64>, Option<i64>, Option<f64>, Option<String>, Option<String>);

fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.0.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.2.as_deref()).collect::<StringArray>()),
    ];
    Batch::new(RecordBatch::try_new(Arc::new(input()), columns).unwrap())
}

fn expected(rows: &[&Row]) -> Expected {
    let numbers: Vec<i64> = rows.iter().filter_map(|r| r.1).collect();
    let texts: Vec<&String> = rows.iter().filter_map(|r| r.2.as_ref()).collect();
    let sum = numbers.iter().sum::<i64>();
    let some = !numbers.is_empty();
    (
        rows.len() as i64,
        numbers.len() as i64,
        some.then_some(sum),
        numbers.iter().min().copied(),
        numbers.iter().max().copied(),
        some.then(|| sum as f64 / numbers.len() as f64),
        texts.iter().min().map(ToString::to_string),
        texts.iter().max().map(ToString::to_string),
    )
}

fn got(batch: &Batch, row: usize) -> (Option<String>, Expected) {
    let long = |c: usize| {
        let column = batch.column(c).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let text = |c: usize| {
        let column = batch.column(c).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let average = batch.column(6).as_primitive::<Float64Type>();
    let average = average.is_valid(row).then(|| average.value(row));
    (text(0), (long(1).unwrap(), long(2).unwrap(), long(3), long(4), long(5), average, text(7), text(8)))
}

fn operator() -> KeyedAggregate {
    let output = output_schema(&input(), &[0], &all()).unwrap();
    KeyedAggregate::new(&input(), &[0], &all(), output, 3).unwrap()
}

proptest! {
    #[test]
    fn equal_to_arithmetic(
        rows in proptest::collection::vec(
            (proptest::option::of("[a-c]"), proptest::option::of(-9..9i64), proptest::option::of("[x-z]{0,2}")), 1..120),
        size in 1..40usize,
    ) {
        let (mut running, mut batched) = (operator(), operator());
        for (b, rows_of_batch) in rows.chunks(size).enumerate() {
            let out = running.update(&batch(rows_of_batch)).unwrap();
            batched.absorb(&batch(rows_of_batch)).unwrap();
            for i in 0..rows_of_batch.len() {
                let so_far: Vec<&Row> = rows[..=b * size + i].iter().filter(|r| r.0 == rows_of_batch[i].0).collect();
                prop_assert_eq!(got(&out, i), (rows_of_batch[i].0.clone(), expected(&so_far)));
            }
        }
        // Folded: the last running row of each key of a batch, and no other.
        let (mut running, mut folding) = (operator(), operator());
        for rows in rows.chunks(size) {
            let all = running.update(&batch(rows)).unwrap();
            let last = (0..rows.len()).filter(|i| rows[i + 1..].iter().all(|later| later.0 != rows[*i].0));
            let expected: Vec<_> = last.map(|i| got(&all, i)).collect();
            let folded = folding.fold(&batch(rows)).unwrap();
            prop_assert_eq!((0..folded.num_rows()).map(|i| got(&folded, i)).collect::<Vec<_>>(), expected);
        }
        let finals = batched.finals(0).unwrap().unwrap();
        prop_assert!(batched.finals(finals.num_rows()).unwrap().is_none());
        for i in 0..finals.num_rows() {
            let (key, values) = got(&finals, i);
            let of_key: Vec<&Row> = rows.iter().filter(|r| r.0 == key).collect();
            prop_assert_eq!(values, expected(&of_key));
        }
    }
}

#[test]
fn names_follow_the_columns() {
    let schema = output_schema(&input(), &[0], &all()).unwrap();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["key", "count", "n", "sum_n", "min_n", "max_n", "avg_n", "text", "max_text"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let check = |a: Aggregate, expected: &str| {
        assert_eq!(output_schema(&input(), &[0], &[a]).unwrap_err().to_string(), expected);
    };
    check(aggregate("sum", &[2]), "`sum` of column `text` cannot be: it is Utf8");
    check(
        aggregate("median", &[1]),
        "there is no aggregate `median` (there are count, sum, min, max, avg, first, last, top)",
    );
    check(aggregate("sum", &[]), "`sum` takes one column, not 0");
    check(aggregate("sum", &[9]), "`sum` names column 9, but the input has 3 columns");
}

#[test]
fn a_sum_out_of_range_is_an_error() {
    let mut operator = operator();
    let rows = [(None, Some(i64::MAX), None), (None, Some(1), None)];
    let error = operator.update(&batch(&rows)).unwrap_err();
    assert_eq!(error.to_string(), "the sum of column `n` is out of range");
}
