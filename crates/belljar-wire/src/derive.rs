use std::collections::BTreeMap;

use belljar_core::{Dropped, ImageReference, Input, Invalid, ObjectId, Platform, Recipe};

use crate::numbers::{required, signed, unsigned};
use crate::v1;
use v1::derive_tree_request::{CargoLock, Fetched, NpmLock, Oci, Recipe as Wire, Tar};

/// A tree that was made: the parsed form of `belljar.v1.DeriveTreeResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedTree {
    /// The tree and its record.
    pub input: Input,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Content bytes of all its files.
    pub bytes: u64,
    /// What was left out, and how often.
    pub dropped: BTreeMap<Dropped, u64>,
}

/// An image that is to be pulled: the parsed form of `belljar.v1.PullImageRequest` but for its project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePull {
    /// Which.
    pub reference: ImageReference,
    /// Which of its images.
    pub platform: Platform,
}

/// An image that was pulled: the parsed form of `belljar.v1.PullImageResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// What came of it.
    pub derived: DerivedTree,
    /// The image index or image manifest that the reference named.
    pub image: ObjectId,
    /// Bytes that came from the registry.
    pub pulled_bytes: u64,
}

impl TryFrom<v1::DeriveTreeRequest> for Recipe {
    type Error = Invalid;

    fn try_from(request: v1::DeriveTreeRequest) -> Result<Self, Invalid> {
        match required("recipe", request.recipe)? {
            Wire::Tar(Tar { archive }) => Ok(Self::Tar {
                archive: object("tar.archive", archive)?,
            }),
            Wire::Fetched(Fetched { content, unpack }) => Ok(Self::Fetched {
                content: object("fetched.content", content)?,
                unpack: required("fetched.unpack", unpack)?
                    .try_into()
                    .map_err(|e: Invalid| e.within("fetched.unpack"))?,
            }),
            Wire::Oci(Oci { index, platform }) => Ok(Self::Oci {
                index: object("oci.index", index)?,
                platform: platform
                    .parse()
                    .map_err(|e: Invalid| e.within("oci.platform"))?,
            }),
            Wire::CargoLock(CargoLock { lock, packages }) => Ok(Self::CargoLock {
                lock: object("cargo_lock.lock", lock)?,
                packages: object("cargo_lock.packages", packages)?,
            }),
            Wire::NpmLock(NpmLock { lock, packages }) => Ok(Self::NpmLock {
                lock: object("npm_lock.lock", lock)?,
                packages: object("npm_lock.packages", packages)?,
            }),
        }
    }
}

impl TryFrom<&Recipe> for v1::DeriveTreeRequest {
    type Error = Invalid;

    /// Of all recipes but those of images that were pulled, of commits of git repositories, and of what earlier builds have
    /// left: that they were only belljard can say.
    fn try_from(recipe: &Recipe) -> Result<Self, Invalid> {
        let recipe = match recipe {
            Recipe::Pulled { .. } => {
                let why = "an image of a registry is had by `PullImage`";
                return Err(Invalid::field("recipe", why));
            }
            Recipe::Git { .. } => {
                let why = "a commit of a git repository is had by a build's `fetches`";
                return Err(Invalid::field("recipe", why));
            }
            Recipe::Artifact { .. } | Recipe::OutputDirectory { .. } => {
                let why = "what an earlier build has left is had by a build's `fetches`";
                return Err(Invalid::field("recipe", why));
            }
            Recipe::Tar { archive } => Wire::Tar(Tar {
                archive: Some((*archive).into()),
            }),
            Recipe::Fetched { content, unpack } => Wire::Fetched(Fetched {
                content: Some((*content).into()),
                unpack: Some(unpack.into()),
            }),
            Recipe::Oci { index, platform } => Wire::Oci(Oci {
                index: Some((*index).into()),
                platform: platform.to_string(),
            }),
            Recipe::CargoLock { lock, packages } => Wire::CargoLock(CargoLock {
                lock: Some((*lock).into()),
                packages: Some((*packages).into()),
            }),
            Recipe::NpmLock { lock, packages } => Wire::NpmLock(NpmLock {
                lock: Some((*lock).into()),
                packages: Some((*packages).into()),
            }),
        };
        Ok(Self {
            recipe: Some(recipe),
            project: String::new(),
        })
    }
}

impl TryFrom<v1::PullImageRequest> for ImagePull {
    type Error = Invalid;

    fn try_from(request: v1::PullImageRequest) -> Result<Self, Invalid> {
        let (reference, platform) = (request.reference.parse(), request.platform.parse());
        Ok(Self {
            reference: reference.map_err(|e: Invalid| e.within("reference"))?,
            platform: platform.map_err(|e: Invalid| e.within("platform"))?,
        })
    }
}

impl From<&ImagePull> for v1::PullImageRequest {
    fn from(pull: &ImagePull) -> Self {
        Self {
            reference: pull.reference.to_string(),
            platform: pull.platform.to_string(),
            project: String::new(),
        }
    }
}

impl From<&PulledImage> for v1::PullImageResponse {
    fn from(pulled: &PulledImage) -> Self {
        Self {
            derived: Some((&pulled.derived).into()),
            image: Some(pulled.image.into()),
            pulled_bytes: signed(pulled.pulled_bytes),
        }
    }
}

impl TryFrom<v1::PullImageResponse> for PulledImage {
    type Error = Invalid;

    fn try_from(response: v1::PullImageResponse) -> Result<Self, Invalid> {
        Ok(Self {
            derived: required("derived", response.derived)?
                .try_into()
                .map_err(|e: Invalid| e.within("derived"))?,
            image: object("image", response.image)?,
            pulled_bytes: unsigned("pulled_bytes", response.pulled_bytes)?,
        })
    }
}

impl From<&DerivedTree> for v1::DeriveTreeResponse {
    fn from(derived: &DerivedTree) -> Self {
        let dropped = derived.dropped.iter();
        Self {
            input: Some((&derived.input).into()),
            entries: signed(derived.entries),
            bytes: signed(derived.bytes),
            dropped: dropped
                .map(|(what, count)| v1::derive_tree_response::Dropped {
                    what: what.word().to_owned(),
                    count: signed(*count),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::DeriveTreeResponse> for DerivedTree {
    type Error = Invalid;

    fn try_from(response: v1::DeriveTreeResponse) -> Result<Self, Invalid> {
        let mut dropped = BTreeMap::new();
        for (index, one) in response.dropped.into_iter().enumerate() {
            let field = format!("dropped[{index}]");
            let what = one.what.parse::<Dropped>();
            let what = what.map_err(|e| e.within("what").within(&field))?;
            let count = unsigned("count", one.count).map_err(|e| e.within(&field))?;
            if dropped.insert(what, count).is_some() {
                return Err(Invalid::field(field, "was given already"));
            }
        }
        Ok(Self {
            input: required("input", response.input)?
                .try_into()
                .map_err(|e: Invalid| e.within("input"))?,
            entries: unsigned("entries", response.entries)?,
            bytes: unsigned("bytes", response.bytes)?,
            dropped,
        })
    }
}

fn object(field: &str, digest: Option<v1::Digest>) -> Result<ObjectId, Invalid> {
    required(field, digest)?
        .try_into()
        .map_err(|e: Invalid| e.within(field))
}
