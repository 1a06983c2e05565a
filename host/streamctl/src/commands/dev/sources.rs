//! The sources of a project: which files they are, and whether one has changed.
//!
//! Sources are what Cargo and the compiler read by their names, and what else the compiler has read for the last build.
//! What the system tells of changes says only when to look; what has changed is found by looking.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ignore::WalkBuilder;
use inotify::{EventMask, Inotify, WatchMask, Watches};
use platform::spawn_thread;

use super::bell::Bell;
use crate::toolchain::Built;

/// Files that Cargo reads beside those of Rust.
const NAMES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "rust-toolchain", "rust-toolchain.toml"];
/// Those that lie in hidden folders.
const HIDDEN: [&str; 2] = [".cargo/config.toml", ".cargo/config"];
/// In a folder it says that all there can be made again: Cargo's target folders have it.
const CACHE: &str = "CACHEDIR.TAG";
/// Cargo writes it itself.
const LOCK: &str = "Cargo.lock";

/// A file, as it was looked at.
#[derive(Clone, Copy)]
struct Seen {
    at: Option<SystemTime>,
    bytes: u64,
    hash: u64,
}

/// The sources of a project.
pub(super) struct Sources {
    /// The project's, and those of packages beside it.
    folders: Vec<PathBuf>,
    shared: Arc<Mutex<Shared>>,
    seen: BTreeMap<PathBuf, Seen>,
    /// None where the system does not tell of changes.
    watches: Option<Watches>,
}

/// What is known where the system tells of changes.
#[derive(Default)]
struct Shared {
    /// What else the compiler has read, by any name.
    read: Vec<PathBuf>,
    /// The folders that are watched, by the system's number.
    watched: BTreeMap<i32, PathBuf>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may have happened to a file in a folder.
fn all_that_changes() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::ONLYDIR
}

/// Rings when one of the sources may have changed, as long as the process lives.
fn listen(mut inotify: Inotify, shared: Arc<Mutex<Shared>>, bell: Arc<Bell>) {
    spawn_thread("sources", move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
            let shared = lock(&shared);
            let mut matter = events.map(|event| {
                let folder = shared.watched.get(&event.wd.get_watch_descriptor_id());
                let path = folder.zip(event.name).map(|(folder, name)| folder.join(name));
                event.mask.contains(EventMask::Q_OVERFLOW)
                    || path.is_some_and(|path| {
                        event.mask.contains(EventMask::ISDIR)
                            || is_source(&path)
                            || shared.read.contains(&path)
                    })
            });
            if matter.any(|matters| matters) {
                bell.ring(|news| news.touched = true);
            }
        }
    });
}

/// Whether a file is a source by its name.
fn is_source(path: &Path) -> bool {
    let is_rust = path.extension() == Some(OsStr::new("rs"));
    // Editors put what they have not saved beside it.
    let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    path.file_name()
        .is_some_and(|name| !is_hidden(name) && (is_rust || NAMES.iter().any(|known| name == *known)))
        || HIDDEN.iter().any(|hidden| path.ends_with(hidden))
}

/// Whether it is Cargo's file of versions, which a build may write.
pub(super) fn is_lock(file: &Path) -> bool {
    file.file_name() == Some(OsStr::new(LOCK))
}

impl Sources {
    /// Those of the project in a folder. The bell is rung when one may have changed. Why the system tells nothing of
    /// changes, where it does not.
    pub(super) fn of(folder: &Path, bell: &Arc<Bell>) -> (Self, Option<String>) {
        // As the compiler names its files.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let (watches, why) = match Inotify::init() {
            Ok(inotify) => {
                let watches = inotify.watches();
                listen(inotify, Arc::clone(&shared), Arc::clone(bell));
                (Some(watches), None)
            }
            Err(error) => (None, Some(error.to_string())),
        };
        let mut this = Self { folders: vec![folder], shared, seen: BTreeMap::new(), watches };
        let not = this.look_from(&BTreeMap::new()).err();
        (this, why.or(not))
    }

    /// Whether the system tells of changes.
    pub(super) fn are_told(&self) -> bool {
        self.watches.is_some()
    }

    /// A build has been made of these.
    ///
    /// # Errors
    /// Why the system tells nothing of changes any more.
    pub(super) fn were_built(&mut self, built: Option<&Built>) -> Result<(), String> {
        let Some(built) = built else {
            self.forget_the_lock();
            return Ok(());
        };
        let is_new = |folder: &&PathBuf| !self.folders.iter().any(|known| folder.starts_with(known));
        let others: Vec<PathBuf> = built.packages.iter().filter(is_new).cloned().collect();
        let read: Vec<PathBuf> = built.read().into_iter().filter(|file| !is_source(file)).collect();
        let is_other = !others.is_empty() || lock(&self.shared).read != read;
        self.folders.extend(others);
        lock(&self.shared).read = read;
        self.forget_the_lock();
        if is_other { self.note_more() } else { Ok(()) }
    }

    /// What cargo has made of its file of versions is no change of anybody's.
    fn forget_the_lock(&mut self) {
        let files = self.files();
        for file in files.into_iter().filter(|file| is_lock(file)) {
            if let Some(seen) = look_at(&file, self.seen.get(&file)) {
                self.seen.insert(file, seen);
            }
        }
    }

    /// What belongs to them only now is as it is; what was known stays as it was seen.
    fn note_more(&mut self) -> Result<(), String> {
        for file in self.files() {
            if !self.seen.contains_key(&file)
                && let Some(seen) = look_at(&file, None)
            {
                self.seen.insert(file, seen);
            }
        }
        self.watch()
    }

    /// Which have changed since this was asked last: new ones, and ones that are gone, too.
    ///
    /// # Errors
    /// Why the system tells nothing of changes any more.
    pub(super) fn changed(&mut self) -> (Vec<PathBuf>, Result<(), String>) {
        let before = std::mem::take(&mut self.seen);
        let watched = self.look_from(&before);
        let is_as_before = |(file, seen): &(&PathBuf, &Seen)| {
            before.get(*file).is_some_and(|before| before.hash == seen.hash)
        };
        let mut changed: Vec<PathBuf> =
            self.seen.iter().filter(|it| !is_as_before(it)).map(|(file, _)| file.clone()).collect();
        changed.extend(before.into_keys().filter(|file| !self.seen.contains_key(file)));
        (changed, watched)
    }

    fn look_from(&mut self, before: &BTreeMap<PathBuf, Seen>) -> Result<(), String> {
        // Watched first: what changes while it is looked at is told.
        let watched = self.watch();
        let files = self.files().into_iter();
        self.seen =
            files.filter_map(|file| Some((file.clone(), look_at(&file, before.get(&file))?))).collect();
        watched
    }

    /// The files that are there, of those by name; and the others that the compiler has read.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        self.walk(|path, is_folder| {
            if !is_folder && is_source(path) {
                files.push(path.to_owned());
            }
        });
        for folder in &self.folders {
            files.extend(HIDDEN.iter().map(|hidden| folder.join(hidden)));
        }
        files.extend(lock(&self.shared).read.iter().cloned());
        files
    }

    /// Shows all that lies in the folders, but for what is hidden, ignored by git or made by Cargo.
    fn walk(&self, mut seen: impl FnMut(&Path, bool)) {
        let Some((first, others)) = self.folders.split_first() else { return };
        let mut walk = WalkBuilder::new(first);
        others.iter().for_each(|folder| {
            walk.add(folder);
        });
        walk.parents(false).require_git(false);
        walk.filter_entry(|entry| {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            !(is_folder && entry.depth() > 0 && entry.path().join(CACHE).is_file())
        });
        for entry in walk.build().flatten() {
            seen(entry.path(), entry.file_type().is_some_and(|kind| kind.is_dir()));
        }
    }

    /// Asks the system to tell of changes in all folders that there are now.
    fn watch(&mut self) -> Result<(), String> {
        let Some(mut watches) = self.watches.take() else { return Ok(()) };
        let mut folders = Vec::new();
        self.walk(|path, is_folder| {
            if is_folder {
                folders.push(path.to_owned());
            }
        });
        folders
            .extend(self.folders.iter().map(|folder| folder.join(".cargo")).filter(|folder| folder.is_dir()));
        folders.extend(lock(&self.shared).read.iter().filter_map(|file| Some(file.parent()?.to_owned())));
        folders.sort_unstable();
        folders.dedup();
        let mut watched = BTreeMap::new();
        for folder in folders {
            // A new folder of the name of one that is gone is another: all are asked for each time.
            match watches.add(&folder, all_that_changes()) {
                Ok(watch) => drop(watched.insert(watch.get_watch_descriptor_id(), folder)),
                Err(error) if folder.is_dir() => return Err(error.to_string()),
                // It is gone by now, which was told of.
                Err(_) => {}
            }
        }
        lock(&self.shared).watched = watched;
        self.watches = Some(watches);
        Ok(())
    }
}

/// A file as it is now; it is read only where it may be another than before. None = there is none.
fn look_at(file: &Path, before: Option<&Seen>) -> Option<Seen> {
    let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    let (at, bytes) = (found.modified().ok(), found.len());
    if let Some(before) = before.filter(|before| (before.at, before.bytes) == (at, bytes) && at.is_some()) {
        return Some(*before);
    }
    let mut hasher = DefaultHasher::new();
    fs::read(file).ok()?.hash(&mut hasher);
    Some(Seen { at, bytes, hash: hasher.finish() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What happens in the project, and whether it is a change, by the names of the files.
    #[track_caller]
    fn check(happens: impl Fn(&Path), expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (name, text) in [
            ("Cargo.toml", "[package]"),
            (".gitignore", "/made\n"),
            ("src/lib.rs", "mod a;"),
            ("src/a.rs", ""),
            ("target/CACHEDIR.TAG", ""),
            ("words.txt", "a"),
            ("notes.txt", "a"),
        ] {
            write(name, text);
        }
        let bell = Arc::new(Bell::default());
        let (mut sources, why) = Sources::of(&root, &bell);
        assert_eq!(why, None);
        let made = "target/wasm32-unknown-unknown/release";
        let read = format!("{0}/src/lib.rs {0}/words.txt {0}/{made}/out.txt", root.display());
        write(&format!("{made}/hello.d"), &format!("hello.wasm: {read}\n"));
        write(&format!("{made}/out.txt"), "a");
        let component = root.join(made).join("hello.wasm");
        let built = Built { component, packages: vec![root.clone()] };
        sources.were_built(Some(&built)).unwrap();
        happens(&root);
        if !expected.is_empty() {
            assert!(bell.wait(Duration::from_secs(10)).touched, "nobody is told");
        }
        let (changed, watched) = sources.changed();
        watched.unwrap();
        let changed: Vec<String> =
            changed.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
        assert_eq!(changed, expected);
        assert!(sources.changed().0.is_empty(), "it is told once");
    }

    #[test]
    fn a_change_of_a_source_is_one_however_it_is_written() {
        check(|root| fs::write(root.join("src/lib.rs"), "mod bb;").unwrap(), &["src/lib.rs"]);
        check(
            |root| {
                fs::write(root.join("src/.lib.rs.swp"), "mod cc;").unwrap();
                fs::rename(root.join("src/.lib.rs.swp"), root.join("src/lib.rs")).unwrap();
            },
            &["src/lib.rs"],
        );
        check(|root| fs::remove_file(root.join("src/a.rs")).unwrap(), &["src/a.rs"]);
        check(|root| fs::write(root.join("Cargo.toml"), "[lib]").unwrap(), &["Cargo.toml"]);
        check(
            |root| {
                fs::create_dir(root.join("src/b")).unwrap();
                fs::write(root.join("src/b/mod.rs"), "").unwrap();
            },
            &["src/b/mod.rs"],
        );
        check(|root| fs::write(root.join("words.txt"), "bb").unwrap(), &["words.txt"]);
    }

    #[test]
    fn what_is_no_source_or_is_as_it_was_is_no_change() {
        check(|root| fs::write(root.join("src/lib.rs"), "mod a;").unwrap(), &[]);
        check(|root| fs::write(root.join("notes.txt"), "bb").unwrap(), &[]);
        check(|root| fs::write(root.join("target/made.rs"), "b").unwrap(), &[]);
        let out = "target/wasm32-unknown-unknown/release/out.txt";
        check(|root| fs::write(root.join(out), "bb").unwrap(), &[]);
        check(
            |root| {
                fs::create_dir(root.join("made")).unwrap();
                fs::write(root.join("made/by.rs"), "").unwrap();
            },
            &[],
        );
        check(|root| fs::write(root.join("src/.#lib.rs"), "mod bb;").unwrap(), &[]);
        check(|root| fs::write(root.join("src/lib.rs~"), "mod bb;").unwrap(), &[]);
    }
}
