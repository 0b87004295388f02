use belljar_core::{BuildSpec, Digest, ObjectId, canonical_json, evidence};
use belljar_plan::signer::Asserted;
use belljar_plan::{OutputKind, Plan, Receipt, RootFsRecord};
use serde_json::{Map, Value, json};

use crate::derivations;
use crate::objections::{self, Attestable};
use crate::statement::{PREDICATE_TYPE, STATEMENT_TYPE};
use crate::{BuilderConfig, Mode, Producers, Statement};

/// Names of byproducts that verification looks for.
pub(crate) const RECEIPT: &str = "receipt.json";
pub(crate) const SPEC: &str = "spec.json";
pub(crate) const AUDIT: &str = "audit.jsonl";
/// Name of the resolved dependency that is the input tree.
pub(crate) const SOURCE: &str = "source";
/// Name of the one that is the root file system.
pub(crate) const ROOTFS: &str = "rootfs";
/// Name of the one that the image lies on that became of the outputs: its manifest.
pub(crate) const BASE: &str = "image base";
/// What the name of a further input begins with.
pub(crate) const INPUTS: &str = "deps/";

impl Statement {
    /// The SLSA provenance v1 of one attempt, if it may be attested: a pure function, and the one place that
    /// decides. The specification is compiled again, and its digest and its plan's must be the receipt's;
    /// the receipt must show a success, fully enforced, whose outputs are the declared ones. What it was given of earlier
    /// builds these must have left, by what is proven of them in `producers` (see [`Producers::due`]).
    ///
    /// # Errors
    /// Every reason against it, one sentence each; never none.
    pub fn provenance(
        spec: &BuildSpec,
        receipt: &Receipt,
        asserted: &Asserted,
        producers: &Producers,
        builder: &BuilderConfig,
    ) -> Result<Self, Vec<String>> {
        let facts = objections::check(spec, receipt, asserted, (producers, builder))?;
        let mode = Mode::of(&receipt.rootfs, facts.enforcement);
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": subjects(receipt),
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": builder.build_type(),
                    "externalParameters": spec,
                    "internalParameters": internal_parameters(spec, receipt, asserted, &facts),
                    "resolvedDependencies": dependencies(spec, receipt, producers, builder),
                },
                "runDetails": {
                    "builder": {
                        "id": builder.id(mode),
                        "version": {
                            "belljar": receipt.binaries.version,
                            "kernel": receipt.binaries.kernel,
                            "landlock-abi": facts.enforcement.landlock.abi.to_string(),
                        },
                        "builderDependencies": builder_dependencies(receipt, &facts),
                    },
                    "metadata": {
                        "invocationId": builder.invocation(&receipt.attempt),
                        "startedOn": receipt.started,
                        "finishedOn": receipt.finished,
                    },
                    "byproducts": byproducts(asserted, &facts),
                },
            },
        });
        let payload = canonical_json(&statement).map_err(|e| vec![e.to_string()])?;
        Ok(Self::from_payload(payload))
    }
}

/// Every regular file, and the manifest of the image that became of them; links and directories have no content of their own
/// and stand in the receipt.
fn subjects(receipt: &Receipt) -> Vec<Value> {
    let file = |entry: &belljar_plan::OutputEntry| match &entry.kind {
        OutputKind::File { object, sha512, .. } => Some(json!({
            "name": entry.path,
            "digest": { "sha256": object.digest.to_hex(), "sha512": sha512.to_hex() },
        })),
        OutputKind::Symlink { .. } | OutputKind::Directory => None,
    };
    let image = receipt.image_output.iter().map(|image| {
        json!({
            "name": evidence::IMAGE,
            "digest": { "sha256": image.manifest.digest.to_hex(), "sha512": image.sha512.to_hex() },
        })
    });
    let files = receipt.outputs.iter().filter_map(file);
    files.chain(image).collect()
}

fn internal_parameters(
    spec: &BuildSpec,
    receipt: &Receipt,
    asserted: &Asserted,
    facts: &Attestable<'_>,
) -> Value {
    let report = facts.enforcement;
    let probes: Vec<&str> = receipt
        .self_probes
        .iter()
        .map(|probe| probe.name.as_str())
        .collect();
    let namespaces: Vec<&str> = report
        .namespaces
        .iter()
        .map(|ns| ns.kind.proc_name())
        .collect();
    let mut parameters = json!({
        "asserted": {
            "project": asserted.project,
            "submitter": asserted.submitter,
            "authenticatedBy": asserted.authenticated_by,
            "accepted": asserted.accepted,
        },
        "attempt": receipt.attempt,
        "hermetic": matches!(receipt.rootfs, RootFsRecord::Tree { .. }),
        "profile": Plan::compile(spec).profile,
        "limits": spec.limits,
        "network": spec.network,
        "sourceDateEpoch": spec.source_date_epoch,
        "enforcement": {
            "namespaces": namespaces,
            "maxUserNamespaces": report.max_user_namespaces,
            "capabilities": report.capabilities,
            "noNewPrivs": report.no_new_privs,
            "seccomp": report.seccomp,
            "landlock": report.landlock,
            "cgroup": report.cgroup,
            "selfProbesRefused": probes,
            "inputUnchanged": receipt.input.unchanged,
            "cleanRoom": receipt.clean_room,
        },
    });
    // Absent where the spawner was of before there was a rule.
    if let Some(rule) = receipt.image_rule {
        parameters["imageRule"] = json!(rule);
    }
    parameters
}

/// Everything that the build could read: complete, unless the root file system is the host's.
fn dependencies(
    spec: &BuildSpec,
    receipt: &Receipt,
    producers: &Producers,
    builder: &BuilderConfig,
) -> Vec<Value> {
    let mut all = vec![
        tree(SOURCE, receipt.input.tree, None),
        rootfs(receipt, builder),
    ];
    let inputs = receipt.inputs.iter();
    all.extend(
        inputs.map(|(name, input)| tree(&format!("{INPUTS}{name}"), input.tree, input.derivation)),
    );
    all.extend(derivations::base_image(spec, receipt));
    all.extend(derivations::images(spec, receipt));
    all.extend(derivations::packages(spec, receipt));
    all.extend(derivations::contents(spec, receipt));
    all.extend(derivations::commits(spec, receipt));
    all.extend(derivations::artifacts(spec, receipt, producers, builder));
    all
}

fn tree(name: &str, ObjectId { digest, size }: ObjectId, derivation: Option<ObjectId>) -> Value {
    let mut tree = descriptor(name, digest, "application/x-protobuf");
    let mut annotations = json!({
        "belljar_message": "build.bazel.remote.execution.v2.Directory",
        "belljar_size": size,
    });
    if let Some(record) = derivation {
        annotations["belljar_derivation"] = record.digest.to_hex().into();
    }
    tree.insert("annotations".to_owned(), annotations);
    tree.into()
}

fn rootfs(receipt: &Receipt, builder: &BuilderConfig) -> Value {
    match &receipt.rootfs {
        RootFsRecord::Host { paths } => json!({
            "name": ROOTFS,
            "uri": builder.host_rootfs(),
            "annotations": { "belljar_hermetic": false, "belljar_hostPaths": paths },
        }),
        RootFsRecord::Tree {
            tree: object,
            derivation,
        } => tree(ROOTFS, *object, *derivation),
    }
}

fn builder_dependencies(receipt: &Receipt, facts: &Attestable<'_>) -> Vec<Value> {
    let (binaries, report) = (&receipt.binaries, facts.enforcement);
    [
        descriptor(
            "belljar-spawner",
            binaries.spawner,
            "application/octet-stream",
        ),
        descriptor("spawner.toml", binaries.spawner_config, "application/toml"),
        descriptor(
            "seccomp-program",
            report.seccomp.program,
            "application/vnd.belljar.seccomp-bpf",
        ),
        descriptor(
            "landlock-ruleset",
            report.landlock.ruleset,
            "text/plain; charset=utf-8",
        ),
    ]
    .map(Value::Object)
    .into()
}

fn byproducts(asserted: &Asserted, facts: &Attestable<'_>) -> Vec<Value> {
    let mut audit = descriptor(AUDIT, asserted.audit_trail, "application/jsonl");
    audit.insert(
        "annotations".to_owned(),
        json!({ "belljar_asserted": true, "belljar_entries": asserted.audit_entries }),
    );
    [
        descriptor(
            "build.log",
            facts.log.object.digest,
            "text/plain; charset=utf-8",
        ),
        descriptor(
            RECEIPT,
            facts.receipt,
            "application/vnd.belljar.receipt.v1+json",
        ),
        descriptor(
            "plan.json",
            facts.plan,
            "application/vnd.belljar.plan.v1+json",
        ),
        descriptor(SPEC, facts.spec, "application/vnd.belljar.spec.v1+json"),
        audit,
    ]
    .map(Value::Object)
    .into()
}

/// An in-toto ResourceDescriptor that names content by digest.
fn descriptor(name: &str, digest: Digest, media_type: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), name.into());
    fields.insert("digest".to_owned(), json!({ "sha256": digest.to_hex() }));
    fields.insert("mediaType".to_owned(), media_type.into());
    fields
}

#[cfg(test)]
mod tests;
