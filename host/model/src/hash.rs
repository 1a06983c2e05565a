//! The hash of one value, part of the contract; [`crate::key`] says how values become a key's.
//!
//! Up to 16 bytes, which nearly all keys have: two folded multiplications, as in wyhash (Wang Yi),
//! with no branch on the length, as words are of every length. Longer values: XXH3 with the seed.
//!
//! `a` is the first 8 bytes as a number, least significant first, with zeros where there are fewer;
//! `b` the last 8, or 0 where there are no more than 8. With `low` and `high` the halves of the
//! 128-bit product `(a ^ K1) * (b ^ K2 ^ seed)`, the hash is the halves of
//! `(low ^ K0 ^ length) * (high ^ K1)`, one xor the other.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const K0: u64 = 0x9E37_79B9_7F4A_7C15;
const K1: u64 = 0xE703_7ED1_A0B4_28DB;
const K2: u64 = 0x8EBC_6AF0_9C88_C6E3;
/// Values up to this length have the short form.
const SHORT: usize = 16;

/// The hash of a value.
#[must_use]
#[inline]
pub fn hash_value(value: &[u8], seed: u64) -> u64 {
    if value.len() > SHORT {
        return xxh3_64_with_seed(value, seed);
    }
    let word = |bytes: &[u8]| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    };
    let a = word(&value[..value.len().min(8)]);
    let b = if value.len() > 8 { word(&value[value.len() - 8..]) } else { 0 };
    mix(a, b, value.len() as u64, seed)
}

/// The hash of a number's 8 bytes.
#[inline(always)]
pub(crate) fn hash_number(value: u64, seed: u64) -> u64 {
    mix(value, 0, 8, seed)
}

/// The hash of `data[start..end]`, by loads that may take in neighbours, which are then masked.
#[inline(always)]
pub(crate) fn hash_range(data: &[u8], start: usize, end: usize, seed: u64) -> u64 {
    let length = end.wrapping_sub(start);
    // From 1 to 16 bytes, with one comparison.
    if length.wrapping_sub(1) >= SHORT {
        return hash_at_an_end(data, start, end, seed);
    }
    let Some(first) = data.get(start..start.wrapping_add(8)) else {
        return hash_at_an_end(data, start, end, seed);
    };
    let Some(last) = data.get(end.wrapping_sub(8)..end) else {
        return hash_at_an_end(data, start, end, seed);
    };
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let a = word(first) & (u64::MAX >> (64 - 8 * length.min(8)));
    let b = if length > 8 { word(last) } else { 0 };
    mix(a, b, length as u64, seed)
}

#[cold]
#[inline(never)]
fn hash_at_an_end(data: &[u8], start: usize, end: usize, seed: u64) -> u64 {
    hash_value(&data[start..end], seed)
}

#[inline(always)]
fn mix(a: u64, b: u64, length: u64, seed: u64) -> u64 {
    let product = u128::from(a ^ K1) * u128::from(b ^ K2 ^ seed);
    let (low, high) = (product as u64, (product >> 64) as u64);
    let product = u128::from(low ^ K0 ^ length) * u128::from(high ^ K1);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_within_others_has_its_own_hash(
            data in proptest::collection::vec(any::<u8>(), 0..60),
            from in any::<proptest::sample::Index>(),
            length in 0usize..20,
            seed in any::<u64>(),
        ) {
            let start = if data.is_empty() { 0 } else { from.index(data.len()) };
            let end = (start + length).min(data.len());
            prop_assert_eq!(hash_range(&data, start, end, seed), hash_value(&data[start..end], seed));
        }

        #[test]
        fn a_number_is_its_bytes(value in any::<u64>(), seed in any::<u64>()) {
            prop_assert_eq!(hash_number(value, seed), hash_value(&value.to_le_bytes(), seed));
        }
    }

    /// How unevenly hashes lie in 128 groups: chi-square over its degrees of freedom, about 1 for a
    /// good hash.
    fn unevenness(hashes: impl Iterator<Item = u64>) -> f64 {
        let mut counts = [0f64; 128];
        hashes.for_each(|hash| counts[(hash % 128) as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / 128.0;
        counts.iter().map(|count| (count - mean).powi(2) / mean).sum::<f64>() / 127.0
    }

    #[test]
    fn keys_that_are_alike_lie_evenly_in_groups() {
        for seed in [0, 1, u64::MAX, hash_value(b"a", 0)] {
            let numbers = |step: u64| unevenness((0..100_000).map(|i| hash_number(i * step, seed)));
            for step in [1, 2, 128, 1 << 20, 1 << 40] {
                assert!(numbers(step) < 1.6, "numbers {step} apart: {}", numbers(step));
            }
            for pattern in ["{}", "w{}", "user-{}", "{}@example.org", "a longer name that ends in {}"] {
                let words =
                    (0..100_000).map(|i| hash_value(pattern.replace("{}", &i.to_string()).as_bytes(), seed));
                let found = unevenness(words);
                assert!(found < 1.6, "{pattern}: {found}");
            }
        }
        assert!(unevenness((0..100_000).map(|i| i & !1)) > 1.6, "an uneven one is seen");
    }

    #[test]
    fn lengths_and_zeros_matter() {
        let mut hashes: Vec<u64> = (0..20).map(|length| hash_value(&vec![0; length], 0)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 20);
    }
}
