//! A job that returns nothing.
use millstream::prelude::*;

#[job]
pub fn count_words(job: &Job) {
    // ^^^^^^^^^^^ this returns nothing
    let _ = job;
}
