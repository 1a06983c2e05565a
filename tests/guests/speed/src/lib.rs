//! Jobs for the benches of state, timers and windows: made-up rows over a number of keys, and bids. And one that traps.

mod windows;

use std::time::Duration;

use millstream::prelude::*;

use windows::*;

#[derive(Parser)]
struct SpeedArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Rows in all
    #[arg(long, default_value_t = 1_000)]
    rows: u64,
    /// Different keys, in no order
    #[arg(long, default_value_t = 10)]
    keys: u64,
}

/// The key of row `row`: any, each about as often.
fn key(row: i64, keys: u64) -> i64 {
    let mixed = (row as u64 ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((u128::from(mixed) * u128::from(keys)) >> 64) as i64
}

/// Counts by key in the host: the baseline.
#[job]
fn native_counts(job: &Job, args: SpeedArgs) -> Result<()> {
    let keys = args.keys;
    job.sequence(Some(args.rows), None)
        .map(move |row| (key(row, keys), row))
        .key_by(F0)
        .count()
        .sink(&args.output);
    Ok(())
}

/// Counts rows.
struct Count;

impl ProcessFunction for Count {
    type In = (i64, i64);
    type Key = i64;
    type State = i64;
    type Out = (i64, i64);

    fn process(&self, row: (i64, i64), context: &mut Context<'_, Self>) -> Result<()> {
        let count = context.state_or_default();
        *count += 1;
        let count = *count;
        context.emit((row.0, count));
        Ok(())
    }
}

/// The same in a process function with state by value.
#[job]
fn process_counts(job: &Job, args: SpeedArgs) -> Result<()> {
    let keys = args.keys;
    job.sequence(Some(args.rows), None)
        .map(move |row| (key(row, keys), row))
        .key_by(F0)
        .process(Count)
        .sink(&args.output);
    Ok(())
}

/// Sets a timer for each row, some thousand rows ahead.
struct Alarm;

impl ProcessFunction for Alarm {
    type In = (i64, Timestamp);
    type Key = i64;
    type State = bool;
    type Out = (i64, i64);

    fn process(&self, row: (i64, Timestamp), context: &mut Context<'_, Self>) -> Result<()> {
        context.set_timer(row.1.0 + 50_000);
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        context.emit((context.key(), timer.time));
        Ok(())
    }
}

/// Registers and fires a timer of event time for each row.
#[job]
fn timer_each(job: &Job, args: SpeedArgs) -> Result<()> {
    let keys = args.keys;
    job.sequence(Some(args.rows), None)
        .map(move |row| (key(row, keys), Timestamp(row)))
        .watermarks(Watermarks::bounded(Duration::ZERO).time(F1))
        .key_by(F0)
        .process(Alarm)
        .sink(&args.output);
    Ok(())
}

#[derive(Parser)]
struct SlidingArgs {
    #[command(flatten)]
    of: SpeedArgs,
    /// Rows of a slide
    #[arg(long, default_value_t = 100)]
    slide: u64,
    /// Slides of a window
    #[arg(long, default_value_t = 10)]
    slides: u64,
}

/// Sums by key over sliding windows; a row is a millisecond.
#[job]
fn sliding_sums(job: &Job, args: SlidingArgs) -> Result<()> {
    let SlidingArgs { of, slide, slides } = args;
    let keys = of.keys;
    let slide = Duration::from_millis(slide);
    let windows = Sliding::of(slide * u32::try_from(slides)?, slide);
    job.sequence(Some(of.rows), None)
        .map(move |row| (key(row, keys), row, Timestamp(row)))
        .watermarks(Watermarks::bounded(Duration::ZERO).time(F2))
        .key_by(F0)
        .window(windows)
        .aggregate((count(), sum(F1)))
        .sink(&of.output);
    Ok(())
}

#[derive(Parser)]
struct TrapArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Passes lines on; at `trap` it traps, and the line is skipped.
#[job]
fn trapping(job: &Job, args: TrapArgs) -> Result<()> {
    job.lines(args.input.or_sample(""))
        .map(|line| {
            assert_ne!(line, "trap", "as told");
            line.to_string()
        })
        .on_failure(OnFailure::Skip)
        .sink(&args.output);
    Ok(())
}

millstream::jobs!(trapping, native_counts, process_counts, timer_each, sliding_sums, window_bids);
