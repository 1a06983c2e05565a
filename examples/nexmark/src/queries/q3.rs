//! Query 3: local item suggestion.
//!
//! ```sql
//! SELECT P.name, P.city, P.state, A.id
//! FROM auction AS A INNER JOIN person AS P ON A.seller = P.id
//! WHERE A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')
//! ```

use millstream::prelude::*;

use crate::tables::NexmarkArgs;

/// Q3, local item suggestion: who sells in three states, in one category?
#[job]
pub(crate) fn q3(job: &Job, args: NexmarkArgs) -> Result<()> {
    let tables = args.tables(job)?;
    let auctions = tables.auctions.flat_map(|auction, out| {
        if auction.category == 10 {
            out.emit((auction.seller, auction.id));
        }
    });
    let persons = tables.persons.flat_map(|person, out| {
        if matches!(person.state, "OR" | "ID" | "CA") {
            out.emit((person.id, person.name, person.city, person.state));
        }
    });
    auctions
        .key_by(F0)
        .join(persons.key_by(F0))
        .unbounded()
        .inner::<(i64, i64, i64, String, String, String)>()
        .select((F3, F4, F5, F1))
        .names(["name", "city", "state", "id"])
        .sink(&args.output);
    Ok(())
}
