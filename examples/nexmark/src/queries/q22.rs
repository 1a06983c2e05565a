//! Query 22: get URL directories.
//!
//! ```sql
//! SELECT auction, bidder, price, channel,
//!   SPLIT_INDEX(url, '/', 3) AS dir1, SPLIT_INDEX(url, '/', 4) AS dir2, SPLIT_INDEX(url, '/', 5) AS dir3
//! FROM bid
//! ```

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

/// Q22, get URL directories: the first three.
#[job]
pub(crate) fn q22(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            let mut parts = bid.url.split('/').skip(3);
            let (first, second, third) = (parts.next(), parts.next(), parts.next());
            out.emit((bid.auction, bid.bidder, bid.price, bid.channel, first, second, third));
        })
        .names(["auction", "bidder", "price", "channel", "dir1", "dir2", "dir3"])
        .sink(&args.output);
    Ok(())
}
