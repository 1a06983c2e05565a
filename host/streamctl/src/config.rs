//! The configuration: `-D key=value` over what a job sets for itself, over `MILLSTREAM_<KEY>` in
//! the environment, over `config.yaml`, over what is built in. Flink's keys where Flink has the thing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::Diagnostic;
use serde::Deserialize;

/// A key, and what it is.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) what: &'static str,
    check: fn(&str) -> Result<(), String>,
}

/// All keys, in the order of their names.
pub(crate) const KEYS: [Key; 28] = [
    Key {
        name: "execution.checkpointing.dir",
        default: "",
        what: "folder in which checkpoints are put",
        check: |_| Ok(()),
    },
    Key {
        name: "execution.checkpointing.externalized-checkpoint-retention",
        default: "RETAIN_ON_CANCELLATION",
        what: "whether checkpoints stay when the job ends: RETAIN_ON_CANCELLATION: always; DELETE_ON_CANCELLATION: unless it was stopped; NO_EXTERNALIZED_CHECKPOINTS: never",
        check: |value| {
            one_of(
                value,
                &["RETAIN_ON_CANCELLATION", "DELETE_ON_CANCELLATION", "NO_EXTERNALIZED_CHECKPOINTS"],
            )
        },
    },
    Key {
        name: "execution.checkpointing.interval",
        default: "",
        what: "from the beginning of a checkpoint to that of the next [empty: there are none]",
        check: optional_duration,
    },
    Key {
        name: "execution.checkpointing.min-pause",
        default: "",
        what: "from the end of a checkpoint to the beginning of the next, at least [empty: none]",
        check: optional_duration,
    },
    Key {
        name: "execution.checkpointing.num-retained",
        default: "1",
        what: "how many complete checkpoints are kept",
        check: |value| match value.parse::<u32>() {
            Ok(0) => Err("at least one is kept".into()),
            checked => checked.map(drop).map_err(|error| error.to_string()),
        },
    },
    Key {
        name: "execution.checkpointing.savepoint-dir",
        default: "",
        what: "folder in which savepoints are put: SIGUSR1 makes one, SIGUSR2 one with which the job stops [empty: there are none]",
        check: |_| Ok(()),
    },
    Key {
        name: "execution.checkpointing.timeout",
        default: "10min",
        what: "a checkpoint that takes longer is given up",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "execution.checkpointing.tolerable-failed-checkpoints",
        default: "",
        what: "how many checkpoints may fail one after the other before the job does [empty: any number]",
        check: optional_number,
    },
    Key {
        name: "execution.runtime-mode",
        default: "streaming",
        what: "streaming: every change is a row; batch: final results only",
        check: |value| one_of(value, &["streaming", "batch"]),
    },
    Key {
        name: "execution.savepoint.format",
        default: "CANONICAL",
        what: "CANONICAL: savepoints as tables that other programs read; NATIVE: as checkpoints are, which is faster",
        check: |value| one_of(value, &["CANONICAL", "NATIVE"]),
    },
    Key {
        name: "execution.savepoint.resume-drained",
        default: "false",
        what: "true: a job may go on from a savepoint with which it was drained",
        check: flag,
    },
    Key {
        name: "millstream.aggregate.fold",
        default: "false",
        what: "true: streaming aggregates give one update for each key of a batch instead of one for each row",
        check: flag,
    },
    Key {
        name: "millstream.cache-dir",
        default: "",
        what: "where compiled components are kept [empty: the user's cache folder; none: nowhere]",
        check: |_| Ok(()),
    },
    Key {
        name: "millstream.guest.call-time",
        default: "1s",
        what: "CPU time that one call of a guest may take",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "millstream.guest.memory",
        default: "256mb",
        what: "memory that an instance of a guest may have",
        check: |value| match size(value)? {
            bytes if bytes < 1 << 20 => Err("a guest needs 1mb at least".into()),
            bytes if bytes > 4 << 30 => Err("a guest can have 4gb at most".into()),
            _ => Ok(()),
        },
    },
    Key {
        name: "millstream.guest.output",
        default: "64mb",
        what: "bytes that one call of a guest may give back",
        check: |value| size(value).map(drop),
    },
    Key {
        name: "millstream.guest.stack",
        default: "512kb",
        what: "stack of a guest",
        check: |value| match size(value)? {
            bytes if bytes < 64 << 10 => Err("a guest needs 64kb at least".into()),
            bytes if bytes > 64 << 20 => Err("a guest can have 64mb at most".into()),
            _ => Ok(()),
        },
    },
    Key {
        name: "parallelism.default",
        default: "1",
        what: "parallel subtasks of operators that do not set their own",
        check: |value| value.parse::<u32>().map(drop).map_err(|error| error.to_string()),
    },
    Key {
        name: "pipeline.max-parallelism",
        default: "",
        what: "number of key groups [empty: by the parallelism, 128 at least]",
        check: optional_number,
    },
    Key {
        name: "s3.access-key",
        default: "",
        what: "who asks for objects of s3:// [empty: AWS_ACCESS_KEY_ID, or the machine's role]",
        check: |_| Ok(()),
    },
    Key {
        name: "s3.endpoint",
        default: "",
        what: "URL of the service behind s3:// [empty: Amazon's]",
        check: |value| match value.starts_with("http://") || value.starts_with("https://") {
            true => Ok(()),
            false if value.is_empty() => Ok(()),
            false => Err("it begins with http:// or https://".into()),
        },
    },
    Key {
        name: "s3.endpoint.region",
        default: "",
        what: "region of the service behind s3:// [empty: AWS_REGION, or us-east-1]",
        check: |_| Ok(()),
    },
    Key {
        name: "s3.path.style.access",
        default: "false",
        what: "true: buckets of s3:// are named in the path, not in the host",
        check: flag,
    },
    Key {
        name: "s3.secret-key",
        default: "",
        what: "the secret of s3.access-key; never shown",
        check: |_| Ok(()),
    },
    Key {
        name: "state.backend.rocksdb.localdir",
        default: "",
        what: "folder of this machine in which RocksDB keeps state while a job runs [empty: the system's for temporary files]",
        check: |_| Ok(()),
    },
    Key {
        name: "state.backend.rocksdb.memory.fixed-per-slot",
        default: "256mb",
        what: "memory that keyed state of a slot may take with RocksDB",
        check: |value| match size(value)? {
            bytes if bytes < 4 << 20 => Err("a slot needs 4mb at least".into()),
            _ => Ok(()),
        },
    },
    Key {
        name: "state.backend.type",
        default: "hashmap",
        what: "hashmap: keyed state lies in memory; rocksdb: what is not in use lies in RocksDB",
        check: |value| one_of(value, &["hashmap", "rocksdb"]),
    },
    Key {
        name: "table.optimizer.agg-phase-strategy",
        default: "AUTO",
        what: "TWO_PHASE: windows aggregate rows before they are exchanged, too; ONE_PHASE: not; AUTO: where they have no key",
        check: |value| one_of(value, &["AUTO", "ONE_PHASE", "TWO_PHASE"]),
    },
];

fn flag(value: &str) -> Result<(), String> {
    value.parse::<bool>().map(drop).map_err(|_| "it is true or false".into())
}

/// A number, or nothing.
fn optional_number(value: &str) -> Result<(), String> {
    match value {
        "" => Ok(()),
        _ => value.parse::<u32>().map(drop).map_err(|error| error.to_string()),
    }
}

fn one_of(value: &str, words: &[&str]) -> Result<(), String> {
    match words.iter().any(|word| word.eq_ignore_ascii_case(value)) {
        true => Ok(()),
        false => Err(format!("it is {}", words.join(" or "))),
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Default,
    File,
    Environment,
    Job,
    CommandLine,
}

impl Origin {
    pub(crate) fn name(self) -> &'static str {
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
pub(crate) struct Config {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Config {
    /// Reads the configuration; `defined` is what the command line sets.
    pub(crate) fn load(defined: &[String]) -> Result<Self, Diagnostic> {
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
    pub(crate) fn set(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), Diagnostic> {
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

    pub(crate) fn get(&self, name: &str) -> (&str, Origin) {
        self.values.get(name).map_or(("", Origin::Default), |(value, origin)| (value, *origin))
    }

    /// A value as it may be shown: of secrets Flink's six stars.
    pub(crate) fn shown(&self, name: &str) -> (&str, Origin) {
        match self.get(name) {
            (value, origin) if name.contains("secret") && !value.is_empty() => ("******", origin),
            shown => shown,
        }
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        duration(self.get(name).0).unwrap_or_default()
    }

    /// None where the value is empty.
    pub(crate) fn optional_duration(&self, name: &str) -> Option<Duration> {
        duration(self.get(name).0).ok()
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        size(self.get(name).0).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.get(name).0.parse().ok()
    }

    /// Where compiled components are kept.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        match self.get("millstream.cache-dir").0 {
            "none" => None,
            "" => user_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("millstream/components")),
            path => Some(path.into()),
        }
    }
}

/// The configuration file: MILLSTREAM_CONF_DIR/config.yaml, or that of the user's config folder.
pub(crate) fn file() -> Option<PathBuf> {
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
pub(crate) fn variable_of(key: &str) -> String {
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

/// `500ms`, `1s`, `2min`.
fn duration(text: &str) -> Result<Duration, String> {
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
        Some(0) => Err("it is above 0".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("that is too long".into()),
    }
}

/// A time, or nothing.
fn optional_duration(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { duration(text).map(drop) }
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
        assert!(duration("1").is_err() && duration("0s").is_err());
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
