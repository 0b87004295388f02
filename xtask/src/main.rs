//! The project's own chores: `cargo xtask tidy | test | test-vm | run | soak | bench`.
//!
//! Everything that a developer or the continuous integration does to this repository goes through
//! this one door, so that there is one answer to "how is it checked" and no second script that drifts.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore talks to the person who started it"
)]

mod bench;
mod debian;
mod run;
mod soak;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{shell, workspace};

/// The command line of `cargo xtask`.
#[derive(Parser)]
#[command(
    name = "xtask",
    about = "The project's own chores",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check what the compiler cannot: crate arrows, bans, sizes, unsafe comments, documents.
    Tidy,
    /// Install what the tests need, then run every check and every test. Needs root.
    Test(test::Args),
    /// Boot Debian in a virtual machine, install Belljar there and test it with systemd and cgroup v2. Needs root.
    TestVm(vm::Args),
    /// The part of `test-vm` that runs in the machine.
    #[command(hide = true)]
    VmGuest(vm::GuestArgs),
    /// Take SQLite through a build, run the result and verify its provenance. Needs root.
    Run(run::Args),
    /// Let Belljar's processes die for as long as you like, by chance and in pairs. Needs root.
    Soak(soak::Args),
    /// Measure, with public tools beside Belljar in the same run. Needs root.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Test(args) => test::run(&args),
        Chore::TestVm(args) => vm::run(&args),
        Chore::VmGuest(args) => vm::serve(&args),
        Chore::Run(args) => run::run(&args),
        Chore::Soak(args) => soak::run(&args),
        Chore::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
