//! The nouns of Belljar, as types that cannot hold a bad value: digests, paths, the canonical build
//! specification, limits, outcomes, ids and times.
//!
//! Pure: nothing in here does I/O or reads a clock or the environment. Whoever has one of these
//! values may rely on its documented shape without looking again.

mod artifact;
mod blob_name;
pub mod bounds;
mod canonical;
mod derivation;
mod digest;
mod environment;
pub mod evidence;
mod fetch;
mod fetch_url;
mod git;
mod id;
mod image_output;
mod image_reference;
mod invalid;
mod limits;
pub mod oci;
mod outcome;
mod path;
mod pattern;
mod project;
mod shown_url;
mod spec;
mod time;

pub use artifact::{ArtifactFetch, ArtifactForm, BuilderId, Producer};
pub use blob_name::{Blake3Digest, BlobDigest, BlobName};
pub use canonical::{CanonicalError, canonical_json};
pub use derivation::{Derivation, Dropped, Fact, Platform, Recipe};
pub use digest::{Digest, Hasher, ObjectId, Sha512Digest, Sha512Hasher};
pub use environment::{EnvName, EnvValue};
pub use fetch::{Fetch, FetchDigest, Fetches, Mirrors, Unpack, UrlFetch};
pub use fetch_url::{FetchUrl, Scheme};
pub use git::{GitFetch, GitId, GitSubmodule};
pub use id::{AttemptId, BuildId, InputName, RequestId};
pub use image_output::{BaseImage, ImageConfig, ImageFields, ImageOutput};
pub use image_reference::{ImageReference, Repository};
pub use invalid::Invalid;
pub use limits::{Limits, PartialLimits, Unchecked as LimitFigures};
pub use outcome::{LimitKind, Outcome};
pub use path::RelPath;
pub use pattern::{OutputPattern, Way};
pub use project::ProjectId;
pub use shown_url::shown_url;
pub use spec::{BuildSpec, Image, ImageKind, Input, Inputs, Network, Outputs, Script, Steps};
pub use time::Timestamp;
