//! Where a function runs.

use std::cell::RefCell;

thread_local! {
    static TASK: RefCell<TaskInfo> = RefCell::default();
}

/// Where a function runs: what the `open` hooks get. Results must not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskInfo {
    job: String,
    subtask: u32,
    parallelism: u32,
    attempt: u32,
}

impl TaskInfo {
    pub(crate) fn new(job: &str, subtask: u32, parallelism: u32, attempt: u32) -> TaskInfo {
        TaskInfo { job: job.into(), subtask, parallelism, attempt }
    }

    pub(crate) fn enter(self) {
        TASK.set(self);
    }

    /// The task that this thread runs, for closures; nothing in particular while a job is planned.
    pub fn current() -> TaskInfo {
        TASK.with_borrow(Clone::clone)
    }

    /// The job's name.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The number of the subtask, from 0.
    pub fn subtask(&self) -> u32 {
        self.subtask
    }

    /// How many subtasks the function has.
    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// 0 at first, one more with each restart of the job.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}
