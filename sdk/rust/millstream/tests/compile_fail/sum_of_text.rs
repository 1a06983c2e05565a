//! A sum of what is no number.
use millstream::prelude::*;

#[derive(Record)]
pub struct Bid {
    pub auction: i64,
    pub bidder: String,
}

pub fn sums(bids: Stream<'_, Bid>) {
    bids.key_by(Bid::AUCTION).sum(Bid::BIDDER);
    //                            ^^^^^^^^^^^ is not a number: it has no sum
}
