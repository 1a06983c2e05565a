//! The configuration: `-D key=value` over what a job sets for itself, over `MILLSTREAM_<KEY>` in
//! the environment, over `config.yaml`, over what is built in. Flink's keys where Flink has the thing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Diagnostic;
use serde::Deserialize;

mod keys;
pub use keys::{KEYS, Key};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file.
    File,
    /// The environment.
    Environment,
    /// The job itself.
    Job,
    /// The command line, or the request that submits the job.
    CommandLine,
}

impl Origin {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "config.yaml",
            Self::Environment => "environment",
            Self::Job => "job",
            Self::CommandLine => "command line",
        }
    }
}

/// The values in effect.
#[derive(Clone)]
pub struct Config {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Config {
    /// Reads the configuration; `defined` is what the command line sets.
    ///
    /// # Errors
    /// If it cannot be read, or a value makes no sense.
    pub fn load(defined: &[String]) -> Result<Self, Diagnostic> {
        let values = KEYS.iter().map(|key| (key.name, (key.default.to_owned(), Origin::Default))).collect();
        let mut config = Self { values };
        config.read_file()?;
        for (variable, value) in std::env::vars() {
            let Some(key) = KEYS.iter().find(|key| variable == variable_of(key.name)) else { continue };
            config.set(key.name, &value, Origin::Environment)?;
        }
        for define in defined {
            let Some((key, value)) = define.split_once('=') else {
                return Err(Diagnostic::user(format!("-D takes KEY=VALUE, not `{define}`")));
            };
            config.set(key.trim(), value.trim(), Origin::CommandLine)?;
        }
        Ok(config)
    }

    /// Sets a value, unless one of a stronger origin is set.
    ///
    /// # Errors
    /// If there is no such key, or it cannot be that.
    pub fn set(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), Diagnostic> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let error = Diagnostic::user(format!("there is no configuration key `{name}`"))
                .detail(format!("it is set by: {}", origin.name()));
            let near = KEYS
                .iter()
                .map(|key| (strsim::jaro_winkler(name, key.name), key.name))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.75);
            return Err(match near {
                Some((_, near)) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`streamctl config` lists the keys"),
            });
        };
        (key.check)(value).map_err(|why| {
            Diagnostic::user(format!("`{name}` cannot be `{value}`"))
                .detail(format!("{why}; it is set by: {}", origin.name()))
        })?;
        let current = self.values.entry(key.name).or_insert_with(|| (String::new(), Origin::Default));
        if origin >= current.1 {
            *current = (value.to_owned(), origin);
        }
        Ok(())
    }

    fn read_file(&mut self) -> Result<(), Diagnostic> {
        let Some(path) = file() else { return Ok(()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(
                    Diagnostic::user(format!("cannot read `{}`", path.display())).detail(error.to_string())
                );
            }
        };
        let wrong =
            |why: String| Diagnostic::user(format!("`{}` is no configuration", path.display())).detail(why);
        let mut flat = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let tree =
                serde_yaml_ng::Value::deserialize(document).map_err(|error| wrong(error.to_string()))?;
            flatten("", &tree, &mut flat).map_err(wrong)?;
        }
        flat.iter().try_for_each(|(key, value)| self.set(key, value, Origin::File))
    }

    /// A value, and where it comes from.
    #[must_use]
    pub fn get(&self, name: &str) -> (&str, Origin) {
        self.values.get(name).map_or(("", Origin::Default), |(value, origin)| (value, *origin))
    }

    /// A value as it may be shown: of secrets Flink's six stars.
    #[must_use]
    pub fn shown(&self, name: &str) -> (&str, Origin) {
        match self.get(name) {
            (value, origin) if name.contains("secret") && !value.is_empty() => ("******", origin),
            shown => shown,
        }
    }

    /// A time.
    #[must_use]
    pub fn duration(&self, name: &str) -> Duration {
        time(self.get(name).0).unwrap_or_default()
    }

    /// None where the value is empty.
    #[must_use]
    pub fn optional_duration(&self, name: &str) -> Option<Duration> {
        duration(self.get(name).0).ok()
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self, name: &str) -> usize {
        size(self.get(name).0).unwrap_or_default()
    }

    /// A number; none where the value is empty.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        self.get(name).0.parse().ok()
    }

    /// A number with a fraction.
    #[must_use]
    pub fn real(&self, name: &str) -> f64 {
        self.get(name).0.parse().unwrap_or_default()
    }

    /// Where compiled components are kept.
    #[must_use]
    pub fn cache_dir(&self) -> Option<PathBuf> {
        match self.get("millstream.cache-dir").0 {
            "none" => None,
            "" => user_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("millstream/components")),
            path => Some(path.into()),
        }
    }
}

impl Config {
    /// Where a session keeps its jobs.
    ///
    /// # Errors
    /// If nobody says, and the user has no home.
    pub fn session_dir(&self) -> Result<PathBuf, Diagnostic> {
        match self.get("millstream.session.dir").0 {
            "" => user_folder("XDG_STATE_HOME", ".local/state")
                .map(|folder| folder.join("millstream/session"))
                .ok_or_else(|| {
                    Diagnostic::user("a session has no folder to keep its jobs in")
                        .hint("name one: -D millstream.session.dir=DIR")
                }),
            folder => Ok(folder.into()),
        }
    }

    /// The ports of which a job that `run` runs in its own process has its REST interface at the first that is free;
    /// none = it has none.
    #[must_use]
    pub fn rest_ports(&self) -> Option<RangeInclusive<u16>> {
        let (asked, (port, origin)) = (self.get("rest.bind-port").0, self.get("rest.port"));
        match asked {
            "" if origin == Origin::Default => ports("8081-8090").ok().flatten(),
            "" => ports(port).ok().flatten(),
            asked => ports(asked).ok().flatten(),
        }
    }

    /// Whether it is true.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).0 == "true"
    }

    /// A file; none where the value is empty.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Path> {
        Some(self.get(name).0).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// The address at which the REST interface listens.
    ///
    /// # Errors
    /// If it has a name only.
    pub fn rest_bind_address(&self) -> Result<IpAddr, Diagnostic> {
        let (asked, named) = (self.get("rest.bind-address").0, self.get("rest.address").0);
        let address = if asked.is_empty() { named } else { asked };
        if address.eq_ignore_ascii_case("localhost") {
            return Ok(IpAddr::from([127, 0, 0, 1]));
        }
        address.parse().map_err(|_| {
            Diagnostic::user(format!("`rest.address` is `{address}`, which is no address to listen at"))
                .hint("say which: -D rest.bind-address=ADDRESS (0.0.0.0: all that this machine has)")
        })
    }

    /// Where the REST interface of a session is asked: `HOST:PORT`.
    #[must_use]
    pub fn rest_address(&self) -> String {
        let (address, port) = (self.get("rest.address").0, self.get("rest.port").0);
        match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        }
    }
}

/// The configuration file: MILLSTREAM_CONF_DIR/config.yaml, or that of the user's config folder.
#[must_use]
pub fn file() -> Option<PathBuf> {
    match std::env::var_os("MILLSTREAM_CONF_DIR") {
        Some(folder) => Some(PathBuf::from(folder).join("config.yaml")),
        None => user_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("millstream/config.yaml")),
    }
}

fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(folder) if !folder.is_empty() => Some(folder.into()),
        _ => std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)),
    }
}

/// `parallelism.default` as `MILLSTREAM_PARALLELISM_DEFAULT`.
#[must_use]
pub fn variable_of(key: &str) -> String {
    let key = key.strip_prefix("millstream.").unwrap_or(key);
    format!("MILLSTREAM_{}", key.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// Keys may be nested or written with dots, as in Flink's config.yaml.
fn flatten(
    prefix: &str,
    value: &serde_yaml_ng::Value,
    flat: &mut Vec<(String, String)>,
) -> Result<(), String> {
    use serde_yaml_ng::Value;
    match value {
        Value::Null if prefix.is_empty() => {}
        Value::Mapping(members) => {
            for (key, value) in members {
                let Value::String(key) = key else {
                    return Err(format!("a key below `{prefix}` is no text"));
                };
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, flat)?;
            }
        }
        Value::String(text) => flat.push((prefix.to_owned(), text.clone())),
        Value::Number(number) => flat.push((prefix.to_owned(), number.to_string())),
        Value::Bool(flag) => flat.push((prefix.to_owned(), flag.to_string())),
        _ => return Err(format!("the value of `{prefix}` is no text, number or flag")),
    }
    Ok(())
}

/// `8081`, `8081-8090`, or `off`: none.
fn ports(text: &str) -> Result<Option<RangeInclusive<u16>>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Some(first..=last)),
        _ => Err("it is a port, like 8081, ports, like 8081-8090, or off".into()),
    }
}

/// `512`, `64kb`, `256mb`, `1gb`: powers of 1,024, as in Flink.
fn size(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" | "bytes" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        other => return Err(format!("`{other}` is no unit of memory: b, kb, mb, gb")),
    };
    let number: usize =
        number.parse().map_err(|_| "a size is a number with a unit, like 256mb".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}

/// A time, as the configuration has it: `500ms`, `1s`, `2min`; as in Flink a number alone is milliseconds.
///
/// # Errors
/// If it is none.
pub fn time(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(_) => connectors::time(text),
    }
}

/// The same, above 0.
fn duration(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it is above 0".into()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("64kb"), Ok(65_536));
        assert_eq!(size("1 GB"), Ok(1 << 30));
        assert!(size("kb").is_err() && size("1tb").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("4000"), Ok(Duration::from_secs(4)));
        assert!(duration("x").is_err() && duration("1 day").is_err() && duration("0s").is_err());
        assert_eq!(time("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_stronger_origin_wins() {
        let mut config = Config::load(&["parallelism.default=3".to_owned()]).unwrap();
        config.set("parallelism.default", "5", Origin::Job).unwrap();
        assert_eq!(config.get("parallelism.default"), ("3", Origin::CommandLine));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let config = Config::load(&["s3.secret-key=hunter2".to_owned()]).unwrap();
        assert_eq!(config.get("s3.secret-key").0, "hunter2");
        assert_eq!(config.shown("s3.secret-key"), ("******", Origin::CommandLine));
        assert_eq!(Config::load(&[]).unwrap().shown("s3.secret-key").0, "");
    }

    #[test]
    fn it_listens_where_it_is_asked_unless_told_otherwise() {
        let at = |defined: &[&str]| {
            let defined: Vec<String> = defined.iter().map(ToString::to_string).collect();
            Config::load(&defined).and_then(|config| config.rest_bind_address())
        };
        assert!(at(&[]).unwrap().is_loopback());
        assert!(at(&["rest.address=localhost"]).unwrap().is_loopback());
        assert_eq!(at(&["rest.address=10.0.0.1"]).unwrap(), IpAddr::from([10, 0, 0, 1]));
        let named = "rest.address=jobs.example.org";
        assert!(at(&[named]).err().unwrap().hint.unwrap().contains("rest.bind-address"));
        assert!(at(&[named, "rest.bind-address=0.0.0.0"]).unwrap().is_unspecified());
        for wrong in ["rest.address=", "rest.address=a b", "rest.bind-address=jobs", "rest.insecure=maybe"] {
            assert!(at(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = Config::load(&["paralelism.default=3".to_owned()]).err().unwrap();
        assert!(error.hint.unwrap().contains("`parallelism.default`"));
    }

    #[test]
    fn keys_may_be_nested() {
        let tree =
            serde_yaml_ng::from_str("parallelism:\n  default: 4\nexecution.runtime-mode: batch").unwrap();
        let mut flat = Vec::new();
        flatten("", &tree, &mut flat).unwrap();
        let expected = [("parallelism.default", "4"), ("execution.runtime-mode", "batch")];
        assert_eq!(flat, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
