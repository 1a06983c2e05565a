//! `streamctl man`: manual pages, as the help has them.

use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use model::Diagnostic;

use crate::cli::Cli;
use crate::terminal::answer;
use crate::{Done, Stop};

/// Writes a page for each command to a folder, which is made; without one, shows the first.
pub(crate) fn man(dir: Option<&Path>) -> Done {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(Cli::command().disable_help_subcommand(true))
            .render(&mut page)
            .map_err(|error| not_written("the page", &error))?;
        answer(&String::from_utf8_lossy(&page));
        return Ok(());
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| not_written(&format!("`{}`", dir.display()), &error))?;
    answer(&format!("Pages are in `{0}`: man {0}/streamctl.1\n", dir.display()));
    Ok(())
}

fn not_written(what: &str, error: &std::io::Error) -> Stop {
    Stop::Failed(Diagnostic::external(format!("{what} cannot be written")).detail(error.to_string()))
}
