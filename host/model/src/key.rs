//! Keys: their hash, which is part of the contract, and the key groups that follow from it.
//!
//! The hash of a row's key is made column by column: `h = 0`, then for each key column
//! `h = hash_value(canonical bytes of the value, seed = h)`, of [`crate::hash`]; a null is the empty
//! string under the seed `!h`. Canonical bytes: integers, dates, timestamps and booleans as the 8 bytes of an i64,
//! least significant first; floats as those of an f64, with −0.0 as 0.0 and every NaN as one;
//! decimals as the 16 bytes of the unscaled i128; text and binary as they are; the members of a
//! structure one after the other. Widening a key column thus keeps its key groups.

use std::ops::Range;

use crate::hash::{hash_number, hash_range, hash_value};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

/// The partition hash of a key. Not seeded: the same in every process and release.
pub type KeyHash = u64;

/// A share of the keys: the unit of rescaling. Below the job's max parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(pub u16);

/// The least and the greatest max parallelism that is chosen, and the greatest that can be set.
pub const MAX_PARALLELISM_BOUNDS: (u32, u32) = (128, 32_768);

/// The max parallelism for a parallelism: the next power of two of 1.5 p, within bounds.
///
/// Source: Flink, `KeyGroupRangeAssignment.computeDefaultMaxParallelism`.
#[must_use]
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    let (least, greatest) = MAX_PARALLELISM_BOUNDS;
    parallelism.saturating_add(parallelism / 2).next_power_of_two().clamp(least, greatest)
}

/// The key group of a key.
///
/// # Panics
/// If max parallelism is above 65,536.
#[must_use]
#[inline]
pub fn key_group(hash: KeyHash, max_parallelism: u32) -> KeyGroup {
    let max = u64::from(max_parallelism);
    KeyGroup(u16::try_from(hash % max).expect("max parallelism is at most 32,768"))
}

/// The half-open range of key groups that `subtask` of `parallelism` owns unless told otherwise.
/// Ranges are contiguous and differ by one group at most.
///
/// Source: Flink, `KeyGroupRangeAssignment`.
///
/// # Panics
/// If `subtask >= parallelism`.
#[must_use]
pub fn key_group_range(max_parallelism: u32, parallelism: u32, subtask: u32) -> Range<u32> {
    assert!(subtask < parallelism);
    let start = (subtask * max_parallelism).div_ceil(parallelism);
    let end = ((subtask + 1) * max_parallelism).div_ceil(parallelism);
    start..end
}

/// The subtask that owns each key group, by the planner's default.
#[must_use]
pub fn key_group_owners(max_parallelism: u32, parallelism: u32) -> Vec<u16> {
    (0..max_parallelism).map(|group| (group * parallelism / max_parallelism) as u16).collect()
}

/// The subtask that owns each key, into `subtasks`, which is cleared first. `owners` has the subtask
/// of each key group.
///
/// # Panics
/// If there are no owners, or more than 65,536.
pub fn owners_of_keys(hashes: &[KeyHash], owners: &[u16], subtasks: &mut Vec<u16>) {
    subtasks.clear();
    if owners.len().is_power_of_two() {
        // [`key_group`] of a power of two: said here once, not asked for each row.
        let mask = owners.len() - 1;
        subtasks.extend(hashes.iter().map(|hash| owners[*hash as usize & mask]));
    } else {
        let max_parallelism = u32::try_from(owners.len()).expect("max parallelism is at most 32,768");
        subtasks.extend(hashes.iter().map(|hash| owners[usize::from(key_group(*hash, max_parallelism).0)]));
    }
}

/// Whether a column of this type can be a key (sequences cannot).
#[must_use]
pub fn can_be_key(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(members) => members.iter().all(|member| can_be_key(member.data_type())),
        DataType::List(_) => false,
        _ => true,
    }
}

/// Hashes the keys of `rows` rows into `hashes`, which is cleared first.
///
/// # Panics
/// If a column is of a type that cannot be a key; plans with such keys are refused.
pub fn hash_keys(columns: &[&ArrayRef], rows: usize, hashes: &mut Vec<KeyHash>) {
    hashes.clear();
    hashes.resize(rows, 0);
    for column in columns {
        hash_column(column, hashes);
    }
}

fn hash_column(column: &ArrayRef, hashes: &mut [KeyHash]) {
    match column.data_type() {
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            hash_bytes(column, values.offsets(), values.values(), hashes);
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            hash_bytes(column, values.offsets(), values.values(), hashes);
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().values();
            each(column, hashes, |i, h| hash_integer(values[i], h));
        }
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>().values();
            each(column, hashes, |i, h| hash_integer(i64::from(values[i]), h));
        }
        DataType::Date32 => {
            let values = column.as_primitive::<Date32Type>().values();
            each(column, hashes, |i, h| hash_integer(i64::from(values[i]), h));
        }
        DataType::Timestamp(..) => {
            let data = column.to_data();
            let values = data.buffer::<i64>(0);
            each(column, hashes, |i, h| hash_integer(values[i], h));
        }
        DataType::Boolean => {
            let values = column.as_boolean();
            each(column, hashes, |i, h| hash_integer(i64::from(values.value(i)), h));
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().values();
            each(column, hashes, |i, h| hash_float(f64::from(values[i]), h));
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().values();
            each(column, hashes, |i, h| hash_float(values[i], h));
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>().values();
            each(column, hashes, |i, h| hash_value(&values[i].to_le_bytes(), h));
        }
        DataType::Struct(_) => {
            let structure = column.as_struct();
            let before = hashes.to_vec();
            for member in structure.columns() {
                hash_column(member, hashes);
            }
            if let Some(nulls) = structure.nulls() {
                for i in (0..hashes.len()).filter(|i| nulls.is_null(*i)) {
                    hashes[i] = hash_value(&[], !before[i]);
                }
            }
        }
        other => unreachable!("plans with keys of type {other} are refused"),
    }
}

#[inline(always)]
fn each(column: &ArrayRef, hashes: &mut [KeyHash], hash: impl Fn(usize, KeyHash) -> KeyHash) {
    match column.nulls() {
        None => hashes.iter_mut().enumerate().for_each(|(i, h)| *h = hash(i, *h)),
        Some(nulls) => hashes.iter_mut().enumerate().for_each(|(i, h)| {
            *h = if nulls.is_null(i) { hash_value(&[], !*h) } else { hash(i, *h) };
        }),
    }
}

fn hash_bytes(column: &ArrayRef, offsets: &[i32], data: &[u8], hashes: &mut [KeyHash]) {
    if column.nulls().is_some() {
        let value = |i: usize| &data[offsets[i] as usize..offsets[i + 1] as usize];
        return each(column, hashes, |i, h| hash_value(value(i), h));
    }
    let mut start = offsets[0] as usize;
    for (hash, end) in hashes.iter_mut().zip(&offsets[1..]) {
        let end = *end as usize;
        *hash = hash_range(data, start, end, *hash);
        start = end;
    }
}

#[inline]
fn hash_integer(value: i64, seed: KeyHash) -> KeyHash {
    hash_number(value.cast_unsigned(), seed)
}

#[inline]
fn hash_float(value: f64, seed: KeyHash) -> KeyHash {
    let canonical = if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    hash_number(canonical.to_bits(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Float64Array, Int32Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        let mut out = Vec::new();
        hash_keys(&columns.iter().collect::<Vec<_>>(), columns[0].len(), &mut out);
        out
    }

    /// The vectors of the contract: they never change.
    #[test]
    fn vectors() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None, Some("a"), Some("millstream")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(-1), None, Some(42)]));
        assert_eq!(
            hashes(&[Arc::clone(&text)]),
            [6876824051721610163, 12808853418874044966, 419570183665626262, 7880811124887324125]
        );
        assert_eq!(
            hashes(&[text, numbers]),
            [211410055313383039, 14252545060066485756, 8856670105759828820, 3147840284382237250]
        );
    }

    #[test]
    fn widening_and_signs_of_zero_keep_the_hash() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7, -7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![7, -7]));
        assert_eq!(hashes(&[narrow]), hashes(&[wide]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let h = hashes(&[floats]);
        assert_eq!(h[0], h[1]);
        assert_eq!(h[2], h[3]);
        assert_ne!(h[0], h[2]);
    }

    #[test]
    fn every_group_has_the_owner_whose_range_holds_it() {
        for (max, p) in [(128, 1), (128, 3), (128, 7), (128, 128), (512, 200), (32_768, 4_096)] {
            let owners = key_group_owners(max, p);
            for subtask in 0..p {
                for group in key_group_range(max, p, subtask) {
                    assert_eq!(u32::from(owners[group as usize]), subtask, "max {max}, p {p}");
                }
            }
        }
    }

    #[test]
    fn max_parallelism_is_flinks() {
        let cases = [(1, 128), (85, 128), (86, 256), (200, 512), (4_096, 8_192), (32_768, 32_768)];
        for (p, max) in cases {
            assert_eq!(default_max_parallelism(p), max, "p = {p}");
        }
    }
}
