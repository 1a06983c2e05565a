//! Where durable things are put: whole objects by path, which are there as they were put, or not at all.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::SystemDisk;
use crate::faults::Point;
use crate::{Disk, Faults};

mod objects;
pub use objects::{ObjectStore, S3};

/// Objects by paths with `/` between the names. Every call blocks.
pub trait Store: Send + Sync {
    /// Puts an object in place of what was there. When it returns, the object is durable.
    ///
    /// # Errors
    /// If it may not be there; what was there before may be.
    fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Puts an object that nobody has put before. Bytes that are there already as they are given are nobody
    /// else's: the reply to an earlier try may have been lost. In files a process that puts at the same moment
    /// is not seen.
    ///
    /// # Errors
    /// If another one is there ([`io::ErrorKind::AlreadyExists`]), which stays; or as [`put`](Self::put).
    fn put_new(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// An object.
    ///
    /// # Errors
    /// If it is not there ([`io::ErrorKind::NotFound`]), or cannot be read.
    fn get(&self, path: &str) -> io::Result<Vec<u8>>;
    /// The paths of all objects whose paths begin with these names, in order.
    ///
    /// # Errors
    /// If they cannot be read.
    fn list(&self, names: &str) -> io::Result<Vec<String>>;
    /// Removes an object; one that is not there is removed.
    ///
    /// # Errors
    /// If it may still be there.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes what processes have begun to put below these names, and not ended. No other may put anything
    /// there meanwhile.
    ///
    /// # Errors
    /// If it cannot be looked for, or may still be there.
    fn sweep(&self, names: &str) -> io::Result<()>;
}

/// Where objects are put, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder: `/data`, `data`, `file:///data`, `file:/data`.
    Folder(PathBuf),
    /// Below a name in a bucket: `s3://bucket/name`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The name; none = all of it.
        prefix: String,
    },
}

/// Why a text says no place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLocation {
    /// Of a kind that there is not.
    #[error("`{0}` is in no store that is known: a folder, file:///FOLDER, s3://BUCKET/NAME")]
    Scheme(String),
    /// Without a bucket.
    #[error("`{0}` names no bucket: s3://BUCKET/NAME")]
    Bucket(String),
}

impl Location {
    /// Reads it.
    ///
    /// # Errors
    /// If it is in no store that is known.
    pub fn parse(text: &str) -> Result<Self, NoLocation> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Folder(text.strip_prefix("file:").unwrap_or(text).into()));
        };
        match scheme {
            "file" => Ok(Self::Folder(rest.into())),
            // Flink's names for its file systems of S3.
            "s3" | "s3a" | "s3p" => match rest.split_once('/').unwrap_or((rest, "")) {
                ("", _) => Err(NoLocation::Bucket(text.to_owned())),
                (bucket, prefix) => {
                    let prefix = prefix.trim_matches('/').to_owned();
                    Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
                }
            },
            _ => Err(NoLocation::Scheme(text.to_owned())),
        }
    }

    /// The store that is there; S3 is reached so.
    ///
    /// # Errors
    /// If it cannot be reached that way. What is there is not looked for.
    pub fn open(&self, s3: &S3, faults: Faults) -> io::Result<Arc<dyn Store>> {
        Ok(match self {
            Self::Folder(folder) => Arc::new(FileStore::new(Arc::new(SystemDisk::new(folder)), faults)),
            Self::S3 { bucket, prefix } => Arc::new(ObjectStore::s3(bucket, prefix, s3, faults)?),
        })
    }
}

/// A store in files: each object is written under another name, made durable, and then given its own.
pub struct FileStore {
    disk: Arc<dyn Disk>,
    faults: Faults,
    /// For names that nobody has.
    next: AtomicU64,
    process: u32,
}

/// Files that are not objects yet begin so.
const UNFINISHED: &str = ".unfinished-";

impl FileStore {
    /// On this disk.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, faults: Faults) -> Self {
        Self { disk, faults, next: AtomicU64::new(0), process: std::process::id() }
    }

    /// Writes an object, which is not there until its last step but one.
    fn write(&self, unfinished: &str, path: &str, folder: &str, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Point::StoreWrite)?;
        self.disk.create(unfinished, bytes)?;
        self.faults.pass(Point::StoreSync)?;
        self.disk.sync(unfinished)?;
        self.faults.pass(Point::StoreRename)?;
        self.disk.rename(unfinished, path)?;
        self.faults.pass(Point::StoreSyncFolder)?;
        self.disk.sync_folder(folder)?;
        self.faults.pass(Point::StoreDone)
    }
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl Store for FileStore {
    fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.disk.create_folder(folder)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = joined(folder, &format!("{UNFINISHED}{}-{number}", self.process));
        let written = self.write(&unfinished, path, folder, bytes);
        if written.is_err() {
            // It is gone already where the renaming was done; and what cannot be removed is swept later.
            drop(self.disk.remove(&unfinished));
        }
        written
    }

    fn put_new(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        match self.disk.read(path) {
            Ok(there) if there == bytes => Ok(()),
            Ok(_) => {
                let why = format!("`{path}` is there: another process has put it");
                Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.put(path, bytes),
            Err(error) => Err(error),
        }
    }

    fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        self.faults.pass(Point::StoreRead)?;
        self.disk.read(path)
    }

    fn list(&self, names: &str) -> io::Result<Vec<String>> {
        let (mut found, mut ahead) = (Vec::new(), vec![names.to_owned()]);
        while let Some(folder) = ahead.pop() {
            for name in self.disk.list(&folder)? {
                let path = joined(&folder, name.trim_end_matches('/'));
                match name.ends_with('/') {
                    true => ahead.push(path),
                    false if name.starts_with(UNFINISHED) => {}
                    false => found.push(path),
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.faults.pass(Point::StoreRemove)?;
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.disk.sync_folder(folder)?;
        // Folders are there for what is in them: nobody asks for an empty one.
        while !folder.is_empty() && self.disk.list(folder)?.is_empty() {
            self.disk.remove(folder)?;
            folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        }
        self.faults.pass(Point::StoreRemoved)
    }

    fn sweep(&self, names: &str) -> io::Result<()> {
        let (mut folders, mut at) = (vec![names.to_owned()], 0);
        while let Some(folder) = folders.get(at).cloned() {
            for name in self.disk.list(&folder)? {
                let path = joined(&folder, name.trim_end_matches('/'));
                if name.ends_with('/') {
                    folders.push(path);
                } else if name.starts_with(UNFINISHED) {
                    self.disk.remove(&path)?;
                }
            }
            at += 1;
        }
        // A removal that was cut off leaves a folder with nothing in it; those inside come after those around them.
        for folder in folders[1..].iter().rev() {
            if self.disk.list(folder)?.is_empty() {
                self.disk.remove(folder)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{ModelDisk, SystemDisk};
    use crate::{Clock, Random};

    fn faults(text: &str) -> Faults {
        Faults::parse(text, &Clock::simulated()).unwrap()
    }

    /// What every store does.
    pub(crate) fn keeps(store: &dyn Store) {
        store.put("a/b/one", b"1").unwrap();
        store.put("a/two", b"2").unwrap();
        store.put("a/b/one", b"11").unwrap();
        store.put_new("a/b/one", b"11").unwrap();
        let other = store.put_new("a/b/one", b"12").unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists, "{other}");
        store.put_new("ab/one", b"3").unwrap();
        assert_eq!(store.get("a/b/one").unwrap(), b"11");
        assert_eq!(store.list("a").unwrap(), ["a/b/one", "a/two"]);
        assert_eq!(store.list("a/b").unwrap(), ["a/b/one"]);
        assert_eq!(store.list("none").unwrap(), Vec::<String>::new());
        assert_eq!(store.get("a/none").unwrap_err().kind(), io::ErrorKind::NotFound);
        store.remove("a/b/one").unwrap();
        store.remove("a/none").unwrap();
        store.remove("ab/one").unwrap();
        assert_eq!(store.list("").unwrap(), ["a/two"]);
    }

    #[test]
    fn keeps_what_is_put_on_either_disk() {
        let folder = tempfile::tempdir().unwrap();
        let disks: [Arc<dyn Disk>; 2] =
            [Arc::new(SystemDisk::new(folder.path().join("root"))), Arc::new(ModelDisk::new())];
        for disk in disks {
            keeps(&FileStore::new(Arc::clone(&disk), Faults::none()));
            assert_eq!(disk.list("a").unwrap(), ["two"]);
        }
    }

    #[test]
    fn a_place_is_a_folder_or_in_a_bucket() {
        let in_bucket = |prefix: &str| Location::S3 { bucket: "b".into(), prefix: prefix.into() };
        for (text, place) in [
            ("a/b", Location::Folder("a/b".into())),
            ("file:///a/b", Location::Folder("/a/b".into())),
            ("file:a/b", Location::Folder("a/b".into())),
            ("s3://b", in_bucket("")),
            ("s3a://b/c/d/", in_bucket("c/d")),
        ] {
            assert_eq!(Location::parse(text), Ok(place));
        }
        assert_eq!(Location::parse("hdfs://a/b"), Err(NoLocation::Scheme("hdfs://a/b".into())));
        assert_eq!(Location::parse("s3:///b"), Err(NoLocation::Bucket("s3:///b".into())));
    }

    #[test]
    fn a_folder_that_a_crash_has_left_empty_is_swept() {
        let disk = ModelDisk::new();
        let store = FileStore::new(Arc::new(disk.clone()), Faults::none());
        store.put("a/b/c/one", b"1").unwrap();
        // As after a removal that ended before its last step.
        disk.remove("a/b/c/one").unwrap();
        store.put("a/two", b"2").unwrap();
        store.sweep("a").unwrap();
        assert_eq!(disk.list("a").unwrap(), ["two"]);
        store.remove("a/two").unwrap();
        store.sweep("a").unwrap();
    }

    #[test]
    fn what_fails_is_not_there_and_leaves_nothing() {
        for point in ["store.write", "store.sync", "store.rename"] {
            for fault in ["eio", "enospc"] {
                let disk = ModelDisk::new();
                let store = FileStore::new(Arc::new(disk.clone()), faults(&format!("{point}@2={fault}")));
                store.put("a/one", b"old").unwrap();
                assert!(store.put("a/one", b"new").is_err(), "{point} {fault}");
                assert_eq!(disk.list("a").unwrap(), ["one"], "{point} {fault}");
                assert_eq!(store.get("a/one").unwrap(), b"old");
                store.put("a/one", b"new").unwrap();
                assert_eq!(store.get("a/one").unwrap(), b"new");
            }
        }
    }

    /// A point that is not passed when something is put.
    const NOWHERE: &str = "store.read";

    /// Puts objects until a fault, then crashes; what a store finds afterwards.
    fn crashed(seed: u64, point: &str, nth: u64, careless: bool) -> Result<(), String> {
        let disk = ModelDisk::new();
        let store = FileStore::new(Arc::new(disk.clone()), faults(&format!("{point}@{nth}=eio")));
        let mut random = Random::of_seed(seed);
        let (mut acknowledged, mut tried): (Option<u64>, Option<u64>) = (None, None);
        for version in 0..6 {
            tried = Some(version);
            let bytes = version.to_string().repeat(100).into_bytes();
            let put = match careless {
                // Without making the bytes durable first.
                true => disk.create_folder("a").and_then(|()| {
                    disk.create(&format!("a/x{version}"), &bytes)?;
                    disk.rename(&format!("a/x{version}"), "a/one")?;
                    disk.sync_folder("a")
                }),
                false => store.put("a/one", &bytes),
            };
            if put.is_err() {
                break;
            }
            acknowledged = Some(version);
        }
        disk.crash(&mut random);
        store.sweep("").map_err(|error| error.to_string())?;
        let found = FileStore::new(Arc::new(disk), Faults::none()).get("a/one").ok();
        let is = |version: Option<u64>| version.map(|v| v.to_string().repeat(100).into_bytes()) == found;
        match is(acknowledged) || is(tried) {
            true => Ok(()),
            false => {
                Err(format!("{acknowledged:?} was acknowledged, {tried:?} tried, and {found:?} is there"))
            }
        }
    }

    proptest! {
        #[test]
        fn after_a_crash_an_object_is_the_last_that_was_acknowledged_or_the_next(
            seed in any::<u64>(),
            point in prop::sample::select(vec![
                "store.write", "store.sync", "store.rename", "store.sync-folder", "store.done", NOWHERE,
            ]),
            nth in 1..7u64,
        ) {
            let found = crashed(seed, point, nth, false);
            prop_assert!(found.is_ok(), "{}", found.unwrap_err());
        }
    }

    #[test]
    fn a_store_that_does_not_wait_for_the_disk_is_reported() {
        let reported = (0..20).filter(|seed| crashed(*seed, NOWHERE, 1, true).is_err()).count();
        assert!(reported > 10, "{reported} of 20 seeds");
    }
}
