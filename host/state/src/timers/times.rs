//! A key's further timers: in a vector while they are few, in a tree when they are many.

use std::collections::BTreeSet;

/// Instants, each once, in milliseconds since the epoch.
#[derive(Debug)]
pub(super) enum Times {
    /// The latest first.
    Few(Vec<i64>),
    Many(BTreeSet<i64>),
}

/// So many are few.
const FEW: usize = 64;

impl Default for Times {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Times {
    /// Adds one; whether it was not there.
    pub(super) fn insert(&mut self, time: i64) -> bool {
        match self {
            Self::Few(times) => {
                let Err(at) = times.binary_search_by(|other| time.cmp(other)) else { return false };
                if times.len() < FEW {
                    times.insert(at, time);
                } else {
                    *self = Self::Many(times.iter().copied().chain([time]).collect());
                }
                true
            }
            Self::Many(times) => times.insert(time),
        }
    }

    /// Takes one out, if it is there.
    pub(super) fn take(&mut self, time: i64) -> Option<i64> {
        match self {
            Self::Few(times) => {
                let at = times.binary_search_by(|other| time.cmp(other)).ok()?;
                Some(times.remove(at))
            }
            Self::Many(times) => times.take(&time),
        }
    }

    /// Takes the first.
    pub(super) fn pop_first(&mut self) -> Option<i64> {
        match self {
            Self::Few(times) => times.pop(),
            Self::Many(times) => times.pop_first(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(times) => times.is_empty(),
            Self::Many(times) => times.is_empty(),
        }
    }

    /// All, the first first.
    pub(super) fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        let (few, many) = match self {
            Self::Few(times) => (Some(times), None),
            Self::Many(times) => (None, Some(times)),
        };
        few.into_iter().flat_map(|times| times.iter().rev()).chain(many.into_iter().flatten()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_a_set(deeds in proptest::collection::vec((0..4u8, 0i64..200), 0..600)) {
            let (mut times, mut plain) = (Times::default(), BTreeSet::new());
            for (deed, time) in deeds {
                match deed {
                    0 => prop_assert_eq!(times.pop_first(), plain.pop_first()),
                    1 => prop_assert_eq!(times.take(time), plain.take(&time)),
                    _ => prop_assert_eq!(times.insert(time), plain.insert(time)),
                }
                prop_assert_eq!(times.is_empty(), plain.is_empty());
            }
            prop_assert!(times.iter().eq(plain.iter().copied()));
        }
    }
}
