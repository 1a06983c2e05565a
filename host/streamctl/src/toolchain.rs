//! Rust as it is on this machine: found, and completed where something lacks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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
    pub(crate) fn build(&self, manifest: &Path) -> Result<Built, Diagnostic> {
        let output = self.cargo(manifest).output().map_err(|error| no_cargo(&error))?;
        Built::of(output.status, &String::from_utf8_lossy(&output.stdout))
    }

    /// Begins to build it. Cargo's messages come at the child's standard output: [`Built::of`] reads them.
    pub(crate) fn begin(&self, manifest: &Path, quiet: bool) -> Result<Child, Diagnostic> {
        let mut cargo = self.cargo(manifest);
        if quiet {
            cargo.arg("--quiet");
        }
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| no_cargo(&error))
    }

    fn cargo(&self, manifest: &Path) -> Command {
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
        cargo
    }
}

fn no_cargo(error: &std::io::Error) -> Diagnostic {
    Diagnostic::external("cannot run cargo").detail(error.to_string())
}

/// What cargo says about an artifact.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// What a build has made, and of what.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where the component lies in Cargo's target folder.
    pub(crate) component: PathBuf,
    /// The folders of the packages that are no registry's: the project, and what lies beside it.
    pub(crate) packages: Vec<PathBuf>,
}

impl Built {
    /// What cargo's messages say, once it has ended.
    pub(crate) fn of(status: ExitStatus, messages: &str) -> Result<Self, Diagnostic> {
        if !status.success() {
            return Err(Diagnostic::user("the project does not build").detail("cargo says why, above"));
        }
        Self::told(messages).ok_or_else(|| {
            Diagnostic::user("the project makes no component")
                .hint("its Cargo.toml needs: [lib] crate-type = [\"cdylib\", \"rlib\"]")
        })
    }

    /// The component is the last WebAssembly file that cargo has made: that of the project itself.
    fn told(messages: &str) -> Option<Self> {
        let (mut component, mut packages) = (None, Vec::new());
        let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
        for message in messages.filter(|message| message.reason == "compiler-artifact") {
            let is_wasm = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wasm");
            component = message.filenames.into_iter().rfind(is_wasm).or(component);
            let is_local = message.package_id.contains("path+file:");
            let folder = message.manifest_path.and_then(|path| Some(path.parent()?.to_owned()));
            packages.extend(folder.filter(|_| is_local));
        }
        packages.dedup();
        component.map(|component| Self { component, packages })
    }

    /// The files that the compiler has read, of the project and of what lies beside it; without those that the build
    /// itself has made.
    pub(crate) fn read(&self) -> Vec<PathBuf> {
        let told = std::fs::read_to_string(self.component.with_extension("d")).unwrap_or_default();
        // target/wasm32-unknown-unknown/release/NAME.wasm
        let target = self.component.ancestors().nth(3);
        let is_made = |file: &Path| target.is_some_and(|target| file.starts_with(target));
        read_for(&told).into_iter().filter(|file| !is_made(file)).collect()
    }
}

/// The files that make's rule names, as cargo writes it: `TARGET: FILE FILE`, spaces in names as `\ `.
fn read_for(rule: &str) -> Vec<PathBuf> {
    const SPACE: &str = "\0";
    let files = rule.lines().next().and_then(|line| line.split_once(": ")).map(|(_, files)| files);
    let files = files.unwrap_or_default().replace("\\ ", SPACE);
    files.split_whitespace().map(|file| PathBuf::from(file.replace(SPACE, " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_component_is_the_last() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"registry+x#dep@1.0.0","manifest_path":"/r/Cargo.toml","filenames":["/t/libdep.rlib"]}
            {"reason":"compiler-artifact","package_id":"path+file:///b#0.1.0","manifest_path":"/b/Cargo.toml","filenames":["/t/libb.rlib"]}
            {"reason":"compiler-artifact","package_id":"path+file:///a#0.1.0","manifest_path":"/a/Cargo.toml","filenames":["/t/a.wasm","/t/liba.rlib"]}
            {"reason":"build-finished","success":true}"#;
        let built = Built::told(messages).unwrap();
        assert_eq!(built.component, Path::new("/t/a.wasm"));
        assert_eq!(built.packages, [Path::new("/b"), Path::new("/a")]);
        assert!(Built::told("").is_none());
    }

    #[test]
    fn files_may_have_spaces_in_their_names() {
        let read = read_for("/t/a.wasm: /a/src/lib.rs /a/my\\ words.txt\n\n/a/src/lib.rs:\n");
        assert_eq!(read, [Path::new("/a/src/lib.rs"), Path::new("/a/my words.txt")]);
        assert_eq!(read_for(""), [""; 0].map(PathBuf::from));
    }
}
