//! Files, as far as durability asks: what the disk holds after a crash. The system's, and a model of it in
//! which everything that was not synchronised may be gone.
//!
//! Source of what a crash may do: Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014): data,
//! and each change of a directory, become durable on their own unless they are synchronised.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

mod model;
pub use model::ModelDisk;

/// Files below one folder, by paths with `/` between the names. Every call blocks.
pub trait Disk: Send + Sync {
    /// The bytes of a file.
    ///
    /// # Errors
    /// If it is not there, or cannot be read.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Makes a file of these bytes, which is not there yet. Not durable.
    ///
    /// # Errors
    /// If it is there, or cannot be written.
    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable, but not its name.
    ///
    /// # Errors
    /// If they may be lost. Trying again does not bring them back: what failed is written anew.
    fn sync(&self, path: &str) -> io::Result<()>;
    /// Gives a file another name in the same folder, in place of what had it; at once or not at all.
    ///
    /// # Errors
    /// If it cannot be.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, or an empty folder.
    ///
    /// # Errors
    /// If it is not there, or cannot be.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes a folder, with those above it, durably. One that is there stays.
    ///
    /// # Errors
    /// If it cannot be.
    fn create_folder(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable: those that came and those that went.
    ///
    /// # Errors
    /// If they may be lost.
    fn sync_folder(&self, path: &str) -> io::Result<()>;
    /// The names in a folder, in order; those of folders end with `/`. None where it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
}

/// The system's disk, below a folder.
#[derive(Clone, Debug)]
pub struct SystemDisk {
    root: PathBuf,
}

impl SystemDisk {
    /// Below this folder, which is made when something is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// Names what an error is of.
fn of<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))
}

impl Disk for SystemDisk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.at(path);
        of(&path, fs::read(&path))
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.at(path);
        let written = OpenOptions::new().write(true).create_new(true).open(&path);
        of(&path, written.and_then(|mut file| file.write_all(bytes)))
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        let path = self.at(path);
        of(&path, File::open(&path).and_then(|file| file.sync_all()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.at(from), self.at(to));
        of(&to, fs::rename(&from, &to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.at(path);
        let is_folder = of(&path, fs::symlink_metadata(&path))?.is_dir();
        of(&path, if is_folder { fs::remove_dir(&path) } else { fs::remove_file(&path) })
    }

    fn create_folder(&self, path: &str) -> io::Result<()> {
        let folder = self.at(path);
        if folder.is_dir() {
            return Ok(());
        }
        of(&folder, fs::create_dir_all(&folder))?;
        // Those above it may be new too.
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)) {
            of(above, File::open(above).and_then(|file| file.sync_all()))?;
        }
        match self.root.parent().filter(|above| !above.as_os_str().is_empty()) {
            Some(above) => of(above, File::open(above).and_then(|file| file.sync_all())),
            None => Ok(()),
        }
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.sync(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = self.at(path);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return of(&folder, Err(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = match entry {
                // The folder has been removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entry => of(&folder, entry)?,
            };
            // What this engine writes has names in UTF-8; others' files are not its own.
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            if of(&folder, entry.file_type())?.is_dir() {
                name.push('/');
            }
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }
}
