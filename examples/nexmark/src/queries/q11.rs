//! Query 11: user sessions.
//!
//! ```sql
//! SELECT B.bidder, count(*) AS bid_count,
//!   SESSION_START(B.dateTime, INTERVAL '10' SECOND) AS starttime,
//!   SESSION_END(B.dateTime, INTERVAL '10' SECOND) AS endtime
//! FROM bid B
//! GROUP BY B.bidder, SESSION(B.dateTime, INTERVAL '10' SECOND)
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::queries::seconds;
use crate::tables::{NexmarkArgs, timed};

/// Q11, user sessions: bids of each bidder, until ten seconds without one.
#[job]
pub(crate) fn q11(job: &Job, args: NexmarkArgs) -> Result<()> {
    timed(args.tables(job)?.bids, Bid::DATE_TIME)
        .select((Bid::BIDDER,))
        .key_by(F0)
        .window(Session::with_gap(seconds(10)))
        .count()
        .select((F0, F3, F1, F2))
        .names(["bidder", "bid_count", "starttime", "endtime"])
        .sink(&args.output);
    Ok(())
}
