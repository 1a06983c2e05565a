//! Query 20: expand bid with auction.
//!
//! ```sql
//! SELECT auction, bidder, price, channel, url, B.dateTime AS bid_dateTime, B.extra AS bid_extra,
//!   itemName, description, initialBid, reserve, A.dateTime AS auction_dateTime, expires, seller, category,
//!   A.extra AS auction_extra
//! FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id
//! WHERE A.category = 10
//! ```

use millstream::prelude::*;

use crate::model::{Auction, Bid};
use crate::tables::NexmarkArgs;

/// A bid and its auction.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Expanded {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
    #[record(name = "bid_dateTime")]
    bid_date_time: Timestamp,
    #[record(name = "bid_extra")]
    bid_extra: String,
    id: i64,
    item_name: String,
    description: String,
    initial_bid: i64,
    reserve: i64,
    #[record(name = "auction_dateTime")]
    auction_date_time: Timestamp,
    expires: Timestamp,
    seller: i64,
    category: i64,
    #[record(name = "auction_extra")]
    auction_extra: String,
}

/// The same without the auction's id, which is there twice.
#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Output {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
    #[record(name = "bid_dateTime")]
    bid_date_time: Timestamp,
    #[record(name = "bid_extra")]
    bid_extra: String,
    item_name: String,
    description: String,
    initial_bid: i64,
    reserve: i64,
    #[record(name = "auction_dateTime")]
    auction_date_time: Timestamp,
    expires: Timestamp,
    seller: i64,
    category: i64,
    #[record(name = "auction_extra")]
    auction_extra: String,
}

/// Q20, expand bid with auction: bids with all of their auction, of one category.
#[job]
pub(crate) fn q20(job: &Job, args: NexmarkArgs) -> Result<()> {
    let tables = args.tables(job)?;
    let auctions = tables.auctions.filter(|auction| auction.category == 10);
    tables
        .bids
        .key_by(Bid::AUCTION)
        .join(auctions.key_by(Auction::ID))
        .unbounded()
        .inner::<Expanded>()
        .select_into::<Output>((
            Expanded::AUCTION,
            Expanded::BIDDER,
            Expanded::PRICE,
            Expanded::CHANNEL,
            Expanded::URL,
            Expanded::BID_DATE_TIME,
            Expanded::BID_EXTRA,
            Expanded::ITEM_NAME,
            Expanded::DESCRIPTION,
            Expanded::INITIAL_BID,
            Expanded::RESERVE,
            Expanded::AUCTION_DATE_TIME,
            Expanded::EXPIRES,
            Expanded::SELLER,
            Expanded::CATEGORY,
            Expanded::AUCTION_EXTRA,
        ))
        .sink(&args.output);
    Ok(())
}
