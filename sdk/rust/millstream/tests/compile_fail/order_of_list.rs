use millstream::prelude::*;

#[derive(Record)]
struct Page {
    user: i64,
    words: Vec<String>,
}

#[job]
fn longest(job: &Job) -> Result<()> {
    let pages = job.json::<Page>(Connector::stdin()).stream();
    pages.key_by(Page::USER).top(1, desc(Page::WORDS)).print();
    //                       ^ `Vec<String>` has no min and max
    Ok(())
}
