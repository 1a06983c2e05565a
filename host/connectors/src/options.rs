//! Options of connectors and formats: known names only, with the nearest for a wrong one.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use model::Diagnostic;

/// The name out of `known` that is nearest to `name`, if one is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// An unknown name of something, with those that there are.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> Diagnostic {
    let error = Diagnostic::user(format!("there is no {what} `{name}`"))
        .detail(format!("there are: {}", known.join(", ")));
    match nearest(name, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// `500ms`, `1s`, `2min`, `3h`, as options and configuration have times.
///
/// # Errors
/// Why it is none.
pub fn time(text: &str) -> Result<Duration, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = lower.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a time is a number with a unit, like 500ms".to_owned())?;
    let each = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        other => return Err(format!("`{other}` is no unit of time: ms, s, min, h")),
    };
    match number.checked_mul(each) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("that is too long".into()),
    }
}

/// Options of one connector or format.
pub(crate) struct Options<'a> {
    of: &'a str,
    given: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    /// Options of `of`, which knows these.
    pub(crate) fn new(
        of: &'a str,
        given: &'a BTreeMap<String, String>,
        known: &[&str],
    ) -> Result<Self, Diagnostic> {
        match given.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) if known.is_empty() => Err(Diagnostic::user(format!("`{of}` has no option `{name}`"))),
            Some(name) => Err(unknown(&format!("option of `{of}`"), name, known)),
            None => Ok(Self { of, given }),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.given.get(name).map(String::as_str)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&'a str, Diagnostic> {
        self.text(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Diagnostic::user(format!("`{}` needs the option `{name}`", self.of)))
    }

    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Diagnostic> {
        self.text(name)
            .map(|value| {
                value.parse().map_err(|error| {
                    Diagnostic::user(format!("the option `{name}` of `{}` cannot be `{value}`", self.of))
                        .detail(format!("{error}"))
                })
            })
            .transpose()
    }

    /// A time above 0.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Diagnostic> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match time(value) {
            Ok(time) if time > Duration::ZERO => Ok(Some(time)),
            other => {
                Err(Diagnostic::user(format!("the option `{name}` of `{}` cannot be `{value}`", self.of))
                    .detail(other.err().unwrap_or_else(|| "it is above 0".to_owned())))
            }
        }
    }

    pub(crate) fn one_of(
        &self,
        name: &str,
        known: &[&'static str],
    ) -> Result<Option<&'static str>, Diagnostic> {
        let Some(value) = self.text(name) else { return Ok(None) };
        known
            .iter()
            .find(|known| **known == value)
            .copied()
            .map(Some)
            .ok_or_else(|| unknown(&format!("`{name}` of `{}`", self.of), value, known))
    }
}
