//! The shape of a statement, as far as verification reads it.

use belljar_core::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// What verification reads of a statement. Fields that it does not know are ignored, as in-toto demands of
/// consumers; what a later version means by them is told by `buildType` and `builder.id`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) subject: Vec<Subject>,
    pub(super) predicate: Predicate,
}

#[derive(Deserialize)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) digest: Sha256,
}

#[derive(Deserialize)]
pub(super) struct Sha256 {
    pub(super) sha256: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Predicate {
    pub(super) build_definition: BuildDefinition,
    pub(super) run_details: RunDetails,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildDefinition {
    pub(super) build_type: String,
    pub(super) external_parameters: Value,
    pub(super) internal_parameters: InternalParameters,
    pub(super) resolved_dependencies: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(super) struct InternalParameters {
    pub(super) asserted: Asserted,
    pub(super) hermetic: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asserted {
    /// None in statements of before there were projects.
    #[serde(default)]
    pub(super) project: Option<String>,
    pub(super) submitter: String,
    pub(super) authenticated_by: String,
    pub(super) accepted: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunDetails {
    pub(super) builder: Builder,
    pub(super) metadata: Metadata,
    pub(super) byproducts: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(super) struct Builder {
    pub(super) id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) invocation_id: String,
    pub(super) started_on: Timestamp,
    pub(super) finished_on: Timestamp,
}

#[derive(Deserialize)]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) uri: String,
    #[serde(default)]
    pub(super) digest: Digests,
    #[serde(default)]
    pub(super) annotations: Annotations,
}

/// Digests of a descriptor. A commit of a git repository has others.
#[derive(Default, Deserialize)]
pub(super) struct Digests {
    pub(super) sha256: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct Annotations {
    #[serde(default)]
    pub(super) belljar_entries: u64,
    pub(super) belljar_derivation: Option<String>,
    pub(super) belljar_input: Option<String>,
    pub(super) belljar_builder: Option<String>,
    pub(super) belljar_provenance: Option<String>,
}
