//! Query 17: auction statistics report.
//!
//! ```sql
//! SELECT auction, DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS day,
//!   count(*) AS total_bids,
//!   count(*) filter (where price < 10000) AS rank1_bids,
//!   count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
//!   count(*) filter (where price >= 1000000) AS rank3_bids,
//!   min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
//! FROM bid
//! GROUP BY auction, DATE_FORMAT(dateTime, 'yyyy-MM-dd')
//! ```

use millstream::prelude::*;

use crate::queries::ranked;
use crate::tables::NexmarkArgs;

#[derive(Record)]
struct Statistics {
    auction: i64,
    day: Date,
    total_bids: i64,
    rank1_bids: i64,
    rank2_bids: i64,
    rank3_bids: i64,
    min_price: i64,
    max_price: i64,
    avg_price: i64,
    sum_price: i64,
}

/// Q17, auction statistics report: bids and prices of each auction and day.
#[job]
pub(crate) fn q17(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .map(|bid| {
            let [rank1, rank2, rank3] = ranked(bid.price, bid.price);
            (bid.auction, bid.date_time.date(), bid.price, rank1, rank2, rank3)
        })
        .key_by((F0, F1))
        .changes()
        .aggregate((count(), count_of(F3), count_of(F4), count_of(F5), min(F2), max(F2), sum(F2)))
        .map(
            |(
                auction,
                day,
                total_bids,
                rank1_bids,
                rank2_bids,
                rank3_bids,
                min_price,
                max_price,
                sum_price,
            )| {
                // The average of whole numbers is a whole number: its fraction is cut off.
                let avg_price = sum_price / total_bids;
                Statistics {
                    auction,
                    day,
                    total_bids,
                    rank1_bids,
                    rank2_bids,
                    rank3_bids,
                    min_price,
                    max_price,
                    avg_price,
                    sum_price,
                }
            },
        )
        .sink(&args.output);
    Ok(())
}
