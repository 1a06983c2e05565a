//! Options of connectors and formats: known names only, with the nearest for a wrong one.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

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
