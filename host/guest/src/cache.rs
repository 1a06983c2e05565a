//! Compiled code, kept by the digest of its component and of the engine's settings.
//!
//! A file is `digest of the rest (32 bytes) · compiled code`. Only what has its own digest is
//! given to wasmtime, and only from a folder that is the user's alone.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of a digest.
const DIGEST: usize = 32;

/// Where the compiled form of a component lies.
pub(crate) fn path(folder: &Path, engine: &Engine, component: &[u8]) -> PathBuf {
    let mut settings = Digest(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    settings.0.update(component);
    folder.join(format!("{}.cwasm", settings.0.finalize().to_hex()))
}

/// The compiled code in this file, if it is there and whole.
pub(crate) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let (digest, code) = bytes.split_at_checked(DIGEST)?;
    let is_whole = blake3::hash(code).as_bytes() == digest;
    is_whole.then(|| bytes.split_off(DIGEST))
}

/// The component that compiled code is of.
#[expect(unsafe_code, reason = "wasmtime cannot check compiled code: it is known where it comes from")]
pub(crate) fn component(code: &[u8], engine: &Engine) -> wasmtime::Result<Component> {
    // SAFETY: it is what this binary's compiler gave: in this process, or in one that it started, over a pipe that
    // nobody else has; or `write` put it into a file, whose digest shows that it is whole, in a folder that is
    // readable and writable by the user alone.
    unsafe { Component::deserialize(engine, code) }
}

/// Keeps compiled code. A failure is no error: the next start compiles again.
pub(crate) fn write(path: &Path, code: &[u8]) {
    // Half a file has no name that is looked for.
    if try_write(path, code).is_err() {
        drop(fs::remove_file(unfinished(path)));
    }
}

fn try_write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    path.parent().map(private_folder).transpose()?;
    let unfinished = unfinished(path);
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(blake3::hash(code).as_bytes())?;
    file.write_all(code)?;
    fs::rename(&unfinished, path)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", std::process::id()))
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Feeds `Hash` into BLAKE3.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.finalize();
        u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or_default())
    }
}
