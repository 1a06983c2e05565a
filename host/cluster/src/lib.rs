//! Jobs from their submission to their end.
//!
//! [`Lifecycle`] decides, purely, what follows from what happens to a job; [`JobMaster`] is its hands: it waits for
//! slots, starts attempts, waits for their end. A [`Session`] has many of them, and a store that brings them back
//! after its process has died. One process has all for now: its parts meet in events, not in each other's fields.
#![forbid(unsafe_code)]

pub mod attempts;
pub mod checkpoints;
pub mod config;
pub mod job_master;
pub mod lifecycle;
pub mod log;
pub mod on_demand;
pub mod program;
pub mod session;
pub mod slots;
pub mod store;
pub mod tell;

pub use config::Config;
pub use job_master::{Ended, JobMaster, SavepointAsk};
pub use lifecycle::{JobStatus, Lifecycle};
pub use session::{Session, SessionError, SessionSettings};
pub use store::{JobRecord, Submission};
pub use tell::Tell;
