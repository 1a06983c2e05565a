//! The queries, and what several of them need.

use std::time::Duration;

use millstream::prelude::*;

pub(crate) mod q0;
pub(crate) mod q1;
pub(crate) mod q10;
pub(crate) mod q11;
pub(crate) mod q12;
pub(crate) mod q13;
pub(crate) mod q14;
pub(crate) mod q15;
pub(crate) mod q16;
pub(crate) mod q17;
pub(crate) mod q18;
pub(crate) mod q19;
pub(crate) mod q2;
pub(crate) mod q20;
pub(crate) mod q21;
pub(crate) mod q22;
pub(crate) mod q3;
pub(crate) mod q4;
pub(crate) mod q5;
pub(crate) mod q7;
pub(crate) mod q8;
pub(crate) mod q9;

/// A price: dollars times an exchange rate of three digits.
pub(crate) type Euros = Decimal<23, 3>;

/// SQL's `0.908 * price`, exact.
pub(crate) fn euros(price: i64) -> Euros {
    Decimal(i128::from(price) * 908)
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// SQL's `DATE_FORMAT(time, 'HH:mm')`.
pub(crate) fn minute(time: Timestamp) -> String {
    let minutes = time.time_of_day().as_secs() / 60;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A value at the place of the price's rank, of three: below 10,000, below 1,000,000, and above.
pub(crate) fn ranked(price: i64, value: i64) -> [Option<i64>; 3] {
    let rank = usize::from(price >= 10_000) + usize::from(price >= 1_000_000);
    std::array::from_fn(|place| (place == rank).then_some(value))
}
