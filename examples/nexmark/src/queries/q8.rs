//! Query 8: monitor new users.
//!
//! ```sql
//! SELECT P.id, P.name, P.starttime
//! FROM (
//!   SELECT id, name, window_start AS starttime, window_end AS endtime
//!   FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
//!   GROUP BY id, name, window_start, window_end
//! ) P
//! JOIN (
//!   SELECT seller, window_start AS starttime, window_end AS endtime
//!   FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
//!   GROUP BY seller, window_start, window_end
//! ) A
//! ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime
//! ```

use millstream::prelude::*;

use crate::model::{Auction, Person};
use crate::queries::seconds;
use crate::tables::{NexmarkArgs, timed};

/// Q8, monitor new users: who registered and sold within the same ten seconds?
#[job]
pub(crate) fn q8(job: &Job, args: NexmarkArgs) -> Result<()> {
    let tables = args.tables(job)?;
    let (persons, auctions) =
        (timed(tables.persons, Person::DATE_TIME), timed(tables.auctions, Auction::DATE_TIME));
    let window = || Tumbling::of(seconds(10));
    let persons = persons.select((Person::ID, Person::NAME)).key_by((F0, F1)).window(window()).count();
    let sellers = auctions.select((Auction::SELLER,)).key_by(F0).window(window()).count();
    persons
        .select((F0, F1, F2))
        .key_by(F0)
        .join(sellers.select((F0,)).key_by(F0))
        .window(window())
        .inner::<(i64, String, Timestamp, i64)>()
        .select((F0, F1, F2))
        .names(["id", "name", "starttime"])
        .sink(&args.output);
    Ok(())
}
