//! A trigger of other rows than the stream's.
use millstream::prelude::*;

struct Each;

impl Trigger<i64> for Each {
    type State = bool;

    fn on_row(&self, _: i64, _: &Window, _: &mut TriggerContext<'_, bool>) -> TriggerResult {
        TriggerResult::Fire
    }
}

#[job]
fn last(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    let windows = words.key_by(F0).window(Global).trigger(Each);
    //                                                    ^ `Each` is no trigger of windows of `(std::string::String, _)`
    drop(windows);
    Ok(())
}
