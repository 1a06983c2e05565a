//! What streamctl says on standard error: errors, logs, progress. Colours only where they are wanted.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::Tell;
use model::Diagnostic;

use crate::cli::Color;

/// Standard error.
pub(crate) struct Terminal {
    colored: bool,
    /// A line of progress stands at the bottom.
    progress: Mutex<bool>,
}

/// A colour or weight, as a terminal takes it.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Red,
    Yellow,
    Green,
    Dim,
}

impl Terminal {
    pub(crate) fn new(color: Color) -> Self {
        let colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { colored, progress: Mutex::new(false) }
    }

    pub(crate) fn is_terminal() -> bool {
        io::stderr().is_terminal()
    }

    /// The text in this style, where styles are wanted.
    pub(crate) fn style(&self, style: Style, text: &str) -> String {
        if !self.colored {
            return text.to_owned();
        }
        let number = match style {
            Style::Bold => 1,
            Style::Red => 31,
            Style::Yellow => 33,
            Style::Green => 32,
            Style::Dim => 2,
        };
        format!("\x1b[{number}m{text}\x1b[0m")
    }

    /// Writes a line; the line of progress, if there is one, gives way.
    pub(crate) fn line(&self, text: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if std::mem::take(&mut *progress) { "\r\x1b[K" } else { "" };
        // Nobody is left to be told when standard error is closed.
        drop(writeln!(io::stderr().lock(), "{clear}{text}"));
    }

    /// Shows how far things are, in place of what was shown before.
    pub(crate) fn progress(&self, text: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = true;
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()));
    }

    /// Takes the line of progress away.
    pub(crate) fn end_progress(&self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *progress) {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }

    pub(crate) fn error(&self, error: &Diagnostic) {
        self.labelled(Style::Red, "error", &error.message);
        if let Some(detail) = &error.detail {
            self.labelled(Style::Bold, "detail", detail);
        }
        if let Some(hint) = &error.hint {
            self.labelled(Style::Green, "hint", hint);
        }
    }

    /// A job's own message about its arguments, in the form of all errors.
    pub(crate) fn usage(&self, text: &str) {
        self.labelled(Style::Red, "error", text.strip_prefix("error: ").unwrap_or(text).trim_end());
    }

    pub(crate) fn warning(&self, text: &str) {
        self.labelled(Style::Yellow, "warning", text);
    }

    /// A warning, and the error that it comes of.
    pub(crate) fn warning_of(&self, text: &str, error: &Diagnostic) {
        self.warning(text);
        let details = [Some(error.message.as_str()), error.detail.as_deref()];
        let detail: Vec<&str> = details.into_iter().flatten().collect();
        self.labelled(Style::Bold, "detail", &detail.join(": "));
    }

    fn labelled(&self, style: Style, label: &str, text: &str) {
        self.line(&format!("{}: {text}", self.style(style, label)));
    }
}

/// Hears what happens to jobs, and says it on standard error.
pub(crate) struct Told {
    pub(crate) terminal: Arc<Terminal>,
    /// Only warnings are said.
    pub(crate) quiet: bool,
}

impl Tell for Told {
    fn say(&self, text: &str) {
        if !self.quiet {
            self.terminal.line(text);
        }
    }

    fn warn(&self, text: &str) {
        self.terminal.warning(text);
    }

    fn warn_of(&self, text: &str, error: &Diagnostic) {
        self.terminal.warning_of(text, error);
    }
}

/// Writes an answer to standard output. A closed pipe ends it without a word.
pub(crate) fn answer(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// A count as people read it: `12,345,678`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people read them: `1.2 GB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time as people read it: `12.3 ms`.
pub(crate) fn duration(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms >= 1e3 => format!("{:.2} s", ms / 1e3),
        _ if ms >= 100.0 => format!("{ms:.0} ms"),
        _ => format!("{ms:.1} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        let times = [40, 12_340, 123_456, 2_500_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(times, ["0.0 ms", "12.3 ms", "123 ms", "2.50 s"]);
        assert_eq!([bytes(12), bytes(1_500), bytes(2_345_678_901)], ["12 B", "1.5 kB", "2.3 GB"]);
    }
}
