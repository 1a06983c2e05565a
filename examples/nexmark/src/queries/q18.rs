//! Query 18: find last bid.
//!
//! ```sql
//! SELECT auction, bidder, price, channel, url, dateTime, extra
//! FROM (
//!   SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC) AS rank_number
//!   FROM bid
//! )
//! WHERE rank_number <= 1
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::tables::NexmarkArgs;

/// Q18, find last bid: of each bidder on each auction.
#[job]
pub(crate) fn q18(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .key_by((Bid::BIDDER, Bid::AUCTION))
        .deduplicate_last(Bid::DATE_TIME)
        .sink(&args.output);
    Ok(())
}
