//! Query 2: selection.
//!
//! ```sql
//! SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0
//! ```

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

/// Q2, selection: bids on some auctions.
#[job]
pub(crate) fn q2(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            if bid.auction % 123 == 0 {
                out.emit((bid.auction, bid.price));
            }
        })
        .names(["auction", "price"])
        .sink(&args.output);
    Ok(())
}
