//! A field that borrows.
use millstream::prelude::*;

#[derive(Record)]
pub struct Event {
    pub user: &'static str,
    //        ^^^^^^^^^^^^ a row owns its fields
}
