//! A temporal join of keys of different types, and one that gives versions without a row.
use millstream::prelude::*;

pub fn pairs(words: Stream<'_, (String, i32)>) {
    let joined = words.key_by(F0).temporal_join(words.key_by(F1));
    //                                          ^^^^^^^^^^^^^^^^ mismatched types
    joined.left::<(String, i32, Option<String>, Option<i32>)>().print();
}

pub fn right(words: Stream<'_, (String, i32)>) {
    let joined = words.key_by(F0).temporal_join(words.key_by(F0));
    joined.right::<(Option<String>, Option<i32>, String, i32)>().print();
    //     ^^^^^ no method named `right`
}
