//! Rows through columns and back.

use std::fmt::Debug;

use crate::testing::batch_of;
use crate::{Date, Decimal, Failed, Items, List, Record, Row, Timestamp};

use super::*;

#[derive(Clone, Debug, PartialEq, Record)]
struct Place {
    city: String,
    at: (f64, f64),
}

#[derive(Clone, Debug, PartialEq, Record)]
struct Event {
    id: u32,
    kind: Option<String>,
    place: Option<Place>,
    tags: Vec<String>,
    body: Vec<u8>,
    scores: Vec<Option<i16>>,
    price: Decimal<10, 2>,
    day: Date,
    at: Timestamp,
    flag: bool,
    ratio: f32,
}

fn event(id: u32) -> Event {
    let is_even = id.is_multiple_of(2);
    Event {
        id,
        kind: is_even.then(|| format!("kind-{id}")),
        place: (!id.is_multiple_of(3))
            .then(|| Place { city: "Ænima".repeat(id as usize), at: (f64::from(id), -0.5) }),
        tags: (0..id).map(|tag| format!("tag {tag}")).collect(),
        body: vec![0xff; id as usize],
        scores: vec![None, Some(-3), None][..id as usize % 4].to_vec(),
        price: Decimal(-1234 * i128::from(id)),
        day: Date(-1),
        at: Timestamp(i64::MIN),
        flag: is_even,
        ratio: 0.25,
    }
}

/// Rows are the same when they come out of columns, and columns are as wide as the schema.
fn check<T: Record + Debug + PartialEq + Clone>(rows: Vec<T>) {
    let batch = batch_of::<T>(rows.clone().iter().map(T::as_row));
    assert_eq!(batch.columns.len(), schema_of::<T>().len());
    let reader = reader_of::<T>(&batch);
    let back: Vec<T> = (0..rows.len()).map(|row| T::from_row(T::get(&reader, row))).collect();
    assert_eq!(back, rows);
    // As a field of a tuple, where a struct has a column of its own.
    let batch = batch_of::<(i64, T)>(rows.iter().map(|row| (7, row.as_row())));
    assert_eq!(batch.columns.len() as u32, <(i64, T)>::WIDTH - 1);
    let reader = reader_of::<(i64, T)>(&batch);
    let back: Vec<T> = (0..rows.len()).map(|row| T::from_row(<(i64, T)>::get(&reader, row).1)).collect();
    assert_eq!(back, rows);
}

#[test]
fn every_type_comes_back() {
    check(vec![true, false, true]);
    check((0..20).map(|bit| bit % 3 == 0).collect());
    check(vec![i8::MIN, 0, i8::MAX]);
    check(vec![u32::MAX, 0]);
    check(vec![f64::NEG_INFINITY, 0.1]);
    check(vec![String::new(), "a\0b".into(), "日本".into()]);
    check(vec![vec![1u8, 2], vec![]]);
    check(vec![vec!["a".to_string()], vec![], vec!["b".into(), "c".into()]]);
    check(vec![vec![vec![1i64], vec![]], vec![]]);
    check(vec![Some(1i32), None, Some(3)]);
    check(vec![Decimal::<38, 0>(i128::MIN), Decimal(i128::MAX)]);
    check(vec![(1i64, "x".to_string(), None::<bool>)]);
    check((0..10).map(event).collect());
    check((0..10).map(|id| Failed { row: event(id), failure: format!("no {id}") }).collect());
    check(vec![Failed { row: b"\xff".to_vec(), failure: "not UTF-8".into() }]);
}

#[test]
fn a_schema_is_flat() {
    let names: Vec<String> = schema_of::<Event>().into_iter().map(|field| field.name).collect();
    let expected = [
        "id", "kind", "place", "city", "at", "f0", "f1", "tags", "item", "body", "scores", "item", "price",
        "day", "at", "flag", "ratio",
    ];
    assert_eq!(names, expected);
    let nullable: Vec<bool> = schema_of::<Event>().iter().map(|field| field.nullable).collect();
    assert_eq!(nullable.iter().filter(|nullable| **nullable).count(), 3);
    assert_eq!(top_level(&schema_of::<Event>()), [0, 1, 2, 7, 9, 10, 12, 13, 14, 15, 16]);
}

#[test]
fn fields_know_their_columns() {
    use crate::field::FieldOf;
    let fields = schema_of::<Event>();
    assert_eq!(fields[Event::TAGS.column() as usize].name, "tags");
    assert_eq!(fields[Event::RATIO.column() as usize].name, "ratio");
    let tuples = schema_of::<(i64, Place, String)>();
    assert_eq!(tuples[FieldOf::<(i64, Place, String)>::column(crate::F2) as usize].name, "f2");
    let nested = crate::Field::<(Place, i64), Place>::new(0).then(Place::CITY);
    assert_eq!(schema_of::<(Place, i64)>()[nested.column() as usize].name, "city");
}

#[test]
fn builders_take_rows_back() {
    let mut builder = <Event as Record>::Builder::default();
    for id in 0..9 {
        event(id).append_to(&mut builder);
    }
    builder.truncate(4);
    event(8).append_to(&mut builder);
    let rows =
        Batch { length: 5, event_times: None, kinds: None, columns: finish_rows::<Event>(&mut builder) };
    let reader = reader_of::<Event>(&rows);
    let back: Vec<Event> = (0..5).map(|row| Event::from_row(Event::get(&reader, row))).collect();
    assert_eq!(back, [0, 1, 2, 3, 8].map(event));
}

#[test]
fn a_row_that_was_begun_goes_too() {
    // The first columns have three rows, the last ones two.
    let mut builder = <(String, Vec<i64>, Option<bool>) as Record>::Builder::default();
    for _ in 0..2 {
        ("x", vec![1i64, 2], Some(true)).append_to(&mut builder);
    }
    Row::<String>::append_to("y", &mut builder.0);
    Row::<Vec<i64>>::append_to(vec![9i64], &mut builder.1);
    builder.truncate(2);
    let columns = finish_rows::<(String, Vec<i64>, Option<bool>)>(&mut builder);
    let rows = Batch { length: 2, event_times: None, kinds: None, columns };
    let Values::Int64(items) = &rows.columns[2].values else { panic!("items") };
    assert_eq!(items, &[1, 2, 1, 2]);
    check(vec![("x".to_string(), vec![1i64, 2], Some(true))]);
}

#[test]
fn iterators_are_lists() {
    let rows = batch_of::<(i64, Vec<String>)>([(1, Items("a,b".split(',')))]);
    let reader = reader_of::<(i64, Vec<String>)>(&rows);
    let (_, list): (_, List<'_, String>) = <(i64, Vec<String>)>::get(&reader, 0);
    assert_eq!((list.len(), list.get(1), list.get(2)), (2, Some("b"), None));
    assert_eq!(format!("{list:?}"), r#"["a", "b"]"#);
}

#[test]
#[should_panic(expected = "300 does not fit a field of the type i8")]
fn a_number_that_does_not_fit() {
    let rows = batch_of::<i32>([300]);
    i8::get(&reader_of::<i8>(&rows), 0);
}

#[test]
fn decimals_are_written_with_their_scale() {
    assert_eq!(Decimal::<10, 2>(-1205).to_string(), "-12.05");
    assert_eq!(Decimal::<10, 2>(-5).to_string(), "-0.05");
    assert_eq!(Decimal::<10, 0>(7).to_string(), "7");
}
