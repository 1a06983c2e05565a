//! Query 13: bounded side input join.
//!
//! ```sql
//! SELECT B.auction, B.bidder, B.price, B.dateTime, S.value
//! FROM (SELECT *, PROCTIME() AS p_time FROM bid) B
//! JOIN side_input FOR SYSTEM_TIME AS OF B.p_time AS S
//! ON mod(B.auction, 10000) = S.key
//! ```

use std::collections::HashMap;

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

/// The bounded table: keys and values.
const SIDE_INPUT: &str = include_str!("../../side_input.csv");

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Enriched {
    auction: i64,
    bidder: i64,
    price: i64,
    date_time: Timestamp,
    value: String,
}

/// Q13, bounded side input join: every bid with its auction's entry of a table.
#[job]
pub(crate) fn q13(job: &Job, args: NexmarkArgs) -> Result<()> {
    // The table does not change, and comes with the component: each instance has it in its memory.
    let entries = SIDE_INPUT.lines().filter_map(|line| line.split_once(','));
    let side_input: HashMap<i64, &str> =
        entries.filter_map(|(key, value)| Some((key.parse().ok()?, value))).collect();
    args.tables(job)?
        .bids
        .flat_map(move |bid, out| {
            if let Some(value) = side_input.get(&(bid.auction % 10_000)) {
                out.emit(EnrichedRef::new(bid.auction, bid.bidder, bid.price, bid.date_time, value));
            }
        })
        .sink(&args.output);
    Ok(())
}
