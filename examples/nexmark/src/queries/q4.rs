//! Query 4: average price for a category.
//!
//! ```sql
//! SELECT Q.category, AVG(Q.final) AS average
//! FROM (
//!   SELECT MAX(B.price) AS final, A.category
//!   FROM auction A, bid B
//!   WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
//!   GROUP BY A.id, A.category
//! ) Q
//! GROUP BY Q.category
//! ```

use millstream::prelude::*;

use crate::model::{Auction, Bid};
use crate::tables::NexmarkArgs;

/// An auction, and a bid on it.
#[derive(Record)]
struct Offer {
    id: i64,
    category: i64,
    begins: Timestamp,
    expires: Timestamp,
    auction: i64,
    price: i64,
    at: Timestamp,
}

/// Q4, average price for a category: of what auctions were won for.
#[job]
pub(crate) fn q4(job: &Job, args: NexmarkArgs) -> Result<()> {
    let tables = args.tables(job)?;
    let auctions =
        tables.auctions.select((Auction::ID, Auction::CATEGORY, Auction::DATE_TIME, Auction::EXPIRES));
    let bids = tables.bids.select((Bid::AUCTION, Bid::PRICE, Bid::DATE_TIME));
    auctions
        .key_by(F0)
        .join(bids.key_by(F0))
        .unbounded()
        .inner::<Offer>()
        .flat_map(|offer, out| {
            if offer.begins <= offer.at && offer.at <= offer.expires {
                out.emit((offer.id, offer.category, offer.price));
            }
        })
        .key_by((F0, F1))
        .changes()
        .max(F2)
        .key_by(F1)
        .aggregate((sum(F2), count()))
        // The average of whole numbers is a whole number: its fraction is cut off.
        .map(|(category, sum, count)| (category, sum / count))
        .names(["category", "average"])
        .sink(&args.output);
    Ok(())
}
