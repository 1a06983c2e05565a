//! The events of an auction house, as the benchmark Nexmark defines them: persons, auctions and
//! bids, the same for the same seed at every parallelism.
//!
//! The fields are drawn by the rules of the reference generator of github.com/nexmark/nexmark, but
//! for three things: its sequences of random numbers (here event n is a function of the seed and n
//! alone), `extra`, which has letters from a to z only, and a bid's bidder, to whose number the
//! reference adds the first person's twice.

mod draws;
mod rows;
#[cfg(test)]
mod tests;
mod texts;
mod timeline;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use model::job_graph::Connection;
use model::schema::same_types;
use model::{Batch, Diagnostic};

use self::rows::Maker;
use self::texts::Tables;
use self::timeline::{EPOCH, PLACES, Run, Timeline};
use super::lanes::Lanes;
use super::pace::{self, Pace};
use super::{SourcePort, no_format};
use crate::options::Options;
use crate::{Context, Decoded, Need, Source, SourceFactory, SourcePoll};

/// 2015-07-15 00:00:00 UTC, as the reference.
const BASE_TIME: i64 = 1_436_918_400_000;
const EVENT_RATE: u64 = 100_000;
/// What leaves by each port.
const PORTS: [&str; 3] = ["persons", "auctions", "bids"];
/// Bytes of a row of each port in memory, about.
const ROW_BYTES: [usize; 3] = [240, 550, 190];

/// Which events to make.
pub struct NexmarkFactory {
    /// How many in all; none = without end.
    events: Option<u64>,
    seed: u64,
    timeline: Timeline,
    /// Events a second of real time, of all subtasks together; none = as fast as it goes.
    rate: Option<f64>,
    /// The ports whose rows are made, as the job declares them.
    ports: Vec<(usize, SchemaRef)>,
    /// Made when the first subtask is opened.
    maker: OnceLock<Arc<Maker>>,
    /// Where an earlier run stood.
    restored: OnceLock<Vec<String>>,
}

/// The columns of the ports: persons, auctions, bids. A job may call them otherwise.
#[must_use]
pub fn schemas() -> [SchemaRef; 3] {
    let schema = |columns: &[(&str, DataType)]| {
        let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), false);
        Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
    };
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let (number, text) = (|| DataType::Int64, || DataType::Utf8);
    [
        schema(&[
            ("id", number()),
            ("name", text()),
            ("emailAddress", text()),
            ("creditCard", text()),
            ("city", text()),
            ("state", text()),
            ("dateTime", time()),
            ("extra", text()),
        ]),
        schema(&[
            ("id", number()),
            ("itemName", text()),
            ("description", text()),
            ("initialBid", number()),
            ("reserve", number()),
            ("dateTime", time()),
            ("expires", time()),
            ("seller", number()),
            ("category", number()),
            ("extra", text()),
        ]),
        schema(&[
            ("auction", number()),
            ("bidder", number()),
            ("price", number()),
            ("channel", text()),
            ("url", text()),
            ("dateTime", time()),
            ("extra", text()),
        ]),
    ]
}

impl NexmarkFactory {
    pub(super) fn of(connection: &Connection, ports: &[SourcePort]) -> Result<Self, Diagnostic> {
        no_format(connection)?;
        let known = ["events", "seed", "event-rate", "base-time", "rate"];
        let options = Options::new("nexmark", &connection.options, &known)?;
        check_ports(ports)?;
        let event_rate = options.parsed("event-rate")?.unwrap_or(EVENT_RATE);
        if event_rate == 0 {
            return Err(Diagnostic::user("the event rate of `nexmark` is above 0, in events a second"));
        }
        let of_port = |used_only: bool| -> Vec<(usize, SchemaRef)> {
            let ports = ports.iter().enumerate().filter(|(_, port)| port.used || !used_only);
            ports.map(|(number, port)| (number, Arc::clone(&port.schema))).collect()
        };
        let used = of_port(true);
        Ok(Self {
            events: options.parsed("events")?,
            seed: options.parsed("seed")?.unwrap_or(0),
            timeline: Timeline {
                base_time: options.parsed("base-time")?.unwrap_or(BASE_TIME),
                rate: event_rate,
            },
            rate: pace::rate("nexmark", &options)?,
            // With no edge at all it runs to its end all the same.
            ports: if used.is_empty() { of_port(false) } else { used },
            maker: OnceLock::new(),
            restored: OnceLock::new(),
        })
    }
}

/// Whether the job declares the ports that there are.
fn check_ports(ports: &[SourcePort]) -> Result<(), Diagnostic> {
    if ports.len() != PORTS.len() {
        return Err(Diagnostic::user(format!(
            "`nexmark` has three ports, but the job declares {}",
            ports.len()
        ))
        .detail(format!("they are, in this order: {}", PORTS.join(", "))));
    }
    for ((name, given), port) in PORTS.iter().zip(schemas()).zip(ports) {
        if !same_types(&given, &port.schema) {
            return Err(Diagnostic::user(format!(
                "the {name} of `nexmark` have other columns than the job declares"
            ))
            .detail(format!(
                "`nexmark` gives ({}), the job declares ({})",
                columns(&given),
                columns(&port.schema)
            ))
            .hint("columns go by their place and type; their names may differ"));
        }
    }
    Ok(())
}

fn columns(schema: &Schema) -> String {
    let column = |field: &Arc<Field>| {
        format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

impl SourceFactory for NexmarkFactory {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn parallelism_max(&self) -> Option<u32> {
        None
    }
    fn bounded(&self) -> bool {
        self.events.is_some()
    }
    fn can_go_back(&self) -> bool {
        true
    }
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        if positions.is_empty() {
            return Ok(());
        }
        Lanes::restored(EPOCH, positions, 0, 1)?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| positions.to_vec());
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let maker = self.maker.get_or_init(|| {
            let tables = Tables::of(self.seed);
            Arc::new(Maker { seed: self.seed, timeline: self.timeline, tables })
        });
        let row_events = |(port, _): &(usize, SchemaRef)| {
            let rows = context.batch_rows.min(context.batch_bytes / ROW_BYTES[*port]).max(1) as u64;
            (rows * EPOCH / (PLACES[*port].end - PLACES[*port].start)).max(1)
        };
        let (lanes, first) = Lanes::open(EPOCH, self.restored.get(), &context)?;
        Ok(Box::new(Nexmark {
            maker: Arc::clone(maker),
            events: self.events.unwrap_or(u64::MAX),
            events_a_batch: self.ports.iter().map(row_events).min().unwrap_or(EPOCH),
            pace: Pace::new("nexmark", self.rate, first, &context),
            ports: self.ports.clone(),
            lanes,
            ready: VecDeque::new(),
            bytes: 0,
        }))
    }
}

/// Makes the events of every `parallelism`-th epoch.
struct Nexmark {
    maker: Arc<Maker>,
    events: u64,
    /// So many events give about as many rows as a batch should have.
    events_a_batch: u64,
    pace: Pace,
    ports: Vec<(usize, SchemaRef)>,
    /// The numbers of its events, in blocks of an epoch.
    lanes: Lanes,
    /// Made, not yet given: one batch a port.
    ready: VecDeque<Decoded>,
    bytes: u64,
}

impl Nexmark {
    /// This subtask's next events below `due`, as many as a batch should have.
    fn take_runs(&mut self, due: u64) -> Vec<Run> {
        let (mut runs, mut left) = (Vec::new(), self.events_a_batch);
        while left > 0
            && let Some(taken) = self.lanes.take(due, left)
        {
            let (epoch, place, count) = (taken.start / EPOCH, taken.start % EPOCH, taken.end - taken.start);
            runs.push(Run { epoch, places: place..place + count });
            left -= count;
        }
        runs
    }

    fn make(&mut self, runs: &[Run]) -> Result<(), Diagnostic> {
        for (port, schema) in &self.ports {
            let made = self.maker.columns(*port, runs).and_then(|(rows, columns)| match rows {
                0 => Ok(None),
                _ => Batch::of(Arc::clone(schema), rows, columns).map(Some),
            });
            if let Some(batch) = made.map_err(|error| Diagnostic::internal(error.to_string()))? {
                self.bytes += batch.bytes() as u64;
                self.ready.push_back(Decoded::rows(*port as u32, batch));
            }
        }
        Ok(())
    }
}

impl Source for Nexmark {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        loop {
            if let Some(decoded) = self.ready.pop_front() {
                return Ok(SourcePoll::Rows(decoded));
            }
            if self.lanes.next().is_none_or(|next| next >= self.events) {
                return Ok(SourcePoll::End);
            }
            let due = self.pace.due(self.events);
            let runs = self.take_runs(due);
            if runs.is_empty() {
                self.pace.sleep();
                return Ok(SourcePoll::Pending);
            }
            // Runs may hold nothing for the ports that are read: then the next ones do.
            self.make(&runs)?;
        }
    }
    fn bytes_read(&self) -> u64 {
        self.bytes
    }
    fn position(&self) -> Option<String> {
        self.ready.is_empty().then(|| self.lanes.position())
    }
}
