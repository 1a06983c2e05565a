//! The events of the source `nexmark`, without a job: written as JSON lines, or made as fast as they go.
//!
//! ```text
//! cargo run --release -p connectors --example nexmark -- write FILE EVENTS [SEED [EVENT_RATE]]
//! cargo run --release -p connectors --example nexmark -- speed EVENTS
//! ```
#![expect(clippy::print_stdout, reason = "a program with an answer")]

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::task::Waker;

use arrow_json::writer::{LineDelimited, WriterBuilder};
use connectors::sources::nexmark::schemas;
use connectors::{Context, SourcePoll, SourcePort, source};
use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::Platform;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["write", file, events] => write(file, &[("events", events)]),
        ["write", file, events, seed] => write(file, &[("events", events), ("seed", seed)]),
        ["write", file, events, seed, rate] => {
            write(file, &[("events", events), ("seed", seed), ("event-rate", rate)])
        }
        ["speed", events] => {
            speed(events, "bids", [false, false, true])?;
            speed(events, "persons and auctions", [true, true, false])?;
            speed(events, "all", [true; 3])
        }
        _ => Err("write FILE EVENTS [SEED [EVENT_RATE]] | speed EVENTS".into()),
    }
}

/// Gives all batches of the source with these options to `take`, each with its port.
fn each_batch(
    options: &[(&str, &str)],
    used: [bool; 3],
    mut take: impl FnMut(u32, &Batch) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let plain = |error: Diagnostic| error.message;
    let connection = Connection {
        connector: "nexmark".into(),
        options: options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        format: None,
        format_options: Default::default(),
    };
    let ports: Vec<_> =
        schemas().into_iter().zip(used).map(|(schema, used)| SourcePort { schema, used }).collect();
    let factory = source(&connection, &ports).map_err(plain)?;
    let context = Context {
        platform: Platform::system(),
        subtask: 0,
        parallelism: 1,
        waker: Waker::noop().clone(),
        batch_rows: 1_024,
        batch_bytes: 64 << 10,
        checkpoints: false,
    };
    let mut source = factory.open(context).map_err(plain)?;
    while let SourcePoll::Rows(decoded) = source.poll().map_err(plain)? {
        take(decoded.port, &decoded.batch)?;
    }
    Ok(())
}

/// One event a line, in the order of the events.
fn write(file: &str, options: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    const NAMES: [&str; 3] = ["person", "auction", "bid"];
    let mut file = BufWriter::new(File::create(file)?);
    let mut waiting = [(); 3].map(|()| VecDeque::new());
    let mut number = 0;
    let mut drain = |waiting: &mut [VecDeque<String>; 3]| -> Result<(), Box<dyn Error>> {
        loop {
            let port = match number % 50 {
                0 => 0,
                1..4 => 1,
                _ => 2,
            };
            let Some(row) = waiting[port].pop_front() else { return Ok(()) };
            writeln!(file, "{{\"event_type\":{port},\"{}\":{row}}}", NAMES[port])?;
            number += 1;
        }
    };
    each_batch(options, [true; 3], |port, batch| {
        let mut json = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_timestamp_tz_format("%Y-%m-%d %H:%M:%S%.3f".into())
            .build::<_, LineDelimited>(&mut json);
        writer.write(&with_offset(batch)?)?;
        writer.finish()?;
        drop(writer);
        waiting[port as usize].extend(String::from_utf8(json)?.lines().map(str::to_owned));
        drain(&mut waiting)
    })
}

/// The rows with times whose zone is an offset: Arrow's writer knows no other.
fn with_offset(batch: &Batch) -> Result<arrow_array::RecordBatch, Box<dyn Error>> {
    use arrow_schema::{DataType, Field, Schema, TimeUnit};
    let offset = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.rows().columns()) {
        let of_type = match field.data_type() {
            DataType::Timestamp(..) => &offset,
            other => other,
        };
        fields.push(Field::new(field.name(), of_type.clone(), false));
        columns.push(arrow_cast::cast(column, of_type)?);
    }
    Ok(arrow_array::RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)?)
}

/// Says how many events, and rows, are made a second on one core: the median of five rounds.
fn speed(events: &str, name: &str, used: [bool; 3]) -> Result<(), Box<dyn Error>> {
    let clock = Platform::system().clock;
    let mut rounds = Vec::new();
    let mut rows = 0;
    for _ in 0..5 {
        rows = 0;
        let start = clock.now();
        each_batch(&[("events", events)], used, |_, batch| {
            rows += batch.num_rows();
            Ok(())
        })?;
        rounds.push((clock.now() - start).as_secs_f64());
    }
    rounds.sort_unstable_by(f64::total_cmp);
    let per_second = |count: f64| count / rounds[2] / 1e6;
    let (of_events, of_rows) = (per_second(events.parse()?), per_second(rows as f64));
    println!("{name}: {of_events:.1} M events/s, {of_rows:.1} M rows/s");
    Ok(())
}
