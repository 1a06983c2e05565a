//! Query 19: auction TOP-10 price.
//!
//! ```sql
//! SELECT * FROM (
//!   SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM bid
//! )
//! WHERE rank_number <= 10
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::tables::NexmarkArgs;

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Ranked {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
    date_time: Timestamp,
    extra: String,
    #[record(name = "rank_number")]
    rank_number: i64,
}

/// Q19, auction TOP-10 price: the ten highest bids of each auction.
#[job]
pub(crate) fn q19(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?.bids.key_by(Bid::AUCTION).top_ranked::<Ranked>(10, desc(Bid::PRICE)).sink(&args.output);
    Ok(())
}
