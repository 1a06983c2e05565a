//! `streamctl completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Done;
use crate::cli::Cli;
use crate::terminal::answer;

pub(crate) fn completion(shell: Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "streamctl", &mut script);
    answer(&String::from_utf8_lossy(&script));
    Ok(())
}
