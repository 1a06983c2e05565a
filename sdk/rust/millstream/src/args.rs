//! The job's arguments: by clap, or by hand.

#[cfg(feature = "clap")]
mod clap_args;
mod hand;

#[cfg(feature = "clap")]
pub use clap_args::{InputArgs, OutputArgs};
pub use hand::Args;

use crate::job::Refusal;

/// Arguments that a job function takes: any type with `#[derive(Parser)]`, or one of your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a job's arguments",
    label = "derive `Parser` for it, or implement `JobArgs`"
)]
pub trait JobArgs: Sized {
    /// Reads the arguments that stand after the component's file on the command line.
    ///
    /// # Errors
    /// What to tell the user: help that was asked for, or what is wrong.
    fn parse(job: &str, description: &str, arguments: &[String]) -> Result<Self, Refusal>;
}
