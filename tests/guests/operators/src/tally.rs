//! A count that tells by which release of the job each row was counted.

use millstream::prelude::*;

/// What release 1 keeps.
#[derive(Record, Clone, Debug, Default)]
pub struct Count {
    pub count: i64,
}

/// What release 3 keeps.
#[derive(Record, Clone, Debug, Default)]
pub struct CountSince {
    pub first: Option<i64>,
    pub count: i64,
}

/// Counts by name; traps at this number.
pub struct Tally {
    pub release: i64,
    pub trap: Option<i64>,
}

/// The same, and keeps the first number that it has seen.
pub struct TallySince {
    pub release: i64,
}

impl ProcessFunction for Tally {
    type In = (String, i64);
    type Key = String;
    type State = Count;
    type Out = (String, i64, i64, i64);

    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        assert_ne!(Some(row.1), self.trap, "as told");
        context.state_or_default().count += 1;
        let count = context.state_or_default().count;
        context.emit((row.0, row.1, count, self.release));
        Ok(())
    }
}

impl ProcessFunction for TallySince {
    type In = (String, i64);
    type Key = String;
    type State = CountSince;
    type Out = (String, i64, i64, i64);

    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        let state = context.state_or_default();
        state.first.get_or_insert(row.1);
        state.count += 1;
        let count = state.count;
        context.emit((row.0, row.1, count, self.release));
        Ok(())
    }
}
