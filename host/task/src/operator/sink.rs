//! A sink in its subtask.

use std::task::Poll;

use connectors::Sink;
use model::Diagnostic;

use super::{Element, Input, Ran};
use crate::metrics::{Counters, add};

pub(crate) struct SinkOperator {
    pub(crate) sink: Box<dyn Sink>,
    /// Something was written and not flushed.
    pub(crate) dirty: bool,
}

impl SinkOperator {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Self {
        Self { sink, dirty: false }
    }

    pub(crate) fn run(&mut self, input: &mut Input, counters: &Counters) -> Result<Ran, Diagnostic> {
        if let Some(Element::Mark(_)) = input.elements.front() {
            input.elements.pop_front();
            return Ok(Ran::Progress);
        }
        if input.elements.is_empty() {
            if !input.ended {
                return Ok(Ran::Idle);
            }
            return Ok(match self.sink.poll_finish() {
                Poll::Ready(finished) => {
                    finished?;
                    Ran::Ended
                }
                Poll::Pending => Ran::Idle,
            });
        }
        match self.sink.poll_ready() {
            Poll::Pending => return Ok(Ran::Idle),
            Poll::Ready(ready) => ready?,
        }
        if let Some(Element::Rows(_, rows)) = input.elements.pop_front() {
            self.sink.write(&rows)?;
            self.dirty = true;
            add(&counters.rows_out, rows.num_rows());
        }
        Ok(Ran::Progress)
    }

    /// Sends on what the sink holds back, as the subtask has nothing more to do for now.
    pub(crate) fn flush(&mut self) -> Result<(), Diagnostic> {
        if std::mem::take(&mut self.dirty) {
            self.sink.flush()?;
        }
        Ok(())
    }
}
