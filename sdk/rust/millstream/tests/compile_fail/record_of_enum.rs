//! An enum is no row.
use millstream::prelude::*;

#[derive(Record)]
pub enum Event {
//  ^^^^ a row is a struct: an enum has no columns
    Click,
}
