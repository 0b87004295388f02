//! `belljar.toml`: what a build shall do, beside its sources.
//!
//! ```toml
//! image = "host"                   # required; the operator's listed host paths, not hermetic; or a name in belljar.lock
//! run = ["make", "make check"]     # required; each a script for `sh -eu -c`
//! outputs = ["app", "doc/*.html"]  # required; files, directories or patterns below the source directory
//! working_directory = "sub"        # optional; where the commands run, below the source directory
//! deps = ["Cargo.lock"]            # optional; lock files whose packages the build gets
//! source_date_epoch = 1700000000   # optional; seconds since 1970
//!
//! [env]                            # optional
//! CFLAGS = "-O2"
//!
//! [fetch.zlib]                     # optional; what is fetched before the build begins, for /deps/zlib
//! urls = ["https://downloads.example.org/zlib-1.3.1.tar.gz"]  # mirrors, tried in order
//! sha256 = "9a93b2b7dfdac77ceba5a558a580e74667dd6fede4585b91eefb60f03b72df23" # or integrity = "sha256-…"
//! unpack = true                    # a tar archive; else it is one file
//! strip_components = 1
//!
//! [fetch.tools]                    # what an earlier build has left, for /deps/tools
//! artifact = "sha256:3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b"
//! directory = true                 # a directory; else file_name, or unpack
//!
//! [output.oci]                     # optional; the image that becomes of the outputs
//! base = "scratch"                 # or a name in belljar.lock
//! entrypoint = ["/app"]
//!
//! [limits]                         # optional; what is left out is the daemon's default
//! wall_seconds = 600
//! ```

mod artifact;
mod fetch;
mod git;
mod output;
mod read;

use std::collections::BTreeMap;

use belljar_core::{
    BuildSpec, EnvName, EnvValue, Fetches, Image, Input, InputName, Inputs, Invalid, Limits,
    Network, ObjectId, Outputs, PartialLimits, RelPath, Steps,
};

pub use output::no_dockerfile;

use crate::lock::Origin;
use crate::wrong::{Wrong, text};
use crate::{Lock, LockFile};

/// Name of the file, beside the sources.
pub const FILE: &str = "belljar.toml";

/// What a `belljar.toml` says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    image: Image,
    named: Option<Named>,
    run: Steps,
    outputs: Outputs,
    output: Option<output::Output>,
    deps: Vec<LockFile>,
    fetches: Fetches,
    env: BTreeMap<EnvName, EnvValue>,
    working_directory: Option<RelPath>,
    /// What it asks for; the rest is the daemon's default.
    limits: PartialLimits,
    source_date_epoch: u64,
}

/// An image by its name in `belljar.lock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: InputName,
    /// What it was made of.
    pub origin: Origin,
}

impl Manifest {
    /// Reads the bytes of a `belljar.toml`, whose image is in `lock` unless it is the host's.
    ///
    /// # Errors
    /// What is wrong is told with line, column and field.
    pub fn parse(bytes: &[u8], lock: &Lock) -> Result<Self, Wrong> {
        let text = text(bytes)?;
        read::manifest(text, lock).map_err(|refusal| Wrong::in_text(text, refusal))
    }

    /// The image, if it has a name.
    pub fn image(&self) -> Option<(Input, &Named)> {
        match (self.image, &self.named) {
            (Image::Tree(input), Some(named)) => Some((input, named)),
            _ => None,
        }
    }

    /// The base of the image that becomes of the outputs, if it has a name.
    pub fn base(&self) -> Option<(Input, &Named)> {
        let (output, named) = self.output.as_ref()?;
        Some((*output.base.image()?, named.as_ref()?))
    }

    /// The lock files whose packages the build gets, one for each package manager.
    pub fn deps(&self) -> &[LockFile] {
        &self.deps
    }

    /// The specification of a build of the tree `source` with further `inputs`, where the daemon's default limits
    /// are `defaults`.
    ///
    /// # Errors
    /// When these are none.
    pub fn spec(
        self,
        source: ObjectId,
        inputs: Inputs,
        defaults: &Limits,
    ) -> Result<BuildSpec, Invalid> {
        Ok(BuildSpec {
            image: self.image,
            source,
            inputs,
            fetches: self.fetches,
            working_directory: self.working_directory,
            run: self.run,
            env: self.env,
            outputs: self.outputs,
            image_output: self.output.map(|(output, _)| output),
            limits: self.limits.over(defaults)?,
            network: Network::None,
            source_date_epoch: self.source_date_epoch,
        })
    }
}

#[cfg(test)]
mod tests;
