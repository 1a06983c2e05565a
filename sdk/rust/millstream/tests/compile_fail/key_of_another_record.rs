//! A key that is a field of another record.
use millstream::prelude::*;

#[derive(Record)]
pub struct Bid {
    pub auction: i64,
}

#[derive(Record)]
pub struct Person {
    pub name: String,
}

pub fn keys(bids: Stream<'_, Bid>) {
    bids.key_by(Person::NAME);
    //          ^^^^^^^^^^^^ a stream of `Bid` cannot be keyed by this
    bids.key_by((Bid::AUCTION, Person::NAME));
    //   ^^^^^^ this is not a field of `Bid`
}
