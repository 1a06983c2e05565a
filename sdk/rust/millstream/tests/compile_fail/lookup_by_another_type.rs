//! A lookup by a key of another type than the table's.
use millstream::prelude::*;

#[derive(Record)]
pub struct Name {
    id: i64,
    name: String,
}

pub fn named(words: Stream<'_, (String, i64)>) -> Stream<'_, (String, i64, i64, String)> {
    let names = Table::<Name>::csv(Connector::files("names.csv"));
    words.lookup_join(names, F1, Name::NAME).inner()
    //                           ^^^^^^^^^^ type mismatch
}
