//! Campaigns that take as long as they are told to, beside what every change is tested with.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

use crate::{shell, workspace};

/// What is to be done, and for how long.
#[derive(Parser)]
pub(crate) struct Args {
    /// Which campaign.
    campaign: Campaign,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// With which number it begins: the same number is the same campaign.
    #[arg(long, default_value_t = 1000)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Campaign {
    /// Processes die at points by chance, alone and in pairs, while builds are under way; then the power goes after
    /// every call of one build.
    Crash,
}

/// Builds the programs and runs the campaign. Needs root.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root()? {
        bail!(
            "a campaign starts Belljar's processes under their own user ids. hint: run it as root"
        );
    }
    let mut build = shell::cargo();
    build
        .args(["build", "--workspace", "--bins"])
        .args(workspace::locked());
    shell::run(&mut build)?;
    match args.campaign {
        Campaign::Crash => {
            let mut test = shell::cargo();
            test.args(["test", "--package", "belljar-tests", "--test", "crash"])
                .args(workspace::locked())
                .args(["--", "--ignored", "--nocapture", "--test-threads=1"])
                .env("BELLJAR_CAMPAIGN_SECONDS", args.seconds.to_string())
                .env("BELLJAR_CAMPAIGN_SEED", args.seed.to_string());
            shell::run(&mut test)
        }
    }
}
