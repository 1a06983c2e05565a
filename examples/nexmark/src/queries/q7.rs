//! Query 7: highest bid.
//!
//! ```sql
//! SELECT B.auction, B.price, B.bidder, B.dateTime, B.extra
//! FROM bid B
//! JOIN (
//!   SELECT MAX(price) AS maxprice, window_end AS dateTime
//!   FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
//!   GROUP BY window_start, window_end
//! ) B1
//! ON B.price = B1.maxprice
//! WHERE B.dateTime BETWEEN B1.dateTime - INTERVAL '10' SECOND AND B1.dateTime
//! ```

use std::time::Duration;

use millstream::prelude::*;

use crate::model::Bid;
use crate::queries::seconds;
use crate::tables::{NexmarkArgs, timed};

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Highest {
    auction: i64,
    price: i64,
    bidder: i64,
    date_time: Timestamp,
    extra: String,
    maxprice: i64,
}

/// Q7, highest bid: of every ten seconds.
#[job]
pub(crate) fn q7(job: &Job, args: NexmarkArgs) -> Result<()> {
    let bids = timed(args.tables(job)?.bids, Bid::DATE_TIME);
    let highest =
        bids.select((Bid::PRICE,)).key_by(()).window(Tumbling::of(seconds(10))).max(F0).select((F2,));
    let millisecond = Duration::from_millis(1);
    bids.select((Bid::AUCTION, Bid::PRICE, Bid::BIDDER, Bid::DATE_TIME, Bid::EXTRA))
        .key_by(F1)
        .join(highest.key_by(F0))
        // The greatest price has its window's last instant as its time, a millisecond before the end.
        .between(before(millisecond), seconds(10) - millisecond)
        .inner::<Highest>()
        .select((Highest::AUCTION, Highest::PRICE, Highest::BIDDER, Highest::DATE_TIME, Highest::EXTRA))
        .sink(&args.output);
    Ok(())
}
