//! Arguments that cannot be parsed.
use millstream::prelude::*;

pub struct Arguments;

#[job]
pub fn words(job: &Job, args: Arguments) -> Result<()> {
//     ^^^^^ error
    let _ = (job, args);
    Ok(())
}
