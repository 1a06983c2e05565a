//! Rust as it is on this machine: found, and completed where something lacks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use model::Diagnostic;
use serde::Deserialize;

use crate::terminal::Terminal;

/// What guests are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";
/// Makes a component at link time; it comes with every toolchain of rustup's.
const LINKER: &str = "wasm-component-ld";
/// Debian's `rustc-web`, `cargo-web` and `rust-web-src`, which build the target's library from its
/// sources: where rustup's target cannot be had.
const DEBIAN: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library"];

fn has_debian() -> bool {
    DEBIAN.iter().all(|path| Path::new(path).exists())
}

/// A Rust toolchain.
pub(crate) struct Toolchain {
    pub(crate) version: String,
    sysroot: PathBuf,
    host: String,
}

fn ask(program: &str, args: &[&str]) -> Result<String, Diagnostic> {
    let output = Command::new(program).args(args).output().map_err(|error| {
        Diagnostic::user(format!("cannot run {program}"))
            .detail(error.to_string())
            .hint("Rust is installed by rustup: https://rustup.rs")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Diagnostic::external(format!("`{program} {}` failed", args.join(" "))).detail(said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Toolchain {
    /// The toolchain of the folder in which streamctl runs.
    pub(crate) fn find() -> Result<Self, Diagnostic> {
        ask("cargo", &["--version"])?;
        let verbose = ask("rustc", &["-vV"])?;
        let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        Ok(Self {
            version: verbose.lines().next().unwrap_or_default().to_owned(),
            sysroot: ask("rustc", &["--print", "sysroot"])?.into(),
            host: host.to_owned(),
        })
    }

    fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }

    fn has_target(&self) -> bool {
        self.rustlib().join(TARGET).join("lib").is_dir()
    }

    /// Whether guests can be compiled.
    pub(crate) fn target(&self) -> Result<String, Diagnostic> {
        if self.has_target() {
            return Ok(TARGET.into());
        }
        if has_debian() {
            return Ok(format!("{TARGET}, by Debian's rustc-web"));
        }
        Err(Diagnostic::user(format!("{TARGET} is not installed"))
            .hint(format!("`streamctl build` installs it, as `rustup target add {TARGET}` does")))
    }

    fn tools(&self) -> PathBuf {
        self.rustlib().join(&self.host).join("bin")
    }

    /// Whether components can be linked.
    pub(crate) fn linker(&self) -> Result<String, Diagnostic> {
        let linker = self.tools().join(LINKER);
        if linker.is_file() {
            return Ok(linker.display().to_string());
        }
        Err(Diagnostic::user(format!("{LINKER} is not in the toolchain"))
            .detail(format!("there is no {}", linker.display()))
            .hint("toolchains of rustup's have it; distributions' may not"))
    }

    /// Installs what lacks.
    pub(crate) fn set_up(&self, terminal: &Arc<Terminal>) -> Result<(), Diagnostic> {
        self.linker()?;
        if self.has_target() || has_debian() {
            return Ok(());
        }
        terminal.line(&format!("Installing Rust's target {TARGET}: rustup target add {TARGET}"));
        ask("rustup", &["target", "add", TARGET]).map_err(|error| {
            error.hint("another way, on Debian: apt install rustc-web cargo-web rust-web-src")
        })?;
        Ok(())
    }

    /// Builds a project's component: small and whole-program optimised.
    pub(crate) fn build(&self, manifest: &Path) -> Result<PathBuf, Diagnostic> {
        let rustups = self.has_target();
        let mut cargo = Command::new(if rustups { "cargo" } else { DEBIAN[1] });
        cargo
            .args([
                "build",
                "--release",
                "--lib",
                "--target",
                TARGET,
                "--message-format=json-render-diagnostics",
            ])
            .arg("--manifest-path")
            .arg(manifest)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128,+bulk-memory")
            .env("CARGO_PROFILE_RELEASE_LTO", "true")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
            .stderr(Stdio::inherit());
        if !rustups {
            let tools = self.tools();
            let path = std::env::var("PATH").unwrap_or_default();
            cargo
                .args(["-Zbuild-std=std,panic_abort"])
                .env("RUSTC", DEBIAN[0])
                .env("RUSTC_BOOTSTRAP", "1")
                .env("PATH", format!("{}:{}:{path}", tools.display(), tools.join("gcc-ld").display()));
        }
        let output = cargo
            .output()
            .map_err(|error| Diagnostic::external("cannot run cargo").detail(error.to_string()))?;
        if !output.status.success() {
            return Err(Diagnostic::user("the project does not build").detail("cargo says why, above"));
        }
        component_of(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
            Diagnostic::user("the project makes no component")
                .hint("its Cargo.toml needs: [lib] crate-type = [\"cdylib\", \"rlib\"]")
        })
    }
}

/// What cargo says about an artifact.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The last WebAssembly file that cargo has made: that of the project itself.
fn component_of(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .flat_map(|message| message.filenames)
        .rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_component_is_the_last() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/libdep.rlib"]}
            {"reason":"compiler-artifact","filenames":["/t/a.wasm","/t/liba.rlib"]}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(component_of(messages), Some("/t/a.wasm".into()));
        assert_eq!(component_of(""), None);
    }
}
