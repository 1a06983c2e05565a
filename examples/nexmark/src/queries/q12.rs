//! Query 12: processing time windows.
//!
//! ```sql
//! SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
//! FROM TABLE(TUMBLE(TABLE B, DESCRIPTOR(p_time), INTERVAL '10' SECOND)) -- p_time AS PROCTIME()
//! GROUP BY bidder, window_start, window_end
//! ```

use millstream::prelude::*;

use crate::model::Bid;
use crate::queries::seconds;
use crate::tables::NexmarkArgs;

/// Q12, processing time windows: bids of each bidder in every ten seconds of the machine's time.
#[job]
pub(crate) fn q12(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .select((Bid::BIDDER,))
        .key_by(F0)
        .window(Tumbling::of(seconds(10)))
        .processing_time()
        .count()
        .select((F0, F3, F1, F2))
        .names(["bidder", "bid_count", "starttime", "endtime"])
        .sink(&args.output);
    Ok(())
}
