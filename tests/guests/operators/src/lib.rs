//! A job for each operator, over CSV lines of a name and a number; timers and states over JSON lines.

mod states;
mod tally;
mod versions;
mod windows;

use std::time::Duration;

use millstream::prelude::*;

use states::*;
use tally::*;
use versions::*;
use windows::*;

#[derive(Parser)]
struct OperatorArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

type Named = (String, i64);

/// Native sums by name.
#[job]
fn sums(job: &Job, args: OperatorArgs) -> Result<()> {
    job.csv::<Named>(args.input.source()?).key_by(F0).sum(F1).sink(&args.output);
    Ok(())
}

/// The same sums by a closure, with its state held by the host.
#[job]
fn reduced(job: &Job, args: OperatorArgs) -> Result<()> {
    job.csv::<Named>(args.input.source()?)
        .key_by(F0)
        .reduce(|sum, next| (sum.0.to_string(), sum.1 + next.1))
        .sink(&args.output);
    Ok(())
}

/// Four aggregates at once, and a count.
#[job]
fn aggregates(job: &Job, args: OperatorArgs) -> Result<()> {
    job.csv::<Named>(args.input.source()?)
        .key_by(F0)
        .aggregate((count(), min(F1), max(F1), avg(F1)))
        .sink(&args.output);
    Ok(())
}

/// All rows, by each way of going to subtasks.
#[job]
fn partitions(job: &Job, args: OperatorArgs) -> Result<()> {
    let rows = job.csv::<Named>(args.input.source()?).stream();
    let even = rows.rebalance().map(|row| ("even".to_string(), row.0.to_string(), row.1));
    let every = rows.broadcast().map(|row| ("every".to_string(), row.0.to_string(), row.1));
    let first = rows.global().map(|row| ("first".to_string(), row.0.to_string(), row.1));
    let chosen = rows
        .partition_custom(|row| row.1.unsigned_abs() as u32)
        .map(|row| ("chosen".to_string(), row.0.to_string(), row.1));
    for stream in [even, every, first, chosen] {
        stream.sink(Sink::print());
    }
    Ok(())
}

/// Odd numbers aside, even ones on; both together again.
#[job]
fn sides(job: &Job, args: OperatorArgs) -> Result<()> {
    let rows = job.csv::<Named>(args.input.source()?).stream();
    let (even, odd) = rows.side_output("odd").flat_map(|row, out, odd| {
        if row.1 % 2 == 0 {
            out.emit(row);
        } else {
            odd.emit(row);
        }
    });
    let odd = odd.parallelism(2).map(|row| (row.0.to_string(), -row.1));
    even.union([odd]).key_by(F0).count().sink(&args.output);
    Ok(())
}

/// Bad lines are left out.
#[job]
fn lenient(job: &Job, args: OperatorArgs) -> Result<()> {
    job.csv::<Named>(args.input.source()?)
        .on_failure(OnFailure::Skip)
        .stream()
        .map(|row| (row.0.to_string(), 100 / row.1))
        .on_failure(OnFailure::Skip)
        .sink(&args.output);
    Ok(())
}

/// A bad line fails the job.
#[job]
fn strict(job: &Job, args: OperatorArgs) -> Result<()> {
    job.csv::<Named>(args.input.source()?).sink(&args.output);
    Ok(())
}

#[derive(Parser)]
struct FailingArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// How many attempts fail
    #[arg(long, value_name = "N", default_value_t = 0)]
    times: u32,
}

/// Sums by name, after a function that the first attempts of the job fail in: at numbers below 0.
#[job]
fn failing(job: &Job, args: FailingArgs) -> Result<()> {
    let times = args.times;
    job.csv::<Named>(args.input.source()?)
        .stream()
        .try_map(move |row| {
            ensure!(row.1 >= 0 || TaskInfo::current().attempt() >= times, "as told");
            Ok((row.0.to_string(), row.1))
        })
        .key_by(F0)
        .sum(F1)
        .sink(&args.output);
    Ok(())
}

/// A row whose key and number come after members of several columns.
#[derive(Clone, Debug, Record)]
struct Nested {
    place: Place,
    tags: Vec<String>,
    name: String,
    number: i64,
    at: Timestamp,
}

#[derive(Clone, Debug, Record)]
struct Place {
    x: f64,
    y: f64,
}

/// Counts by name, with a timer for each row's time.
struct NestedCount;

impl ProcessFunction for NestedCount {
    type In = Nested;
    type Key = String;
    type State = i64;
    type Out = (String, i64);

    fn states(&self, states: &mut millstream::States<Nested>) {
        states.map(BY_NUMBER).by(Nested::NUMBER);
    }

    fn process(&self, row: NestedRef<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        *context.state_or_default() += row.number;
        *context.entry(BY_NUMBER).or_default() += 1;
        context.set_timer(row.at.0);
        Ok(())
    }

    fn on_timer(&self, _: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        let sum = context.state().copied().unwrap_or(0);
        context.emit((context.key(), sum));
        Ok(())
    }
}

const BY_NUMBER: MapState<i64, i64> = MapState::new("by number");

/// Sums by name of rows with members of several columns before them: natively, and by a function.
#[job]
fn nested(job: &Job, args: OperatorArgs) -> Result<()> {
    let rows = job
        .json::<Nested>(args.input.source()?)
        .watermarks(Watermarks::bounded(Duration::ZERO).time(Nested::AT));
    rows.key_by(Nested::NAME).aggregate((sum(Nested::NUMBER), count())).sink(Sink::collect("sums"));
    rows.key_by(Nested::NAME).process(NestedCount).sink(Sink::collect("counts"));
    Ok(())
}

/// A line of `timers`.
#[derive(Clone, Debug, Record)]
struct TimerLine {
    key: i64,
    at: Timestamp,
    /// set, delete, fail, trap or none
    op: String,
    time: i64,
    then: Option<i64>,
}

/// What `timers` gives: `kind` is row or timer.
#[derive(Clone, Debug, Record)]
struct TimerEvent {
    kind: String,
    key: i64,
    time: i64,
    count: i64,
}

/// What `timers` keeps of a key.
#[derive(Clone, Debug, Default, Record)]
struct TimerState {
    count: i64,
    /// what a timer for `time` sets in its turn
    thens: Vec<Then>,
}

#[derive(Clone, Debug, Record)]
struct Then {
    time: i64,
    then: i64,
}

struct Timers;

impl ProcessFunction for Timers {
    type In = TimerLine;
    type Key = i64;
    type State = TimerState;
    type Out = TimerEvent;

    fn process(&self, line: TimerLineRef<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        let state = context.state_or_default();
        state.count += 1;
        let count = state.count;
        match line.op {
            "set" => {
                state.thens.retain(|then| then.time != line.time);
                state.thens.extend(line.then.map(|then| Then { time: line.time, then }));
                context.set_timer(line.time);
            }
            "delete" => context.delete_timer(line.time),
            // What was done before must be undone.
            "fail" => {
                context.set_timer(line.time);
                context.emit(TimerEventRef::new("failed", line.key, line.time, count));
                bail!("as told");
            }
            "trap" => {
                context.set_timer(line.time);
                context.emit(TimerEventRef::new("trapped", line.key, line.time, count));
                panic!("as told");
            }
            "none" => {}
            other => bail!("what is {other:?}?"),
        }
        context.emit(TimerEventRef::new("row", context.key(), line.at.0, count));
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        let state = context.state_or_default();
        let count = state.count;
        let place = state.thens.iter().position(|then| then.time == timer.time);
        if let Some(place) = place.filter(|_| timer.time % 2 == 0) {
            let then = state.thens.remove(place).then;
            context.set_timer(then);
        }
        context.emit(TimerEventRef::new("timer", context.key(), timer.time, count));
        Ok(())
    }
}

#[derive(Parser)]
struct TimersArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// How long after later ones a line may come
    #[arg(long, value_name = "MS", default_value_t = 0)]
    bound: u64,
}

/// Sets, deletes and fires timers of event time, as JSON lines say. A `set` remembers its `then` for its
/// `time`, in place of what was; a timer for an even time takes that out, and sets a timer for it.
#[job]
fn timers(job: &Job, args: TimersArgs) -> Result<()> {
    job.json::<TimerLine>(args.input.source()?)
        .watermarks(Watermarks::bounded(Duration::from_millis(args.bound)).time(TimerLine::AT))
        .key_by(TimerLine::KEY)
        .process(Timers)
        .on_failure(OnFailure::Skip)
        .sink(&args.output);
    Ok(())
}

/// Counts a key's rows, and emits the count when the watermark has passed a row's time by so much.
struct CountLater {
    delay: i64,
}

impl ProcessFunction for CountLater {
    type In = TimerLine;
    type Key = i64;
    type State = i64;
    type Out = (i64, i64, i64);

    fn process(&self, line: TimerLineRef<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        *context.state_or_default() += 1;
        context.set_timer(line.at.0.saturating_add(self.delay));
        Ok(())
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        let count = context.state().copied().unwrap_or(0);
        context.emit((context.key(), timer.time, count));
        Ok(())
    }
}

#[derive(Parser)]
struct CountArgs {
    #[command(flatten)]
    timers: TimersArgs,
    /// How long after a row its key's count is emitted
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    delay: i64,
}

/// Counts by key, emitted by timers, of the lines of `timers`.
#[job]
fn process_count(job: &Job, args: CountArgs) -> Result<()> {
    let TimersArgs { input, output, bound } = args.timers;
    job.json::<TimerLine>(input.source()?)
        .watermarks(Watermarks::bounded(Duration::from_millis(bound)).time(TimerLine::AT))
        .key_by(TimerLine::KEY)
        .process(CountLater { delay: args.delay })
        .names(["key", "time", "count"])
        .sink(&output);
    Ok(())
}

#[derive(Parser)]
struct TallyArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// 1; 2 has one function more; 3 keeps more.
    #[arg(long, default_value_t = 1)]
    release: i64,
    #[command(flatten)]
    faults: Faults,
}

/// A count by name, in releases that a running job can change between.
#[job]
fn tally(job: &Job, args: TallyArgs) -> Result<()> {
    let (release, faults) = (args.release, args.faults);
    let policy = if faults.skip { OnFailure::Skip } else { OnFailure::Fail };
    let rows = job.csv::<Named>(args.input.source()?).key_by(F0);
    let counted = match release {
        3 => rows.process(TallySince { release, faults }).uid("tally").on_failure(policy),
        _ => rows.process(Tally { release, faults }).uid("tally").on_failure(policy),
    };
    let told = counted.map(|row| (row.0.to_string(), row.1, row.2, row.3));
    let told = if release == 2 { told.filter(|row| row.1 >= 0) } else { told };
    told.names(["name", "number", "count", "release"]).sink(&args.output);
    Ok(())
}

/// The words of a text, counted by the release that has split them off.
#[job]
fn words(job: &Job, args: VersionArgs) -> Result<()> {
    let release = args.release;
    job.lines(args.input.source()?)
        .flat_map(move |line, out| {
            for word in line.split_whitespace() {
                out.emit((word, release, 1));
            }
        })
        .uid("split")
        .key_by((F0, F1))
        .sum(F2)
        .names(["word", "release", "count"])
        .sink(&args.output);
    Ok(())
}

/// The visits of users, from clicks in their order: a visit ends with a pause of more than 7 s.
#[job]
fn visits(job: &Job, args: VersionArgs) -> Result<()> {
    // One subtask reads: of a file that several have parts of, nobody gets the clicks in their order.
    job.csv::<Named>(args.input.source()?)
        .stream()
        .parallelism(1)
        .map(|row| (row.0.to_string(), Timestamp(row.1)))
        .parallelism(1)
        .watermarks(Watermarks::bounded(Duration::ZERO).time(F1))
        .parallelism(1)
        .key_by(F0)
        .process(Visits { release: args.release, gap: 7_000 })
        .uid("visits")
        .names(["user", "start", "end", "clicks", "odd", "release"])
        .sink(&args.output);
    Ok(())
}

millstream::jobs!(
    sums,
    reduced,
    aggregates,
    partitions,
    sides,
    lenient,
    strict,
    failing,
    timers,
    process_count,
    states,
    aging,
    nested,
    ruled,
    spread,
    both,
    extremes,
    windows,
    tally,
    words,
    visits
);

#[cfg(test)]
mod tests;
