//! The index against a plain map.

use std::collections::HashMap;

use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow_cast::display::array_value_to_string;
use proptest::prelude::*;

use super::*;

fn rendered(columns: &[ArrayRef], row: usize) -> Vec<Option<String>> {
    let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
    columns.iter().map(|column| column.is_valid(row).then(|| value(column))).collect()
}

/// Numbers the keys of `columns` in batches of `size` rows and compares with a map.
fn check(columns: &[ArrayRef], size: usize) {
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    let mut index = KeyIndex::new(&types, 7).unwrap();
    let mut expected: HashMap<Vec<Option<String>>, KeyId> = HashMap::new();
    let rows = columns[0].len();
    let mut ids = Vec::new();
    let mut firsts = Vec::new();
    for start in (0..rows).step_by(size) {
        let slice: Vec<ArrayRef> = columns.iter().map(|c| c.slice(start, size.min(rows - start))).collect();
        index.ids(&slice, slice[0].len(), &mut ids).unwrap();
        for (i, id) in ids.iter().enumerate() {
            let next = expected.len() as u32;
            let want = *expected.entry(rendered(columns, start + i)).or_insert_with(|| {
                firsts.push(start + i);
                next
            });
            assert_eq!(*id, want, "row {}", start + i);
        }
    }
    assert_eq!(index.len(), expected.len());
    let keys = index.keys(0..index.len() as u32).unwrap();
    for (id, first) in firsts.iter().enumerate() {
        assert_eq!(rendered(&keys, id), rendered(columns, *first));
    }
}

proptest! {
    #[test]
    fn text(words in proptest::collection::vec(proptest::option::of("[ab\u{0}ä]{0,20}"), 1..300), size in 1..50usize) {
        check(&[Arc::new(StringArray::from(words.clone()))], size);
        let binary: BinaryArray = words.iter().map(|w| w.as_ref().map(|w| w.as_bytes())).collect();
        check(&[Arc::new(binary)], size);
    }

    #[test]
    fn numbers_of_every_width(values in proptest::collection::vec(proptest::option::of(-3..3i32), 1..200), size in 1..50usize) {
        check(&[Arc::new(Int32Array::from(values.clone()))], size);
        check(&[Arc::new(Date32Array::from(values.clone()))], size);
        check(&[Arc::new(values.iter().map(|v| v.map(f64::from)).collect::<Float64Array>())], size);
        let wide: Int64Array = values.iter().map(|v| v.map(|v| i64::from(v) << 40)).collect();
        check(&[Arc::new(wide.clone())], size);
        check(&[Arc::new(wide.reinterpret_cast::<TimestampMillisecondType>())], size);
        let decimal: Decimal128Array = values.iter().map(|v| v.map(|v| i128::from(v) << 70)).collect();
        check(&[Arc::new(decimal.with_precision_and_scale(38, 2).unwrap())], size);
        let flags: BooleanArray = values.iter().map(|v| v.map(|v| v > 0)).collect();
        check(&[Arc::new(flags.clone()), Arc::new(wide)], size);
        check(&[Arc::new(flags)], size);
    }
}

#[test]
fn many_keys_survive_growth() {
    let words: StringArray = (0..60_000).map(|i| Some(format!("key number {}", i % 30_000))).collect();
    check(&[Arc::new(words)], 1_000);
}

#[test]
fn zeros_are_one_key_and_all_nans_another() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
    let mut ids = Vec::new();
    KeyIndex::new(&[DataType::Float64], 1).unwrap().ids(&[Arc::clone(&floats)], 4, &mut ids).unwrap();
    assert_eq!(ids, [0, 0, 1, 1]);
    let ones: ArrayRef = Arc::new(Int32Array::from(vec![1; 4]));
    let mut index = KeyIndex::new(&[DataType::Float64, DataType::Int32], 1).unwrap();
    index.ids(&[floats, ones], 4, &mut ids).unwrap();
    assert_eq!(ids, [0, 0, 1, 1]);
}

#[test]
fn without_key_columns_all_rows_are_one_group() {
    let mut index = KeyIndex::new(&[], 1).unwrap();
    let mut ids = Vec::new();
    index.ids(&[], 3, &mut ids).unwrap();
    assert_eq!((ids, index.len()), (vec![0, 0, 0], 1));
    assert!(RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty())).num_rows() == 0);
}

proptest! {
    /// Keys that are forgotten and come again, of every coding, against a map.
    #[test]
    fn numbers_of_forgotten_keys_are_given_out_again(
        deeds in proptest::collection::vec((any::<bool>(), proptest::option::of(0u8..30)), 1..200),
        coding in 0..4usize,
    ) {
        let column = |keys: &[Option<u8>]| -> Vec<ArrayRef> {
            let text = |key: u8| "key ".repeat(usize::from(key % 6)) + &key.to_string();
            let numbers: ArrayRef = Arc::new(keys.iter().map(|key| key.map(i64::from)).collect::<Int64Array>());
            let texts = keys.iter().map(|key| key.map(text));
            match coding {
                0 => vec![numbers],
                1 => vec![Arc::new(texts.collect::<StringArray>())],
                2 => vec![numbers, Arc::new(texts.collect::<StringArray>())],
                _ => vec![Arc::new(keys.iter().map(|key| key.map(|key| key > 15)).collect::<BooleanArray>())],
            }
        };
        let types: Vec<DataType> = column(&[]).iter().map(|column| column.data_type().clone()).collect();
        let mut index = KeyIndex::new(&types, 3).unwrap();
        let mut plain: HashMap<Vec<Option<String>>, KeyId> = HashMap::new();
        let (mut ids, mut most) = (Vec::new(), 0);
        for (adds, key) in deeds {
            let columns = column(&[key]);
            let shown = rendered(&columns, 0);
            if adds {
                index.ids(&columns, 1, &mut ids).unwrap();
                if let Some(id) = plain.insert(shown.clone(), ids[0]) {
                    prop_assert_eq!(id, ids[0]);
                }
                prop_assert_eq!(rendered(&index.keys(ids.iter().copied()).unwrap(), 0), shown);
            } else if let Some(id) = plain.remove(&shown) {
                index.forget(id);
                // Twice is once.
                index.forget(id);
            }
            most = most.max(plain.len());
            prop_assert_eq!((index.len(), index.bound()), (plain.len(), most));
            let mut held: Vec<KeyId> = plain.values().copied().collect();
            held.sort_unstable();
            held.dedup();
            prop_assert_eq!(held.len(), plain.len());
        }
    }
}

#[test]
fn a_key_takes_few_bytes_over_its_own() {
    for coding in 0..3 {
        let mut index =
            KeyIndex::new(&[if coding == 0 { DataType::Int64 } else { DataType::Utf8 }], 1).unwrap();
        let mut ids = Vec::new();
        for start in (0..1_000_000i64).step_by(1_000) {
            let keys = start..start + 1_000;
            let column: ArrayRef = match coding {
                0 => Arc::new(keys.collect::<Int64Array>()),
                1 => Arc::new(keys.map(|key| Some(format!("k{key:09}"))).collect::<StringArray>()),
                _ => Arc::new(keys.map(|key| Some(format!("a key of {key:021}"))).collect::<StringArray>()),
            };
            index.ids(&[column], 1_000, &mut ids).unwrap();
        }
        let own = [8, 10, 30][coding];
        let over = index.memory() / index.len() - own;
        assert!(over <= [14, 20, 32][coding], "{over} bytes a key over its own {own}");
    }
}
