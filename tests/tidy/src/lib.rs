//! What the compiler does not hold.
#![cfg(test)]
#![forbid(unsafe_code)]

mod crates;
mod files;
mod links;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files that the repository holds, by their paths from its root, with their text (none where
/// they are no text).
fn tracked() -> Vec<(String, Option<String>)> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files");
    String::from_utf8(output.stdout)
        .unwrap()
        .split('\0')
        .filter(|path| !path.is_empty() && root().join(path).exists())
        .map(|path| (path.to_owned(), std::fs::read_to_string(root().join(path)).ok()))
        .collect()
}
