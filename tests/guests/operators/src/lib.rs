//! A job for each operator, over CSV lines of a name and a number.

use millstream::prelude::*;

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

millstream::jobs!(sums, reduced, aggregates, partitions, sides, lenient, strict);
