//! Query 0: pass through: the cost of reading and writing.
//!
//! ```sql
//! SELECT auction, bidder, price, dateTime, extra FROM bid
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::tables::NexmarkArgs;

/// Q0, pass through: every bid.
#[job]
pub(crate) fn q0(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .select((Bid::AUCTION, Bid::BIDDER, Bid::PRICE, Bid::DATE_TIME, Bid::EXTRA))
        .sink(&args.output);
    Ok(())
}
