//! Whom it is told what happens to a job.

use model::Diagnostic;

/// Hears of a job: a terminal, or its log in a session.
pub trait Tell: Send + Sync {
    /// Something happens.
    fn say(&self, text: &str);
    /// Something may not be as it was meant.
    fn warn(&self, text: &str);
    /// The same, with the error that it comes of.
    fn warn_of(&self, text: &str, error: &Diagnostic);
}
