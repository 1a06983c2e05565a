//! How many rows a second of CPU joins and top-n take: `cargo test --release -p window benches -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{
    Aggregate, Assigner, Grid, Join, JoinForm, JoinSides, NodeKind, Ordering, TimeDomain, Top, Trigger,
    Window,
};

use crate::operator::{Fired, KeyedOperator, Now};
use crate::test_support::{SetUp, operator};

const BATCH_ROWS: i64 = 4_096;
const KEYS: i64 = 100_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("price", DataType::Int64, true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("extra", DataType::Utf8, true),
    ]))
}

/// Numbers that look like chance (splitmix64).
fn scattered(number: i64) -> i64 {
    let mut z = number.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((z ^ (z >> 27)) >> 2).cast_signed()
}

fn batch(from: i64, key: impl Fn(i64) -> i64) -> Batch {
    let rows = || from..from + BATCH_ROWS;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows().map(&key))),
        Arc::new(Int64Array::from_iter_values(rows().map(scattered))),
        Arc::new(Float64Array::from_iter_values(rows().map(|row| row as f64))),
        Arc::new(StringArray::from_iter_values(rows().map(|row| format!("name {row}")))),
        Arc::new(StringArray::from_iter_values(rows().map(|row| format!("something more of {row}")))),
    ];
    Batch::of(schema(), rows().count(), columns).unwrap().with_event_times(Some(rows().collect()))
}

struct Measured {
    operator: Box<dyn KeyedOperator>,
    now: Now,
    rows: usize,
    given: usize,
    spent: Duration,
    clock: platform::Clock,
    /// How long each step took, by the wall clock: a thread's CPU time moves on by the kernel's ticks, of
    /// 4 ms, only.
    steps: Vec<Duration>,
}

impl Measured {
    fn new(kind: &NodeKind, inputs: usize) -> Self {
        let fields = schema();
        let mut output: Vec<Field> = fields.fields().iter().map(|field| field.as_ref().clone()).collect();
        if inputs == 2 {
            output.extend(fields.fields().iter().map(|field| field.as_ref().clone()));
        }
        let (inputs, keys) = (vec![fields; inputs], vec![vec![0]; inputs]);
        let output = match kind {
            NodeKind::Window(_) => crate::native_schema(kind, &inputs, &keys, false).unwrap(),
            _ => Arc::new(Schema::new(output)),
        };
        let set_up = SetUp {
            inputs: &inputs,
            keys: &keys,
            outputs: &[output],
            changes: false,
            from_changes: &vec![false; inputs.len()],
            batch: false,
        };
        let now = Now { watermark: i64::MIN, processing_time: 0 };
        let (clock, steps) = (platform::Clock::system(), Vec::new());
        let operator = operator(kind, &set_up);
        Self { operator, now, rows: 0, given: 0, spent: Duration::ZERO, clock, steps }
    }

    fn call(
        &mut self,
        call: impl FnOnce(&mut dyn KeyedOperator, Now, &mut crate::operator::Emit<'_>) -> Fired,
    ) -> Fired {
        let given = &mut self.given;
        let (start, begun) = (platform::thread_cpu_time().unwrap_or_default(), self.clock.now());
        let fired = call(&mut *self.operator, self.now, &mut |_, rows| *given += rows.num_rows());
        let spent = platform::thread_cpu_time().unwrap_or_default() - start;
        self.spent += spent;
        self.steps.push(self.clock.now() - begun);
        fired
    }

    fn rows(&mut self, input: u32, rows: &Batch) {
        self.rows += rows.num_rows();
        let mut fired = self.call(|operator, now, emit| {
            operator.prefetch(input, rows, now).unwrap();
            operator.process(input, rows, now, emit).unwrap()
        });
        while fired != Fired::Done {
            fired = self.call(|operator, now, emit| operator.resume(now, emit).unwrap());
        }
    }

    fn watermark(&mut self, time: i64) {
        self.now.watermark = time;
        while self.call(|operator, now, emit| operator.fire(now, emit).unwrap()) != Fired::Done {}
    }

    fn report(mut self, what: &str) {
        let each = self.spent.as_secs_f64() / self.rows as f64;
        self.steps.sort_unstable();
        let step = |thousandth: usize| {
            let step = self.steps[(self.steps.len() - 1) * thousandth / 1_000];
            step.as_secs_f64() * 1e3
        };
        println!(
            "{what}: {:.2} M rows/s, {} rows in, {} out, steps: half {:.2} ms, 99 % {:.2} ms, 99.9 % {:.2} ms",
            1e-6 / each,
            self.rows,
            self.given,
            step(500),
            step(990),
            step(999)
        );
    }
}

#[test]
#[ignore = "a bench"]
fn top() {
    for (what, limit, column, descending) in [
        ("top-1 by a number", 1, 1, true),
        ("first row", 1, 2, false),
        ("last row", 1, 2, true),
        ("top-10 by a number", 10, 1, true),
    ] {
        let order = vec![Ordering { column, descending, nulls_last: true }];
        let mut measured = Measured::new(&NodeKind::Top(Top { limit, order, rank: false }), 1);
        for at in 0..600 {
            measured.rows(0, &batch(at * BATCH_ROWS, |row| scattered(row) % KEYS));
        }
        measured.report(what);
    }
}

fn join(form: JoinForm, sides: JoinSides) -> Measured {
    Measured::new(&NodeKind::Join(Join { sides, form }), 2)
}

#[test]
#[ignore = "a bench"]
fn regular_join() {
    for (what, each) in [("one partner", 1), ("4 partners", 4), ("15 partners", 15)] {
        let mut measured = join(JoinForm::Unbounded(None), JoinSides::Inner);
        // A left row a key, and then so many right rows of it, about.
        let mut lefts = 0;
        for at in 0..300 {
            if at % (each + 1) == 0 {
                measured.rows(0, &batch(lefts * BATCH_ROWS, |row| row));
                lefts += 1;
            } else {
                measured.rows(1, &batch(at * BATCH_ROWS, |row| scattered(row) % (lefts * BATCH_ROWS)));
            }
        }
        measured.report(&format!("inner join, {what}"));
    }
}

#[test]
#[ignore = "a bench"]
fn interval_join() {
    for (what, sides) in [("inner", JoinSides::Inner), ("left", JoinSides::Left)] {
        let mut measured = join(JoinForm::Interval { lower: -4_000, upper: 4_000 }, sides);
        for at in 0..150 {
            // Neighbours of both sides within 8,000 ms of 8,000 keys: about a partner each.
            let rows = batch(at * BATCH_ROWS, |row| scattered(row) % 8_000);
            measured.rows(0, &rows);
            measured.rows(1, &rows);
            measured.watermark(at * BATCH_ROWS);
        }
        measured.watermark(i64::MAX);
        measured.report(&format!("interval join, {what}"));
    }
}

#[test]
#[ignore = "a bench"]
fn window_join() {
    let length = Duration::from_secs(10);
    let tumbling = Assigner::Tumbling(Grid { size: length, step: length, offset: 0, zone: None });
    let mut measured = join(JoinForm::Window(tumbling), JoinSides::Inner);
    for at in 0..150 {
        let rows = batch(at * BATCH_ROWS, |row| scattered(row) % 8_000);
        measured.rows(0, &rows);
        measured.rows(1, &rows);
        measured.watermark(at * BATCH_ROWS);
    }
    measured.watermark(i64::MAX);
    measured.report("window join, inner");
}

/// Sums, and the number of rows.
fn window(assigner: Assigner, trigger: Trigger, purging: bool) -> Measured {
    let aggregate = |function: &str, columns: Vec<u32>| Aggregate {
        function: function.into(),
        columns,
        options: std::collections::BTreeMap::new(),
    };
    let window = Window {
        assigner,
        time: TimeDomain::EventTime,
        lateness: Duration::ZERO,
        late_port: None,
        trigger,
        purging,
        aggregates: vec![aggregate("count", vec![]), aggregate("max", vec![1])],
    };
    Measured::new(&NodeKind::Window(window), 1)
}

#[test]
#[ignore = "a bench"]
fn windows_of_rows() {
    for (size, step, keys) in [
        (100, 100, 1),
        (100, 100, KEYS),
        (10, 1, 100),
        (1_000, 1, 1),
        (1_000, 1, 100),
        (100_000, 1, 1),
        (1_000, 100, 100),
    ] {
        let mut measured = window(Assigner::Count { size, step }, Trigger::AtEnd, false);
        for at in 0..100 {
            measured.rows(0, &batch(at * BATCH_ROWS, |row| scattered(row) % keys));
        }
        measured.report(&format!("windows of {size} rows, each {step}, {keys} keys"));
    }
}

#[test]
#[ignore = "a bench"]
fn windows_each_so_many_rows() {
    for (each, keys, purging) in
        [(1, 1, false), (1, 1, true), (10, 100, false), (10, KEYS, false), (10, KEYS, true)]
    {
        let mut measured = window(Assigner::Everything, Trigger::Count(each), purging);
        for at in 0..200 {
            measured.rows(0, &batch(at * BATCH_ROWS, |row| scattered(row) % keys));
        }
        measured.report(&format!("everything, each {each} rows, {keys} keys, purging {purging}"));
    }
}

#[test]
#[ignore = "a bench"]
fn temporal_join() {
    for (what, time) in
        [("event time", TimeDomain::EventTime), ("processing time", TimeDomain::ProcessingTime)]
    {
        for keys in [100, 8_000] {
            let mut measured = join(JoinForm::Temporal(time), JoinSides::Left);
            for at in 0..150 {
                let rows = batch(at * BATCH_ROWS, |row| scattered(row) % keys);
                measured.rows(1, &rows);
                measured.rows(0, &rows);
                measured.watermark(at * BATCH_ROWS);
            }
            measured.watermark(i64::MAX);
            measured.report(&format!("temporal join by {what}, {keys} keys"));
        }
    }
}
