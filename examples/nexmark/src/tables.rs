//! Where the events come from: the host's generator, or a file.

use std::time::Duration;

use millstream::FieldOf;
use millstream::prelude::*;

use crate::model::{Auction, Bid, Event, EventRef, Person};

/// Events that are generated if the arguments do not say how many.
const EVENTS: u64 = 100_000;
/// How long after later ones an event may come.
const DISORDER: Duration = Duration::from_secs(4);

#[derive(Parser)]
pub(crate) struct NexmarkArgs {
    #[command(flatten)]
    input: InputArgs,
    /// How many events to generate [default: 100000]
    #[arg(long, help_heading = "Input", conflicts_with_all = ["input", "host"])]
    events: Option<u64>,
    /// What the generated events follow from
    #[arg(long, help_heading = "Input", conflicts_with_all = ["input", "host"])]
    seed: Option<u64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The three streams.
pub(crate) struct Tables<'j> {
    pub(crate) persons: Stream<'j, Person>,
    pub(crate) auctions: Stream<'j, Auction>,
    pub(crate) bids: Stream<'j, Bid>,
}

impl NexmarkArgs {
    /// The streams that the arguments name. What a query leaves unused is not made.
    #[track_caller]
    pub(crate) fn tables<'j>(&self, job: &'j Job) -> Result<Tables<'j>> {
        if self.input.input.is_none() && self.input.host.is_none() {
            let mut generator = Connector::of("nexmark").option("events", self.events.unwrap_or(EVENTS));
            if let Some(seed) = self.seed {
                generator = generator.option("seed", seed);
            }
            let (persons, auctions, bids) =
                job.tables::<(Person, Auction, Bid)>(generator, ["persons", "auctions", "bids"]);
            return Ok(Tables { persons, auctions, bids });
        }
        let (persons, auctions, bids) =
            job.json::<Event>(self.input.source()?).side_output("auctions").side_output("bids").try_flat_map(
                |event, persons, auctions, bids| {
                    match event {
                        EventRef { event_type: 0, person: Some(person), .. } => persons.emit(person),
                        EventRef { event_type: 1, auction: Some(auction), .. } => auctions.emit(auction),
                        EventRef { event_type: 2, bid: Some(bid), .. } => bids.emit(bid),
                        _ => bail!("there is no event of the type {} in this line", event.event_type),
                    }
                    Ok(())
                },
            );
        Ok(Tables { persons, auctions, bids })
    }
}

/// Rows with their event time, and watermarks: for queries over event time.
#[track_caller]
pub(crate) fn timed<'j, T: Record>(
    rows: Stream<'j, T>,
    time: impl FieldOf<T, Value = Timestamp>,
) -> Stream<'j, T> {
    rows.watermarks(Watermarks::bounded(DISORDER).time(time)).stream()
}

/// Writes the events themselves, one a line, as `--input` reads them.
#[job]
pub(crate) fn events(job: &Job, args: NexmarkArgs) -> Result<()> {
    let Tables { persons, auctions, bids } = args.tables(job)?;
    persons
        .flat_map(|person, out: &mut Emit<Event>| out.emit(EventRef::new(0, Some(person), None, None)))
        .union([
            auctions.flat_map(|auction, out| out.emit(EventRef::new(1, None, Some(auction), None))),
            bids.flat_map(|bid, out| out.emit(EventRef::new(2, None, None, Some(bid)))),
        ])
        .sink(&args.output);
    Ok(())
}

/// All bids as they come: what the input alone costs.
#[job]
pub(crate) fn bids(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?.bids.sink(&args.output);
    Ok(())
}
