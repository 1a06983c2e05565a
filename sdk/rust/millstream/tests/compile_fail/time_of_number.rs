//! Event time of what is no time.
use std::time::Duration;

use millstream::prelude::*;

#[derive(Record)]
pub struct Click {
    pub user: String,
    pub at: i64,
}

pub fn timed(clicks: Stream<'_, Click>) {
    clicks.watermarks(Watermarks::bounded(Duration::from_secs(1)).time(Click::AT));
    //                                                                 ^^^^^^^^^ `i64` is no point in time
}
