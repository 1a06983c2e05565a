//! Entries against a plain map.

use std::time::Duration;

use arrow_array::StringArray;
use proptest::prelude::*;

use super::*;

const PUT: EntryChange = EntryChange::Put;

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn longs(column: &ArrayRef) -> Vec<i64> {
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn texts(column: &ArrayRef) -> Vec<Option<String>> {
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn dictionary(ttl: Option<Ttl>) -> EntryTable {
    EntryTable::dictionary(&[DataType::Int64], &DataType::Utf8, ttl, 7).unwrap()
}

#[test]
fn a_sequence_keeps_its_order_and_is_read_in_pages() {
    let mut table = EntryTable::sequence(&DataType::Int64, None).unwrap();
    for start in [0, 300] {
        let values: Vec<i64> = (start..start + 300).collect();
        table.apply(&vec![PUT; 300], &vec![7; 300], &[], &numbers(&values), 0).unwrap();
    }
    table.apply(&[PUT], &[8], &[], &numbers(&[-1]), 0).unwrap();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = table.scan(&[7], after.as_deref(), 64, 0).unwrap();
        read.extend(longs(&page.values));
        let Some(last) = longs(&page.keys[0]).last().copied() else { break };
        after = Some(vec![numbers(&[last])]);
        assert_eq!(page.more, [read.len() < 600]);
    }
    assert_eq!(read, (0..600).collect::<Vec<_>>());
    // What was cleared begins anew, in the same call.
    let changes = [EntryChange::Clear, PUT];
    table.apply(&changes, &[7, 7], &[], &numbers(&[0, 5]), 0).unwrap();
    let page = table.scan(&[8, 7, 9], None, 64, 0).unwrap();
    assert_eq!((longs(&page.values), page.offsets), (vec![-1, 5], vec![0, 1, 2, 2]));
    assert!(!table.has(9) && table.has(8));
}

#[test]
fn the_first_entries_go_alone() {
    let mut table = EntryTable::sequence(&DataType::Int64, None).unwrap();
    table.apply(&[PUT; 6], &[7, 8, 7, 7, 8, 7], &[], &numbers(&[1, 2, 3, 4, 5, 6]), 0).unwrap();
    assert_eq!(table.clear_some(7, 3), 3);
    let page = table.scan(&[7, 8], None, 64, 0).unwrap();
    assert_eq!((longs(&page.values), longs(&page.keys[0])), (vec![6, 2, 5], vec![3, 0, 1]));
    assert_eq!(table.clear_some(7, 3), 1);
    assert!(!table.has(7) && table.has(8));
}

#[test]
fn pages_are_cut_by_bytes_too() {
    let mut table = dictionary(None);
    let large = "x".repeat(400 << 10);
    let values = text(&[Some(large.as_str()); 6]);
    table.apply(&[PUT; 6], &[1, 1, 1, 2, 2, 2], &[numbers(&[3, 2, 1, 3, 2, 1])], &values, 0).unwrap();
    let page = table.scan(&[1, 2], None, 100, 0).unwrap();
    assert_eq!((page.offsets, page.more), (vec![0, 2, 2], vec![true, true]));
    let after = table.scan(&[1, 2], Some(&[numbers(&[2, 1])]), 100, 0).unwrap();
    assert_eq!((after.offsets, after.more), (vec![0, 1, 2], vec![false, true]));
    let too_large = "x".repeat(VALUE_BYTES_MAX + 1);
    let refused = table.apply(
        &[EntryChange::Clear, PUT],
        &[1, 2],
        &[numbers(&[0, 0])],
        &text(&[None, Some(&too_large)]),
        0,
    );
    assert!(matches!(refused, Err(StoreError::TooLarge { key: 2, .. })));
    assert_eq!(table.len(), 6, "nothing is changed");
}

#[test]
fn entries_ride_with_the_rows_that_name_them_each_once() {
    let mut table = dictionary(None);
    table.apply(&[PUT], &[1], &[numbers(&[5])], &text(&[Some("five of 1")]), 0).unwrap();
    // The same own key of another key is another entry.
    let riders = table.ride(&[1, 2, 1, 1], &[numbers(&[5, 5, 6, 5])], 0).unwrap();
    assert_eq!((riders.of_rows, riders.ids), (vec![0, 1, 2, 0], vec![1, 2, 1]));
    assert_eq!(texts(&riders.values), [Some("five of 1".to_owned()), None, None]);
    assert_eq!(table.bytes(&[1; 10_000], &[numbers(&[5; 10_000])]).unwrap() % 10_000, 0);
    let written = text(&[None, Some("five of 2"), Some("not written")]);
    table.store(&[1, 2, 1], &riders.keys, |row| row < 2, &written, 0).unwrap();
    assert_eq!(texts(&table.scan(&[1, 2], None, 9, 0).unwrap().values), [Some("five of 2".to_owned())]);
}

#[test]
fn zeros_and_nans_are_one_key_and_null_is_another() {
    let mut table = EntryTable::dictionary(&[DataType::Float64], &DataType::Utf8, None, 7).unwrap();
    let keys = |keys: &[Option<f64>]| -> Vec<ArrayRef> {
        vec![Arc::new(arrow_array::Float64Array::from(keys.to_vec()))]
    };
    let values = text(&[Some("zero"), Some("nan"), Some("null")]);
    table.apply(&[PUT; 3], &[0; 3], &keys(&[Some(-0.0), Some(f64::NAN), None]), &values, 0).unwrap();
    let found = table.get(&[0; 3], &keys(&[None, Some(0.0), Some(-f64::NAN)]), 0).unwrap();
    assert_eq!(texts(&found), ["null", "zero", "nan"].map(|text| Some(text.to_owned())));
}

#[test]
fn entries_grow_old_one_by_one() {
    for on_read in [false, true] {
        let ttl = Ttl { after: Duration::from_millis(100), on_read };
        let mut table = dictionary(Some(ttl));
        let there = |table: &mut EntryTable, key, now| {
            table.get(&[5], &[numbers(&[key])], now).unwrap().null_count() == 0
        };
        table.apply(&[PUT; 2], &[5, 5], &[numbers(&[1, 2])], &text(&[Some("a"), Some("b")]), 1_000).unwrap();
        assert!(there(&mut table, 1, 1_099));
        assert_eq!(there(&mut table, 1, 1_100), on_read);
        assert!(!there(&mut table, 2, 1_100));
        table.apply(&[PUT], &[5], &[numbers(&[2])], &text(&[Some("c")]), 1_100).unwrap();
        assert_eq!(texts(&table.scan(&[5], None, 9, 1_150).unwrap().values).len(), 1 + usize::from(on_read));
        // What nobody asks for is swept as others are asked for.
        (0..9).for_each(|_| assert!(!there(&mut table, 9, 9_000)));
        assert!(table.is_empty());
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Put(u32, Option<i64>, String),
    Remove(u32, Option<i64>),
    Clear(u32),
    Get(u32, Option<i64>),
    Scan(u32, Option<i64>, usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let key = || prop_oneof![Just(None), (-5i64..5).prop_map(Some), Just(Some(i64::MIN))];
    let deed = prop_oneof![
        4 => (0u32..4, key(), "[a-c]{0,3}").prop_map(|(id, key, text)| Deed::Put(id, key, text)),
        2 => (0u32..4, key()).prop_map(|(id, key)| Deed::Remove(id, key)),
        1 => (0u32..4).prop_map(Deed::Clear),
        2 => (0u32..4, key()).prop_map(|(id, key)| Deed::Get(id, key)),
        2 => (0u32..4, key(), 1usize..4).prop_map(|(id, key, limit)| Deed::Scan(id, key, limit)),
    ];
    proptest::collection::vec(deed, 1..60)
}

proptest! {
    #[test]
    fn a_dictionary_is_an_ordered_map(deeds in deeds()) {
        let mut table = dictionary(None);
        let mut model: BTreeMap<(u32, Option<i64>), String> = BTreeMap::new();
        let keys = |key: Option<i64>| -> Vec<ArrayRef> { vec![Arc::new(Int64Array::from(vec![key]))] };
        for deed in deeds {
            match deed {
                Deed::Put(id, key, value) => {
                    table.apply(&[PUT], &[id], &keys(key), &text(&[Some(&value)]), 0).unwrap();
                    model.insert((id, key), value);
                }
                Deed::Remove(id, key) => {
                    table.apply(&[EntryChange::Remove], &[id], &keys(key), &text(&[None]), 0).unwrap();
                    model.remove(&(id, key));
                }
                Deed::Clear(id) => {
                    table.apply(&[EntryChange::Clear], &[id], &keys(None), &text(&[None]), 0).unwrap();
                    model.retain(|(of, _), _| *of != id);
                }
                Deed::Get(id, key) => {
                    let found = texts(&table.get(&[id], &keys(key), 0).unwrap());
                    prop_assert_eq!(&found[0], &model.get(&(id, key)).cloned());
                }
                Deed::Scan(id, after, limit) => {
                    let page = table.scan(&[id], Some(&keys(after)), limit, 0).unwrap();
                    let mut rest = model.range((Bound::Excluded((id, after)), Bound::Unbounded));
                    let expected: Vec<_> = rest.by_ref().take_while(|((of, _), _)| *of == id).collect();
                    let found: Vec<_> = texts(&page.values).into_iter().flatten().collect();
                    let first: Vec<_> = expected.iter().take(limit).map(|(_, value)| (*value).clone()).collect();
                    prop_assert_eq!(found, first);
                    prop_assert_eq!(page.more[0], expected.len() > limit);
                }
            }
            for id in 0..4 {
                prop_assert_eq!(table.has(id), model.keys().any(|(of, _)| *of == id));
            }
        }
    }
}
