//! A native function in the place of the guest's: what the benches compare the guest with.

use std::sync::Arc;

use model::{Batch, Diagnostic};

use super::{Element, Emit, Input, Ran};
use crate::metrics::{Counters, add};

/// Rows in, rows out by port 0.
pub type NativeFunction = Arc<dyn Fn(&Batch) -> Result<Batch, Diagnostic> + Send + Sync>;

pub(crate) struct NativeOperator {
    pub(crate) function: NativeFunction,
}

impl NativeOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<Ran, Diagnostic> {
        let rows = match input.elements.pop_front() {
            Some(Element::Rows(_, rows)) => rows,
            Some(Element::Mark(mark)) => return Ok(Ran::Forward(mark)),
            None => return Ok(if input.ended { Ran::Ended } else { Ran::Idle }),
        };
        let made = (self.function)(&rows)?;
        add(&counters.rows_out, made.num_rows());
        if made.num_rows() > 0 {
            emit(0, made)?;
        }
        Ok(Ran::Progress)
    }
}
