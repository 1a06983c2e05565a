//! A row that is none of the stream's.
use millstream::prelude::*;

pub fn words(lines: Stream<'_, String>) -> Stream<'_, (String, i64)> {
    lines.flat_map(|line, out| {
        out.emit((line, 1.5));
        //              ^^^ `{float}` is no row of `i64`
    })
}
