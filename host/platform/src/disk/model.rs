//! A disk in memory that can crash.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Disk;
use crate::Random;

/// A disk in memory: [`crash`](Self::crash) leaves of it what a real one may leave. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// By number: bytes, and how many of them are durable.
    files: BTreeMap<u64, (Vec<u8>, usize)>,
    next: u64,
    /// What programs see, by path.
    names: BTreeMap<String, Entry>,
    /// What is surely there after a crash.
    durable: BTreeMap<String, Entry>,
    /// Changes of names since, by the folder that they are in.
    changes: BTreeMap<String, Vec<Change>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File(u64),
}

/// A change that becomes durable as a whole.
#[derive(Clone, Debug)]
enum Change {
    Set(String, Entry),
    Remove(String),
    Rename { from: String, to: String, entry: Entry },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Set(path, entry) => drop(names.insert(path.clone(), *entry)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename { from, to, entry } => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn no(kind: io::ErrorKind, path: &str) -> io::Error {
    io::Error::new(kind, format!("`{path}`: {kind}"))
}

impl ModelDisk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all processes. What was not synchronised is there, in part, or gone, as `random` says.
    pub fn crash(&self, random: &mut Random) {
        let mut state = self.state();
        let state = &mut *state;
        for changes in std::mem::take(&mut state.changes).into_values() {
            for change in changes.iter().filter(|_| random.one_in(2)) {
                change.apply(&mut state.durable);
            }
        }
        // What lost the folder above it cannot be reached.
        let all = state.durable.clone();
        state.durable.retain(|path, _| {
            let mut above = folder_of(path);
            while !above.is_empty() && all.get(above) == Some(&Entry::Folder) {
                above = folder_of(above);
            }
            above.is_empty()
        });
        state.names.clone_from(&state.durable);
        for (bytes, durable) in state.files.values_mut() {
            let lost = (bytes.len() - *durable) as u64;
            let left = usize::try_from(random.below(lost + 1)).unwrap_or(0);
            bytes.truncate(*durable + left);
            // A page that was not written may hold anything.
            if left > 0 && random.one_in(2) {
                let last = bytes.len() - 1;
                bytes[last] = 0;
            }
            *durable = bytes.len();
        }
    }
}

impl State {
    fn file(&self, path: &str) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Entry::File(number)) => Ok(*number),
            Some(Entry::Folder) => Err(no(io::ErrorKind::IsADirectory, path)),
            None => Err(no(io::ErrorKind::NotFound, path)),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        let (Change::Set(path, _) | Change::Remove(path) | Change::Rename { to: path, .. }) = &change;
        self.changes.entry(folder_of(path).to_owned()).or_default().push(change);
    }
}

impl Disk for ModelDisk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.files[&state.file(path)?].0.clone())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(no(io::ErrorKind::AlreadyExists, path));
        }
        let folder = folder_of(path);
        if !folder.is_empty() && state.names.get(folder) != Some(&Entry::Folder) {
            return Err(no(io::ErrorKind::NotFound, path));
        }
        let number = state.next;
        state.next += 1;
        state.files.insert(number, (bytes.to_vec(), 0));
        state.change(Change::Set(path.to_owned(), Entry::File(number)));
        Ok(())
    }

    fn sync(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(path)?;
        if let Some((bytes, durable)) = state.files.get_mut(&number) {
            *durable = bytes.len();
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let entry = Entry::File(state.file(from)?);
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), entry });
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        let within = format!("{path}/");
        match state.names.get(path) {
            None => Err(no(io::ErrorKind::NotFound, path)),
            Some(Entry::Folder) if state.names.keys().any(|other| other.starts_with(&within)) => {
                Err(no(io::ErrorKind::DirectoryNotEmpty, path))
            }
            Some(_) => {
                state.change(Change::Remove(path.to_owned()));
                Ok(())
            }
        }
    }

    fn create_folder(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        let mut above = path;
        while !above.is_empty() {
            match state.names.get(above) {
                Some(Entry::File(_)) => return Err(no(io::ErrorKind::NotADirectory, above)),
                _ => {
                    state.names.insert(above.to_owned(), Entry::Folder);
                    state.durable.insert(above.to_owned(), Entry::Folder);
                }
            }
            above = folder_of(above);
        }
        Ok(())
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        let changes = state.changes.remove(path).unwrap_or_default();
        changes.iter().for_each(|change| change.apply(&mut state.durable));
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let in_it = state.names.iter().filter(|(name, _)| folder_of(name) == path && !name.is_empty());
        let named = in_it.map(|(name, entry)| {
            let name = name.rsplit('/').next().unwrap_or(name);
            if *entry == Entry::Folder { format!("{name}/") } else { name.to_owned() }
        });
        Ok(named.collect())
    }
}
