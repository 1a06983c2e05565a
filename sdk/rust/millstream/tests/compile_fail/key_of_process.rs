//! A process function by another key than the stream's.
use millstream::prelude::*;

pub struct Count;

impl ProcessFunction for Count {
    type In = (String, i64);
    type Key = i64;
    type State = i64;
    type Out = i64;

    fn process(&self, _row: (&str, i64), context: &mut Context<'_, Self>) -> Result<()> {
        *context.state_or_default() += 1;
        Ok(())
    }
}

pub fn counted(rows: Stream<'_, (String, i64)>) {
    rows.key_by(F0).process(Count).print();
    //                      ^^^^^ `i64` is not the key of this stream
}
