//! An order by what has none.
use millstream::prelude::*;

#[derive(Record)]
pub struct Page {
    pub user: i64,
    pub words: Vec<String>,
}

pub fn longest(pages: Stream<'_, Page>) {
    pages.key_by(Page::USER).top(1, desc(Page::WORDS)).print();
    //                              ^^^^^^^^^^^^^^^^^ `Vec<std::string::String>` has no min and max
}
