//! One file each.

mod answers;
pub(crate) mod build;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod drive;
mod embedded;
pub(crate) mod info;
pub(crate) mod jobs;
pub(crate) mod man;
pub(crate) mod new;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod state;
pub(crate) mod swap;
pub(crate) mod test;

mod load;
