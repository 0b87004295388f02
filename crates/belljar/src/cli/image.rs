use std::path::PathBuf;

use belljar_core::BuildId;
use belljar_manifest::lock;
use clap::{Args, Subcommand, ValueEnum};

use super::Ask;
use super::builds::build;

/// `belljar image`
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Take a root file system into the store, and name it
    Import(Import),
    /// Have the daemon pull a root file system from a registry, and name it
    Pull(Pull),
    /// Have the daemon push the image that became of a build to a registry, with its provenance
    Push(Push),
    /// Tell which images a lock names
    List(ImageList),
    /// Make a root file system of Debian packages by mmdebstrap, and import it
    BuildDebian(BuildDebian),
}

/// Where an image goes.
#[derive(Debug, Args)]
pub(crate) struct ImportTo {
    /// The image's name in the lock: what `image` in belljar.toml says
    #[arg(long)]
    pub(crate) name: String,
    /// The lock to write it to; made if it is missing
    #[arg(long, value_name = "FILE", default_value = lock::FILE)]
    pub(crate) lock: PathBuf,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar image import`
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A tar archive (plain, gzip, zstd, xz), an OCI archive, or the directory of an OCI image layout
    #[arg(value_name = "FILE|DIR")]
    pub(crate) file: PathBuf,
    /// Where it goes.
    #[command(flatten)]
    pub(crate) to: ImportTo,
}

/// `belljar image pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image: HOST/REPOSITORY with :TAG or @sha256:DIGEST, or both; else the one that the lock has under this name
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: Option<String>,
    /// Look what the tag means today, also where the lock has its digest
    #[arg(long)]
    pub(crate) update: bool,
    /// Where it goes.
    #[command(flatten)]
    pub(crate) to: ImportTo,
}

/// `belljar image push`
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The build, builds/ID or ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Where to: HOST/REPOSITORY with :TAG or @sha256:DIGEST, or both
    #[arg(value_name = "REFERENCE")]
    pub(crate) reference: String,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar image list`
#[derive(Debug, Args)]
pub(crate) struct ImageList {
    /// The lock
    #[arg(long, value_name = "FILE", default_value = lock::FILE)]
    pub(crate) lock: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar image build-debian`
#[derive(Debug, Args)]
pub(crate) struct BuildDebian {
    /// The suite, such as `trixie`; else the one that this host runs
    #[arg(long)]
    pub(crate) suite: Option<String>,
    /// Packages beside those of the variant, such as `gcc,libc6-dev,make`
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
    pub(crate) include: Vec<String>,
    /// Leave the archive here; else it is removed when it was imported
    #[arg(long, value_name = "FILE")]
    pub(crate) archive: Option<PathBuf>,
    /// What to begin with
    #[arg(long, value_enum, default_value_t = Variant::Apt)]
    pub(crate) variant: Variant,
    /// Where it goes.
    #[command(flatten)]
    pub(crate) to: ImportTo,
}

/// What a root file system of Debian packages begins with (mmdebstrap(1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Essential packages, and apt
    Apt,
    /// Essential packages alone
    Essential,
}
