//! A job function that is async.
use millstream::prelude::*;

#[job]
pub async fn count_words(job: &Job) -> Result<()> {
//  ^^^^^ it is not async
    Ok(())
}
