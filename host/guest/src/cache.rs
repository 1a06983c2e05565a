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

/// Where the compiled form of a component lies.
pub(crate) fn path(folder: &Path, engine: &Engine, component: &[u8]) -> PathBuf {
    let mut settings = Digest(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    settings.0.update(component);
    folder.join(format!("{}.cwasm", settings.0.finalize().to_hex()))
}

/// The compiled code in this file, if it is there and whole.
#[expect(unsafe_code, reason = "wasmtime cannot check compiled code; the digest shows that we wrote it")]
pub(crate) fn read(path: &Path, engine: &Engine) -> Option<Component> {
    let bytes = fs::read(path).ok()?;
    let (digest, code) = bytes.split_at_checked(32)?;
    if blake3::hash(code).as_bytes() != digest {
        return None;
    }
    // SAFETY: `write` made this file from `Component::serialize`; the digest over all of it shows
    // that it is whole, and the folder is readable and writable by the user alone.
    unsafe { Component::deserialize(engine, code) }.ok()
}

/// Keeps compiled code. A failure is no error: the next start compiles again.
pub(crate) fn write(path: &Path, component: &Component) {
    // Half a file has no name that is looked for.
    if try_write(path, component).is_none() {
        drop(fs::remove_file(unfinished(path)));
    }
}

fn try_write(path: &Path, component: &Component) -> Option<()> {
    let folder = path.parent()?;
    private_folder(folder).ok()?;
    let code = component.serialize().ok()?;
    let unfinished = unfinished(path);
    let mut file = fs::File::create(&unfinished).ok()?;
    file.write_all(blake3::hash(&code).as_bytes()).ok()?;
    file.write_all(&code).ok()?;
    fs::rename(&unfinished, path).ok()
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
