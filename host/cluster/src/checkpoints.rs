//! Where a job's checkpoints and savepoints lie, and what it goes on from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoint::coordinator::CheckpointId;
use checkpoint::storage::{Latest, StorageError};
use checkpoint::{Manifest, Savepoint, Settings, Storage};
use model::Diagnostic;
use platform::disk::ModelDisk;
use platform::store::{FileStore, Location, S3};
use platform::{Faults, Random, Store};
use task::{Checkpoints, Form, JobOutcome, Restored};

use crate::{Config, Tell};

/// What a job is to do about checkpoints.
pub struct Asked {
    /// That they are made, and what the job goes on from; none = neither.
    pub checkpoints: Option<Checkpoints>,
    /// The job has finished before: there is nothing left to do.
    pub is_finished: bool,
}

/// What is restored: `latest`, or the folder of a checkpoint or savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restore {
    /// The newest checkpoint of the job.
    Latest,
    /// This one.
    Path(PathBuf),
}

impl std::str::FromStr for Restore {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "latest" { Self::Latest } else { Self::Path(text.into()) })
    }
}

/// The id of a job without one of its own, the same whenever it is run: of its name.
#[must_use]
pub fn id_of(job: &str) -> String {
    blake3::hash(job.as_bytes()).to_hex().chars().take(32).collect()
}

/// What the command line says of it.
#[derive(Clone, Copy)]
pub struct Restoring<'a> {
    /// None = nothing.
    pub from: Option<&'a Restore>,
    /// State that nobody in the job asks for is left out.
    pub allow_non_restored: bool,
    /// The job is restarted: the checkpoints from this one on are its own.
    pub since: Option<CheckpointId>,
}

/// Reads what the configuration and the command line say, and what is there; tells what comes of it. A job without an
/// id of its own has that of its name, or of the checkpoint that it goes on from.
///
/// # Errors
/// If that makes no sense, or what is to be restored is not there or damaged.
pub fn asked(
    config: &Config,
    restoring: Restoring<'_>,
    (job, own_id): (&str, Option<&str>),
    faults: &Faults,
    tell: &dyn Tell,
) -> Result<Asked, Diagnostic> {
    let interval = config.optional_duration("execution.checkpointing.interval");
    let folder = config.get("execution.checkpointing.dir").0;
    let restore = restoring.from;
    if folder.is_empty() && interval.is_none() && restore.is_none() {
        return Ok(Asked { checkpoints: None, is_finished: false });
    }
    let s3 = s3(config)?;
    let store = |root: &str| opened(root, &s3, faults, "checkpoints");
    let savepoint = restore.and_then(savepoint_of);
    let of_path = match restore {
        Some(Restore::Path(path)) if savepoint.is_none() => Some(parts_of(path)?),
        _ => None,
    };
    let folder = match (folder, &of_path) {
        // A job that goes on from a savepoint need not make checkpoints.
        ("", None) if savepoint.is_some() && interval.is_none() => None,
        ("", None) => {
            return Err(Diagnostic::user("checkpoints have no folder to be put in")
                .hint("name one: -D execution.checkpointing.dir=DIR"));
        }
        ("", Some((root, ..))) => Some(root.clone()),
        (folder, _) => Some(folder.to_owned()),
    };
    let id = match (own_id, &of_path) {
        (Some(id), _) => id.to_owned(),
        (None, Some((_, id, _))) => id.clone(),
        (None, None) => id_of(job),
    };
    // Only the last checkpoint, with which sinks commit; nobody goes on from it.
    let nowhere =
        || -> Arc<dyn Store> { Arc::new(FileStore::new(Arc::new(ModelDisk::new()), Faults::none())) };
    let own = folder.as_deref().map(store).transpose()?.unwrap_or_else(nowhere);
    let storage = Storage::new(Arc::clone(&own), &id);
    let unreadable = |error: std::io::Error| {
        let folder = folder.as_deref().unwrap_or_default();
        Diagnostic::external(format!("checkpoints in `{folder}` cannot be read")).detail(error.to_string())
    };
    let traces = storage.traces().map_err(unreadable)?;
    // All that a checkpoint names is read for this, so only where it is asked for.
    let latest = match (restore, restoring.since) {
        (Some(Restore::Latest), _) | (_, Some(_)) => {
            storage.latest(|manifest| Restored::read(manifest, &storage)).map_err(unreadable)?
        }
        (Some(Restore::Path(_)) | None, None) => Latest { found: None, damaged: Vec::new(), next: 1 },
    };
    // A job that is restarted goes on from a checkpoint of its own; without any from where it began.
    let newest = latest.found.as_ref().map(|restored| restored.manifest().checkpoint);
    let has_own = restoring.since.is_some_and(|since| newest >= Some(since));
    let (restore, savepoint) = if has_own { (Some(&Restore::Latest), None) } else { (restore, savepoint) };
    let cannot = |path: &Path, error: &StorageError| {
        Diagnostic::user(format!("`{}` cannot be restored", path.display())).detail(error.to_string())
    };
    let mut restored = match (restore, &of_path, &savepoint) {
        (None, ..) | (Some(Restore::Path(_)), None, None) => None,
        (Some(Restore::Latest), ..) => {
            for (number, damage) in &latest.damaged {
                tell.warn(&format!("checkpoint {number} is passed over: {damage}"));
            }
            if latest.found.is_none() {
                tell.say(&format!("no checkpoint of job {job} is complete: it begins from the beginning"));
            }
            latest.found
        }
        (Some(Restore::Path(path)), _, Some(folder)) => {
            let read = Restored::of_savepoint(&Savepoint::new(store(&folder.to_string_lossy())?, ""));
            Some(read.map_err(|error| cannot(path, &error))?)
        }
        (Some(Restore::Path(path)), Some((root, of, number)), None) => {
            let from = Storage::new(store(root)?, of);
            let read = from.manifest(*number).and_then(|manifest| Restored::read(manifest, &from));
            let mut read = read.map_err(|error| cannot(path, &error))?;
            if folder.as_ref() != Some(root) {
                read.lies_elsewhere();
            }
            Some(read)
        }
    };
    if restore.is_none() && restoring.since.is_some() {
        tell.say(&format!("job {job} begins from the beginning"));
    } else if restore.is_none()
        && let Some((number, _)) = traces.iter().rev().find(|(_, has_manifest)| *has_manifest)
    {
        tell.warn(&format!(
            "there is checkpoint {number} of job {job}, and the job begins from the beginning (to go on from it: --restore latest)"
        ));
    }
    // What an attempt before has begun and not ended is nobody's.
    own.sweep(&id).and_then(|()| storage.sweep(&[])).map_err(unreadable)?;
    if let (Some(restored), Some(path)) = (&restored, &savepoint) {
        refuse_drained(config, restored.manifest(), path)?;
        tell.say(&format!("job {job} goes on from savepoint {}", path.display()));
    } else if let Some(restored) = &restored {
        tell.say(&format!("job {job} goes on from checkpoint {}", restored.manifest().checkpoint));
    }
    let is_finished = restored.as_ref().is_some_and(|restored| {
        let manifest = restored.manifest();
        manifest.is_final && !manifest.is_drained()
    });
    if let Some(restored) = restored.as_mut().filter(|_| restoring.allow_non_restored) {
        restored.allow_non_restored();
    }
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
        restored: restored.map(Arc::new),
        takes_over: restore.is_some() || restoring.since.is_some(),
        next: traces.last().map_or(1, |(id, _)| id + 1),
        retained: complete,
    };
    Ok(Asked { checkpoints: Some(checkpoints), is_finished })
}

/// The store that a place is in.
fn opened(root: &str, s3: &S3, faults: &Faults, what: &str) -> Result<Arc<dyn Store>, Diagnostic> {
    let nowhere = |why: String| Diagnostic::user(format!("`{root}` cannot have {what}")).detail(why);
    let place = Location::parse(root).map_err(|error| nowhere(error.to_string()))?;
    place.open(s3, faults.clone()).map_err(|error| nowhere(error.to_string()))
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

/// A job that was drained has given what its windows had: going on would give them twice.
fn refuse_drained(config: &Config, manifest: &Manifest, path: &Path) -> Result<(), Diagnostic> {
    const KEY: &str = "execution.savepoint.resume-drained";
    match manifest.is_drained() && config.get(KEY).0 != "true" {
        false => Ok(()),
        true => Err(Diagnostic::user(format!("`{}` is of a job that was drained", path.display()))
            .detail("its windows and timers have fired; what comes for them now would be given in a second result")
            .hint(format!("to go on all the same: -D {KEY}=true"))),
    }
}

/// The folder of the savepoint that is to be restored, if it is one. In a bucket all are that are no checkpoints.
fn savepoint_of(restore: &Restore) -> Option<PathBuf> {
    let Restore::Path(path) = restore else { return None };
    let folder = if path.ends_with("_metadata") { path.parent().unwrap_or(path) } else { path };
    let is_there = || match Location::parse(&folder.to_string_lossy()) {
        Ok(Location::Folder(folder)) => folder.join("_metadata").is_file(),
        place => place.is_ok(),
    };
    (parts_of(folder).is_err() && is_there()).then(|| folder.to_owned())
}

/// Reads the checkpoint or savepoint at a path, to be shown.
///
/// # Errors
/// If it is not there, or damaged.
pub fn open(config: &Config, path: &Path) -> Result<Restored, Diagnostic> {
    let s3 = s3(config)?;
    let store = |root: &str| opened(root, &s3, &Faults::none(), "checkpoints");
    let read = match savepoint_of(&Restore::Path(path.to_owned())) {
        Some(folder) => Restored::of_savepoint(&Savepoint::new(store(&folder.to_string_lossy())?, "")),
        None => {
            let (root, id, number) = parts_of(path)?;
            let storage = Storage::new(store(&root)?, &id);
            storage.manifest(number).and_then(|manifest| Restored::read(manifest, &storage))
        }
    };
    read.map_err(|error| {
        Diagnostic::user(format!("`{}` cannot be read", path.display())).detail(error.to_string())
    })
}

/// Where savepoints of a run are put.
#[derive(Clone)]
pub struct SavepointFolder {
    store: Arc<dyn Store>,
    /// As users write it.
    root: String,
    /// What form they have.
    pub form: Form,
    /// The job's.
    job_id: String,
}

impl SavepointFolder {
    /// At `root`, or where the configuration says. None = it names none.
    ///
    /// # Errors
    /// If it cannot be there.
    pub fn of(
        config: &Config,
        root: Option<&str>,
        job_id: &str,
        faults: &Faults,
    ) -> Result<Option<Self>, Diagnostic> {
        let root = root.unwrap_or(config.get("execution.checkpointing.savepoint-dir").0);
        if root.is_empty() {
            return Ok(None);
        }
        let root = root.strip_prefix("file://").or(root.strip_prefix("file:")).unwrap_or(root);
        let is_native = config.get("execution.savepoint.format").0.eq_ignore_ascii_case("native");
        let form = if is_native { Form::Native } else { Form::Canonical };
        let store = opened(root, &s3(config)?, faults, "savepoints")?;
        let root = match root.contains("://") {
            true => root.trim_end_matches('/').to_owned(),
            false => format!("file:{}", root.trim_end_matches('/')),
        };
        Ok(Some(Self { store, root, form, job_id: job_id.to_owned() }))
    }

    /// A new savepoint, and its path.
    #[must_use]
    pub fn new_savepoint(&self) -> (Savepoint, String) {
        let name = Savepoint::name(&self.job_id, Random::unpredictable_seed());
        let path = format!("{}/{name}", self.root);
        (Savepoint::new(Arc::clone(&self.store), name).at(path.clone()), path)
    }
}

/// The savepoint that is to be made at a path, at which nothing is.
///
/// # Errors
/// If something is.
pub fn nothing_yet(config: &Config, path: &Path) -> Result<Savepoint, Diagnostic> {
    let text = path.to_string_lossy();
    let store = opened(&text, &s3(config)?, &Faults::none(), "savepoints")?;
    let is_there = match Location::parse(&text) {
        Ok(Location::Folder(folder)) => folder.try_exists(),
        _ => store.list("").map(|all| !all.is_empty()),
    };
    let is_there = is_there.map_err(|error| {
        Diagnostic::external(format!("`{text}` cannot be looked at")).detail(error.to_string())
    })?;
    if is_there {
        let error = Diagnostic::user(format!("`{text}` is there already"));
        return Err(error.hint("a savepoint is made in a new folder"));
    }
    Ok(Savepoint::new(store, ""))
}

/// Where a job's checkpoints are, which has gone on from `restore`; none = nowhere.
///
/// # Errors
/// If they cannot be there.
pub fn storage(
    config: &Config,
    restore: Option<&Restore>,
    id: &str,
    faults: &Faults,
) -> Result<Option<Storage>, Diagnostic> {
    let root = match (config.get("execution.checkpointing.dir").0, restore) {
        ("", Some(Restore::Path(path))) => match parts_of(path) {
            Ok((root, ..)) => root,
            Err(_) => return Ok(None),
        },
        ("", _) => return Ok(None),
        (root, _) => root.to_owned(),
    };
    Ok(Some(Storage::new(opened(&root, &s3(config)?, faults, "checkpoints")?, id)))
}

/// What is around a folder, and its name there; none where the path ends with no name.
fn around(folder: &Path) -> Option<(String, String)> {
    let (around, name) = (folder.parent()?.to_str()?, folder.file_name()?.to_str()?);
    let around = if around.is_empty() { "." } else { around };
    Some((around.to_owned(), name.to_owned()))
}

/// The savepoint at a path, to be removed.
///
/// # Errors
/// If it cannot be reached.
pub fn savepoint_at(config: &Config, path: &str) -> Result<Savepoint, String> {
    // In files the store is what is around the savepoint's folder, which goes with what was in it.
    let around = match Location::parse(path) {
        Ok(Location::Folder(whole)) => around(&whole),
        _ => None,
    };
    let (root, folder) = around.unwrap_or_else(|| (path.to_owned(), String::new()));
    let store = s3(config).and_then(|s3| opened(&root, &s3, &Faults::none(), "savepoints"));
    store.map(|store| Savepoint::new(store, folder)).map_err(|error| error.to_string())
}

/// Removes the checkpoints of a job that has ended, where the configuration does not keep them.
pub fn retain(config: &Config, storage: &Storage, outcome: &JobOutcome, tell: &dyn Tell) {
    let retention = config.get("execution.checkpointing.externalized-checkpoint-retention").0;
    let is_kept = match retention.to_ascii_uppercase().as_str() {
        "NO_EXTERNALIZED_CHECKPOINTS" => false,
        "DELETE_ON_CANCELLATION" => !matches!(outcome, JobOutcome::Cancelled),
        _ => true,
    };
    if is_kept {
        return;
    }
    let removed = storage.traces().and_then(|all| all.iter().try_for_each(|(id, _)| storage.remove(*id)));
    if let Err(error) = removed {
        tell.warn(&format!("the job's checkpoints cannot be removed: {error}"));
    }
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
            .detail("the folder of one is DIR/JOB-ID/chk-NUMBER; that of a savepoint has a file `_metadata`")
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
