//! `streamctl doctor`: whether this machine has what jobs and projects need.

use std::path::Path;
use std::sync::Arc;

use model::Diagnostic;
use platform::{Platform, available_parallelism};

use super::load;
use crate::terminal::{Style, Terminal, answer};
use crate::toolchain::Toolchain;
use crate::{Done, Stop};
use cluster::Config;

pub(crate) fn doctor(terminal: &Arc<Terminal>) -> Done {
    let mut wrong = 0;
    let mut report = |what: &str, found: Result<String, Diagnostic>| match found {
        Ok(text) => answer(&format!("{}  {what}: {text}\n", terminal.style(Style::Green, "ok   "))),
        Err(error) => {
            wrong += 1;
            let mut text = format!("{}  {what}: {}\n", terminal.style(Style::Red, "wrong"), error.message);
            for (label, more) in [("detail", &error.detail), ("hint", &error.hint)] {
                text.extend(more.iter().map(|more| format!("       {label}: {more}\n")));
            }
            answer(&text);
        }
    };
    report("streamctl", Ok(format!("{} for {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)));
    let cores = available_parallelism();
    report("machine", Ok(format!("{cores} core{}", if cores == 1 { "" } else { "s" })));
    let config = match Config::load(&[]) {
        Ok(config) => {
            let file = cluster::config::file().filter(|file| file.exists());
            let from = file.map_or("no config.yaml".to_owned(), |file| file.display().to_string());
            report("configuration", Ok(from));
            Some(config)
        }
        Err(error) => {
            report("configuration", Err(error));
            None
        }
    };
    if let Some(config) = config {
        report("sandbox", sandbox(&config));
        match config.cache_dir() {
            Some(folder) => report("cache of compiled components", writable(&folder)),
            None => report("cache of compiled components", Ok("switched off".into())),
        }
    }
    match Toolchain::find() {
        Ok(toolchain) => {
            report("Rust", Ok(toolchain.version.clone()));
            report("Rust's WebAssembly target", toolchain.target());
            report("linker of components", toolchain.linker());
        }
        Err(error) => report("Rust", Err(error)),
    }
    if wrong == 0 { Ok(()) } else { Err(Stop::Code(1)) }
}

fn sandbox(config: &Config) -> Result<String, Diagnostic> {
    match load::runtime(config, &Platform::system()) {
        Ok(_) => Ok("works".into()),
        Err(Stop::Failed(error)) => {
            Err(error.hint("guests need address space: does `ulimit -v` say unlimited?"))
        }
        Err(_) => Err(Diagnostic::internal("the sandbox cannot be set up")),
    }
}

fn writable(folder: &Path) -> Result<String, Diagnostic> {
    let probe = folder.join(".probe");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe))
        .map(|()| folder.display().to_string())
        .map_err(|error| {
            Diagnostic::user(format!("cannot write to `{}`", folder.display()))
                .detail(error.to_string())
                .hint("jobs run, but compile their component at every start; -D millstream.cache-dir=PATH")
        })
}
