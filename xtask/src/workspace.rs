//! Where the workspace is, and what cargo says about it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The root of the repository: the folder above the one that holds this tool.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// What `cargo metadata` says, with the resolved graph of all dependencies.
pub fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(
            locked()
                .iter()
                .map(|&flag| flag.to_owned())
                .collect::<Vec<_>>(),
        )
        .exec()
        .context("cargo metadata")
}

/// In continuous integration the lock file is the truth; at a desk cargo may complete it.
pub fn locked() -> &'static [&'static str] {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        &["--locked"]
    } else {
        &[]
    }
}

/// The folder of build results, which `CARGO_TARGET_DIR` may have moved.
pub fn target_dir(metadata: &Metadata) -> PathBuf {
    metadata.target_directory.clone().into_std_path_buf()
}

/// The packages of this workspace, in a stable order.
pub fn members(metadata: &Metadata) -> Vec<&Package> {
    let mut members = metadata.workspace_packages();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}
