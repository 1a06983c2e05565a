//! A join of keys of different types.
use millstream::prelude::*;

pub fn pairs(words: Stream<'_, (String, i32)>) {
    words.key_by(F0).join(words.key_by(F1)).unbounded().semi().print();
    //                    ^^^^^^^^^^^^^^^^ mismatched types
}
