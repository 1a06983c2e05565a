//! Runs jobs: admits a plan, deploys its subtasks into task slots, steps them.
//!
//! The one place where gate, guest, state, aggregates and output meet. A subtask is a struct with
//! `step()`, which never blocks and ends soon; worker threads step the subtasks that are ready, or,
//! in simulation, one loop under a seed does.
#![forbid(unsafe_code)]

mod admission;
mod alignment;
mod backends;
mod checkpoints;
mod deploy;
pub mod driver;
mod grants;
mod job;
pub mod metrics;
mod operator;
mod options;
mod output;
pub mod restarts;
pub mod simulation;
mod subtask;
pub mod swap;
mod worker;

pub use admission::{Plan, plan};
pub use backends::StateBackend;
pub use checkpoints::{
    Answer, CheckpointTracker, Checkpoints, Form, KeptTable, Restored, SavepointRequest, bootstrap,
};
pub use job::{EventTime, Job, JobOutcome, Progress, SplitHolds, start};
pub use metrics::{JobDescription, JobMetrics, LogRecord, LogSink};
pub use operator::native::NativeFunction;
pub use options::{AggPhase, Execution, RunOptions, Sizes};
pub use restarts::{RestartStrategy, Restarts};
