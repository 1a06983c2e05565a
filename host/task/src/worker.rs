//! A worker: the thread that steps the subtasks of one or more task slots.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use model::Diagnostic;
use platform::{Clock, ReadySet};

use crate::job::Control;
use crate::metrics::ExecutionState;
use crate::subtask::{Step, Subtask};

/// The subtasks of one thread.
pub(crate) struct Worker {
    pub(crate) ready: Arc<ReadySet>,
    pub(crate) subtasks: Vec<Option<Subtask>>,
    pub(crate) control: Arc<Control>,
    pub(crate) clock: Clock,
    /// When subtasks have something to do though nobody wakes them.
    pub(crate) wakes: Wakes,
}

/// When each subtask of a worker wants to be stepped.
#[derive(Default)]
pub(crate) struct Wakes {
    in_order: BTreeSet<(Duration, usize)>,
    of_subtask: BTreeMap<usize, Duration>,
}

impl Wakes {
    fn set(&mut self, subtask: usize, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.of_subtask.insert(subtask, at),
            None => self.of_subtask.remove(&subtask),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.in_order.remove(&(before, subtask));
        }
        if let Some(at) = at {
            self.in_order.insert((at, subtask));
        }
    }

    /// When the first is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes the first, if it is due.
    fn take(&mut self, now: Duration) -> Option<usize> {
        let (at, subtask) = *self.in_order.first()?;
        if at > now {
            return None;
        }
        self.set(subtask, None);
        Some(subtask)
    }
}

/// How long sinks may take to finish when a job is stopped.
const STOP_TIME: Duration = Duration::from_secs(2);

impl Worker {
    /// Steps the subtasks until all have finished, or the job is to stop.
    pub(crate) fn run(mut self) {
        let mut ready = Vec::new();
        let mut live = self.live();
        while live > 0 {
            if self.control.is_stopping() {
                return self.stop();
            }
            self.wake_due();
            self.ready.take(&mut ready);
            if ready.is_empty() {
                self.ready.park(self.wakes.next().map(|at| at.saturating_sub(self.clock.now())));
                continue;
            }
            for index in ready.drain(..) {
                match self.step(index) {
                    Some(Step::More) => self.ready.mark(index),
                    Some(Step::Done) => live -= 1,
                    Some(Step::Idle) | None => {}
                }
                if self.control.is_stopping() {
                    break;
                }
            }
        }
    }

    /// Makes those subtasks ready whose time has come.
    pub(crate) fn wake_due(&mut self) {
        if self.wakes.next().is_none() {
            return;
        }
        let now = self.clock.now();
        while let Some(subtask) = self.wakes.take(now) {
            self.ready.mark(subtask);
        }
    }

    /// Steps one subtask; none where it has finished, or the job has failed.
    pub(crate) fn step(&mut self, index: usize) -> Option<Step> {
        let subtask = self.subtasks.get_mut(index)?.as_mut()?;
        let stepped = catch_unwind(AssertUnwindSafe(|| subtask.step())).unwrap_or_else(|panic| {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Diagnostic::internal("Millstream has a bug: a subtask panicked").detail(said.to_owned()))
        });
        match stepped {
            Ok(Step::Done) => {
                subtask.watch.ends(ExecutionState::Finished);
                self.subtasks[index] = None;
                self.wakes.set(index, None);
                Some(Step::Done)
            }
            Ok(Step::Idle) => {
                self.wakes.set(index, subtask.wakes_at());
                Some(Step::Idle)
            }
            Ok(Step::More) => Some(Step::More),
            Err(error) => {
                subtask.watch.ends(ExecutionState::Failed);
                self.control.fail(error);
                None
            }
        }
    }

    /// How many subtasks have not finished.
    pub(crate) fn live(&self) -> usize {
        self.subtasks.iter().flatten().count()
    }

    /// Ends what is under way. After a cancellation, what has been written to sinks is flushed and
    /// finished, as far as that goes quickly; after a failure nothing more is done.
    fn stop(mut self) {
        self.tell(ExecutionState::Canceling);
        self.finish_sinks();
        self.tell(ExecutionState::Canceled);
    }

    /// Says what becomes of the subtasks that have not ended.
    fn tell(&self, state: ExecutionState) {
        self.subtasks.iter().flatten().for_each(|subtask| subtask.watch.ends(state));
    }

    fn finish_sinks(&mut self) {
        if self.control.has_failed() {
            return;
        }
        let deadline = self.clock.now() + STOP_TIME;
        let mut open: Vec<_> = self.subtasks.iter_mut().flatten().flat_map(Subtask::sinks).collect();
        for sink in &mut open {
            // What cannot be flushed now cannot be saved: the job is being stopped.
            if sink.flush().is_err() {
                return;
            }
        }
        let mut woken = Vec::new();
        while !open.is_empty() && self.clock.now() < deadline {
            open.retain_mut(|sink| matches!(sink.sink.poll_finish(), Poll::Pending));
            self.ready.park(Some(Duration::from_millis(5)));
            // Nobody is stepped any more: a wake-up is only a reason to look again.
            self.ready.take(&mut woken);
            woken.clear();
        }
    }
}
