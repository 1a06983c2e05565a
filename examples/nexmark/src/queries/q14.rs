//! Query 14: calculation.
//!
//! ```sql
//! SELECT auction, bidder, 0.908 * price AS price,
//!   CASE
//!     WHEN HOUR(dateTime) >= 8 AND HOUR(dateTime) <= 18 THEN 'dayTime'
//!     WHEN HOUR(dateTime) <= 6 OR HOUR(dateTime) >= 20 THEN 'nightTime'
//!     ELSE 'otherTime'
//!   END AS bidTimeType,
//!   dateTime, extra, count_char(extra, 'c') AS c_counts
//! FROM bid
//! WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
//! ```

use millstream::prelude::*;

use crate::queries::{Euros, euros};
use crate::tables::NexmarkArgs;

#[derive(Record)]
#[record(rename_all = "camelCase")]
struct Calculated {
    auction: i64,
    bidder: i64,
    price: Euros,
    bid_time_type: String,
    date_time: Timestamp,
    extra: String,
    #[record(name = "c_counts")]
    c_counts: i64,
}

/// Q14, calculation: bids of some prices, with their time of day and a count by user code.
#[job]
pub(crate) fn q14(job: &Job, args: NexmarkArgs) -> Result<()> {
    let range = euros_of(1_000_000)..euros_of(50_000_000);
    args.tables(job)?
        .bids
        .flat_map(move |bid, out| {
            let price = euros(bid.price);
            if price > range.start && price < range.end {
                let time = match bid.date_time.time_of_day().as_secs() / 3_600 {
                    8..=18 => "dayTime",
                    ..=6 | 20.. => "nightTime",
                    _ => "otherTime",
                };
                let count = count_char(bid.extra, b'c');
                let (at, extra) = (bid.date_time, bid.extra);
                out.emit(CalculatedRef::new(bid.auction, bid.bidder, price, time, at, extra, count));
            }
        })
        .sink(&args.output);
    Ok(())
}

/// So many whole euros.
const fn euros_of(whole: i128) -> Euros {
    Decimal(whole * 1_000)
}

/// How often a character occurs.
fn count_char(text: &str, character: u8) -> i64 {
    text.bytes().map(|byte| i64::from(byte == character)).sum()
}
