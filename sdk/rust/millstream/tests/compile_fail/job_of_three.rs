//! A job with a parameter too many.
use millstream::prelude::*;

#[job]
pub fn job(job: &Job, args: (), more: u32) -> Result<()> {
    //                          ^^^^ a job is `fn name(job: &Job, args: Arguments) -> Result<()>`
    Ok(())
}
