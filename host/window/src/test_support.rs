//! Runs an operator over keys step by step, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::SchemaRef;
use model::Batch;
use model::job_graph::NodeKind;
use state::{Backend, Extent, MemoryBackend, StateChunk, Sweep};

use crate::operator::{Fired, KeyedOperator, Now, Setting, operator_of};
use crate::windows::timing::Timing;

/// What an operator is given.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Rows(u32, Batch),
    Watermark(i64),
    /// The clock, in milliseconds since the epoch.
    Clock(i64),
}

/// An operator, and what it has given.
pub(crate) struct Run {
    operator: Box<dyn KeyedOperator>,
    now: Now,
    /// Rows by port: their kinds, and their columns as text.
    pub(crate) given: Vec<(u32, u8, Vec<String>)>,
    pub(crate) times: Vec<Option<i64>>,
    pub(crate) late: usize,
    /// The most rows that a call has given.
    pub(crate) most: usize,
    /// How many rows have been given, and whether that is all that is kept of them.
    pub(crate) count: usize,
    pub(crate) counts_only: bool,
    /// Whether no row's event time lay behind the watermark that had gone on.
    pub(crate) is_in_time: bool,
    gone_on: i64,
    /// How many calls there were.
    pub(crate) calls: usize,
}

/// How an operator is set up.
pub(crate) struct SetUp<'a> {
    pub(crate) inputs: &'a [SchemaRef],
    pub(crate) keys: &'a [Vec<usize>],
    pub(crate) outputs: &'a [SchemaRef],
    pub(crate) changes: bool,
    pub(crate) from_changes: &'a [bool],
    pub(crate) batch: bool,
}

/// An operator over state in memory.
pub(crate) fn operator(kind: &NodeKind, set_up: &SetUp<'_>) -> Box<dyn KeyedOperator> {
    with_setting(set_up, |setting| operator_of(kind, setting).unwrap())
}

/// Makes something of a setting with state in memory.
pub(crate) fn with_setting<R>(set_up: &SetUp<'_>, make: impl FnOnce(Setting<'_>) -> R) -> R {
    after_first_phase(set_up, None, make)
}

/// The same, of a window whose rows come out of a first phase that takes rows of this schema.
pub(crate) fn after_first_phase<R>(
    set_up: &SetUp<'_>,
    first_phase: Option<&SchemaRef>,
    make: impl FnOnce(Setting<'_>) -> R,
) -> R {
    make(Setting {
        inputs: set_up.inputs,
        keys: set_up.keys,
        outputs: set_up.outputs,
        changes: set_up.changes,
        from_changes: set_up.from_changes,
        batch: set_up.batch,
        first_phase,
        backend: &mut |types, states| Ok(Box::new(MemoryBackend::new(types, states, 7)?) as Box<dyn Backend>),
    })
}

impl Run {
    pub(crate) fn new(kind: &NodeKind, set_up: &SetUp<'_>) -> Self {
        Self::of(operator(kind, set_up))
    }

    pub(crate) fn of(operator: Box<dyn KeyedOperator>) -> Self {
        let now = Now { watermark: i64::MIN, processing_time: 0 };
        Self {
            operator,
            now,
            given: Vec::new(),
            times: Vec::new(),
            late: 0,
            most: 0,
            count: 0,
            counts_only: false,
            is_in_time: true,
            gone_on: i64::MIN,
            calls: 0,
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Rows(input, rows) => {
                let ticket = self.operator.prefetch(*input, rows, self.now).unwrap();
                assert!(self.operator.is_ready(ticket));
                let mut fired = self.with(|operator, now, emit| operator.process(*input, rows, now, emit));
                while fired != Fired::Done {
                    fired = self.with(|operator, now, emit| operator.resume(now, emit));
                }
            }
            Step::Watermark(time) => {
                self.now.watermark = *time;
                self.fire();
                self.gone_on = match *time {
                    i64::MAX => i64::MAX,
                    time => time.saturating_sub(self.operator.held_back()),
                };
            }
            Step::Clock(time) => {
                self.now.processing_time = *time;
                self.fire();
            }
        }
        self.late += self.operator.take_late();
    }

    /// The end of the input.
    pub(crate) fn end(&mut self) {
        self.step(&Step::Watermark(i64::MAX));
        while self.with(|operator, _, emit| operator.finish(emit)) != Fired::Done {}
    }

    fn fire(&mut self) {
        while self.with(|operator, now, emit| operator.fire(now, emit)) != Fired::Done {}
    }

    fn with<R>(
        &mut self,
        call: impl FnOnce(
            &mut dyn KeyedOperator,
            Now,
            &mut crate::operator::Emit<'_>,
        ) -> Result<R, crate::AggregateError>,
    ) -> R {
        let (given, times, gone_on) = (&mut self.given, &mut self.times, self.gone_on);
        let (first, counts_only) = (times.len(), self.counts_only);
        let mut count = 0;
        self.calls += 1;
        let made = call(&mut *self.operator, self.now, &mut |port, rows| {
            count += rows.num_rows();
            if counts_only {
                return;
            }
            let kinds = rows.kinds().map_or_else(|| vec![0; rows.num_rows()], |kinds| kinds.to_vec());
            times.extend((0..rows.num_rows()).map(|row| rows.event_times().map(|times| times[row])));
            given.extend(texts(&rows).into_iter().zip(kinds).map(|(row, kind)| (port, kind, row)));
        })
        .unwrap();
        self.most = self.most.max(count);
        self.count += count;
        self.is_in_time &= self.times[first..].iter().flatten().all(|time| *time > gone_on);
        made
    }

    /// Takes other times over; whether it can. By `fires` what there is to do by that is done before more rows come, as
    /// where all state is in memory.
    pub(crate) fn change(&mut self, timing: &Timing, fires: bool) -> bool {
        let has_changed = self.operator.change(timing, self.now);
        if fires && self.operator.next_timer().is_some_and(|time| time <= self.now.processing_time) {
            self.fire();
        }
        has_changed
    }

    /// All numbers of keys that its state has are below this.
    pub(crate) fn key_bound(&mut self) -> usize {
        self.operator.backend().map_or(0, |backend| backend.bound())
    }

    /// How many keys its state has, that have something.
    pub(crate) fn count_kept(&mut self) -> usize {
        self.operator.backend().map_or(0, |backend| backend.held().keys)
    }

    /// How many rows a snapshot of the state has.
    pub(crate) fn rows_kept(&mut self) -> usize {
        self.snapshot().iter().map(StateChunk::rows).sum()
    }

    fn snapshot(&mut self) -> Vec<StateChunk> {
        let Some(backend) = self.operator.backend() else { return Vec::new() };
        backend.seal(1, Extent::Apart).unwrap();
        let mut chunks = Vec::new();
        loop {
            match backend.sweep().unwrap() {
                Sweep::Rows(chunk) => chunks.push(chunk),
                Sweep::Nothing | Sweep::Waiting | Sweep::Files(_) => {}
                Sweep::Done(_) | Sweep::Idle => return chunks,
            }
        }
    }

    /// Goes on with an operator that knows nothing but the snapshot.
    pub(crate) fn move_to(&mut self, operator: Box<dyn KeyedOperator>) {
        let chunks = self.snapshot();
        self.operator = operator;
        let backend = self.operator.backend().unwrap();
        chunks.iter().for_each(|chunk| backend.import(chunk).unwrap());
    }

    /// The table that the main port's rows make, with how often each row is there.
    ///
    /// # Panics
    /// If a row is taken back that is not there.
    pub(crate) fn table(&self) -> BTreeMap<Vec<String>, usize> {
        let mut table = BTreeMap::new();
        for (_, kind, row) in self.given.iter().filter(|(port, ..)| *port == 0) {
            if matches!(kind, 1 | 3) {
                let count = table.get_mut(row).unwrap_or_else(|| panic!("{row:?} is not there"));
                *count -= 1;
                if *count == 0 {
                    table.remove(row);
                }
            } else {
                *table.entry(row.clone()).or_insert(0) += 1;
            }
        }
        table
    }
}

/// Rows as text.
pub(crate) fn texts(rows: &Batch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("null");
    // Zones by name are no part of the formatter's build; every timestamp is of UTC.
    let plain = |column: &ArrayRef| match column.as_primitive_opt::<TimestampMillisecondType>() {
        Some(times) => Arc::new(times.clone().with_timezone_opt(None::<&str>)) as ArrayRef,
        None => Arc::clone(column),
    };
    let columns: Vec<ArrayRef> = rows.rows().columns().iter().map(plain).collect();
    let columns: Vec<ArrayFormatter<'_>> =
        columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    (0..rows.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect()).collect()
}
