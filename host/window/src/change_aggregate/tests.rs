//! A changelog's aggregates against plain arithmetic over the rows that are there, after each batch.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{RecordBatch, StringArray};
use model::job_graph::{NodeKind, State};
use proptest::prelude::*;

use super::*;
use crate::test_support::{Run, SetUp, Step};

/// A key, a number, a text.
type Row = (Option<i64>, Option<i64>, Option<String>);

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("n", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn batch(rows: &[(Row, bool)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.0.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.0.2.as_deref()).collect::<StringArray>()),
    ];
    let kinds: Vec<u8> = rows.iter().map(|row| if row.1 { 3 } else { 0 }).collect();
    let kinds = kinds.contains(&3).then(|| kinds.into());
    Batch::new(RecordBatch::try_new(input(), columns).unwrap()).with_kinds(kinds)
}

fn aggregate(function: &str, column: Option<u32>, distinct: bool) -> Aggregate {
    let options =
        if distinct { BTreeMap::from([("distinct".into(), "true".into())]) } else { BTreeMap::new() };
    Aggregate { function: function.into(), columns: column.into_iter().collect(), options }
}

fn list(is_changelog: bool) -> Vec<Aggregate> {
    let mut list = vec![aggregate("count", None, false)];
    list.extend(["count", "sum", "avg", "min", "max"].map(|function| aggregate(function, Some(1), false)));
    list.extend(["min", "max"].map(|function| aggregate(function, Some(2), false)));
    list.extend(["count", "sum", "avg"].map(|function| aggregate(function, Some(1), true)));
    list.push(aggregate("count", Some(2), true));
    if !is_changelog {
        list.extend(["first", "last"].map(|function| aggregate(function, Some(2), false)));
    }
    list
}

fn expected(rows: &[Row], is_changelog: bool) -> BTreeMap<Vec<String>, usize> {
    let text = |value: Option<String>| value.unwrap_or("null".into());
    let number = |value: Option<i64>| text(value.map(|value| value.to_string()));
    let average = |values: &[i64]| {
        let average = values.iter().sum::<i64>() as f64 / values.len() as f64;
        text((!values.is_empty()).then(|| format!("{average:?}")))
    };
    let keys: BTreeSet<Option<i64>> = rows.iter().map(|row| row.0).collect();
    let of_key = |key: Option<i64>| {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.0 == key).collect();
        let numbers: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
        let distinct: Vec<i64> = numbers.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let texts: Vec<String> = rows.iter().filter_map(|row| row.2.clone()).collect();
        let sum = |values: &[i64]| number((!values.is_empty()).then(|| values.iter().sum()));
        let mut row = vec![
            number(key),
            rows.len().to_string(),
            numbers.len().to_string(),
            sum(&numbers),
            average(&numbers),
            number(numbers.iter().min().copied()),
            number(numbers.iter().max().copied()),
            text(texts.iter().min().cloned()),
            text(texts.iter().max().cloned()),
            distinct.len().to_string(),
            sum(&distinct),
            average(&distinct),
            texts.iter().collect::<BTreeSet<_>>().len().to_string(),
        ];
        if !is_changelog {
            row.extend([text(texts.first().cloned()), text(texts.last().cloned())]);
        }
        (row, 1)
    };
    keys.into_iter().map(of_key).collect()
}

fn run(is_changelog: bool, batch: bool) -> Run {
    let list = list(is_changelog);
    let set_up = SetUp {
        inputs: &[input()],
        keys: &[vec![0]],
        outputs: &[crate::output_schema(&input(), &[0], &list).unwrap()],
        changes: true,
        from_changes: &[is_changelog],
        batch,
    };
    Run::new(&NodeKind::Aggregate(list), &set_up)
}

/// What comes in, cut into batches: rows, and places among the rows that are there of those that go.
type Changes = Vec<Vec<(Row, Option<usize>)>>;

fn changes() -> impl Strategy<Value = Changes> {
    let row = (
        proptest::option::weighted(0.9, 0i64..3),
        proptest::option::weighted(0.8, -4i64..4),
        proptest::option::weighted(0.8, "[a-c]{0,2}"),
    );
    let change = (row, proptest::option::weighted(0.4, any::<usize>()));
    proptest::collection::vec(proptest::collection::vec(change, 1..12), 1..12)
}

/// Runs the changes; the first batch after which the table is another.
fn first_difference(changes: &Changes, is_changelog: bool, forgets: bool) -> Option<usize> {
    let mut run = run(is_changelog, false);
    let mut there: Vec<Row> = Vec::new();
    for (number, changes) in changes.iter().enumerate() {
        let mut rows = Vec::new();
        for (row, gone) in changes {
            match gone.filter(|_| is_changelog && !there.is_empty()) {
                Some(gone) => {
                    let row = there.remove(gone % there.len());
                    // The deliberate fault: a row that goes is not told.
                    if !forgets {
                        rows.push((row, true));
                    }
                }
                None => {
                    there.push(row.clone());
                    rows.push((row.clone(), false));
                }
            }
        }
        run.step(&Step::Rows(0, batch(&rows)));
        if run.table() != expected(&there, is_changelog) {
            return Some(number);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changelog_is_the_batch_answer_after_each_batch(changes in changes(), is_changelog in any::<bool>()) {
        prop_assert_eq!(first_difference(&changes, is_changelog, false), None);
    }

    #[test]
    fn batch_execution_gives_the_final_rows(changes in changes()) {
        let mut run = run(false, true);
        let mut there = Vec::new();
        for changes in &changes {
            let rows: Vec<(Row, bool)> = changes.iter().map(|(row, _)| (row.clone(), false)).collect();
            there.extend(rows.iter().map(|row| row.0.clone()));
            run.step(&Step::Rows(0, batch(&rows)));
            prop_assert!(run.given.is_empty());
        }
        run.end();
        prop_assert!(run.given.iter().all(|(_, kind, _)| *kind == 0));
        prop_assert_eq!(run.table(), expected(&there, false));
    }
}

#[test]
fn rows_that_are_forgotten_are_missed() {
    let row: Row = (Some(1), Some(2), None);
    let changes = vec![vec![(row.clone(), None), (row.clone(), None)], vec![(row, Some(0))]];
    assert_eq!(first_difference(&changes, true, false), None);
    assert_eq!(first_difference(&changes, true, true), Some(1));
}

#[test]
fn what_cannot_be_taken_back_is_refused() {
    let list = vec![aggregate("first", Some(1), false)];
    let set_up = |is_changelog| {
        let mut backend = |types: &[DataType], states: &[State]| {
            Ok(Box::new(state::MemoryBackend::new(types, states, 7)?) as Box<dyn Backend>)
        };
        let setting = Setting {
            inputs: &[input()],
            keys: &[vec![0]],
            outputs: &[crate::output_schema(&input(), &[0], &list).unwrap()],
            changes: true,
            from_changes: &[is_changelog],
            batch: false,
            first_phase: None,
            backend: &mut backend,
        };
        ChangeAggregate::new(&list, setting).err().map(|error| error.to_string())
    };
    assert_eq!(set_up(false), None);
    assert_eq!(set_up(true).unwrap(), "`first` cannot take back a row of a changelog");
    let distinct = vec![aggregate("count", Some(1), true)];
    assert!(check(&distinct, &input(), false).is_err());
    assert!(check(&distinct, &input(), true).is_ok());
}
