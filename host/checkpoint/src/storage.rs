//! How checkpoints lie in a store, Flink's way:
//!
//! ```text
//! <job id>/chk-42/_metadata      the manifest, put last
//! <job id>/chk-42/<part>         what the manifest names
//! ```
//!
//! A folder without a manifest is of no checkpoint that is complete. To remove one its manifest goes first; so what is
//! left over by a crash on the way is never taken for a checkpoint. A manifest may name parts of checkpoints before
//! it: these stay for as long as one does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platform::Store;

use crate::coordinator::CheckpointId;
use crate::manifest::{Damage, File, Manifest};

/// The manifest's name in its folder.
pub(crate) const MANIFEST: &str = "_metadata";
const PREFIX: &str = "chk-";
/// The folder of components.
const COMPONENTS: &str = "components";

/// The checkpoints of one job in a store.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn Store>,
    job: String,
    /// Which files manifests name, as far as they have been put or read.
    named: Arc<Mutex<BTreeMap<CheckpointId, BTreeSet<String>>>>,
    removing: Arc<Mutex<()>>,
    /// Components that the job needs, whether a manifest names them or not.
    held: Arc<Mutex<BTreeSet<String>>>,
}

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The store does not answer.
    #[error("the checkpoint storage cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The newest checkpoint that is whole.
#[derive(Debug)]
pub struct Latest<T> {
    /// What has been read of it; none = there is no whole one.
    pub found: Option<T>,
    /// Newer ones that were passed over, and why, the newest first.
    pub damaged: Vec<(CheckpointId, Damage)>,
    /// A number above those of all that there are traces of.
    pub next: CheckpointId,
}

/// An object that a manifest names, checked.
pub(crate) fn checked(store: &dyn Store, path: &str, file: &File) -> Result<Vec<u8>, StorageError> {
    let bytes = there(store, path)?;
    file.check(path, &bytes)?;
    Ok(bytes)
}

/// An object that is to be there.
fn there(store: &dyn Store, path: &str) -> Result<Vec<u8>, StorageError> {
    match store.get(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Damage::Missing(path.to_owned()).into()),
        bytes => Ok(bytes?),
    }
}

impl Manifest {
    /// The one at this path.
    pub(crate) fn of_store(store: &dyn Store, path: &str) -> Result<Self, StorageError> {
        Ok(Self::from_bytes(path, &there(store, path)?)?)
    }
}

impl Storage {
    /// Those of the job of this id.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, job: &str) -> Self {
        Self {
            store,
            job: job.to_owned(),
            named: Arc::default(),
            removing: Arc::default(),
            held: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<CheckpointId, BTreeSet<String>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that the manifest of a checkpoint names; none if it cannot be read for ever.
    fn files_of(&self, checkpoint: CheckpointId) -> io::Result<BTreeSet<String>> {
        if let Some(files) = self.known().get(&checkpoint) {
            return Ok(files.clone());
        }
        let files: BTreeSet<String> = match Manifest::of_store(&*self.store, &self.manifest_path(checkpoint))
        {
            Ok(manifest) => manifest.files.into_keys().collect(),
            Err(StorageError::Damaged(_)) => return Ok(BTreeSet::new()),
            Err(StorageError::Io(error)) => return Err(error),
        };
        self.known().insert(checkpoint, files.clone());
        Ok(files)
    }

    /// The files that the manifests of these checkpoints name.
    fn named_by(&self, checkpoints: impl Iterator<Item = CheckpointId>) -> io::Result<BTreeSet<String>> {
        let mut named = BTreeSet::new();
        for id in checkpoints {
            named.extend(self.files_of(id)?);
        }
        Ok(named)
    }

    /// The checkpoint that a path is of, and the name below.
    fn parts_of<'a>(&self, path: &'a str) -> Option<(CheckpointId, &'a str)> {
        let (folder, name) = path.get(self.job.len() + 1..)?.split_once('/')?;
        Some((folder.strip_prefix(PREFIX)?.parse().ok()?, name))
    }

    fn folder(&self, checkpoint: CheckpointId) -> String {
        format!("{}/{PREFIX}{checkpoint}", self.job)
    }

    fn manifest_path(&self, checkpoint: CheckpointId) -> String {
        format!("{}/{MANIFEST}", self.folder(checkpoint))
    }

    /// Puts a part of a checkpoint. Its path and what the manifest says of it.
    ///
    /// # Errors
    /// If it may not be durable, or another process has put one ([`io::ErrorKind::AlreadyExists`]).
    pub fn put_part(&self, checkpoint: CheckpointId, name: &str, bytes: &[u8]) -> io::Result<(String, File)> {
        let path = format!("{}/{name}", self.folder(checkpoint));
        self.store.put_new(&path, bytes)?;
        Ok((path, File::of(bytes)))
    }

    /// Puts the manifest: from now on the checkpoint is complete.
    ///
    /// # Errors
    /// If another process has put one ([`io::ErrorKind::AlreadyExists`]). Or if it may not be durable; it may be,
    /// all the same: [`remove`](Self::remove) it before anything is told.
    pub fn put_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        self.store.put_new(&self.manifest_path(manifest.checkpoint), &manifest.to_bytes())?;
        self.known().insert(manifest.checkpoint, manifest.files.keys().cloned().collect());
        Ok(())
    }

    /// Where a component lies, by its digest.
    #[must_use]
    pub fn component_path(&self, digest: &str) -> String {
        format!("{}/{COMPONENTS}/{digest}.wasm", self.job)
    }

    /// These components stay until others are held, and then for as long as a manifest names them.
    pub fn hold_components<'a>(&self, digests: impl Iterator<Item = &'a str>) {
        let paths = digests.map(|digest| self.component_path(digest)).collect();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = paths;
    }

    /// Puts a component, if it is not there. Its path and what manifests say of it.
    ///
    /// # Errors
    /// If it may not be durable.
    pub fn put_component(&self, digest: &str, bytes: &[u8]) -> io::Result<(String, File)> {
        let path = self.component_path(digest);
        match self.store.put_new(&path, bytes) {
            // Its name says what it is.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            put => put?,
        }
        Ok((path, File::of(bytes)))
    }

    /// A component, by its digest. Whether what is there has that digest is to be looked at.
    ///
    /// # Errors
    /// If it is not there, or the store does not answer.
    pub fn component(&self, digest: &str) -> io::Result<Vec<u8>> {
        self.store.get(&self.component_path(digest))
    }

    /// A file that a manifest names, checked.
    ///
    /// # Errors
    /// If it is damaged or missing, or the store does not answer.
    pub fn file(&self, path: &str, file: &File) -> Result<Vec<u8>, StorageError> {
        checked(&*self.store, path, file)
    }

    /// The numbers of all checkpoints of which there is anything, and whether a manifest is there.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn traces(&self) -> io::Result<Vec<(CheckpointId, bool)>> {
        Ok(self.traces_in(&self.store.list(&self.job)?).into_iter().collect())
    }

    fn traces_in(&self, paths: &[String]) -> BTreeMap<CheckpointId, bool> {
        let mut traces = BTreeMap::new();
        for (id, name) in paths.iter().filter_map(|path| self.parts_of(path)) {
            *traces.entry(id).or_default() |= name == MANIFEST;
        }
        traces
    }

    /// The manifest of a checkpoint, alone.
    ///
    /// # Errors
    /// If it is damaged or missing, or the store does not answer.
    pub fn manifest(&self, checkpoint: CheckpointId) -> Result<Manifest, StorageError> {
        Manifest::of_store(&*self.store, &self.manifest_path(checkpoint))
    }

    /// Whether all that a manifest names is there as it was written.
    ///
    /// # Errors
    /// If anything of it is damaged or missing, or the store does not answer.
    pub fn check(&self, manifest: Manifest) -> Result<Manifest, StorageError> {
        manifest.files.iter().try_for_each(|(path, file)| self.file(path, file).map(drop))?;
        Ok(manifest)
    }

    /// The newest checkpoint that `read` finds whole: those that are damaged are passed over, and said.
    ///
    /// # Errors
    /// If the store does not answer: that is no reason to go back to an older one.
    pub fn latest<T>(&self, read: impl Fn(Manifest) -> Result<T, StorageError>) -> io::Result<Latest<T>> {
        let traces = self.traces()?;
        let next = traces.last().map_or(1, |(id, _)| id + 1);
        let mut latest = Latest { found: None, damaged: Vec::new(), next };
        for (id, _) in traces.into_iter().rev().filter(|(_, has_manifest)| *has_manifest) {
            match self.manifest(id).and_then(&read) {
                Ok(found) => {
                    latest.found = Some(found);
                    break;
                }
                Err(StorageError::Damaged(damage)) => latest.damaged.push((id, damage)),
                Err(StorageError::Io(error)) => return Err(error),
            }
        }
        Ok(latest)
    }

    /// Removes a checkpoint, or what is left of one, but for what others name.
    ///
    /// # Errors
    /// If some of it may still be there; what is, is no checkpoint once its manifest has gone.
    pub fn remove(&self, checkpoint: CheckpointId) -> io::Result<()> {
        // Two that go at once would each leave what the other names.
        let _one_by_one = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = self.store.list(&self.job)?;
        let is_of = |path: &&String| {
            self.parts_of(path).is_some_and(|(id, name)| id == checkpoint && name != MANIFEST)
        };
        let mut files: BTreeSet<String> = paths.iter().filter(is_of).cloned().collect();
        let (mut others, traces) = (BTreeSet::new(), self.traces_in(&paths));
        others.extend(traces.iter().filter(|(_, has_manifest)| **has_manifest).map(|(id, _)| *id));
        if others.remove(&checkpoint) {
            files.extend(self.files_of(checkpoint)?);
        }
        let components = self.component_path("");
        let components = components.trim_end_matches(".wasm");
        files.extend(paths.iter().filter(|path| path.starts_with(components)).cloned());
        let named = self.named_by(others.into_iter())?;
        self.store.remove(&self.manifest_path(checkpoint))?;
        self.known().remove(&checkpoint);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        files
            .difference(&named)
            .filter(|path| !held.contains(*path))
            .try_for_each(|path| self.store.remove(path))
    }

    /// Removes what checkpoints have left that are not complete, but for these, and for what others name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn sweep(&self, under_way: &[CheckpointId]) -> io::Result<()> {
        let paths = self.store.list(&self.job)?;
        let mut traces = self.traces_in(&paths);
        traces.retain(|_, has_manifest| *has_manifest);
        let named = self.named_by(traces.keys().copied())?;
        let components = format!("{}/{COMPONENTS}/", self.job);
        let is_left = |path: &&String| {
            if path.starts_with(&components) {
                return !named.contains(*path);
            }
            let id = self.parts_of(path).map(|(id, _)| id);
            id.is_some_and(|id| !traces.contains_key(&id) && !under_way.contains(&id))
                && !named.contains(*path)
        };
        paths.iter().filter(is_left).try_for_each(|path| self.store.remove(path))
    }
}

#[cfg(test)]
mod tests {
    use platform::disk::ModelDisk;
    use platform::store::FileStore;
    use platform::{Clock, Disk, Faults, Random};
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::JobName;

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    fn on(disk: &ModelDisk, faults: Faults) -> Storage {
        Storage::new(Arc::new(FileStore::new(Arc::new(disk.clone()), faults)), JOB)
    }

    /// Makes a checkpoint of two parts.
    fn make(storage: &Storage, checkpoint: CheckpointId) -> io::Result<()> {
        let job = JobName { id: JOB.into(), name: "job".into(), component: String::new() };
        let mut manifest = Manifest::new(job, checkpoint);
        for name in ["one", "two"] {
            let (path, file) =
                storage.put_part(checkpoint, name, format!("{name} {checkpoint}").as_bytes())?;
            manifest.files.insert(path, file);
        }
        storage.put_manifest(&manifest)
    }

    fn latest(storage: &Storage) -> (Option<CheckpointId>, Vec<String>, CheckpointId) {
        let latest = storage.latest(|manifest| storage.check(manifest)).unwrap();
        let damaged = latest.damaged.iter().map(|(_, damage)| damage.to_string()).collect();
        (latest.found.map(|manifest| manifest.checkpoint), damaged, latest.next)
    }

    #[test]
    fn the_newest_whole_one_is_found_and_what_is_damaged_is_named() {
        let disk = ModelDisk::new();
        let storage = on(&disk, Faults::none());
        assert_eq!(latest(&storage), (None, vec![], 1));
        for checkpoint in [8, 9, 10, 11] {
            make(&storage, checkpoint).unwrap();
        }
        storage.put_part(12, "one", b"never complete").unwrap();
        assert_eq!(latest(&storage), (Some(11), vec![], 13));
        // A flipped bit, a missing file, a manifest cut short.
        let at = |path: &str| format!("{JOB}/{path}");
        let replace = |path: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = disk.read(&at(path)).unwrap();
            change(&mut bytes);
            disk.remove(&at(path)).unwrap();
            disk.create(&at(path), &bytes).unwrap();
        };
        replace("chk-11/two", &|bytes| bytes[0] ^= 1);
        disk.remove(&at("chk-10/one")).unwrap();
        replace("chk-9/_metadata", &|bytes| bytes.truncate(40));
        let damaged = [
            format!("`{JOB}/chk-11/two` is damaged: it is not what was written"),
            format!("`{JOB}/chk-10/one` is missing"),
            format!("`{JOB}/chk-9/_metadata` is damaged: it is not what was written"),
        ];
        assert_eq!(latest(&storage), (Some(8), damaged.to_vec(), 13));
        storage.sweep(&[12]).unwrap();
        assert_eq!(storage.traces().unwrap().len(), 5);
        storage.sweep(&[]).unwrap();
        storage.remove(9).unwrap();
        assert_eq!(storage.traces().unwrap(), [(8, true), (10, true), (11, true)]);
    }

    /// What checkpoints name of those before them stays for as long as one of them does.
    #[test]
    fn a_part_goes_with_the_last_that_names_it() {
        let disk = ModelDisk::new();
        let storage = on(&disk, Faults::none());
        let make = |checkpoint: CheckpointId, upon: &[CheckpointId]| {
            let job = JobName { id: JOB.into(), name: "job".into(), component: String::new() };
            let mut manifest = Manifest::new(job, checkpoint);
            let (path, file) = storage.put_part(checkpoint, "data-0", b"some").unwrap();
            manifest.files.insert(path, file);
            for other in upon {
                manifest.files.insert(format!("{JOB}/chk-{other}/data-0"), File::of(b"some"));
            }
            storage.put_manifest(&manifest).unwrap();
        };
        let left = |storage: &Storage| {
            let mut left = storage.store.list(JOB).unwrap();
            left.sort();
            left.into_iter().map(|path| path.replace(&format!("{JOB}/chk-"), "")).collect::<Vec<_>>()
        };
        make(1, &[]);
        make(2, &[1]);
        storage.remove(1).unwrap();
        make(3, &[1, 2]);
        storage.remove(2).unwrap();
        assert_eq!(left(&storage), ["1/data-0", "2/data-0", "3/_metadata", "3/data-0"]);
        // Another process, which has put none of them.
        let other = on(&disk, Faults::none());
        other.sweep(&[]).unwrap();
        assert_eq!(left(&other).len(), 4);
        assert_eq!(other.manifest(3).and_then(|manifest| other.check(manifest)).unwrap().files.len(), 3);
        make(4, &[]);
        other.remove(3).unwrap();
        assert_eq!(left(&other), ["4/_metadata", "4/data-0"]);
        // A crash has left the manifest's removal alone.
        make(5, &[4]);
        disk.remove(&format!("{JOB}/chk-5/_metadata")).unwrap();
        on(&disk, Faults::none()).sweep(&[]).unwrap();
        assert_eq!(left(&other), ["4/_metadata", "4/data-0"]);
    }

    #[test]
    fn a_store_that_does_not_answer_is_no_reason_to_go_back() {
        let disk = ModelDisk::new();
        make(&on(&disk, Faults::none()), 1).unwrap();
        let faults = Faults::parse("store.read=eio", &Clock::simulated()).unwrap();
        let storage = on(&disk, faults);
        assert!(storage.latest(|manifest| storage.check(manifest)).is_err());
    }

    /// Makes and removes checkpoints until a fault, crashes, and looks what is there: which checkpoint
    /// was complete last, and which is found.
    fn crashed(seed: u64, point: &str, nth: u64) -> Result<(), String> {
        let disk = ModelDisk::new();
        let storage = on(&disk, Faults::parse(&format!("{point}@{nth}=eio"), &Clock::simulated()).unwrap());
        let (mut complete, mut tried) = (0, 0);
        for checkpoint in 1..8 {
            tried = checkpoint;
            if make(&storage, checkpoint).is_err() {
                break;
            }
            complete = checkpoint;
            if checkpoint > 1 && storage.remove(checkpoint - 1).is_err() {
                break;
            }
        }
        disk.crash(&mut Random::of_seed(seed));
        let after = on(&disk, Faults::none());
        let found = after.latest(|manifest| after.check(manifest)).map_err(|error| error.to_string())?;
        let number = found.found.as_ref().map_or(0, |manifest| manifest.checkpoint);
        if number != complete && number != tried {
            return Err(format!("{complete} was complete, {tried} tried, and {number} is found"));
        }
        if !found.damaged.is_empty() {
            return Err(format!("{:?} are taken for checkpoints", found.damaged));
        }
        if found.next <= tried
            && after.traces().is_ok_and(|traces| traces.iter().any(|(id, _)| *id >= found.next))
        {
            return Err(format!("{} would be used again", found.next));
        }
        after.sweep(&[]).map_err(|error| error.to_string())?;
        let left = after.traces().map_err(|error| error.to_string())?;
        match left.iter().all(|(_, has_manifest)| *has_manifest) {
            true => Ok(()),
            false => Err(format!("{left:?} is left over")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn a_crash_anywhere_loses_no_complete_checkpoint_and_makes_up_none(
            seed in any::<u64>(),
            point in prop::sample::select(vec![
                "store.write", "store.sync", "store.rename", "store.sync-folder", "store.done", "store.remove",
            ]),
            nth in 1..24u64,
        ) {
            let found = crashed(seed, point, nth);
            prop_assert!(found.is_ok(), "{}", found.unwrap_err());
        }
    }

    #[test]
    fn a_manifest_that_is_put_first_is_reported() {
        let reported = (0..40).filter(|seed| {
            let disk = ModelDisk::new();
            let storage = on(&disk, Faults::none());
            let job = JobName { id: JOB.into(), name: "job".into(), component: String::new() };
            let mut manifest = Manifest::new(job, 1);
            manifest.files.insert(format!("{JOB}/chk-1/one"), File::of(b"one"));
            storage.put_manifest(&manifest).unwrap();
            // The part is written, and not made durable.
            disk.create(&format!("{JOB}/chk-1/one"), b"one").unwrap();
            disk.crash(&mut Random::of_seed(*seed));
            let after = on(&disk, Faults::none());
            !after.latest(|manifest| after.check(manifest)).unwrap().damaged.is_empty()
        });
        assert!(reported.count() > 10);
    }
}
