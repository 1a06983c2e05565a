//! A function in windows whose key is another than the stream's.
use millstream::prelude::*;

struct First;

impl WindowFunction for First {
    type In = (String, i32);
    type Key = i32;
    type Out = i32;

    fn apply(&self, _: i32, _: &Window, rows: &WindowRows<'_, (String, i32)>, out: &mut Emit<i32>) -> Result<()> {
        rows.iter().take(1).for_each(|(_, number)| out.emit(number));
        Ok(())
    }
}

#[job]
fn first_of_each(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    words.key_by(F0).window(Global).apply(First).print();
    //                                    ^ `i32` is not the key of this stream
    Ok(())
}
