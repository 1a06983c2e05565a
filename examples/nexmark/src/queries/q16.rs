//! Query 16: channel statistics report.
//!
//! ```sql
//! SELECT channel, DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS day,
//!   max(DATE_FORMAT(dateTime, 'HH:mm')) AS minute,
//!   count(*) AS total_bids,
//!   count(*) filter (where price < 10000) AS rank1_bids,
//!   count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
//!   count(*) filter (where price >= 1000000) AS rank3_bids,
//!   count(distinct bidder) AS total_bidders,
//!   count(distinct bidder) filter (where price < 10000) AS rank1_bidders,
//!   count(distinct bidder) filter (where price >= 10000 and price < 1000000) AS rank2_bidders,
//!   count(distinct bidder) filter (where price >= 1000000) AS rank3_bidders,
//!   count(distinct auction) AS total_auctions,
//!   count(distinct auction) filter (where price < 10000) AS rank1_auctions,
//!   count(distinct auction) filter (where price >= 10000 and price < 1000000) AS rank2_auctions,
//!   count(distinct auction) filter (where price >= 1000000) AS rank3_auctions
//! FROM bid
//! GROUP BY channel, DATE_FORMAT(dateTime, 'yyyy-MM-dd')
//! ```

use millstream::prelude::*;

use crate::queries::{minute, ranked};
use crate::tables::NexmarkArgs;

/// A bid with columns of its own for each rank: null where it is of another. A count leaves nulls out.
#[derive(Record)]
struct Ranked {
    channel: String,
    day: Date,
    minute: String,
    bidder: i64,
    auction: i64,
    bidder1: Option<i64>,
    bidder2: Option<i64>,
    bidder3: Option<i64>,
    auction1: Option<i64>,
    auction2: Option<i64>,
    auction3: Option<i64>,
}

#[derive(Record)]
struct Statistics {
    channel: String,
    day: Date,
    minute: String,
    total_bids: i64,
    rank1_bids: i64,
    rank2_bids: i64,
    rank3_bids: i64,
    total_bidders: i64,
    rank1_bidders: i64,
    rank2_bidders: i64,
    rank3_bidders: i64,
    total_auctions: i64,
    rank1_auctions: i64,
    rank2_auctions: i64,
    rank3_auctions: i64,
}

/// Q16, channel statistics report: bids, bidders and auctions of each channel and day, by rank of price.
#[job]
pub(crate) fn q16(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            let [b1, b2, b3] = ranked(bid.price, bid.bidder);
            let [a1, a2, a3] = ranked(bid.price, bid.auction);
            let (day, minute) = (bid.date_time.date(), minute(bid.date_time));
            let (channel, bidder, auction) = (bid.channel, bid.bidder, bid.auction);
            out.emit(RankedRef::new(channel, day, &minute, bidder, auction, b1, b2, b3, a1, a2, a3));
        })
        .key_by((Ranked::CHANNEL, Ranked::DAY))
        .changes()
        .aggregate_into::<Statistics>((
            max(Ranked::MINUTE),
            count(),
            count_of(Ranked::BIDDER1),
            count_of(Ranked::BIDDER2),
            count_of(Ranked::BIDDER3),
            count_distinct(Ranked::BIDDER),
            count_distinct(Ranked::BIDDER1),
            count_distinct(Ranked::BIDDER2),
            count_distinct(Ranked::BIDDER3),
            count_distinct(Ranked::AUCTION),
            count_distinct(Ranked::AUCTION1),
            count_distinct(Ranked::AUCTION2),
            count_distinct(Ranked::AUCTION3),
        ))
        .sink(&args.output);
    Ok(())
}
