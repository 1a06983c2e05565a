//! A stand-in for the host's nodes of watermarks.

use millstream_sys::bindings::millstream::job::graph::{self, WatermarkStrategy};
use millstream_sys::bindings::millstream::job::rows::{Batch, DataType, Field, TimeUnit};

use super::value::{Value, concatenated, value_at};

/// Gives rows their times, and keeps the watermark.
pub(super) struct Watermarks {
    contract: graph::Watermarks,
    fields: Vec<Field>,
    watermark: i64,
}

/// Rows with their times.
pub(super) struct Timed {
    pub(super) rows: Batch,
    pub(super) failures: Vec<(u32, String)>,
    /// if it has risen
    pub(super) watermark: Option<i64>,
}

impl Watermarks {
    pub(super) fn new(contract: graph::Watermarks, fields: Vec<Field>) -> Watermarks {
        Watermarks { contract, fields, watermark: i64::MIN }
    }

    /// Raises the watermark to a time; says whether it was lower.
    pub(super) fn raise(&mut self, time: i64) -> bool {
        let rises = time > self.watermark;
        self.watermark = self.watermark.max(time);
        rises
    }

    pub(super) fn process(&mut self, rows: &Batch, now: i64, is_dated: bool) -> Timed {
        let mut failures = Vec::new();
        let mut kept = Vec::new();
        let mut times = Vec::new();
        let mut greatest = None;
        for row in 0..rows.length {
            let time = match self.contract.time_column {
                Some(column) => self.time(rows, column, row as usize),
                None => Some(rows.event_times.as_ref().map_or(now, |times| times[row as usize])),
            };
            let Some(time) = time else {
                failures.push((row, "the row has no event time".to_string()));
                continue;
            };
            let ahead = self.contract.ahead_max.filter(|_| is_dated).and_then(|max| i64::try_from(max).ok());
            if ahead.is_some_and(|ahead| time > now.saturating_add(ahead)) {
                failures.push((row, format!("the row's event time, {time}, is too far ahead")));
                continue;
            }
            kept.push(row as usize);
            times.push(time);
            let mark = match self.contract.strategy {
                WatermarkStrategy::Bounded(bound) => {
                    Some(time.saturating_sub(i64::try_from(bound).unwrap_or(i64::MAX)))
                }
                WatermarkStrategy::Punctuated(column) => self.time(rows, column, row as usize),
            };
            greatest = greatest.max(mark);
        }
        let parts: Vec<_> = kept.iter().map(|row| (Some(&rows.columns[..]), *row..row + 1)).collect();
        let columns = concatenated(&self.fields, &parts);
        let kinds = rows.kinds.as_ref().map(|kinds| kept.iter().map(|row| kinds[*row]).collect());
        let timed = Batch { length: times.len() as u32, event_times: Some(times), kinds, columns };
        let watermark = greatest.map(|time| time.saturating_sub(1)).filter(|time| self.raise(*time));
        Timed { rows: timed, failures, watermark }
    }

    /// A timestamp column's value, in milliseconds.
    fn time(&self, rows: &Batch, column: u32, row: usize) -> Option<i64> {
        let Value::Integer(value) = value_at(&rows.columns[column as usize], row) else { return None };
        let unit = match self.fields[column as usize].data_type {
            DataType::Timestamp(TimeUnit::Microseconds) => 1_000,
            DataType::Timestamp(TimeUnit::Nanoseconds) => 1_000_000,
            _ => 1,
        };
        i64::try_from(value.div_euclid(unit)).ok()
    }
}
