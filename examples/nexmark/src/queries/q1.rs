//! Query 1: currency conversion.
//!
//! ```sql
//! SELECT auction, bidder, 0.908 * price AS price, dateTime, extra FROM bid
//! ```

use millstream::prelude::*;

use crate::queries::{Euros, euros};
use crate::tables::NexmarkArgs;

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Converted {
    auction: i64,
    bidder: i64,
    price: Euros,
    date_time: Timestamp,
    extra: String,
}

/// Q1, currency conversion: every bid, in euros.
#[job]
pub(crate) fn q1(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            out.emit(ConvertedRef::new(bid.auction, bid.bidder, euros(bid.price), bid.date_time, bid.extra));
        })
        .sink(&args.output);
    Ok(())
}
