use std::cmp::Ordering as Compared;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{NodeKind, Ordering, Top};
use proptest::prelude::*;

use crate::test_support::{Run, SetUp, Step};

/// A key, what it is ordered by, a text, and a row's kind.
type Row = (Option<i64>, Option<i64>, Option<f64>, String, u8);

fn schema(rank: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Float64, true),
        Field::new("t", DataType::Utf8, false),
    ];
    fields.extend(rank.then(|| Field::new("rank", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.3))),
    ];
    let kinds: Vec<u8> = rows.iter().map(|row| row.4).collect();
    let kinds = kinds.iter().any(|kind| *kind != 0).then(|| kinds.into());
    Batch::of(schema(false), rows.len(), columns).unwrap().with_kinds(kinds)
}

fn run(top: &Top, is_changelog: bool, batch: bool) -> Run {
    let set_up = SetUp {
        inputs: &[schema(false)],
        keys: &[vec![0]],
        outputs: &[schema(top.rank)],
        changes: true,
        from_changes: &[is_changelog],
        batch,
    };
    Run::new(&NodeKind::Top(top.clone()), &set_up)
}

fn compare<T: PartialOrd>(a: &Option<T>, b: &Option<T>, order: &Ordering) -> Compared {
    let null = if order.nulls_last { Compared::Greater } else { Compared::Less };
    match (a, b) {
        (None, None) => Compared::Equal,
        (None, _) => null,
        (_, None) => null.reverse(),
        (Some(a), Some(b)) => {
            let compared = a.partial_cmp(b).unwrap();
            if order.descending { compared.reverse() } else { compared }
        }
    }
}

fn texts(row: &Row) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    vec![
        text(row.0.map(|k| k.to_string())),
        text(row.1.map(|a| a.to_string())),
        text(row.2.map(|b| format!("{b:?}"))),
        row.3.clone(),
    ]
}

/// The first rows of all that are there, which are in the order of their arrival.
fn by_definition(top: &Top, there: &[Row]) -> BTreeMap<Vec<String>, usize> {
    let mut by_key: BTreeMap<Option<i64>, Vec<&Row>> = BTreeMap::new();
    there.iter().for_each(|row| by_key.entry(row.0).or_default().push(row));
    let mut table = BTreeMap::new();
    for rows in by_key.values_mut() {
        rows.sort_by(|x, y| {
            let of = |order: &Ordering| match order.column {
                1 => compare(&x.1, &y.1, order),
                _ => compare(&x.2, &y.2, order),
            };
            top.order.iter().map(of).find(|compared| *compared != Compared::Equal).unwrap_or(Compared::Equal)
        });
        for (at, row) in rows.iter().take(top.limit as usize).enumerate() {
            let mut row = texts(row);
            row.extend(top.rank.then(|| (at + 1).to_string()));
            *table.entry(row).or_insert(0) += 1;
        }
    }
    table
}

fn order() -> impl Strategy<Value = Vec<Ordering>> {
    let one = (1u32..3, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(column, descending, nulls_last)| Ordering { column, descending, nulls_last });
    prop::collection::vec(one, 0..3)
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let key = prop_oneof![1 => Just(None), 8 => (0i64..3).prop_map(Some)];
    let row =
        (key, prop::option::weighted(0.9, -3i64..4), prop::option::weighted(0.9, 0i32..3), 0u8..2, 0u8..4);
    let row = row.prop_map(|(key, a, b, text, kind)| {
        (key, a, b.map(|b| f64::from(b) / 2.0), format!("a text of some length {text}"), kind)
    });
    prop::collection::vec(prop::collection::vec(row, 1..15), 1..20)
}

/// Whether what leaves is what the definition says, after each batch; those that are not kept are not given.
fn is_right(
    top: &Top,
    is_changelog: bool,
    batches: &[Vec<Row>],
    batch_mode: bool,
    keep: impl Fn(usize) -> bool,
) -> bool {
    let mut run = run(top, is_changelog, batch_mode);
    let mut there: Vec<Row> = Vec::new();
    for (at, rows) in batches.iter().enumerate() {
        let mut given = Vec::new();
        let before = there.clone();
        for row in rows {
            let mut row = row.clone();
            // A row that is taken back is the last that came of its equals.
            let is_equal = |other: &Row| texts(other) == texts(&row);
            let found = there.iter().position(is_equal).filter(|_| is_changelog && matches!(row.4, 1 | 3));
            match found {
                Some(place) => drop(there.remove(place)),
                None => {
                    row.4 = if is_changelog { row.4 & 2 } else { 0 };
                    there.push(row.clone());
                }
            }
            given.push(row);
        }
        if is_changelog {
            there = net(&before, &given);
        }
        if keep(at) {
            run.step(&Step::Rows(0, batch(&given)));
        }
        if !batch_mode && run.table() != by_definition(top, &there) {
            return false;
        }
    }
    run.end();
    let is_insert = run.given.iter().all(|(_, kind, _)| *kind == 0);
    (is_insert || !batch_mode) && run.table() == by_definition(top, &there)
}

/// What is there after a batch that nets out: what came and went within it has not moved its equals.
fn net(before: &[Row], batch: &[Row]) -> Vec<Row> {
    let mut counts: BTreeMap<Vec<String>, (usize, usize)> = BTreeMap::new();
    for row in batch {
        let count = counts.entry(texts(row)).or_default();
        if matches!(row.4, 1 | 3) { count.0 += 1 } else { count.1 += 1 }
    }
    let mut there = before.to_vec();
    for (texts_of, (backs, comes)) in &counts {
        for _ in *comes..*backs {
            let at = there.iter().position(|row| texts(row) == *texts_of).unwrap();
            there.remove(at);
        }
    }
    let mut skipped: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for row in batch.iter().filter(|row| !matches!(row.4, 1 | 3)) {
        let (backs, _) = counts[&texts(row)];
        let skip = skipped.entry(texts(row)).or_default();
        if *skip < backs {
            *skip += 1;
        } else {
            there.push(row.clone());
        }
    }
    there
}

proptest! {
    #[test]
    fn first_rows_are_right_after_each_batch(
        batches in rows(),
        order in order(),
        // Few, or many.
        limit in prop_oneof![4 => 1u32..5, 1 => 65u32..70],
        rank in any::<bool>(),
        is_changelog in any::<bool>(),
        batch_mode in any::<bool>(),
    ) {
        let top = Top { limit, order, rank };
        prop_assert!(is_right(&top, is_changelog, &batches, batch_mode, |_| true), "{:?}", top);
    }
}

#[test]
fn what_is_not_given_is_missed() {
    let row = |a| (Some(1), Some(a), None, String::new(), 0);
    let batches = [vec![row(3)], vec![row(1)], vec![row(2)]];
    for (limit, is_changelog) in [(1, false), (2, false), (2, true)] {
        let order = vec![Ordering { column: 1, descending: false, nulls_last: false }];
        let top = Top { limit, order, rank: true };
        assert!(is_right(&top, is_changelog, &batches, false, |_| true));
        assert!(!is_right(&top, is_changelog, &batches, false, |at| at != 1));
    }
}

#[test]
fn a_key_of_very_many_rows_goes_in_steps() {
    let order = vec![Ordering { column: 1, descending: true, nulls_last: true }];
    for (limit, is_changelog) in [(1, false), (10, false), (2_000, false), (10, true)] {
        let top = Top { limit, order: order.clone(), rank: true };
        let mut run = run(&top, is_changelog, false);
        let rows = |kind: u8| -> Vec<Row> {
            (0..4_000).map(|a| (Some(a % 3), Some(a), None, "a text".to_owned(), kind)).collect()
        };
        run.step(&Step::Rows(0, batch(&rows(0))));
        assert_eq!(run.table().len(), 3 * limit.min(1_333) as usize + usize::from(limit > 1_333));
        if is_changelog {
            run.step(&Step::Rows(0, batch(&rows(3))));
            assert!(run.table().is_empty());
            assert_eq!(run.rows_kept(), 0);
        }
    }
}
