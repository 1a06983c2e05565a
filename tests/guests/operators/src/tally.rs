//! A count that tells by which release of the job each row was counted, and that fails as it is told.

use std::cell::Cell;
use std::hint::black_box;

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

/// What a release does wrong.
#[derive(Parser, Clone, Default)]
pub struct Faults {
    /// Traps at this number.
    #[arg(long)]
    pub trap: Option<i64>,
    /// Traps at each number that can be divided by this.
    #[arg(long)]
    pub traps_each: Option<i64>,
    /// Traps when the instance has handled so many.
    #[arg(long)]
    pub trap_after: Option<u64>,
    /// How many it has handled.
    #[arg(skip)]
    pub handled: Cell<u64>,
    /// Does not come to an end at this number.
    #[arg(long)]
    pub hang: Option<i64>,
    /// Fails at this number, without a trap.
    #[arg(long)]
    pub fail: Option<i64>,
    /// Traps when it is opened.
    #[arg(long)]
    pub bad_start: bool,
    /// Rows that fail are left out.
    #[arg(long)]
    pub skip: bool,
}

impl Faults {
    fn open(&self) {
        assert!(!self.bad_start, "as told, at the start");
    }

    fn meet(&self, number: i64) -> Result<()> {
        assert_ne!(Some(number), self.trap, "as told");
        assert!(self.traps_each.is_none_or(|each| number % each != 0), "as told, each time");
        self.handled.set(self.handled.get() + 1);
        assert_ne!(Some(self.handled.get()), self.trap_after, "as told, of so many");
        while self.hang == Some(number) {
            black_box(number);
        }
        match self.fail == Some(number) {
            true => Err(Error::new("as told, without a trap")),
            false => Ok(()),
        }
    }
}

/// Counts by name.
pub struct Tally {
    pub release: i64,
    pub faults: Faults,
}

/// The same, and keeps the first number that it has seen.
pub struct TallySince {
    pub release: i64,
    pub faults: Faults,
}

impl ProcessFunction for Tally {
    type In = (String, i64);
    type Key = String;
    type State = Count;
    type Out = (String, i64, i64, i64);

    fn open(&mut self, _: &TaskInfo) -> Result<()> {
        self.faults.open();
        Ok(())
    }

    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        self.faults.meet(row.1)?;
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

    fn open(&mut self, _: &TaskInfo) -> Result<()> {
        self.faults.open();
        Ok(())
    }

    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        self.faults.meet(row.1)?;
        let state = context.state_or_default();
        state.first.get_or_insert(row.1);
        state.count += 1;
        let count = state.count;
        context.emit((row.0, row.1, count, self.release));
        Ok(())
    }
}
