//! How a savepoint lies in a store: a folder of its own, with paths that are relative to it, so that it can be
//! moved.
//!
//! ```text
//! savepoint-1a2b3c-0123456789ab/_metadata     the manifest, put last
//! savepoint-1a2b3c-0123456789ab/<part>        what the manifest names
//! ```
//!
//! Source: Flink's names of folders.

use std::io;
use std::sync::Arc;

use platform::Store;

use crate::manifest::{Damage, File, Manifest};
use crate::storage::{MANIFEST, StorageError, checked};

/// A savepoint in a store.
#[derive(Clone)]
pub struct Savepoint {
    store: Arc<dyn Store>,
    folder: String,
    location: String,
}

impl Savepoint {
    /// In this folder of a store; empty = the store is the folder.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, folder: impl Into<String>) -> Self {
        let folder = folder.into();
        Self { store, location: folder.clone(), folder }
    }

    /// The same, at this place, as users write it.
    #[must_use]
    pub fn at(self, location: impl Into<String>) -> Self {
        Self { location: location.into(), ..self }
    }

    /// Where it is, as users write it.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The name of the folder of a new one: of 6 digits of the job's id, and 12 of a random number.
    #[must_use]
    pub fn name(job: &str, random: u64) -> String {
        let job: String = job.chars().take(6).collect();
        format!("savepoint-{job}-{:012x}", random >> 16)
    }

    /// The folder that it is in.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }

    /// Puts a part. What the manifest says of it.
    ///
    /// # Errors
    /// If it may not be durable.
    pub fn put_part(&self, name: &str, bytes: &[u8]) -> io::Result<File> {
        self.store.put(&self.path(name), bytes)?;
        Ok(File::of(bytes))
    }

    /// Puts the manifest: from now on the savepoint is complete.
    ///
    /// # Errors
    /// If it may not be durable. It may be, all the same.
    pub fn put_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        self.store.put(&self.path(MANIFEST), &manifest.to_bytes())
    }

    /// Its manifest.
    ///
    /// # Errors
    /// If it is damaged or missing, or the store does not answer.
    pub fn manifest(&self) -> Result<Manifest, StorageError> {
        Manifest::of_store(&*self.store, &self.path(MANIFEST))
    }

    /// A file that its manifest names, checked.
    ///
    /// # Errors
    /// If it is damaged or missing, or the store does not answer.
    pub fn file(&self, name: &str, file: &File) -> Result<Vec<u8>, StorageError> {
        checked(&*self.store, &self.path(name), file)
    }

    /// Disposes of it: removes what its manifest names, the manifest first. Whatever else lies in its folder stays.
    ///
    /// # Errors
    /// If it is no savepoint: then nothing is removed; or if some of it may still be there.
    pub fn dispose(&self) -> Result<(), StorageError> {
        let manifest = self.manifest()?;
        if !manifest.is_savepoint {
            let why = "it is of a checkpoint, whose files may be those of others too".to_owned();
            return Err(Damage::NoSavepoint(self.path(MANIFEST), why).into());
        }
        self.store.remove(&self.path(MANIFEST))?;
        Ok(manifest.files.keys().try_for_each(|name| self.store.remove(&self.path(name)))?)
    }

    /// Removes all of it, the manifest first.
    ///
    /// # Errors
    /// If some of it may still be there; what is, is no savepoint once its manifest has gone.
    pub fn remove(&self) -> io::Result<()> {
        self.store.remove(&self.path(MANIFEST))?;
        self.store.list(&self.folder)?.iter().try_for_each(|path| self.store.remove(path))
    }
}

#[cfg(test)]
mod tests {
    use platform::disk::ModelDisk;
    use platform::store::FileStore;
    use platform::{Disk, Faults};

    use super::*;
    use crate::manifest::JobName;

    #[test]
    fn what_is_no_savepoint_is_not_disposed_of() {
        let store: Arc<dyn Store> =
            Arc::new(FileStore::new(Arc::new(ModelDisk::new()) as Arc<dyn Disk>, Faults::none()));
        store.put("outside", b"mine").unwrap();
        let savepoint = Savepoint::new(Arc::clone(&store), "a/b");
        let job = JobName { id: "ab".repeat(16), name: "job".into(), component: String::new() };
        let disposed = |is_savepoint: bool, name: &str| {
            let mut manifest = Manifest::new(job.clone(), 4);
            manifest.is_savepoint = is_savepoint;
            manifest.files.insert(name.into(), File::of(b"mine"));
            store.put("a/b/part", b"mine").unwrap();
            savepoint.put_manifest(&manifest).unwrap();
            savepoint.dispose().map_err(|error| error.to_string())
        };
        assert!(disposed(false, "part").unwrap_err().contains("is no savepoint: it is of a checkpoint"));
        for name in ["../../outside", "/outside", "", "./part", "..", "of/../../../outside", "of\\..", "a\0b"]
        {
            assert!(disposed(true, name).unwrap_err().contains("lies outside of its folder"), "{name:?}");
        }
        assert_eq!(store.list("").unwrap(), ["a/b/_metadata", "a/b/part", "outside"]);
        disposed(true, "part").unwrap();
        assert_eq!(store.list("").unwrap(), ["outside"]);
    }

    #[test]
    fn it_can_be_moved_and_says_what_is_damaged() {
        let disk = ModelDisk::new();
        let store: Arc<dyn Store> = Arc::new(FileStore::new(Arc::new(disk.clone()), Faults::none()));
        let savepoint =
            Savepoint::new(Arc::clone(&store), Savepoint::name("abcdef0123", 0x1234_5678_9abc_def0));
        assert_eq!(savepoint.folder(), "savepoint-abcdef-123456789abc");
        let missing = savepoint.manifest().unwrap_err().to_string();
        assert_eq!(missing, "`savepoint-abcdef-123456789abc/_metadata` is missing");
        let job = JobName { id: "abcdef0123".into(), name: "job".into(), component: String::new() };
        let mut manifest = Manifest::new(job, 4);
        manifest.is_savepoint = true;
        manifest.files.insert("of/one".into(), savepoint.put_part("of/one", b"one").unwrap());
        savepoint.put_manifest(&manifest).unwrap();
        for name in ["of/one", "_metadata"] {
            let bytes = disk.read(&format!("{}/{name}", savepoint.folder())).unwrap();
            store.put(&format!("elsewhere/{name}"), &bytes).unwrap();
        }
        store.put(&format!("{}/of/another", savepoint.folder()), b"").unwrap();
        savepoint.dispose().unwrap();
        let kept = format!("{}/of/another", savepoint.folder());
        assert_eq!(store.list(savepoint.folder()).unwrap(), [kept]);
        assert!(savepoint.dispose().is_err());
        savepoint.remove().unwrap();
        assert_eq!(disk.list("").unwrap(), ["elsewhere/"]);
        let moved = Savepoint::new(Arc::clone(&store), "elsewhere");
        assert_eq!(moved.manifest().unwrap(), manifest);
        assert_eq!(moved.file("of/one", &manifest.files["of/one"]).unwrap(), b"one");
        store.put("elsewhere/of/one", b"two").unwrap();
        let damaged = moved.file("of/one", &manifest.files["of/one"]).unwrap_err().to_string();
        assert_eq!(damaged, "`elsewhere/of/one` is damaged: it is not what was written");
    }
}
