//! Local time in a zone: what the clocks there show at an instant, and when they show it first.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::AggregateError;

/// A time zone. Times are in milliseconds; those of the clocks as if they were UTC.
#[derive(Clone, Debug)]
pub(super) struct Zone(Tz);

/// Beyond these years the clocks are as they are then: calendars end.
const TIMES: std::ops::RangeInclusive<i64> = -6_000_000_000_000_000..=6_000_000_000_000_000;
/// No clocks differ by more from UTC, or skip more.
const DIFFERENCE_MAX: i64 = 26 * 60 * 60 * 1_000;

impl Zone {
    pub(super) fn new(name: &str) -> Result<Self, AggregateError> {
        let zone = name.parse();
        zone.map(Self).map_err(|_| AggregateError::Grid(format!("there is no time zone `{name}`")))
    }

    /// What the clocks show at an instant.
    pub(super) fn local(&self, instant: i64) -> i64 {
        let within = instant.clamp(*TIMES.start(), *TIMES.end());
        let offset = self.0.offset_from_utc_datetime(&naive(within)).fix().local_minus_utc();
        instant.saturating_add(i64::from(offset) * 1_000)
    }

    /// The first instant at which the clocks have come so far.
    pub(super) fn instant(&self, local: i64) -> i64 {
        let within = local.clamp(*TIMES.start(), *TIMES.end());
        let instant = match self.0.from_local_datetime(&naive(within)) {
            MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => time.timestamp_millis(),
            MappedLocalTime::None => self.after_gap(within),
        };
        instant.saturating_add(local - within)
    }

    /// The instant at which the clocks skip this time.
    fn after_gap(&self, local: i64) -> i64 {
        let (mut before, mut after) = (local - DIFFERENCE_MAX, local + DIFFERENCE_MAX);
        while before + 1 < after {
            let middle = before + (after - before) / 2;
            match self.local(middle) < local {
                true => before = middle,
                false => after = middle,
            }
        }
        after
    }
}

fn naive(time: i64) -> NaiveDateTime {
    // Within the calendar's years, so there is one.
    DateTime::from_timestamp_millis(time).unwrap_or_default().naive_utc()
}
