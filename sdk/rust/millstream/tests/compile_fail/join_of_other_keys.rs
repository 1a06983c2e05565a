use millstream::prelude::*;

#[job]
fn pairs(job: &Job) -> Result<()> {
    let words = job.lines(Connector::stdin()).map(|line| (line.to_string(), 1));
    words.key_by(F0).join(words.key_by(F1)).unbounded().semi().print();
    //                    ^ mismatched types
    Ok(())
}
