//! Event time: takes each row's from a column, and makes watermarks of them.
//!
//! Source: Flink, `TimestampsAndWatermarksOperator`; but the watermark goes out after each batch
//! instead of every 200 ms, so that a run over the same batches gives the same result.
//! Right after a source that has splits, each split has its own (`split_times.rs`).

use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use model::element::Mark;
use model::job_graph::{AHEAD_MAX, FailurePolicy, WatermarkStrategy, Watermarks};
use model::{Batch, Diagnostic};
use platform::Clock;

use super::function::row_text;
use super::split_times::SplitTimes;
use super::{Element, Emit, Input, Place, Ran, dead_letters};
use crate::alignment::Alignment;
use crate::metrics::{Counters, add};

pub(crate) struct WatermarksOperator {
    pub(crate) spec: Watermarks,
    pub(crate) clock: Clock,
    pub(crate) policy: FailurePolicy,
    /// The last port, where the policy is to divert.
    pub(crate) failures: Option<(u32, SchemaRef)>,
    pub(crate) place: Place,
    pub(crate) alignment: Option<Alignment>,
    /// Where it follows a source that has splits, in one chain.
    pub(crate) splits: Option<SplitTimes>,
    pub(crate) progress: EventTime,
}

/// How far event time is.
pub(crate) struct EventTime {
    /// The greatest watermark so far; the least instant = none.
    watermark: i64,
    /// One that has not been said.
    unsaid: Option<Mark>,
    /// When the last rows came, by the clock.
    last_rows: Duration,
    idle: bool,
    rows: u64,
}

impl EventTime {
    /// Of a subtask that begins now.
    pub(crate) fn new(now: Duration) -> Self {
        Self { watermark: i64::MIN, unsaid: None, last_rows: now, idle: false, rows: 0 }
    }

    /// Whether there is something to say before anything else.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.unsaid.is_some()
    }

    /// The greatest watermark so far; the least instant = none.
    pub(crate) fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Raises the watermark to a time, whatever the rows say.
    pub(crate) fn raise(&mut self, time: i64) {
        if time > self.watermark {
            self.watermark = time;
            self.unsaid = Some(Mark::Watermark(time));
        }
    }
}

/// A row that has no time, or an unlikely one.
struct Failure {
    row: u32,
    message: String,
}

impl WatermarksOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<Ran, Diagnostic> {
        // What other subtasks have read may hold this one back no more.
        self.advance();
        if let Some(mark) = self.progress.unsaid.take() {
            return Ok(Ran::Forward(mark));
        }
        if !input.elements.is_empty()
            && let Some(alignment) = &self.alignment
            && !alignment.may_go_on(self.progress.watermark)
        {
            // Rows are there, so it is not idle: it is told to wait.
            self.progress.last_rows = self.clock.now();
            return Ok(Ran::Idle);
        }
        match input.elements.pop_front() {
            Some(Element::Rows(_, rows)) => {
                self.take(rows, counters, emit)?;
                Ok(Ran::Progress)
            }
            Some(Element::Mark(mark @ Mark::Latency(_))) => Ok(Ran::Forward(mark)),
            // Watermarks are made here, and those from before are not heard.
            Some(Element::Mark(Mark::Watermark(_) | Mark::Idle)) => Ok(Ran::Progress),
            None if input.ended => {
                self.alignment = None;
                Ok(Ran::Ended)
            }
            None => match self.idle_at() {
                Some(at) if self.clock.now() >= at => {
                    // What it reads may give no rows for long; idle is who has nothing to read.
                    if self.splits.as_ref().is_some_and(SplitTimes::is_busy) {
                        self.progress.last_rows = self.clock.now();
                        return Ok(Ran::Idle);
                    }
                    self.progress.idle = true;
                    self.alignment.iter().for_each(|alignment| alignment.report(None));
                    Ok(Ran::Forward(Mark::Idle))
                }
                _ => Ok(Ran::Idle),
            },
        }
    }

    /// When the subtask counts as idle, unless rows come.
    pub(crate) fn idle_at(&self) -> Option<Duration> {
        let after = self.spec.idle_after.filter(|_| !self.progress.idle)?;
        Some(self.progress.last_rows + after)
    }

    fn take(&mut self, rows: Batch, counters: &Counters, emit: &mut Emit<'_>) -> Result<(), Diagnostic> {
        self.progress.last_rows = self.clock.now();
        if std::mem::take(&mut self.progress.idle) {
            counters.hold();
            self.alignment.iter().for_each(|alignment| alignment.report(Some(self.progress.watermark)));
        }
        let now = self.clock.wall_ms();
        let (times, failures) = self.times(&rows, now);
        let before = self.progress.rows;
        self.progress.rows += rows.num_rows() as u64;
        if failures.is_empty() {
            let rows = rows.with_event_times(Some(times.into()));
            return self.send(rows, counters, emit);
        }
        let untimed = rows.with_event_times(None);
        let failed: Vec<u32> = failures.iter().map(|failure| failure.row).collect();
        match (self.policy, &self.failures) {
            (FailurePolicy::Skip, _) => add(&counters.rows_skipped, failures.len()),
            (FailurePolicy::Divert, Some((port, schema))) => {
                add(&counters.rows_diverted, failures.len());
                let letters = failures.iter().map(|failure| (failure.row, failure.message.as_str()));
                emit(*port, dead_letters(&untimed, letters, schema)?)?;
            }
            (FailurePolicy::Fail | FailurePolicy::Divert, _) => {
                let Failure { row, message } = &failures[0];
                return Err(Diagnostic::user(format!("a row has no usable event time: {message}"))
                    .detail(format!(
                        "{}, row {}: {}",
                        self.place.text(),
                        before + u64::from(*row) + 1,
                        row_text(&untimed, *row as usize)
                    ))
                    .hint("to go on without such rows, give the watermarks a failure policy: skip, or a side output"));
            }
        }
        let kept: Vec<u32> =
            (0..).take(untimed.num_rows()).filter(|row| failed.binary_search(row).is_err()).collect();
        let times = kept.iter().map(|row| times[*row as usize]).collect();
        let rows = untimed.take(&kept).map_err(|error| Diagnostic::internal(error.to_string()))?;
        self.send(rows.with_event_times(Some(times)), counters, emit)
    }

    fn send(&mut self, rows: Batch, counters: &Counters, emit: &mut Emit<'_>) -> Result<(), Diagnostic> {
        let greatest = match self.spec.strategy {
            WatermarkStrategy::Bounded(bound) => {
                let bound = i64::try_from(bound.as_millis()).unwrap_or(i64::MAX);
                let greatest = rows.event_times().and_then(|times| times.iter().max().copied());
                greatest.map(|time| time.saturating_sub(bound))
            }
            WatermarkStrategy::Punctuated(column) => {
                milliseconds(rows.column(column as usize)).into_iter().flatten().max()
            }
        };
        match (greatest.map(|time| time.saturating_sub(1)), &mut self.splits) {
            (Some(watermark), Some(splits)) => splits.raise(watermark),
            (Some(watermark), None) => self.rise_to(watermark),
            (None, _) => {}
        }
        self.advance();
        if rows.num_rows() > 0 {
            add(&counters.rows_out, rows.num_rows());
            emit(0, rows)?;
        }
        Ok(())
    }

    /// Follows the watermarks of the splits, unless the subtask is idle.
    fn advance(&mut self) {
        if !self.progress.idle
            && let Some(watermark) = self.splits.as_ref().and_then(SplitTimes::watermark)
        {
            self.rise_to(watermark);
        }
    }

    fn rise_to(&mut self, watermark: i64) {
        if watermark > self.progress.watermark {
            self.progress.watermark = watermark;
            self.alignment.iter().for_each(|alignment| alignment.report(Some(watermark)));
            self.progress.unsaid = Some(Mark::Watermark(watermark));
        }
    }

    /// Each row's event time (of a row that fails: anything), and the rows that fail.
    fn times(&self, rows: &Batch, now: i64) -> (Vec<i64>, Vec<Failure>) {
        let mut failures = Vec::new();
        let mut times: Vec<i64> = match (self.spec.time_column, rows.event_times()) {
            (None, Some(times)) => times.to_vec(),
            (None, None) => return (vec![now; rows.num_rows()], failures),
            (Some(column), _) => {
                let field = column as usize;
                let times = milliseconds(rows.column(field));
                for (row, _) in (0..).zip(&times).filter(|(_, time)| time.is_none()) {
                    let name = rows.schema().field(field).name().clone();
                    failures.push(Failure { row, message: format!("`{name}` is null") });
                }
                times.into_iter().map(Option::unwrap_or_default).collect()
            }
        };
        let ahead = self.spec.ahead_max.unwrap_or(AHEAD_MAX);
        let last = now.saturating_add(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX));
        for (row, time) in (0..).zip(&mut times).filter(|(_, time)| **time > last) {
            let message = format!(
                "{time} ms since 1970 is {} s ahead of the clock, more than {} s",
                time.saturating_sub(now) / 1_000,
                ahead.as_secs()
            );
            failures.push(Failure { row, message });
            *time = now;
        }
        failures.sort_by_key(|failure| failure.row);
        (times, failures)
    }
}

/// A timestamp column in milliseconds, rounded down.
fn milliseconds(column: &ArrayRef) -> Vec<Option<i64>> {
    let per_ms = |column: &dyn Array| -> (Vec<i64>, i64) {
        match column.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                (column.as_primitive::<TimestampMicrosecondType>().values().to_vec(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                (column.as_primitive::<TimestampNanosecondType>().values().to_vec(), 1_000_000)
            }
            // The plan has been checked: there are no other units in the contract.
            _ => (column.as_primitive::<TimestampMillisecondType>().values().to_vec(), 1),
        }
    };
    let (values, units) = per_ms(column.as_ref());
    let time = |(row, value): (usize, i64)| column.is_valid(row).then(|| value.div_euclid(units));
    values.into_iter().enumerate().map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow_array::{RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray};
    use platform::Platform;

    /// By the first column, bounded by 10 ms, idle after 50 ms, a minute ahead at most.
    fn operator(policy: FailurePolicy, strategy: WatermarkStrategy) -> WatermarksOperator {
        let clock = Platform::simulated().clock;
        let failures = (policy == FailurePolicy::Divert).then(|| {
            let at = DataType::Timestamp(TimeUnit::Millisecond, None);
            let fields = vec![
                arrow_schema::Field::new("at", at, true),
                arrow_schema::Field::new("failure", DataType::Utf8, false),
            ];
            (1, Arc::new(arrow_schema::Schema::new(fields)) as SchemaRef)
        });
        let place = Place {
            job: "job".into(),
            operator: "watermarks".into(),
            origins: vec![],
            subtask: 0,
            parallelism: 1,
        };
        let spec = Watermarks {
            time_column: Some(0),
            strategy,
            idle_after: Some(Duration::from_millis(50)),
            ahead_max: Some(Duration::from_secs(60)),
            alignment: None,
        };
        let progress = EventTime::new(clock.now());
        WatermarksOperator { spec, clock, policy, failures, place, alignment: None, splits: None, progress }
    }

    fn bounded() -> WatermarkStrategy {
        WatermarkStrategy::Bounded(Duration::from_millis(10))
    }

    fn batch(times: &[Option<i64>]) -> Batch {
        let at: ArrayRef = Arc::new(times.iter().copied().collect::<TimestampMillisecondArray>());
        Batch::new(RecordBatch::try_from_iter_with_nullable([("at", at, true)]).unwrap())
    }

    /// What comes of a batch: the times by port, and the marks.
    #[derive(Debug, Default, PartialEq)]
    struct Came {
        rows: Vec<(u32, Vec<Option<i64>>)>,
        marks: Vec<Mark>,
    }

    fn run(operator: &mut WatermarksOperator, rows: Option<Batch>) -> Result<Came, Diagnostic> {
        let mut input = Input::default();
        input.elements.extend(rows.map(|rows| Element::Rows(0, rows)));
        let mut came = Came::default();
        loop {
            let mut emit = |port, rows: Batch| {
                let times = rows.column(0).as_primitive::<TimestampMillisecondType>();
                if port == 0 {
                    let event_times: Vec<i64> = rows.event_times().unwrap().to_vec();
                    assert!(event_times.iter().eq(times.values().iter()));
                }
                came.rows.push((port, times.iter().collect()));
                Ok(())
            };
            match operator.run(&mut input, &Counters::default(), &mut emit)? {
                Ran::Forward(mark) => came.marks.push(mark),
                Ran::Idle => return Ok(came),
                _ => {}
            }
        }
    }

    fn came(rows: &[(u32, &[Option<i64>])], marks: &[Mark]) -> Came {
        Came {
            rows: rows.iter().map(|(port, times)| (*port, times.to_vec())).collect(),
            marks: marks.to_vec(),
        }
    }

    #[test]
    fn the_watermark_follows_the_greatest_time_and_never_falls() {
        let mut operator = operator(FailurePolicy::Fail, bounded());
        let rows = [Some(100), Some(120), Some(-5)];
        assert_eq!(
            run(&mut operator, Some(batch(&rows))).unwrap(),
            came(&[(0, &rows)], &[Mark::Watermark(109)])
        );
        let late = [Some(90)];
        assert_eq!(run(&mut operator, Some(batch(&late))).unwrap(), came(&[(0, &late)], &[]));
    }

    #[test]
    fn a_subtask_without_rows_becomes_idle_once() {
        let mut operator = operator(FailurePolicy::Fail, bounded());
        assert_eq!(operator.idle_at(), Some(Duration::from_millis(50)));
        assert_eq!(run(&mut operator, None).unwrap(), came(&[], &[]));
        operator.clock.advance(Duration::from_millis(50));
        assert_eq!(run(&mut operator, None).unwrap(), came(&[], &[Mark::Idle]));
        assert_eq!(operator.idle_at(), None);
        assert_eq!(run(&mut operator, None).unwrap(), came(&[], &[]));
        run(&mut operator, Some(batch(&[Some(1)]))).unwrap();
        assert_eq!(operator.idle_at(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_subtask_that_has_something_to_read_is_not_idle() {
        let splits = Arc::new(connectors::FoundSplits::default());
        let mut operator = operator(FailurePolicy::Fail, bounded());
        operator.splits = Some(SplitTimes::found(Arc::clone(&splits)));
        splits.found(["a".to_owned()].into_iter(), false);
        for _ in 0..3 {
            operator.clock.advance(Duration::from_millis(50));
            assert_eq!(run(&mut operator, None).unwrap(), came(&[], &[]));
        }
        splits.take();
        let rows = [Some(100)];
        let mark = Mark::Watermark(89);
        assert_eq!(run(&mut operator, Some(batch(&rows))).unwrap(), came(&[(0, &rows)], &[mark]));
        splits.take();
        operator.clock.advance(Duration::from_millis(50));
        assert_eq!(run(&mut operator, None).unwrap(), came(&[], &[Mark::Idle]));
    }

    #[test]
    fn rows_without_a_time_or_far_ahead_fail_and_move_nothing() {
        let now = Platform::simulated().clock.wall_ms();
        let rows = [Some(7), None, Some(now + 60_001), Some(now + 60_000)];
        let good = [Some(7), Some(now + 60_000)];
        let mark = Mark::Watermark(now + 60_000 - 11);
        let mut skips = operator(FailurePolicy::Skip, bounded());
        assert_eq!(run(&mut skips, Some(batch(&rows))).unwrap(), came(&[(0, &good)], &[mark]));
        let mut diverts = operator(FailurePolicy::Divert, bounded());
        let bad = [None, Some(now + 60_001)];
        assert_eq!(run(&mut diverts, Some(batch(&rows))).unwrap(), came(&[(1, &bad), (0, &good)], &[mark]));
        let error = run(&mut operator(FailurePolicy::Fail, bounded()), Some(batch(&rows))).unwrap_err();
        assert_eq!(error.message, "a row has no usable event time: `at` is null");
        assert!(error.detail.unwrap().contains("of `watermarks` in job job, row 2: (null)"));
        let far = batch(&[Some(i64::MAX)]);
        let error = run(&mut operator(FailurePolicy::Fail, bounded()), Some(far)).unwrap_err();
        assert!(error.message.contains("ahead of the clock, more than 60 s"), "{}", error.message);
    }

    #[test]
    fn punctuated_by_a_column_of_any_unit() {
        let mut operator = operator(FailurePolicy::Fail, WatermarkStrategy::Punctuated(1));
        let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![50, 60]));
        let marks: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(-1_500), None]));
        let rows = Batch::new(RecordBatch::try_from_iter([("at", at), ("marks", marks)]).unwrap());
        // Rounded down: −1.5 ms is −2.
        assert_eq!(run(&mut operator, Some(rows)).unwrap().marks, [Mark::Watermark(-3)]);
    }
}
