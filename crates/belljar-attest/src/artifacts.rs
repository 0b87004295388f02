//! What earlier builds have left, as a build was given it.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{
    ArtifactFetch, ArtifactForm, AttemptId, Derivation, Digest, ObjectId, Producer, Recipe,
};
use belljar_plan::Receipt;
use serde_json::{Value, json};

use crate::{BuilderConfig, Mode, Proven};

/// The earlier attempts of which a build was given something, each with its provenance, as far as that was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers(BTreeMap<AttemptId, Proven>);

impl Producers {
    /// The attempts whose provenance is needed for a statement about `receipt`.
    pub fn due(receipt: &Receipt) -> BTreeSet<AttemptId> {
        let records = receipt.derivations.iter();
        let producers = records.filter_map(|record| Some(Left::of(record)?.producer));
        producers.map(|producer| producer.attempt.clone()).collect()
    }

    /// Adds one.
    pub fn add(&mut self, attempt: AttemptId, proven: Proven) {
        self.0.insert(attempt, proven);
    }
}

/// What a record says that an earlier build has left.
struct Left<'a> {
    producer: &'a Producer,
    what: What<'a>,
    tree: ObjectId,
}

enum What<'a> {
    File(ObjectId),
    Directory { receipt: ObjectId, output: &'a str },
}

impl<'a> Left<'a> {
    fn of(record: &'a Derivation) -> Option<Self> {
        let tree = record.tree;
        match &record.recipe {
            Recipe::Artifact {
                producer, content, ..
            } => Some(Self {
                producer,
                what: What::File(*content),
                tree,
            }),
            Recipe::OutputDirectory {
                producer,
                receipt,
                output,
            } => Some(Self {
                producer,
                what: What::Directory {
                    receipt: *receipt,
                    output: output.as_str(),
                },
                tree,
            }),
            Recipe::Tar { .. }
            | Recipe::Fetched { .. }
            | Recipe::Oci { .. }
            | Recipe::Pulled { .. }
            | Recipe::Git { .. }
            | Recipe::CargoLock { .. }
            | Recipe::NpmLock { .. } => None,
        }
    }

    /// By which digest it is known.
    fn object(&self) -> ObjectId {
        match self.what {
            What::File(content) => content,
            What::Directory { .. } => self.tree,
        }
    }

    /// Its provenance, if that says so, and was made by this builder.
    fn proven<'p>(
        &self,
        producers: &'p Producers,
        builder: &BuilderConfig,
    ) -> Result<&'p Proven, String> {
        let attempt = &self.producer.attempt;
        let Some(proven) = producers.0.get(attempt) else {
            return Err(format!("there is no provenance of {attempt} that holds"));
        };
        if proven.provenance() != self.producer.provenance {
            return Err(format!(
                "the provenance of {attempt} is not {}",
                self.producer.provenance
            ));
        }
        if proven.invocation() != builder.invocation(attempt) {
            return Err(format!("the provenance of {attempt} is another attempt's"));
        }
        if Mode::in_id(proven.builder()).is_none_or(|(base, _)| base != builder.base()) {
            return Err(format!(
                "the provenance of {attempt} is of another builder: {}",
                proven.builder()
            ));
        }
        let names = match self.what {
            What::File(content) => proven.left(content.digest),
            What::Directory { receipt, .. } => proven.receipt() == receipt.digest,
        };
        match names {
            true => Ok(proven),
            false => Err(format!("{attempt} has not left {}", self.object().digest)),
        }
    }
}

/// What speaks against a tree of this record, if it is said to be of something that an earlier build has left.
pub(crate) fn objection(
    input: &str,
    record: &Derivation,
    producers: &Producers,
    builder: &BuilderConfig,
) -> Option<String> {
    let refused = Left::of(record)?.proven(producers, builder).err()?;
    Some(format!(
        "{input} is not of the build that is named: {refused}"
    ))
}

/// Whether a record is of the artifact that a specification names; by which builder, is told apart.
pub(crate) fn fits(fetch: &ArtifactFetch, record: &Derivation) -> bool {
    let fits = match (&fetch.form, &record.recipe) {
        (
            ArtifactForm::File(due),
            Recipe::Artifact {
                content, unpack, ..
            },
        ) => content.digest == fetch.artifact && unpack == due,
        (ArtifactForm::Directory, Recipe::OutputDirectory { .. }) => {
            record.tree.digest == fetch.artifact
        }
        _ => false,
    };
    let producer = Left::of(record).map(|left| left.producer);
    let named = |producer: &Producer| {
        let build = fetch.build.as_ref();
        build.is_none_or(|build| build == producer.attempt.build())
    };
    fits && producer.is_some_and(named)
}

/// Whether it was made by the builder that a specification demands.
pub(crate) fn by_due_builder(
    fetch: &ArtifactFetch,
    record: &Derivation,
    producers: &Producers,
) -> bool {
    let Some(due) = &fetch.builder else {
        return true;
    };
    let producer = Left::of(record).map(|left| left.producer);
    let proven = producer.and_then(|producer| producers.0.get(&producer.attempt));
    proven.is_some_and(|proven| proven.builder() == due.as_str())
}

/// A resolved dependency for what an earlier build has left, with who that was.
pub(crate) fn descriptor(
    input: &str,
    record: &Derivation,
    producers: &Producers,
    builder: &BuilderConfig,
) -> Option<Value> {
    let left = Left::of(record)?;
    let proven = left.proven(producers, builder).ok()?;
    let ObjectId { digest, size } = left.object();
    let mut annotations = json!({
        "belljar_input": input,
        "belljar_attempt": left.producer.attempt,
        "belljar_builder": proven.builder(),
        "belljar_provenance": hex(proven.provenance()),
        "belljar_size": size,
    });
    if let What::Directory { receipt, output } = left.what {
        annotations["belljar_message"] = "build.bazel.remote.execution.v2.Directory".into();
        annotations["belljar_output"] = output.into();
        annotations["belljar_receipt"] = hex(receipt.digest).into();
    }
    if let Some(project) = proven.project() {
        annotations["belljar_project"] = project.into();
        annotations["belljar_asserted"] = json!(["annotations.belljar_project"]);
    }
    Some(json!({
        "uri": proven.invocation(),
        "digest": { "sha256": hex(digest) },
        "annotations": annotations,
    }))
}

fn hex(digest: Digest) -> String {
    digest.to_hex()
}

#[cfg(test)]
mod tests;
