//! Fields without names.
use millstream::prelude::*;

#[derive(Record)]
pub struct Event(pub String);
//              ^^^^^^^^^^^^ columns have names
