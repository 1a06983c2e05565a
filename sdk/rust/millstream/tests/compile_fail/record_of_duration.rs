//! A field of a type that has no column.
use millstream::prelude::*;

#[derive(Record)]
pub struct Event {
    pub user: String,
    pub took: std::time::Duration,
    //        ^^^^^^^^^^^^^^^^^^^ `Duration` cannot be a row, or a field of one
}
