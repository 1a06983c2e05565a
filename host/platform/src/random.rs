//! Randomness, always from a seed that can be told.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A stream of random numbers. One seed gives one stream.
pub struct Random(SmallRng);

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A seed that nobody can foretell, for hash tables.
    #[must_use]
    pub fn unpredictable_seed() -> u64 {
        rand::random()
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.random()
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }
}
