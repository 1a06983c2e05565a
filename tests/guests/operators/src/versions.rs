//! Word count and sessions in releases that a running job can change between: what comes out tells by which of them
//! each row was handled.

use millstream::prelude::*;

/// Which release, and of what.
#[derive(Parser)]
pub struct VersionArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[arg(long, default_value_t = 1)]
    pub release: i64,
}

/// A visit that is not over.
#[derive(Clone, Debug, Default, PartialEq, Record)]
pub struct Open {
    pub start: i64,
    pub end: i64,
    pub clicks: i64,
    /// So many of them were handled by a release of an odd number.
    pub odd: i64,
}

/// Puts the clicks of a user, which come in their order, into visits.
pub struct Visits {
    pub release: i64,
    /// The longest pause, in milliseconds.
    pub gap: i64,
}

impl ProcessFunction for Visits {
    type In = (String, Timestamp);
    type Key = String;
    type State = Open;
    /// User, start, end, clicks, those of odd releases, the release that has seen its end.
    type Out = (String, i64, i64, i64, i64, i64);

    fn process(&self, row: <Self::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        let at = row.1.0;
        let mut open = context.take_state().unwrap_or_default();
        if open.clicks == 0 {
            open.start = at;
        } else {
            context.delete_timer(open.end + self.gap);
        }
        (open.end, open.clicks, open.odd) = (at, open.clicks + 1, open.odd + self.release % 2);
        context.set_timer(at + self.gap);
        context.set_state(open);
        Ok(())
    }

    fn on_timer(&self, _: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        if let Some(Open { start, end, clicks, odd }) = context.take_state() {
            let user = context.key().to_string();
            context.emit((user, start, end, clicks, odd, self.release));
        }
        Ok(())
    }
}
