//! Rows of two streams in windows of so many.
use millstream::prelude::*;

#[job]
fn pairs(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    let both = words.key_by(F0).co_group(words.key_by(F0)).window(words);
    //                                                            ^ two streams do not meet in `Stream<
    drop(both);
    Ok(())
}
