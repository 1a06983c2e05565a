//! What happens on the auction site.

use millstream::prelude::*;

/// Somebody registers.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(rename_all = "camelCase")]
pub(crate) struct Person {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email_address: String,
    pub(crate) credit_card: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) date_time: Timestamp,
    pub(crate) extra: String,
}

/// An auction begins.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(rename_all = "camelCase")]
pub(crate) struct Auction {
    pub(crate) id: i64,
    pub(crate) item_name: String,
    pub(crate) description: String,
    pub(crate) initial_bid: i64,
    pub(crate) reserve: i64,
    pub(crate) date_time: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) seller: i64,
    pub(crate) category: i64,
    pub(crate) extra: String,
}

/// Somebody bids; prices are in cents.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(rename_all = "camelCase")]
pub(crate) struct Bid {
    pub(crate) auction: i64,
    pub(crate) bidder: i64,
    pub(crate) price: i64,
    pub(crate) channel: String,
    pub(crate) url: String,
    pub(crate) date_time: Timestamp,
    pub(crate) extra: String,
}

/// A line of a file of events: one of the three is there.
#[derive(Clone, Debug, PartialEq, Record)]
pub(crate) struct Event {
    /// 0 a person, 1 an auction, 2 a bid
    pub(crate) event_type: i32,
    pub(crate) person: Option<Person>,
    pub(crate) auction: Option<Auction>,
    pub(crate) bid: Option<Bid>,
}
