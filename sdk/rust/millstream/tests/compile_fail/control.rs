//! A job without mistakes.
use millstream::prelude::*;

#[derive(Record)]
pub struct Bid {
    pub auction: i64,
    pub bidder: String,
}

#[job]
pub fn totals(job: &Job) -> Result<()> {
    job.json::<Bid>(Connector::stdin()).key_by(Bid::BIDDER).sum(Bid::AUCTION).print();
    Ok(())
}

millstream::jobs!(totals);
