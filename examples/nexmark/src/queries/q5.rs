//! Query 5: hot items.
//!
//! ```sql
//! SELECT AuctionBids.auction, AuctionBids.num
//! FROM (
//!   SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
//!   FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
//!   GROUP BY auction, window_start, window_end
//! ) AS AuctionBids
//! JOIN (
//!   SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime
//!   FROM (
//!     SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
//!     FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
//!     GROUP BY auction, window_start, window_end
//!   ) AS CountBids
//!   GROUP BY CountBids.starttime, CountBids.endtime
//! ) AS MaxBids
//! ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime
//!   AND AuctionBids.num >= MaxBids.maxn
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::queries::seconds;
use crate::tables::{NexmarkArgs, timed};

/// Q5, hot items: the auctions with the most bids of ten seconds, every two seconds.
#[job]
pub(crate) fn q5(job: &Job, args: NexmarkArgs) -> Result<()> {
    let counts = timed(args.tables(job)?.bids, Bid::DATE_TIME)
        .select((Bid::AUCTION,))
        .key_by(F0)
        .window(Sliding::of(seconds(10), seconds(2)))
        .count()
        .select((F2, F0, F3));
    // A count has the last instant of its window as its time. So counts of one window, and of no other,
    // meet in the two seconds that it ends with.
    let most = counts.key_by(F0).window(Tumbling::of(seconds(2))).max(F2).select((F0, F3));
    counts
        .key_by(F0)
        .join(most.key_by(F0))
        .window(Tumbling::of(seconds(2)))
        .inner::<(Timestamp, i64, i64, Timestamp, i64)>()
        .flat_map(|(_, auction, count, _, most), out| {
            if count >= most {
                out.emit((auction, count));
            }
        })
        .names(["auction", "num"])
        .sink(&args.output);
    Ok(())
}
