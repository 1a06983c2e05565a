//! The keys of the configuration: their names, defaults, and what each may be.

use super::{duration, ports, size, time};

/// Flink's names of what is done about failures.
const STRATEGIES: [&str; 9] = [
    "none",
    "off",
    "disable",
    "fixed-delay",
    "fixeddelay",
    "exponential-delay",
    "exponentialdelay",
    "failure-rate",
    "failurerate",
];

/// A key, and what it is.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is where nobody says.
    pub default: &'static str,
    /// What it does, for people.
    pub what: &'static str,
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// All keys, in the order of their names.
pub const KEYS: [Key; 60] = [
    Key {
        name: "client.timeout",
        default: "1min",
        what: "how long a session may take to answer the command line; ten times that where it has a component to compile",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "execution.checkpointing.dir",
        default: "",
        what: "folder in which checkpoints are put, or s3://BUCKET/NAME",
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
        what: "folder in which savepoints are put, or s3://BUCKET/NAME: SIGUSR1 makes one, SIGUSR2 one with which the job stops [empty: there are none]",
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
        name: "metrics.latency.interval",
        default: "0ms",
        what: "how often sources give markers that measure how long rows take to each operator; 0ms: never",
        check: |value| time(value).map(drop),
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
        name: "millstream.compile.memory",
        default: "1gb",
        what: "memory that compiling a component may take",
        check: |value| match size(value)? {
            bytes if bytes < 16 << 20 => Err("it is 16mb at least".into()),
            _ => Ok(()),
        },
    },
    Key {
        name: "millstream.compile.time",
        default: "1min",
        what: "CPU time that compiling a component may take; by the clock ten times as long",
        check: |value| duration(value).map(drop),
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
        name: "millstream.log.format",
        default: "text",
        what: "how a session writes its log: text or json (an object a line)",
        check: |value| match value {
            "text" | "json" => Ok(()),
            _ => Err("it is text or json".to_owned()),
        },
    },
    Key {
        name: "millstream.log.level",
        default: "info",
        what: "what a session logs: trace, debug, info, warn, error or off; of a part of it: info,hyper=warn",
        check: |value| {
            let of = |one: &str| one.rsplit('=').next().unwrap_or_default().to_lowercase();
            let is_level = |one: &str| {
                ["trace", "debug", "info", "warn", "error", "off"].contains(&of(one.trim()).as_str())
            };
            match value.split(',').find(|one| !is_level(one)) {
                None => Ok(()),
                Some(other) => Err(format!("`{other}` is no level: trace, debug, info, warn, error, off")),
            }
        },
    },
    Key {
        name: "millstream.restore.version",
        default: "checkpoint",
        what: "which version goes on from a checkpoint after a hot swap: checkpoint (the one that it was made for, \
               if the component given has run before it) or given (the component given)",
        check: |value| match value {
            "checkpoint" | "given" => Ok(()),
            _ => Err("it is checkpoint or given".to_owned()),
        },
    },
    Key {
        name: "millstream.session.dir",
        default: "",
        what: "folder in which a session keeps its jobs [empty: the user's folder of states]",
        check: |_| Ok(()),
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
        name: "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        default: "",
        what: "restarts of a job that does not run for reset-backoff-threshold in between, at most [empty: any number]",
        check: |value| if value.is_empty() { Ok(()) } else { at_least_one(value) },
    },
    Key {
        name: "restart-strategy.exponential-delay.backoff-multiplier",
        default: "1.5",
        what: "from a failure to the restart it takes so many times as long as before",
        check: |value| match real(value)? {
            value if value > 1.0 && value.is_finite() => Ok(()),
            _ => Err("it is above 1".into()),
        },
    },
    Key {
        name: "restart-strategy.exponential-delay.initial-backoff",
        default: "1s",
        what: "from the first failure to the restart",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "restart-strategy.exponential-delay.jitter-factor",
        default: "0.1",
        what: "part of that time that is added or taken away by chance, from 0 to 1",
        check: |value| match real(value)? {
            value if (0.0..=1.0).contains(&value) => Ok(()),
            _ => Err("it is from 0 to 1".into()),
        },
    },
    Key {
        name: "restart-strategy.exponential-delay.max-backoff",
        default: "1min",
        what: "from a failure to the restart, at most",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "restart-strategy.exponential-delay.reset-backoff-threshold",
        default: "1h",
        what: "a job that has run for so long begins again with initial-backoff",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "restart-strategy.failure-rate.delay",
        default: "1s",
        what: "from a failure to the restart",
        check: |value| time(value).map(drop),
    },
    Key {
        name: "restart-strategy.failure-rate.failure-rate-interval",
        default: "1min",
        what: "the time for which max-failures-per-interval is",
        check: |value| duration(value).map(drop),
    },
    Key {
        name: "restart-strategy.failure-rate.max-failures-per-interval",
        default: "1",
        what: "how often the job may fail within failure-rate-interval and is restarted",
        check: at_least_one,
    },
    Key {
        name: "restart-strategy.fixed-delay.attempts",
        default: "1",
        what: "how often the job is restarted",
        check: |value| value.parse::<u32>().map(drop).map_err(|error| error.to_string()),
    },
    Key {
        name: "restart-strategy.fixed-delay.delay",
        default: "1s",
        what: "from a failure to the restart",
        check: |value| time(value).map(drop),
    },
    Key {
        name: "restart-strategy.type",
        default: "",
        what: "what is done when the job fails: none, fixed-delay, exponential-delay, failure-rate [empty: exponential-delay where checkpoints have an interval, else none]",
        check: |value| if value.is_empty() { Ok(()) } else { one_of(value, &STRATEGIES) },
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
        name: "rest.address",
        default: "127.0.0.1",
        what: "address or name at which a session is asked by REST; it listens there unless rest.bind-address says where",
        check: host,
    },
    Key {
        name: "rest.bind-address",
        default: "",
        what: "address at which the REST interface listens; all but this machine's own (127.0.0.1, ::1) need TLS and a token [empty: rest.address]",
        check: |value| match value {
            "" => Ok(()),
            value => value.parse::<std::net::IpAddr>().map(drop).map_err(|error| error.to_string()),
        },
    },
    Key {
        name: "rest.bind-port",
        default: "",
        what: "port or ports (8081-8090), of which the REST interface of a job that `run` runs itself takes the first that is free; 0 = any; off = none [empty: rest.port where that is set, else 8081-8090]",
        check: |value| if value.is_empty() { Ok(()) } else { ports(value).map(drop) },
    },
    Key {
        name: "rest.insecure",
        default: "false",
        what: "true: TLS and a token are not needed anywhere; whoever reaches the address runs code, and whoever listens on the way reads all",
        check: flag,
    },
    Key {
        name: "rest.port",
        default: "8081",
        what: "port of a session's REST interface; 0 = any that is free",
        check: |value| value.parse::<u16>().map(drop).map_err(|error| error.to_string()),
    },
    Key {
        name: "rest.token-file",
        default: "",
        what: "file of the token that requests have to show, of 16 visible characters at least; others must not be able to read it [empty: none is asked for]",
        check: |_| Ok(()),
    },
    Key {
        name: "security.ssl.rest.ca",
        default: "",
        what: "file of certificates (PEM) by which a session's certificate is known [empty: the system's; with security.ssl.rest.certificate those in its file]",
        check: |_| Ok(()),
    },
    Key {
        name: "security.ssl.rest.certificate",
        default: "",
        what: "file of the REST interface's certificate, and of those that vouch for it (PEM)",
        check: |_| Ok(()),
    },
    Key {
        name: "security.ssl.rest.enabled",
        default: "false",
        what: "true: the REST interface speaks TLS",
        check: flag,
    },
    Key {
        name: "security.ssl.rest.key",
        default: "",
        what: "file of the certificate's private key (PEM); others must not be able to read it",
        check: |_| Ok(()),
    },
    Key {
        name: "slot.request.timeout",
        default: "5min",
        what: "a job of a session that waits longer for slots fails",
        check: |value| duration(value).map(drop),
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
    Key {
        name: "web.checkpoints.history",
        default: "10",
        what: "of how many checkpoints, the last ones, is remembered how they were",
        check: |value| value.parse::<u32>().map(drop).map_err(|error| error.to_string()),
    },
];

/// An address, or a name of DNS.
fn host(value: &str) -> Result<(), String> {
    let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match value.parse::<std::net::IpAddr>().is_ok()
        || (!value.is_empty() && value.chars().all(is_part_of_name))
    {
        true => Ok(()),
        false => Err("it is an address, like 127.0.0.1, or a name".into()),
    }
}

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

/// A number with a fraction.
fn real(value: &str) -> Result<f64, String> {
    value.parse().map_err(|_| "it is a number, like 1.5".to_owned())
}

fn at_least_one(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(0) => Err("it is at least 1".into()),
        checked => checked.map(drop).map_err(|error| error.to_string()),
    }
}

/// A time, or nothing.
fn optional_duration(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { duration(text).map(drop) }
}
