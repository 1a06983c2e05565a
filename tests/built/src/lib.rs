//! Where the scripts put what they build: guests, and the binary.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Cargo's target folder.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from)
}

fn built(file: PathBuf) -> PathBuf {
    assert!(file.exists(), "{} is missing; `scripts/test` builds it", file.display());
    file
}

/// The component of a guest in Rust.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    built(target().join("wasm32-unknown-unknown/guest").join(format!("{name}.wasm")))
}

/// The component of a guest in another language.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn pilot(name: &str) -> PathBuf {
    built(target().join("pilots").join(format!("{name}.wasm")))
}

/// A server that tests run against.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    built(target().join("tools").join(name))
}

/// The binary.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn streamctl() -> PathBuf {
    built(target().join("release/streamctl"))
}
