//! Errors of jobs and of rows.

use std::fmt;

/// What a job function, and a closure of a `try_` operator, returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job cannot be built, or why a row failed.
///
/// Any `std::error::Error` becomes one by `?`; [`bail!`](crate::bail) and
/// [`ensure!`](crate::ensure) make one of a message.
pub struct Error(Box<Inner>);

struct Inner {
    message: String,
    is_usage: bool,
}

impl Error {
    /// An error of this message: one line, then, after a line feed, anything that helps.
    #[cold]
    pub fn new(message: impl fmt::Display) -> Error {
        Error(Box::new(Inner { message: message.to_string(), is_usage: false }))
    }

    /// Says that the job's arguments are wrong: exit code 2.
    #[cold]
    pub fn usage(message: impl fmt::Display) -> Error {
        Error(Box::new(Inner { message: message.to_string(), is_usage: true }))
    }

    /// Puts words before the message: what was being done.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    pub(crate) fn is_usage(&self) -> bool {
        self.0.is_usage
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    #[cold]
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str("\ncaused by: ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Error::new(message)
    }
}

/// Returns an error of a formatted message.
///
/// ```
/// fn positive(number: i64) -> millstream::Result<i64> {
///     if number <= 0 {
///         millstream::bail!("{number} is not positive");
///     }
///     Ok(number)
/// }
/// assert_eq!(positive(-1).unwrap_err().to_string(), "-1 is not positive");
/// ```
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new(::std::format!($($message)+)))
    };
}

/// Returns an error of a formatted message unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            $crate::bail!($($message)+);
        }
    };
}
