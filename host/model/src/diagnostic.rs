//! What a user is told: message, detail, hint; who acts next, and whether to try again.

use std::fmt;

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The user: arguments, job code, data.
    User,
    /// Something outside: disk, network, another server.
    External,
    /// Millstream itself: a bug.
    Internal,
}

/// Whether the same thing may go well later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// It may go well after a while.
    Backoff,
    /// It is not to be done again, as nobody wants it any more, or another does it. A job that fails with it is not
    /// restarted.
    GiveUp,
}

/// An error as the user reads it. `message` is short and in lower case; `detail` says what is
/// behind it; `hint` what to do, best a command. (Materialize's form.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What happened, in a few words.
    pub message: String,
    /// Where and why; may have several lines.
    pub detail: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Who has to act.
    pub blame: Blame,
    /// Whether to try again.
    pub retry: Retry,
}

impl Diagnostic {
    /// An error that the user can mend.
    #[must_use]
    pub fn user(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, hint: None, blame: Blame::User, retry: Retry::Never }
    }

    /// An error of the world outside, which may pass.
    #[must_use]
    pub fn external(message: impl Into<String>) -> Self {
        Self { blame: Blame::External, retry: Retry::Backoff, ..Self::user(message) }
    }

    /// A bug of Millstream.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self { blame: Blame::Internal, ..Self::user(message) }
    }

    /// Not to be tried again.
    #[must_use]
    pub fn give_up(mut self) -> Self {
        self.retry = Retry::GiveUp;
        self
    }

    /// With this detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With this hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\ndetail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
