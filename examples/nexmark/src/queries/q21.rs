//! Query 21: add channel id.
//!
//! ```sql
//! SELECT auction, bidder, price, channel,
//!   CASE
//!     WHEN lower(channel) = 'apple' THEN '0'
//!     WHEN lower(channel) = 'google' THEN '1'
//!     WHEN lower(channel) = 'facebook' THEN '2'
//!     WHEN lower(channel) = 'baidu' THEN '3'
//!     ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)
//!   END AS channel_id
//! FROM bid
//! WHERE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL
//!   OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')
//! ```

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

const CHANNELS: [(&str, &str); 4] = [("apple", "0"), ("google", "1"), ("facebook", "2"), ("baidu", "3")];

/// Q21, add channel id: by the channel's name, else from the URL.
#[job]
pub(crate) fn q21(job: &Job, args: NexmarkArgs) -> Result<()> {
    args.tables(job)?
        .bids
        .flat_map(|bid, out| {
            let known = CHANNELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(bid.channel));
            if let Some(id) = known.map(|(_, id)| *id).or_else(|| channel_id(bid.url)) {
                out.emit((bid.auction, bid.bidder, bid.price, bid.channel, id));
            }
        })
        .names(["auction", "bidder", "price", "channel", "channel_id"])
        .sink(&args.output);
    Ok(())
}

/// What follows `channel_id=`, which begins the text or comes after `&`.
fn channel_id(url: &str) -> Option<&str> {
    url.split('&').find_map(|part| part.strip_prefix("channel_id="))
}
