//! Functions in windows: an aggregate, all rows of a window, the rows of two streams; by ready-made triggers and
//! one of their own.

use std::time::Duration;

use millstream::prelude::*;
use millstream::{Fallible, TakesFunctions, TriggerChoice, Windowed};

/// A line of the input. Its number says what it does: 13 of a hundred fails the row, 14 traps; see
/// [`Fives`] too.
#[derive(Clone, Debug, Record)]
pub struct Reading {
    key: i64,
    at: Timestamp,
    number: i64,
}

/// What is given: a key, its window, and what the function has made of it.
type Made = (i64, i64, i64, String);

fn made(key: i64, window: &Window, text: String) -> Made {
    (key, window.start, window.end, text)
}

/// `count/sum` of numbers. Of two kinds: `true` merges.
struct Sums<const MERGES: bool>;

impl<const MERGES: bool> AggregateFunction for Sums<MERGES> {
    type In = Reading;
    type Key = i64;
    type Accumulator = (i64, i64);
    type Out = Made;
    const MERGES: bool = MERGES;

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add(&self, row: ReadingRef<'_>, (count, sum): &mut (i64, i64)) -> Result<()> {
        (*count, *sum) = (*count + 1, *sum + row.number);
        match row.number % 100 {
            13 => bail!("as told"),
            14 => panic!("as told"),
            _ => Ok(()),
        }
    }

    fn result(&self, key: i64, accumulator: &(i64, i64)) -> Made {
        self.window_result(key, &Window { start: 0, end: 0 }, accumulator)
    }

    fn window_result(&self, key: i64, window: &Window, (count, sum): &(i64, i64)) -> Made {
        made(key, window, format!("{count}/{sum}"))
    }

    fn merge(&self, (count, sum): &mut (i64, i64), (more, other): (i64, i64)) {
        (*count, *sum) = (*count + more, *sum + other);
    }
}

fn numbers(rows: &WindowRows<'_, Reading>) -> String {
    rows.iter().map(|row| row.number.to_string()).collect::<Vec<_>>().join(" ")
}

/// The numbers of a window, in their order.
struct All;

impl WindowFunction for All {
    type In = Reading;
    type Key = i64;
    type Out = Made;

    fn apply(
        &self,
        key: i64,
        window: &Window,
        rows: &WindowRows<'_, Reading>,
        out: &mut Emit<Made>,
    ) -> Result<()> {
        out.emit(made(key, window, numbers(rows)));
        Ok(())
    }
}

/// The numbers of two streams.
struct Both;

impl CoGroupFunction for Both {
    type First = Reading;
    type Second = Reading;
    type Key = i64;
    type Out = Made;

    fn co_group(
        &self,
        key: i64,
        window: &Window,
        first: &WindowRows<'_, Reading>,
        second: &WindowRows<'_, Reading>,
        out: &mut Emit<Made>,
    ) -> Result<()> {
        out.emit(made(key, window, format!("{} | {}", numbers(first), numbers(second))));
        Ok(())
    }
}

/// Fires at the end, and at every fifth row of the window; at every tenth the window begins anew.
struct Fives;

impl Trigger<Reading> for Fives {
    type State = i64;
    const MERGES: bool = true;

    fn on_row(&self, _: ReadingRef<'_>, _: &Window, context: &mut TriggerContext<'_, i64>) -> TriggerResult {
        let count = context.state_or_default();
        *count += 1;
        match *count % 10 {
            0 => TriggerResult::FireAndPurge,
            5 => TriggerResult::Fire,
            _ => TriggerResult::Continue,
        }
    }

    fn merge(&self, into: &mut i64, other: i64) {
        *into += other;
    }
}

/// The arguments of `windows`. Lengths are in milliseconds, or rows.
#[derive(Clone, Parser)]
pub struct WindowsArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// tumbling, sliding, cumulating, session, global, count
    #[arg(long, default_value = "tumbling")]
    windows: String,
    /// sums, plain (sums that do not merge), rows, both
    #[arg(long, default_value = "sums")]
    with: String,
    /// end, early, rows, own
    #[arg(long, default_value = "end")]
    trigger: String,
    #[arg(long, default_value_t = 100)]
    size: u64,
    #[arg(long, default_value_t = 20)]
    step: u64,
    #[arg(long)]
    purging: bool,
    #[arg(long, default_value_t = 0)]
    bound: u64,
    #[arg(long, default_value_t = 0)]
    lateness: u64,
}

/// The job says what it wants of its arguments, and gives late rows with their number as the text.
#[job]
pub fn windows(job: &Job, args: WindowsArgs) -> Result<()> {
    let (size, step) = (Duration::from_millis(args.size), Duration::from_millis(args.step));
    let made = match args.windows.as_str() {
        "tumbling" => over(job, &args, Tumbling::of(size))?,
        "sliding" => over(job, &args, Sliding::of(size, step))?,
        "cumulating" => over(job, &args, Cumulating::of(size, step))?,
        "session" => over(job, &args, Session::with_gap(size))?,
        "global" => {
            let keyed = readings(job, &args)?.key_by(Reading::KEY);
            triggered(keyed.window(Global), &args)?
        }
        "count" => {
            let windowed = readings(job, &args)?.key_by(Reading::KEY).count_window(args.size);
            applied(windowed, &args)?
        }
        other => bail!("there are no windows `{other}`"),
    };
    made.sink(&args.output);
    Ok(())
}

fn readings<'j>(job: &'j Job, args: &WindowsArgs) -> Result<Stream<'j, Reading>> {
    let lines = job.json::<Reading>(args.input.source()?).parallelism(1);
    let strategy = Watermarks::bounded(Duration::from_millis(args.bound)).time(Reading::AT);
    // One subtask: rows keep their order.
    Ok(lines.watermarks(strategy).parallelism(1).stream())
}

fn over<'j, W: TakesFunctions + millstream::OfTime>(
    job: &'j Job,
    args: &WindowsArgs,
    windows: W,
) -> Result<Stream<'j, Made>> {
    let (readings, lateness) = (readings(job, args)?, Duration::from_millis(args.lateness));
    let late = |stream: Stream<'j, Reading>| {
        stream.map(|row| (row.key, row.at.0, row.at.0, format!("late {}", row.number)))
    };
    if args.with == "both" {
        let even = readings.filter(|row| row.number % 2 == 0).parallelism(1);
        let odd = readings.filter(|row| row.number % 2 != 0).parallelism(1);
        let both = even.key_by(Reading::KEY).co_group(odd.key_by(Reading::KEY)).window(windows);
        let both = both.allowed_lateness(lateness).side_outputs_late("late even", "late odd");
        let (made, late_even, late_odd) = both.apply(Both);
        return Ok(made.stream().union([late(late_even), late(late_odd)]));
    }
    let windowed = readings.key_by(Reading::KEY).window(windows).allowed_lateness(lateness);
    if args.lateness == 0 {
        return triggered(windowed, args);
    }
    let windowed = windowed.side_output_late("late");
    let (made, late_rows) = match args.with.as_str() {
        "sums" => windowed.aggregate_with(Sums::<true>),
        "plain" => windowed.aggregate_with(Sums::<false>),
        "rows" => windowed.apply(All),
        other => bail!("there is no function `{other}`"),
    };
    Ok(made.on_failure(OnFailure::Skip).stream().union([late(late_rows)]))
}

fn triggered<'j, W: TakesFunctions>(
    windowed: Windowed<'j, Reading, (i64,), W>,
    args: &WindowsArgs,
) -> Result<Stream<'j, Made>> {
    match args.trigger.as_str() {
        "end" => applied(windowed, args),
        "early" => applied(windowed.early(Duration::from_millis(args.step)), args),
        "rows" => applied(windowed.each_rows(args.step), args),
        "own" => applied(windowed.trigger(Fives), args),
        other => bail!("there is no trigger `{other}`"),
    }
}

fn applied<'j, W: TakesFunctions, G: TriggerChoice<Reading>>(
    windowed: Windowed<'j, Reading, (i64,), W, G>,
    args: &WindowsArgs,
) -> Result<Stream<'j, Made>> {
    let windowed = if args.purging { windowed.purging() } else { windowed };
    let made: Fallible<'j, Reading, Made> = match args.with.as_str() {
        "sums" => windowed.aggregate_with(Sums::<true>),
        "plain" => windowed.aggregate_with(Sums::<false>),
        "rows" => windowed.apply(All),
        other => bail!("there is no function `{other}`"),
    };
    Ok(made.on_failure(OnFailure::Skip).stream())
}
