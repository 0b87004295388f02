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
//! [limits]                         # optional; what is left out is the daemon's default
//! wall_seconds = 600
//! ```

mod fetch;
mod place;
mod read;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use belljar_core::{
    BuildSpec, EnvName, EnvValue, Fetches, Image, Input, InputName, Inputs, Invalid, Limits,
    Network, ObjectId, Outputs, PartialLimits, RelPath, Steps, bounds,
};

use crate::deps::LockFile;
use crate::image::lock::{self, Lock};

pub(crate) use place::Place;

/// Name of the file, beside the sources.
pub(crate) const FILE: &str = "belljar.toml";

/// What a `belljar.toml` says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    image: Image,
    named: Option<Named>,
    run: Steps,
    outputs: Outputs,
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
pub(crate) struct Named {
    /// The name.
    pub(crate) name: InputName,
    /// What it was imported from.
    pub(crate) from: String,
}

/// Why a `belljar.toml` cannot be used, or the `belljar.lock` beside it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{0}")]
    Wrong(Wrong),
}

/// What is wrong in a file of the project's own, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where in it.
    pub(crate) place: Place,
    /// The field, such as `outputs[2]`, and the reason.
    pub(crate) invalid: Invalid,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.path.display(),
            self.place,
            self.invalid
        )
    }
}

impl Manifest {
    /// Reads and checks `dir/belljar.toml`.
    ///
    /// # Errors
    /// See [`Error`]: what is wrong is told with file, line, column and field.
    pub(crate) fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let text = text(&path)?;
        let lock = Lock::load(&dir.join(lock::FILE))?;
        read::manifest(&text, &lock).map_err(|refusal| wrong(&path, &text, refusal))
    }

    /// The image, if it has a name.
    pub(crate) fn image(&self) -> Option<(Input, &Named)> {
        match (self.image, &self.named) {
            (Image::Tree(input), Some(named)) => Some((input, named)),
            _ => None,
        }
    }

    /// The lock files whose packages the build gets, one for each package manager.
    pub(crate) fn deps(&self) -> &[LockFile] {
        &self.deps
    }

    /// The specification of a build of the tree `source` with further `inputs`, where the daemon's default limits
    /// are `defaults`.
    ///
    /// # Errors
    /// When these are none.
    pub(crate) fn spec(
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
            limits: self.limits.over(defaults)?,
            network: Network::None,
            source_date_epoch: self.source_date_epoch,
        })
    }
}

/// The text of a file of the project's own.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::Read {
            path: path.to_owned(),
            source,
        },
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there are too many.
    file.take(bounds::CONFIG_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > bounds::CONFIG_BYTES {
        let reason = format!("the file is larger than {} bytes", bounds::CONFIG_BYTES);
        return Err(wrong(path, "", (0, Invalid::new(reason))));
    }
    String::from_utf8(bytes).map_err(|e| {
        let end = e.utf8_error().valid_up_to();
        let good = String::from_utf8_lossy(&e.as_bytes()[..end]).into_owned();
        let invalid = Invalid::new("not UTF-8, which TOML has to be");
        wrong(path, &good, (good.len(), invalid))
    })
}

/// What is wrong in the text of a file.
pub(crate) fn wrong(path: &Path, text: &str, (offset, invalid): values::Refusal) -> Error {
    Error::Wrong(Wrong {
        path: path.to_owned(),
        place: Place::at(text, offset),
        invalid: Invalid::field(cut(invalid.field), cut(invalid.reason)),
    })
}

/// What is told of a refusal: it may quote the file, at any length.
fn cut(mut text: String) -> String {
    if text.len() > bounds::REASON_BYTES {
        text.truncate(text.floor_char_boundary(bounds::REASON_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
