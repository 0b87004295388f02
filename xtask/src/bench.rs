//! `cargo xtask bench NAME`: builds `belljar-bench`, and hands over to it. It needs most of what Belljar is made of;
//! no other chore waits for that.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::{shell, workspace};

/// What `belljar-bench` is told: a name and its options, which it knows itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What to measure, and how; `--help` says more.
    #[arg(
        value_name = "NAME",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

/// Becomes the measurement, as Belljar's users would compile it: its clients are a part of what is measured.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut bench = shell::cargo();
    bench
        .args(["run", "--quiet", "--release", "--package", "belljar-bench"])
        .args(workspace::locked())
        .arg("--")
        .args(&args.arguments);
    let command = shell::shown(&bench);
    Err(bench.exec()).with_context(|| format!("cannot start `{command}`"))
}
