//! A join over windows that two streams do not share.
use millstream::prelude::*;
use std::time::Duration;

#[job]
fn pairs(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    words
        .key_by(F0)
        .join(words.key_by(F0))
        .window(Session::with_gap(Duration::from_secs(1)))
        //      ^ `millstream::Session` windows have no edges that two streams share
        .inner::<(String, i32, String, i32)>()
        .print();
    Ok(())
}
