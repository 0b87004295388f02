//! What is made out of the definition of the command line.

use clap::CommandFactory as _;

use crate::cli::{self, Cli};
use crate::error::Error;
use crate::{exit, terminal};

/// `belljar completions`
///
/// # Errors
/// When standard output does not take it.
pub(crate) fn completions(arguments: &cli::Completions) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "belljar", &mut script);
    let text = String::from_utf8_lossy(&script);
    let printed = terminal::own(text.trim_end());
    printed.map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

/// `belljar man`
///
/// # Errors
/// When the directory does not take the pages.
pub(crate) fn man(arguments: &cli::Man) -> Result<u8, Error> {
    let written = clap_mangen::generate_to(Cli::command(), &arguments.dir);
    written.map_err(|source| Error::File {
        what: "write manual pages into",
        path: arguments.dir.clone(),
        source,
    })?;
    Ok(exit::SUCCESS)
}
