//! Checkpoints of `streamctl run`: where they lie, and what a job goes on from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoint::storage::{Latest, StorageError};
use checkpoint::{Manifest, Settings, Storage};
use model::Diagnostic;
use platform::store::{Location, S3};
use platform::{Clock, Faults, Store};
use task::{Checkpoints, Restored};

use crate::config::Config;
use crate::terminal::Terminal;

/// What a run is to do about checkpoints.
pub(crate) struct Asked {
    /// That they are made, and what the job goes on from; none = neither.
    pub(crate) checkpoints: Option<Checkpoints>,
    /// The job has finished before: there is nothing left to do.
    pub(crate) is_finished: bool,
}

/// What is restored: `latest`, or the folder of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) enum Restore {
    Latest,
    Path(PathBuf),
}

impl std::str::FromStr for Restore {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "latest" { Self::Latest } else { Self::Path(text.into()) })
    }
}

/// Faults on purpose, for tests: `MILLSTREAM_FAULTS=store.sync@3=kill`.
const FAULTS: &str = "MILLSTREAM_FAULTS";

/// The id of a job in its folder, the same whenever it is run: of its name.
fn id_of(job: &str) -> String {
    blake3::hash(job.as_bytes()).to_hex().chars().take(32).collect()
}

/// Reads what the configuration and the command line say, and what is there; `say` tells what comes of it.
pub(crate) fn asked(
    config: &Config,
    restore: Option<&Restore>,
    job: &str,
    clock: &Clock,
    terminal: &Terminal,
    say: &dyn Fn(&str),
) -> Result<Asked, Diagnostic> {
    let interval = config.optional_duration("execution.checkpointing.interval");
    let folder = config.get("execution.checkpointing.dir").0;
    if folder.is_empty() && interval.is_none() && restore.is_none() {
        return Ok(Asked { checkpoints: None, is_finished: false });
    }
    let of_path = match restore {
        Some(Restore::Path(path)) => Some(parts_of(path)?),
        _ => None,
    };
    let folder = match (folder, &of_path) {
        ("", None) => {
            return Err(Diagnostic::user("checkpoints have no folder to be put in")
                .hint("name one: -D execution.checkpointing.dir=DIR"));
        }
        ("", Some((root, ..))) => root.clone(),
        (folder, _) => folder.to_owned(),
    };
    let faults = std::env::var(FAULTS).unwrap_or_default();
    let faults = Faults::parse(&faults, clock)
        .map_err(|error| Diagnostic::user(format!("`{FAULTS}` says no faults")).detail(error.to_string()))?;
    let id = of_path.as_ref().map_or_else(|| id_of(job), |(_, id, _)| id.clone());
    let s3 = s3(config)?;
    let store = |root: &str| -> Result<Arc<dyn Store>, Diagnostic> {
        let nowhere = |why: String| Diagnostic::user(format!("`{root}` cannot have checkpoints")).detail(why);
        let place = Location::parse(root).map_err(|error| nowhere(error.to_string()))?;
        place.open(&s3, faults.clone()).map_err(|error| nowhere(error.to_string()))
    };
    let own = store(&folder)?;
    let storage = Storage::new(Arc::clone(&own), &id);
    let unreadable = |error: std::io::Error| {
        Diagnostic::external(format!("checkpoints in `{folder}` cannot be read")).detail(error.to_string())
    };
    let traces = storage.traces().map_err(unreadable)?;
    // All that a checkpoint names is read for this, so only where it is asked for.
    let latest = match restore {
        Some(Restore::Latest) => storage.latest().map_err(unreadable)?,
        Some(Restore::Path(_)) | None => Latest::default(),
    };
    let manifest = match (restore, &of_path) {
        (None, _) => None,
        (Some(Restore::Latest), _) => {
            for (number, damage) in &latest.damaged {
                terminal.warning(&format!("checkpoint {number} is passed over: {damage}"));
            }
            if latest.manifest.is_none() {
                say(&format!("no checkpoint of job {job} is complete: it begins from the beginning"));
            }
            latest.manifest
        }
        (Some(Restore::Path(path)), Some((root, _, number))) => {
            let from = Storage::new(store(root)?, &id);
            Some(from.whole(*number).map_err(|error| {
                Diagnostic::user(format!("`{}` cannot be restored", path.display())).detail(error.to_string())
            })?)
        }
        (Some(Restore::Path(_)), None) => None,
    };
    if restore.is_none()
        && let Some((number, _)) = traces.iter().rev().find(|(_, has_manifest)| *has_manifest)
    {
        terminal.warning(&format!(
            "there is checkpoint {number} of job {job}, and the job begins from the beginning (to go on from it: --restore latest)"
        ));
    }
    // What an attempt before has begun and not ended is nobody's.
    own.sweep(&id).and_then(|()| storage.sweep(&[])).map_err(unreadable)?;
    if let Some(manifest) = &manifest {
        say(&format!("job {job} goes on from checkpoint {}", manifest.checkpoint));
    }
    let is_finished = manifest.as_ref().is_some_and(|manifest| manifest.is_final);
    let from = match &of_path {
        Some((root, ..)) => Storage::new(store(root)?, &id),
        None => storage.clone(),
    };
    let read = |manifest: Manifest| Restored::read(manifest, &from).map(Arc::new);
    let restored = manifest.map(read).transpose().map_err(|error: StorageError| {
        Diagnostic::user("the checkpoint cannot be restored").detail(error.to_string())
    })?;
    let settings = Settings {
        interval,
        timeout: config.duration("execution.checkpointing.timeout"),
        min_pause: config.optional_duration("execution.checkpointing.min-pause").unwrap_or_default(),
        tolerable_failures: config.number("execution.checkpointing.tolerable-failed-checkpoints"),
        retained: config.number("execution.checkpointing.num-retained").unwrap_or(1) as usize,
    };
    let complete: Vec<_> = traces.iter().filter(|(_, is_complete)| *is_complete).map(|(id, _)| *id).collect();
    if is_finished {
        // No other comes that older ones would give way to.
        let older = complete.len().saturating_sub(settings.retained);
        complete[..older].iter().try_for_each(|id| storage.remove(*id)).map_err(unreadable)?;
    }
    let checkpoints = Checkpoints {
        settings,
        storage,
        job_id: id,
        restored,
        takes_over: restore.is_some(),
        next: traces.last().map_or(1, |(id, _)| id + 1),
        retained: complete,
    };
    Ok(Asked { checkpoints: Some(checkpoints), is_finished })
}

/// How S3 is reached.
fn s3(config: &Config) -> Result<S3, Diagnostic> {
    let said = |key: &str| Some(config.get(key).0).filter(|value| !value.is_empty()).map(str::to_owned);
    let credentials = match (said("s3.access-key"), said("s3.secret-key")) {
        (Some(key), Some(secret)) => Some((key, secret)),
        (None, None) => None,
        (key, _) => {
            let missing = if key.is_none() { "s3.access-key" } else { "s3.secret-key" };
            return Err(Diagnostic::user(format!("`{missing}` is missing"))
                .detail("s3.access-key and s3.secret-key go together"));
        }
    };
    Ok(S3 {
        endpoint: said("s3.endpoint"),
        region: said("s3.endpoint.region"),
        credentials,
        path_style: said("s3.path.style.access").as_deref() == Some("true"),
    })
}

/// The folder, the job's id and the number in the path of a checkpoint: `DIR/ID/chk-42`.
fn parts_of(path: &Path) -> Result<(String, String, u64), Diagnostic> {
    let path = if path.ends_with("_metadata") { path.parent().unwrap_or(path) } else { path };
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let number = name(path).and_then(|name| name.strip_prefix("chk-")?.parse().ok());
    let above = path.parent();
    match (number, above.and_then(name), above.and_then(Path::parent)) {
        (Some(number), Some(id), Some(root)) => Ok((root.to_string_lossy().into_owned(), id, number)),
        _ => Err(Diagnostic::user(format!("`{}` is no checkpoint", path.display()))
            .detail("the folder of one is DIR/JOB-ID/chk-NUMBER")
            .hint("--restore latest takes the newest of the job, in execution.checkpointing.dir")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_checkpoint_says_folder_job_and_number() {
        let expected = ("/a/b".to_owned(), "id".to_owned(), 42);
        for path in ["/a/b/id/chk-42", "/a/b/id/chk-42/", "/a/b/id/chk-42/_metadata"] {
            assert_eq!(parts_of(Path::new(path)).unwrap(), expected);
        }
        let in_bucket = parts_of(Path::new("s3://b/c/id/chk-7")).unwrap();
        assert_eq!(in_bucket, ("s3://b/c".to_owned(), "id".to_owned(), 7));
        for path in ["/a/b/id/chk-x", "/a/b/id", "chk-1", ""] {
            assert!(parts_of(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(id_of("word_count").len(), 32);
    }
}
