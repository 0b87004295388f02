//! Protobuf of the packages `belljar.v1` and `google.bytestream` (see `proto/`), and the one place where it becomes domain
//! types and back.
//!
//! Whatever comes in is parsed once: `TryFrom` gives a [`belljar_core::Invalid`] whose field is a path
//! as in the message (`outputs[2]`, `limits.pids`); the caller adds what stands before it by
//! [`belljar_core::Invalid::within`]. Errors go out and are read back as a [`Problem`].

mod derive;
mod evidence;
mod fetch;
mod filter;
mod image_output;
mod limits;
mod numbers;
mod outcome;
mod problem;
mod record;
mod server;
mod spec;
mod step;
mod store;
mod summary;
#[cfg(test)]
mod tests;

pub use derive::{DerivedTree, ImagePull, PulledImage};
pub use evidence::{BuildEvidence, evidence_name, parse_evidence_name};
pub use filter::{Condition, Filter, Order};
pub use image_output::{ImageArtifact, ImagePush, PushedImage};
pub use limits::with_defaults;
pub use numbers::{ProtoTime, proto_time};
pub use problem::{Problem, Reason, Unmet};
pub use record::{
    Artifact, ArtifactKind, BuildRecord, BuildState, Evidence, build_name, parse_build_name,
    parse_project_name, project_name,
};
pub use server::{Door, Layer, LayerVerdict, Membership, Refusals, ServerInfo};
pub use step::{StepEnding, StepReport};
pub use store::{
    DamagedObject, KeptBuilds, PinRecord, PinTarget, ScrubStatus, StorePart, StoreStatus, Swept,
    parse_pin_name, pin_name,
};
pub use summary::BuildSummary;

/// Generated messages, client and server of `belljar.v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod v1 {
    tonic::include_proto!("belljar.v1");
}

/// Generated messages and server of `google.bytestream`, whose content shares the memory that it came in.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod bytestream {
    tonic::include_proto!("google.bytestream");
}

/// The compiled `google.protobuf.FileDescriptorSet` of `belljar.v1` with all that it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/belljar.v1.bin"));
