//! Which files a path, folder or glob names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Diagnostic;

use super::identity::Identity;

/// A file to be read.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub(super) path: Arc<Path>,
    pub(super) bytes: u64,
    pub(super) identity: Arc<Identity>,
}

/// The files that a path, folder or glob names, in the order of their names.
pub(super) fn find(pattern: &str) -> Result<Vec<InputFile>, Diagnostic> {
    let mut files = Vec::new();
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            walk(path, &mut |path| input_file(path).map(|file| files.push(file)))?;
            if files.is_empty() {
                return Err(Diagnostic::user(format!("there is no file in the folder `{pattern}`"))
                    .detail("names that begin with a dot or an underscore do not count"));
            }
        }
        Ok(_) => files.push(input_file(path.to_owned())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !is_glob(pattern) {
                let error = Diagnostic::user(format!("there is no file `{pattern}`"));
                return Err(looked_for_in(error, path).hint(near(path)));
            }
            match_glob(pattern, &mut |path| input_file(path).map(|file| files.push(file)))?;
            if files.is_empty() {
                return Err(looked_for_in(Diagnostic::user(format!("no file matches `{pattern}`")), path));
            }
        }
        Err(error) => return Err(cannot_read(path, &error)),
    }
    Ok(files)
}

/// The paths of all files that a folder or glob names now and that are `wanted`, in their order. Those that go
/// meanwhile may be among them or not.
///
/// # Errors
/// If there is no such folder, or it cannot be read.
pub(super) fn find_wanted(
    pattern: &str,
    wanted: &mut dyn FnMut(&str) -> bool,
) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut paths = Vec::new();
    let mut see = |path: PathBuf| {
        let Some(text) = path.to_str() else {
            return Err(Diagnostic::user(format!("the name of `{}` is not UTF-8", path.display()))
                .hint("give it another, or one that begins with a dot"));
        };
        if wanted(text) {
            paths.push(path);
        }
        Ok(())
    };
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => walk(path, &mut see)?,
        Ok(_) => {
            return Err(Diagnostic::user(format!("`{pattern}` is a file, in which no new files can come"))
                .detail("`monitor-interval` looks for new files in a folder, or for those that a glob names")
                .hint("name the folder, or leave `monitor-interval` out"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_glob(pattern) => {
            match_glob(pattern, &mut see)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let error = Diagnostic::user(format!("there is no folder `{pattern}`"));
            return Err(looked_for_in(error, path).hint(near(path)));
        }
        Err(error) => return Err(cannot_read(path, &error)),
    }
    paths.sort();
    Ok(paths)
}

/// A file that may be read, if it is there still and has something in it.
///
/// # Errors
/// If it cannot be read.
pub(super) fn find_one(path: PathBuf) -> Result<Option<InputFile>, Diagnostic> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        _ => Ok(Some(input_file(path)?).filter(|file| file.bytes > 0)),
    }
}

/// The error, with the folder that a relative path begins in: that of this process, which need not be the one of who
/// has submitted the job.
fn looked_for_in(error: Diagnostic, path: &Path) -> Diagnostic {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() => {
            error.detail(format!("it was looked for in `{}`", folder.display()))
        }
        _ => error,
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn match_glob(
    pattern: &str,
    see: &mut dyn FnMut(PathBuf) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let paths = glob::glob(pattern)
        .map_err(|error| Diagnostic::user(format!("`{pattern}` is no glob")).detail(error.to_string()))?;
    for path in paths {
        let path = path.map_err(|error| cannot_read(error.path(), error.error()))?;
        if !is_hidden(path.file_name()) && !path.is_dir() {
            see(path)?;
        }
    }
    Ok(())
}

fn walk(folder: &Path, see: &mut dyn FnMut(PathBuf) -> Result<(), Diagnostic>) -> Result<(), Diagnostic> {
    let entries = fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| cannot_read(folder, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.into_iter().filter(|entry| !is_hidden(Some(&entry.file_name()))) {
        let path = entry.path();
        // Links to folders are not followed: they could lead round in a circle.
        let kind = entry.file_type().map_err(|error| cannot_read(&path, &error))?;
        if kind.is_dir() {
            walk(&path, see)?;
        } else if !kind.is_symlink() || !path.is_dir() {
            see(path)?;
        }
    }
    Ok(())
}

/// As in Flink and Hadoop, such names are of files under way and of markers.
fn is_hidden(name: Option<&OsStr>) -> bool {
    name.is_some_and(|name| {
        name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"_")
    })
}

fn input_file(path: PathBuf) -> Result<InputFile, Diagnostic> {
    let about = fs::metadata(&path).map_err(|error| cannot_read(&path, &error))?;
    if !about.is_file() {
        return Err(Diagnostic::user(format!("`{}` is not a file", path.display()))
            .detail("pipes and devices cannot be read in parts")
            .hint("standard input is read with `--input -`"));
    }
    // What cannot be opened is better told now than in the middle of the job.
    File::open(&path).map_err(|error| cannot_read(&path, &error))?;
    Ok(InputFile { path: path.into(), bytes: about.len(), identity: Arc::new(Identity::of(&about)) })
}

fn cannot_read(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::user(format!("cannot read `{}`", path.display())).detail(error.to_string())
}

/// What is there instead.
fn near(path: &Path) -> String {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return format!("there is no folder `{}` either", folder.display());
    }
    let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    match crate::options::nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{}`?", path.with_file_name(near).display()),
        None => "paths are relative to the folder in which streamctl runs".to_owned(),
    }
}
