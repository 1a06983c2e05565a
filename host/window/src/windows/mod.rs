//! Aggregates over windows: what their operators share.
//!
//! - `each`: every window of a key has its own state. Tumbling windows; and all that needs it: lateness,
//!   early results, aggregates that cannot be merged, days of a time zone.
//! - `everything`: one window for all rows of a key.
//! - `each_rows`: windows that fire each so many of their rows.
//! - `of_rows`: windows of so many rows.
//! - `sliced`: overlapping windows share slices, so that a row costs the same however many it is in.
//! - `sessions`: windows that merge.
//!
//! How long they take late rows, and when they are emitted, can change while they run: `timing`.

mod each;
mod each_rows;
mod everything;
mod kept;
mod of_rows;
mod sessions;
pub(crate) mod sliced;
#[cfg(test)]
mod tests;
pub(crate) mod timing;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, ListArray, TimestampMillisecondArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use model::Batch;
use model::job_graph::{Aggregate, Assigner, TimeDomain, Trigger, Window};
use state::Backend;

use crate::AggregateError;
use crate::accumulator::Accumulator;
use crate::keys::key_columns;
use crate::operator::{Emit, KeyedOperator, Now, Setting};
use timing::{Lateness, Standing, Timing};

/// How windows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Sessions(Duration),
    OfRows(u64, u64),
    Everything,
    EachRows(u64),
    Sliced,
    Each,
}

impl Keeping {
    /// `is_mergeable`: all the aggregates are.
    fn of(window: &Window, is_mergeable: bool) -> Self {
        let is_overlapping = match &window.assigner {
            Assigner::Session(gap) => return Self::Sessions(*gap),
            Assigner::Count { size, step } => return Self::OfRows(*size, *step),
            Assigner::Everything if !matches!(window.trigger, Trigger::Count(_)) => return Self::Everything,
            Assigner::Tumbling(_) | Assigner::Everything => false,
            Assigner::Sliding(grid) | Assigner::Cumulating(grid) => {
                grid.zone.is_none() && grid.size > grid.step
            }
        };
        if let Trigger::Count(each) = window.trigger {
            return Self::EachRows(each);
        }
        let is_plain = window.lateness.is_zero() && window.trigger == Trigger::AtEnd;
        if is_overlapping && is_plain && is_mergeable { Self::Sliced } else { Self::Each }
    }
}

/// The operator of windows that a node is.
pub(crate) fn operator(
    window: &Window,
    setting: Setting<'_>,
) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    let aggregates = setting.aggregates(&window.aggregates)?;
    let is_mergeable = aggregates.list.iter().all(Accumulator::is_mergeable);
    Ok(match Keeping::of(window, is_mergeable) {
        Keeping::Sessions(gap) => Box::new(sessions::Sessions::new(gap, window, setting)?),
        Keeping::OfRows(size, step) => Box::new(of_rows::OfRows::new((size, step), window, setting)?),
        Keeping::Everything => Box::new(everything::Everything::new(window, setting)?),
        Keeping::EachRows(each) => Box::new(each_rows::EachRows::new(each, window, setting)?),
        Keeping::Sliced => Box::new(sliced::Sliced::new(window, setting)?),
        Keeping::Each => Box::new(each::EachWindow::new(window, setting)?),
    })
}

/// The columns that leave: the key's, the window's start and end (of windows of time), then one for each
/// aggregate, named as [`output_schema`](crate::output_schema) does.
///
/// # Errors
/// If an aggregate cannot be taken over this input.
pub fn window_schema(
    input: &Schema,
    keys: &[u32],
    assigner: &Assigner,
    aggregates: &[Aggregate],
) -> Result<SchemaRef, AggregateError> {
    let all = crate::output_schema(input, keys, aggregates)?;
    if matches!(assigner, Assigner::Count { .. } | Assigner::Everything) {
        return Ok(all);
    }
    let (of_keys, results) = all.fields().split_at(keys.len());
    let mut fields: Vec<Field> = of_keys.iter().map(|field| field.as_ref().clone()).collect();
    for name in ["window_start", "window_end"] {
        fields.push(Field::new(name, instant_type(), false));
    }
    fields.extend(results.iter().map(|field| field.as_ref().clone()));
    Ok(Arc::new(Schema::new(fields)))
}

/// Refuses aggregates that windows which are merged, sessions and those of so many rows, cannot have.
///
/// # Errors
/// Which one.
pub fn check_aggregates(window: &Window, input: &Schema) -> Result<(), AggregateError> {
    for aggregate in &window.aggregates {
        let accumulator = Accumulator::new(aggregate, input)?;
        if !accumulator.is_distinct() {
            continue;
        }
        match window.assigner {
            Assigner::Session(_) => return Err(AggregateError::Sessions(aggregate.function.clone())),
            Assigner::Count { .. } => return Err(AggregateError::Rows(aggregate.function.clone())),
            _ => {}
        }
    }
    Ok(())
}

/// What the operators of windows have in common.
struct Frame {
    keys: Vec<usize>,
    key_types: Vec<DataType>,
    output: SchemaRef,
    domain: TimeDomain,
    lateness: Lateness,
    late_port: Option<u32>,
    /// Rows that were dropped as late.
    late: usize,
    /// Where rows come out of a first phase: the column that says how many each is.
    counts: Option<usize>,
    /// Later results update earlier ones.
    changes: bool,
}

impl Frame {
    fn new(window: &Window, setting: &Setting<'_>) -> Self {
        // At the end of the input there are final results only.
        let early = Timing::of(window).early().filter(|_| !setting.batch);
        Self {
            keys: setting.keys[0].clone(),
            key_types: setting.key_types(),
            output: Arc::clone(&setting.outputs[0]),
            domain: window.time,
            lateness: Lateness::new(window.time, millis(window.lateness), early),
            late_port: window.late_port,
            late: 0,
            counts: setting.first_phase.map(|_| setting.inputs[0].fields().len() - 1),
            changes: setting.changes,
        }
    }

    /// The types of a key and an instant.
    fn timed_key_types(&self) -> Vec<DataType> {
        self.key_types.iter().cloned().chain([instant_type()]).collect()
    }

    fn key_columns(&self, rows: &Batch) -> Vec<ArrayRef> {
        key_columns(rows, &self.keys)
    }

    /// The rows' times by the windows' clock.
    fn times(&self, rows: &Batch, now: Now) -> Result<ScalarBuffer<i64>, AggregateError> {
        match (self.domain, rows.event_times()) {
            (TimeDomain::ProcessingTime, _) => Ok(vec![now.processing_time; rows.num_rows()].into()),
            (TimeDomain::EventTime, Some(times)) => Ok(times.clone()),
            (TimeDomain::EventTime, None) => Err(AggregateError::NoTime),
        }
    }

    /// What the windows' clock says: times up to this one have passed.
    fn passed(&self, now: Now) -> i64 {
        match self.domain {
            TimeDomain::EventTime => now.watermark,
            // Rows may still come in this millisecond.
            TimeDomain::ProcessingTime => now.processing_time.saturating_sub(1),
        }
    }

    /// Takes other times over.
    fn change(&mut self, timing: &Timing, now: Now) {
        let passed = self.passed(now);
        self.lateness.change(millis(timing.lateness), timing.early(), passed);
    }

    /// What a snapshot keeps of them.
    fn standing(&self, now: Now) -> Standing {
        self.lateness.standing(self.passed(now))
    }

    /// When something is due by processing time. At once, where timers are to be set anew.
    fn next_timer(&self, backend: &dyn Backend) -> Option<i64> {
        if self.lateness.is_resetting() {
            return Some(i64::MIN);
        }
        backend.next_timer(TimeDomain::ProcessingTime).map(Self::passes_at)
    }

    /// When the clock says that an instant has passed.
    fn passes_at(instant: i64) -> i64 {
        instant.saturating_add(1)
    }

    /// Gives the late rows at these places to their port, or counts them.
    fn on_late(&mut self, rows: &Batch, places: &[u32], emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        match self.late_port {
            _ if places.is_empty() => {}
            Some(port) => emit(port, rows.take(places)?),
            None => self.late += self.rows_at(rows, places),
        }
        Ok(())
    }

    /// How many rows are at these places.
    fn rows_at(&self, rows: &Batch, places: &[u32]) -> usize {
        let Some(counts) = self.counts else { return places.len() };
        let counts = rows.column(counts).as_primitive::<Int64Type>();
        places.iter().map(|place| usize::try_from(counts.value(*place as usize)).unwrap_or(0)).sum()
    }

    /// Results of windows `[start, end)` of these keys.
    fn results(
        &self,
        mut columns: Vec<ArrayRef>,
        starts: Vec<i64>,
        ends: &[i64],
        results: Vec<ArrayRef>,
    ) -> Result<Batch, AggregateError> {
        columns.push(instants(starts));
        columns.push(instants(ends.to_vec()));
        columns.extend(self.fitted(results)?);
        let times: ScalarBuffer<i64> = ends.iter().map(|end| end - 1).collect();
        Ok(Batch::of(Arc::clone(&self.output), ends.len(), columns)?.with_event_times(Some(times)))
    }

    /// Results as the output has them: it may name the items of a sequence otherwise.
    fn fitted(&self, mut results: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, AggregateError> {
        let first = self.output.fields().len() - results.len();
        for (result, field) in results.iter_mut().zip(&self.output.fields()[first..]) {
            if let DataType::List(item) = field.data_type()
                && result.data_type() != field.data_type()
            {
                let (_, offsets, values, nulls) = result.as_list::<i32>().clone().into_parts();
                *result = Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?);
            }
        }
        Ok(results)
    }

    /// Results of windows of these keys that have no start and end; at these times, if they have some.
    fn results_without_ends(
        &self,
        mut columns: Vec<ArrayRef>,
        results: Vec<ArrayRef>,
        times: Option<Vec<i64>>,
    ) -> Result<Batch, AggregateError> {
        columns.extend(self.fitted(results)?);
        let rows = columns.first().map_or(0, |column| column.len());
        let times = times.map(ScalarBuffer::from);
        Ok(Batch::of(Arc::clone(&self.output), rows, columns)?.with_event_times(times))
    }
}

/// The type of a timestamp in milliseconds, as every schema of a job has it.
pub(crate) fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

pub(crate) fn instants(times: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::new(times.into(), None).with_timezone("UTC"))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
