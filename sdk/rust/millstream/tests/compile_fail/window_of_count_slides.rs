//! A function of the user's over sliding windows of so many rows.
use millstream::prelude::*;

struct First;

impl WindowFunction for First {
    type In = (String, i32);
    type Key = String;
    type Out = i32;

    fn apply(&self, _: &str, _: &Window, rows: &WindowRows<'_, (String, i32)>, out: &mut Emit<i32>) -> Result<()> {
        rows.iter().take(1).for_each(|(_, number)| out.emit(number));
        Ok(())
    }
}

#[job]
fn last(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    words.key_by(F0).sliding_count_window(10, 2).apply(First).print();
    //                                           ^ functions of your own take no rows of
    Ok(())
}
