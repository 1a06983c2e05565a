//! A sink in its subtask.

use std::collections::VecDeque;
use std::task::Poll;

use checkpoint::coordinator::CheckpointId;
use connectors::Sink;
use model::Diagnostic;

use super::{Element, Input, Ran};
use crate::metrics::{Counters, add};

pub(crate) struct SinkOperator {
    pub(crate) sink: Box<dyn Sink>,
    /// Where checkpoints are made: those that have been prepared and are not complete, the oldest first.
    checkpoints: Option<VecDeque<CheckpointId>>,
}

impl SinkOperator {
    pub(crate) fn new(sink: Box<dyn Sink>, checkpoints: bool) -> Self {
        Self { sink, checkpoints: checkpoints.then(VecDeque::new) }
    }

    /// Prepares what was written for a checkpoint; what that keeps of it. None: not yet.
    pub(crate) fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Option<Option<String>>, Diagnostic> {
        let Poll::Ready(prepared) = self.sink.poll_prepare() else { return Ok(None) };
        let prepared = prepared?;
        self.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.push_back(checkpoint));
        Ok(Some(prepared))
    }

    /// A checkpoint is complete, and with it those before it that were given up.
    pub(crate) fn commit(&mut self, checkpoint: CheckpointId) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let prepared = checkpoints.iter().take_while(|other| **other <= checkpoint).count();
        checkpoints.drain(..prepared);
        self.sink.commit(prepared);
    }

    /// After the last commit: whether all is outside.
    pub(crate) fn finish(&mut self) -> Result<bool, Diagnostic> {
        match self.sink.poll_finish() {
            Poll::Ready(finished) => finished.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    pub(crate) fn run(&mut self, input: &mut Input, counters: &Counters) -> Result<Ran, Diagnostic> {
        if let Some(Element::Mark(mark)) = input.elements.front() {
            let mark = *mark;
            input.elements.pop_front();
            return Ok(Ran::Forward(mark));
        }
        if input.elements.is_empty() {
            if !input.ended {
                return Ok(Ran::Idle);
            }
            if self.checkpoints.is_some() {
                // It is finished when the last checkpoint is complete.
                return Ok(Ran::Ended);
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
            add(&counters.rows_out, rows.num_rows());
        }
        Ok(Ran::Progress)
    }

    /// Sends on what the sink holds back, as the subtask has nothing more to do for now, and lets it do what it is
    /// time for. What cannot go yet goes when the sink wakes the subtask.
    pub(crate) fn flush(&mut self) -> Result<(), Diagnostic> {
        match self.sink.poll_flush() {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};
    use model::Batch;

    use super::*;

    /// Can send only every second time that it is asked.
    #[derive(Default)]
    struct Slow {
        asked: Arc<AtomicUsize>,
    }

    impl Sink for Slow {
        fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
            Poll::Ready(Ok(()))
        }
        fn write(&mut self, _: &Batch) -> Result<(), Diagnostic> {
            Ok(())
        }
        fn poll_flush(&mut self) -> Poll<Result<(), Diagnostic>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if asked.is_multiple_of(2) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
    }

    /// Rows that come while the sink cannot send must not stay until others come.
    #[test]
    fn what_could_not_be_sent_is_tried_again() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let rows = Batch::of(schema, 1, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut sink = SinkOperator::new(Box::new(Slow { asked: Arc::clone(&asked) }), false);
        let mut input = Input::default();
        input.elements.push_back(Element::Rows(0, rows));
        assert!(matches!(sink.run(&mut input, &Counters::default()), Ok(Ran::Progress)));
        sink.flush().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "nothing was sent");
        sink.flush().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
