//! A job that is no function.
use millstream::prelude::*;

#[job]
pub struct Words;
//  ^^^^^^ a job is `fn name(job: &Job, args: Arguments) -> Result<()>`
