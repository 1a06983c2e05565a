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
use crate::queries::{Highest, seconds};
use crate::tables::{NexmarkArgs, timed};

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Joined {
    auction: i64,
    price: i64,
    bidder: i64,
    date_time: Timestamp,
    extra: String,
    maxprice: i64,
}

const WINDOW_MS: i64 = 10_000;

/// Q7, highest bid: of every ten seconds.
#[job]
pub(crate) fn q7(job: &Job, args: NexmarkArgs) -> Result<()> {
    let so_far = Highest::default();
    let bids = timed(args.tables(job)?.bids, Bid::DATE_TIME)
        .filter(move |bid| {
            let place = bid.date_time.0.rem_euclid(WINDOW_MS);
            // The first millisecond of a window belongs to the one before as well.
            so_far.may_be(bid.date_time.0 - place, bid.price) || place == 0
        })
        .select((Bid::AUCTION, Bid::PRICE, Bid::BIDDER, Bid::DATE_TIME, Bid::EXTRA));
    let highest = bids.select((F1,)).key_by(()).window(Tumbling::of(seconds(10))).max(F0).select((F2,));
    let millisecond = Duration::from_millis(1);
    bids.key_by(F1)
        .join(highest.key_by(F0))
        // The greatest price has its window's last instant as its time, a millisecond before the end.
        .between(before(millisecond), seconds(10) - millisecond)
        .inner::<Joined>()
        .select((Joined::AUCTION, Joined::PRICE, Joined::BIDDER, Joined::DATE_TIME, Joined::EXTRA))
        .sink(&args.output);
    Ok(())
}
