//! Query 13: bounded side input join.
//!
//! ```sql
//! SELECT B.auction, B.bidder, B.price, B.dateTime, S.value
//! FROM (SELECT *, PROCTIME() AS p_time FROM bid) B
//! JOIN side_input FOR SYSTEM_TIME AS OF B.p_time AS S
//! ON mod(B.auction, 10000) = S.key
//! ```

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

/// The bounded table: keys and values.
const SIDE_INPUT: &str = include_str!("../../side_input.csv");

#[derive(Record)]
struct Entry {
    key: i64,
    value: String,
}

/// A bid, and by which key its entry is found.
#[derive(Record)]
struct Keyed {
    auction: i64,
    bidder: i64,
    price: i64,
    date_time: Timestamp,
    key: i64,
}

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Enriched {
    auction: i64,
    bidder: i64,
    price: i64,
    date_time: Timestamp,
    key: i64,
    entry: i64,
    value: String,
}

/// Q13, bounded side input join: every bid with its auction's entry of a table.
#[job]
pub(crate) fn q13(job: &Job, args: NexmarkArgs) -> Result<()> {
    // The table does not change, and comes with the component.
    let side_input = Table::<Entry>::csv(Connector::text(SIDE_INPUT));
    args.tables(job)?
        .bids
        .map(|bid| Keyed {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
            key: bid.auction % 10_000,
        })
        .lookup_join(side_input, Keyed::KEY, Entry::KEY)
        .inner::<Enriched>()
        .select((Enriched::AUCTION, Enriched::BIDDER, Enriched::PRICE, Enriched::DATE_TIME, Enriched::VALUE))
        .sink(&args.output);
    Ok(())
}
