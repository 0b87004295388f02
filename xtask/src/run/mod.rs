//! `cargo xtask run`: the demonstration. A project that nobody here wrote goes through a build; the
//! result is run; its provenance is verified by us and by openssl; a changed byte is refused.

mod evidence;
mod project;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{shell, workspace};

/// The demonstration's options.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave sources, artifacts and evidence in this folder, which must not exist yet.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Do it all and say in plain words what happened.
pub(crate) fn run(args: &Args) -> Result<()> {
    check_needs()?;
    let mut tale = Tale { chapter: 0 };
    let metadata = workspace::metadata()?;
    let belljar = tale.chapter("Building Belljar itself (development profile)", || {
        build(&metadata)
    })?;

    let scratch = tempfile::Builder::new()
        .prefix("belljar-run-")
        .tempdir()
        .context("a temporary folder")?;
    let folder = match &args.keep {
        Some(folder) => {
            std::fs::create_dir(folder)
                .with_context(|| format!("creating {}", folder.display()))?;
            std::fs::canonicalize(folder).with_context(|| folder.display().to_string())?
        }
        None => scratch.path().to_path_buf(),
    };
    let (project, out) = (folder.join("project"), folder.join("out"));
    let version = tale.chapter("Taking SQLite's sources, which nobody here wrote", || {
        project::lay(&metadata, &project)
    })?;
    tale.chapter("Building them in a sealed sandbox", || {
        shell::run(
            Command::new(&belljar)
                .arg("run")
                .arg(&project)
                .arg("--output")
                .arg(&out),
        )
    })?;
    tale.chapter("Running what came out", || {
        run_artifact(&out.join("app"), &version)
    })?;
    judge(
        &mut tale,
        &belljar,
        &folder,
        &evidence::Evidence::of(&out, "app")?,
    )?;
    if args.keep.is_some() {
        println!(
            "\nSources, artifact and evidence are in {}.",
            folder.display()
        );
    }
    println!("\nDone: built in isolation, signed, verified twice, and both forgeries refused.");
    Ok(())
}

fn check_needs() -> Result<()> {
    if !shell::is_root()? {
        bail!(
            "the demonstration needs root: Belljar's privileged process makes namespaces, mounts and cgroups"
        );
    }
    for (program, package) in [("cc", "gcc"), ("openssl", "openssl")] {
        ensure!(
            shell::find(program).is_some(),
            "the demonstration needs {program}: install the package {package}"
        );
    }
    Ok(())
}

/// Two verifiers accept the evidence, and ours refuses two forgeries.
fn judge(
    tale: &mut Tale,
    belljar: &Path,
    folder: &Path,
    evidence: &evidence::Evidence,
) -> Result<()> {
    tale.chapter("Verifying its provenance with belljar, offline", || {
        evidence.verify(belljar)
    })?;
    tale.chapter(
        "Verifying it with openssl, which knows nothing of Belljar",
        || evidence.verify_with_openssl(folder),
    )?;
    tale.chapter("Changing one byte of a copy", || {
        evidence.refuse_changed_artifact(belljar, folder)
    })?;
    tale.chapter("Changing one byte of the signed statement", || {
        evidence.refuse_changed_statement(belljar, folder)
    })
}

/// The story, told chapter by chapter with its times.
struct Tale {
    chapter: usize,
}

impl Tale {
    fn chapter<T>(&mut self, headline: &str, play: impl FnOnce() -> Result<T>) -> Result<T> {
        self.chapter += 1;
        println!("\n{}. {headline}", self.chapter);
        let start = Instant::now();
        let result = play().with_context(|| format!("chapter {} ({headline})", self.chapter))?;
        let time: Duration = start.elapsed();
        println!("   ({})", shell::human(time));
        Ok(result)
    }
}

/// Build every program once; return the path of the command line.
fn build(metadata: &cargo_metadata::Metadata) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    shell::run(
        cargo
            .args(["build", "--workspace", "--bins"])
            .args(workspace::locked()),
    )?;
    let belljar = workspace::target_dir(metadata).join("debug/belljar");
    ensure!(
        belljar.is_file(),
        "the build did not make {}",
        belljar.display()
    );
    Ok(belljar)
}

/// The program prints the version of the sources that went in and the answer of a query.
fn run_artifact(program: &Path, version: &str) -> Result<()> {
    let said = shell::read(&mut Command::new(program))?;
    said.lines().for_each(|line| println!("   {line}"));
    ensure!(
        said.contains(&format!("SQLite {version}")),
        "it does not name the version {version} of its sources"
    );
    ensure!(
        said.contains("sum of 1 to 100: 5050"),
        "its query gave another answer"
    );
    Ok(())
}
