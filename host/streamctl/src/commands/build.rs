//! `streamctl build`: a component from a project.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Diagnostic;
use platform::Platform;

use super::load;
use crate::cli::BuildArgs;
use crate::terminal::{Terminal, bytes};
use crate::toolchain::Toolchain;
use crate::{Done, Stop};
use cluster::Config;

pub(crate) fn build(args: &BuildArgs, terminal: &Arc<Terminal>) -> Done {
    let built = component(&args.dir, terminal)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => args.dir.join(built.file_name().unwrap_or_default()),
    };
    let failed = |error: std::io::Error| {
        Stop::Failed(
            Diagnostic::external(format!("cannot write `{}`", output.display())).detail(error.to_string()),
        )
    };
    let code = std::fs::read(&built).map_err(failed)?;
    // What cannot be run is better told now.
    let config = Config::load(&[]).map_err(Stop::Refused)?;
    let program = load::runtime(&config, &Platform::system())?
        .load(&code)
        .map_err(|error| Stop::Failed(load::of_file(error.diagnostic(), &built)))?;
    let jobs = program.jobs().map_err(|error| Stop::Failed(load::of_file(error.diagnostic(), &built)))?;
    std::fs::write(&output, &code).map_err(failed)?;
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    terminal.line(&format!(
        "Built {} ({}), with the job{} {}",
        output.display(),
        bytes(code.len() as u64),
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    ));
    Ok(())
}

/// Builds a project; where its component lies in Cargo's target folder.
pub(crate) fn component(dir: &Path, terminal: &Arc<Terminal>) -> Result<PathBuf, Stop> {
    let (toolchain, manifest) = with_toolchain(dir, terminal)?;
    Ok(toolchain.build(&manifest).map_err(Stop::Failed)?.component)
}

/// What builds the project in a folder, and its manifest.
pub(crate) fn with_toolchain(dir: &Path, terminal: &Arc<Terminal>) -> Result<(Toolchain, PathBuf), Stop> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        let error = Diagnostic::user(format!("there is no project in `{}`", dir.display()))
            .detail("it has no Cargo.toml")
            .hint("`streamctl new DIR` makes one");
        return Err(Stop::Refused(error));
    }
    let toolchain = Toolchain::find().map_err(Stop::Failed)?;
    toolchain.set_up(terminal).map_err(Stop::Failed)?;
    Ok((toolchain, manifest))
}
