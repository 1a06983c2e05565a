//! A generic row.
use millstream::prelude::*;

#[derive(Record)]
pub struct Event<T> {
    //           ^ a row has columns of fixed types
    pub user: T,
}
