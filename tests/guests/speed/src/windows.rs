//! Aggregates of bids over windows: the host's own, and the same by a function.

use std::time::Duration;

use millstream::prelude::*;
use millstream::{OfTime, WindowRow};

/// Somebody registers.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Person {
    id: i64,
    name: String,
    email_address: String,
    credit_card: String,
    city: String,
    state: String,
    date_time: Timestamp,
    extra: String,
}

/// An auction begins.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Auction {
    id: i64,
    item_name: String,
    description: String,
    initial_bid: i64,
    reserve: i64,
    date_time: Timestamp,
    expires: Timestamp,
    seller: i64,
    category: i64,
    extra: String,
}

/// Somebody bids.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
    date_time: Timestamp,
    extra: String,
}

/// The arguments of `window_bids`.
#[derive(Parser)]
pub struct WindowArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Events in all; of 50, 46 are bids
    #[arg(long, default_value_t = 1_000)]
    events: u64,
    /// Windows of 10 s each 2 s, instead of end to end
    #[arg(long)]
    sliding: bool,
    /// Windows that end after so many milliseconds without a bid
    #[arg(long, value_name = "GAP", conflicts_with = "sliding")]
    sessions: Option<u64>,
    /// none, host, guest: who aggregates
    #[arg(long, default_value = "host")]
    by: String,
}

/// Auction, price, time.
type Narrow = (i64, i64, Timestamp);
/// Auction, window, sum, count, greatest price.
type Totals = (i64, Timestamp, Timestamp, i64, i64, i64);

struct SumCountMax;

impl AggregateFunction for SumCountMax {
    type In = Narrow;
    type Key = i64;
    type Accumulator = (i64, i64, i64);
    type Out = Totals;
    const MERGES: bool = true;

    fn create(&self) -> Self::Accumulator {
        (0, 0, i64::MIN)
    }

    fn add(&self, (_, price, _): Narrow, (sum, count, greatest): &mut Self::Accumulator) -> Result<()> {
        (*sum, *count, *greatest) = (*sum + price, *count + 1, price.max(*greatest));
        Ok(())
    }

    fn result(&self, auction: i64, of: &Self::Accumulator) -> Totals {
        self.window_result(auction, &Window { start: 0, end: 0 }, of)
    }

    fn window_result(&self, auction: i64, window: &Window, of: &Self::Accumulator) -> Totals {
        let (sum, count, greatest) = *of;
        (auction, Timestamp(window.start), Timestamp(window.end), sum, count, greatest)
    }

    fn merge(&self, into: &mut Self::Accumulator, (sum, count, greatest): (i64, i64, i64)) {
        *into = (into.0 + sum, into.1 + count, into.2.max(greatest));
    }
}

/// Sum, count and greatest price of the bids of each auction over windows.
#[job]
pub fn window_bids(job: &Job, args: WindowArgs) -> Result<()> {
    let generator = Connector::of("nexmark").option("events", args.events);
    let (_, _, bids) = job.tables::<(Person, Auction, Bid)>(generator, ["persons", "auctions", "bids"]);
    let bids = bids.map(|bid| (bid.auction, bid.price, bid.date_time));
    let bids = bids.watermarks(Watermarks::bounded(Duration::from_secs(4)).time(F2)).stream();
    let (size, slide) = (Duration::from_secs(10), Duration::from_secs(2));
    if args.sliding {
        totals(bids, Sliding::of(size, slide), &args)
    } else if let Some(gap) = args.sessions {
        totals(bids, Session::with_gap(Duration::from_millis(gap)), &args)
    } else {
        totals(bids, Tumbling::of(size), &args)
    }
}

fn totals<W: OfTime + WindowRow<(i64,), (i64, i64, i64), Row = Totals>>(
    bids: Stream<'_, Narrow>,
    windows: W,
    args: &WindowArgs,
) -> Result<()> {
    match args.by.as_str() {
        "none" => bids.filter(|_| false).sink(&args.output),
        "host" => bids.key_by(F0).window(windows).aggregate((sum(F1), count(), max(F1))).sink(&args.output),
        "guest" => bids.key_by(F0).window(windows).aggregate_with(SumCountMax).sink(&args.output),
        other => bail!("`{other}` aggregates nothing"),
    };
    Ok(())
}
