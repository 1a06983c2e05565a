//! Aggregates by user code.

use crate::error::Result;
use crate::process::{Context, ProcessFunction, Timer, Ttl};
use crate::record::Record;
use crate::task::TaskInfo;
use crate::window_function::Window;

/// An aggregate with an accumulator of its own: Flink's `AggregateFunction`.
///
/// ```
/// use millstream::prelude::*;
///
/// /// The spread between a key's least and greatest number.
/// struct Spread;
///
/// impl AggregateFunction for Spread {
///     type In = (String, i64);
///     type Key = String;
///     type Accumulator = (i64, i64);
///     type Out = (String, i64);
///
///     fn create(&self) -> (i64, i64) {
///         (i64::MAX, i64::MIN)
///     }
///
///     fn add(&self, (_, number): (&str, i64), (least, greatest): &mut (i64, i64)) -> Result<()> {
///         (*least, *greatest) = (number.min(*least), number.max(*greatest));
///         Ok(())
///     }
///
///     fn result(&self, key: &str, (least, greatest): &(i64, i64)) -> (String, i64) {
///         (key.into(), greatest - least)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no aggregate of this stream",
    label = "not an `AggregateFunction`"
)]
pub trait AggregateFunction: Sized + 'static {
    /// The rows that come.
    type In: Record;
    /// The key: as `key_by` gives it, a tuple of its fields; for one field also the field's type.
    type Key: Record;
    /// What is kept for each key, by the host.
    type Accumulator: Record;
    /// The result.
    type Out: Record;

    /// A new accumulator.
    fn create(&self) -> Self::Accumulator;

    /// Adds a row.
    ///
    /// # Errors
    /// If the row cannot be added: then it is not in the accumulator.
    fn add(&self, row: <Self::In as Record>::Ref<'_>, accumulator: &mut Self::Accumulator) -> Result<()>;

    /// What the accumulator stands for.
    fn result(&self, key: <Self::Key as Record>::Ref<'_>, accumulator: &Self::Accumulator) -> Self::Out;

    /// What the accumulator of a window stands for, in [windows](crate::Windowed::aggregate_with).
    fn window_result(
        &self,
        key: <Self::Key as Record>::Ref<'_>,
        window: &Window,
        accumulator: &Self::Accumulator,
    ) -> Self::Out {
        let _ = window;
        self.result(key, accumulator)
    }

    /// Whether accumulators of two windows can be made one, by [`merge`](Self::merge).
    /// [`Session`](crate::Session) windows ask for it; windows that overlap cost less with it, since each row
    /// is added once then, and not to each window.
    const MERGES: bool = false;

    /// Makes one accumulator of two, as if the rows of both had been added to one. Rows are not always
    /// added in the order in which they came then.
    ///
    /// # Panics
    /// Unless it is written: `MERGES` says that it is.
    fn merge(&self, into: &mut Self::Accumulator, other: <Self::Accumulator as Record>::Ref<'_>) {
        let _ = (into, other);
        panic!("the aggregate says that it `MERGES`, and has no `merge`")
    }

    /// How long an accumulator lives; without it, for ever. In windows it lives as long as its window.
    fn ttl(&self) -> Option<Ttl> {
        None
    }
}

/// An aggregate as a process function: each row gives the result as it is then.
pub(crate) struct Running<F>(pub(crate) F);

impl<F: AggregateFunction> ProcessFunction for Running<F> {
    type In = F::In;
    type Key = F::Key;
    type State = F::Accumulator;
    type Out = F::Out;

    fn process(&self, row: <F::In as Record>::Ref<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        if context.state().is_none() {
            context.set_state(self.0.create());
        }
        let key = context.key();
        if let Some(accumulator) = context.state_mut() {
            self.0.add(row, accumulator)?;
            let result = self.0.result(key, accumulator);
            context.emit(result.as_row());
        }
        Ok(())
    }

    fn on_timer(&self, _: Timer, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }

    fn open(&mut self, _: &TaskInfo) -> Result<()> {
        Ok(())
    }

    fn state_ttl(&self) -> Option<Ttl> {
        self.0.ttl()
    }
}
