//! Query 9: winning bids.
//!
//! ```sql
//! SELECT id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra,
//!   auction, bidder, price, bid_dateTime, bid_extra
//! FROM (
//!   SELECT A.*, B.auction, B.bidder, B.price, B.dateTime AS bid_dateTime, B.extra AS bid_extra,
//!     ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.dateTime ASC) AS rownum
//!   FROM auction A, bid B
//!   WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
//! )
//! WHERE rownum <= 1
//! ```

use millstream::prelude::*;

use crate::model::Auction;
use crate::model::Bid;
use crate::tables::NexmarkArgs;

/// An auction, and a bid on it.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Offer {
    id: i64,
    item_name: String,
    description: String,
    initial_bid: i64,
    reserve: i64,
    date_time: Timestamp,
    expires: Timestamp,
    seller: i64,
    category: i64,
    extra: String,
    auction: i64,
    bidder: i64,
    price: i64,
    #[record(name = "bid_dateTime")]
    bid_date_time: Timestamp,
    #[record(name = "bid_extra")]
    bid_extra: String,
}

/// Q9, winning bids: the best bid of each auction.
#[job]
pub(crate) fn q9(job: &Job, args: NexmarkArgs) -> Result<()> {
    let tables = args.tables(job)?;
    let bids = tables.bids.select((Bid::AUCTION, Bid::BIDDER, Bid::PRICE, Bid::DATE_TIME, Bid::EXTRA));
    tables
        .auctions
        .key_by(Auction::ID)
        .join(bids.key_by(F0))
        .unbounded()
        .inner::<Offer>()
        .filter(|offer| offer.date_time <= offer.bid_date_time && offer.bid_date_time <= offer.expires)
        .key_by(Offer::ID)
        .top(1, (desc(Offer::PRICE), asc(Offer::BID_DATE_TIME)))
        .sink(&args.output);
    Ok(())
}
