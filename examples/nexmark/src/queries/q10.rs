//! Query 10: log to file system.
//!
//! ```sql
//! SELECT auction, bidder, price, dateTime, extra,
//!   DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS dt, DATE_FORMAT(dateTime, 'HH:mm') AS hm
//! FROM bid
//! ```

use millstream::prelude::*;

use crate::queries::minute;
use crate::tables::NexmarkArgs;

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Logged {
    auction: i64,
    bidder: i64,
    price: i64,
    date_time: Timestamp,
    extra: String,
    dt: Date,
    hm: String,
}

/// Q10, log to file system: every bid with its day and minute (with `--output DIR`).
#[job]
pub(crate) fn q10(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            let (dt, hm) = (bid.date_time.date(), minute(bid.date_time));
            let row = LoggedRef::new(bid.auction, bid.bidder, bid.price, bid.date_time, bid.extra, dt, &hm);
            out.emit(row);
        })
        .sink(&args.output);
    Ok(())
}
