use std::collections::BTreeMap;

use belljar_core::{BuildSpec, Digest, RelPath, bounds, evidence};
use belljar_plan::signer::Asserted;
use belljar_plan::{EnforcementReport, LogRecord, OutputKind, Plan, Receipt, RootFsRecord};

use crate::{BuilderConfig, Producers, derivations, image};

/// What a statement needs beside its arguments, once nothing speaks against it.
pub(crate) struct Attestable<'a> {
    pub(crate) spec: Digest,
    pub(crate) plan: Digest,
    pub(crate) receipt: Digest,
    pub(crate) enforcement: &'a EnforcementReport,
    pub(crate) log: &'a LogRecord,
}

/// Reasons not to attest, at most [`bounds::REASONS`] of them, each at most [`bounds::REASON_BYTES`] long.
#[derive(Default)]
struct Objections {
    reasons: Vec<String>,
    more: usize,
}

impl Objections {
    fn add(&mut self, mut reason: String) {
        if self.reasons.len() + 1 >= bounds::REASONS {
            self.more += 1;
            return;
        }
        reason.truncate(reason.floor_char_boundary(bounds::REASON_BYTES));
        self.reasons.push(reason);
    }

    fn unless(&mut self, holds: bool, reason: impl FnOnce() -> String) {
        if !holds {
            self.add(reason());
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.reasons.push(format!("and {} reasons more", self.more));
        }
        self.reasons
    }
}

/// Everything that speaks against a statement about `receipt` as a run of `spec`.
pub(crate) fn check<'a>(
    spec: &BuildSpec,
    receipt: &'a Receipt,
    asserted: &Asserted,
    (producers, builder): (&Producers, &BuilderConfig),
) -> Result<Attestable<'a>, Vec<String>> {
    let mut against = Objections::default();
    let plan = Plan::with_fetched(spec, &derivations::fetched(spec, receipt));
    let plan = plan.unwrap_or_else(|invalid| {
        against.add(format!("the receipt lacks a tree: {invalid}"));
        Plan::compile(spec)
    });
    identity(spec, receipt, &mut against);
    for shortfall in receipt.fully_enforced(&plan) {
        against.add(shortfall.to_string());
    }
    ending(&plan, receipt, &mut against);
    outputs(&plan, receipt, &mut against);
    for reason in derivations::mismatches(spec, receipt, producers, builder) {
        against.add(reason);
    }
    for reason in image::mismatches(spec, receipt) {
        against.add(reason);
    }
    texts(receipt, asserted, &mut against);

    let digests = (spec.digest(), plan.digest(), receipt.canonical());
    let facts = (receipt.enforcement.as_ref(), receipt.log.as_ref());
    match (digests, facts) {
        ((Ok(spec), Ok(plan), Ok(receipt)), (Some(enforcement), Some(log)))
            if against.reasons.is_empty() =>
        {
            Ok(Attestable {
                spec,
                plan,
                receipt: Digest::of(&receipt),
                enforcement,
                log,
            })
        }
        ((Ok(_), Ok(_), Ok(_)), _) => Err(against.finish()),
        _ => Err(vec![
            "the specification, its plan or the receipt has no canonical form".to_owned(),
        ]),
    }
}

fn identity(spec: &BuildSpec, receipt: &Receipt, against: &mut Objections) {
    if let Ok(found) = spec.digest() {
        against.unless(found == receipt.spec, || {
            format!(
                "the receipt is about the specification {}, not about {found}",
                receipt.spec
            )
        });
    }
    let nonce =
        receipt.run_nonce.len() == 32 && receipt.run_nonce.bytes().all(|b| b.is_ascii_hexdigit());
    against.unless(nonce, || {
        "the receipt names no run of the spawner".to_owned()
    });
    against.unless(receipt.sequence >= 1, || {
        "the receipt has no place in the spawner's chain".to_owned()
    });
    let first = receipt.sequence == 1;
    against.unless(
        first == receipt.previous.is_none() && first == receipt.previous_attempt.is_none(),
        || "the receipt does not name the one before it".to_owned(),
    );
}

fn ending(plan: &Plan, receipt: &Receipt, against: &mut Objections) {
    against.unless(receipt.outcome.is_success(), || {
        format!(
            "only a success is attested, and the attempt ended so: {}",
            receipt.outcome
        )
    });
    let steps = plan.run.iter().len();
    let fine = receipt
        .steps
        .iter()
        .all(|step| step.exit_code == Some(0) && step.signal.is_none());
    against.unless(fine && receipt.steps.len() == steps, || {
        format!("not every one of the {steps} steps ended with exit status 0")
    });
    against.unless(
        receipt.log.as_ref().is_none_or(|log| !log.truncated),
        || "the log is not complete".to_owned(),
    );
    against.unless(receipt.started <= receipt.finished, || {
        format!(
            "the attempt finished ({}) before it started ({})",
            receipt.finished, receipt.started
        )
    });
}

/// The manifest has every declared output, nothing beside them, every name once, and at least one file.
fn outputs(plan: &Plan, receipt: &Receipt, against: &mut Objections) {
    let mut manifest: BTreeMap<&str, &OutputKind> = BTreeMap::new();
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for entry in &receipt.outputs {
        let path = &entry.path;
        against.unless(
            manifest.insert(path.as_str(), &entry.kind).is_none(),
            || format!("the output `{path}` is listed twice"),
        );
        if let OutputKind::File { object, .. } = &entry.kind {
            files += 1;
            bytes = bytes.saturating_add(object.size);
        }
    }
    let paths = receipt.outputs.iter().map(|entry| &entry.path);
    for declared in plan.outputs.unmatched(paths) {
        against.add(format!(
            "the declared output `{declared}` was not collected"
        ));
    }
    // Else two subjects would have one name.
    against.unless(
        receipt.image_output.is_none() || !manifest.contains_key(evidence::IMAGE),
        || format!("an output is called `{}`, as the image is", evidence::IMAGE),
    );
    for entry in &receipt.outputs {
        against.unless(placed(&entry.path, plan, &manifest), || {
            format!(
                "the output `{}` is neither declared nor inside a declared directory",
                entry.path
            )
        });
        if let OutputKind::Symlink { target } = &entry.kind {
            let itself = plan.outputs.root_of(&entry.path).as_ref() == Some(&entry.path);
            against.unless(!itself, || {
                format!(
                    "the declared output `{}` was not collected as a file or directory",
                    entry.path
                )
            });
            against.unless(!target.is_empty() && !target.starts_with('/'), || {
                format!(
                    "the output `{}` is a link that does not stay inside its directory",
                    entry.path
                )
            });
        }
    }
    against.unless(files > 0, || {
        "no output is a regular file, so there is nothing to attest".to_owned()
    });
    let limits = plan.limits.get();
    against.unless(
        bytes <= limits.output_bytes && manifest.len() as u64 <= limits.output_entries,
        || "the outputs are beyond the specification's limits".to_owned(),
    );
}

/// Whether an entry is a declared output or lies in a directory of one.
fn placed(path: &RelPath, plan: &Plan, manifest: &BTreeMap<&str, &OutputKind>) -> bool {
    match plan.outputs.root_of(path) {
        None => false,
        Some(root) if root == *path => true,
        Some(_) => {
            let parent = path
                .as_str()
                .rsplit_once('/')
                .and_then(|(parent, _)| manifest.get(parent));
            matches!(parent, Some(OutputKind::Directory))
        }
    }
}

/// Texts that a person will read in the statement.
fn texts(receipt: &Receipt, asserted: &Asserted, against: &mut Objections) {
    let principals = [
        ("submitter", &asserted.submitter),
        ("authenticated_by", &asserted.authenticated_by),
    ];
    let programs = [
        ("version", &receipt.binaries.version),
        ("kernel", &receipt.binaries.kernel),
    ];
    for (name, text) in principals.into_iter().chain(programs) {
        let fine = !text.is_empty()
            && text.len() <= bounds::PRINCIPAL_BYTES
            && !text.chars().any(char::is_control);
        against.unless(fine, || {
            format!(
                "{name}: 1 to {} bytes without control characters are due",
                bounds::PRINCIPAL_BYTES
            )
        });
    }
    against.unless(
        (1..=bounds::AUDIT_ENTRIES as u64).contains(&asserted.audit_entries),
        || {
            format!(
                "an audit trail has 1 to {} entries, not {}",
                bounds::AUDIT_ENTRIES,
                asserted.audit_entries
            )
        },
    );
    match &receipt.rootfs {
        RootFsRecord::Host { paths } => {
            let fine = |path: &String| path.starts_with('/') && !path.chars().any(char::is_control);
            against.unless(!paths.is_empty() && paths.iter().all(fine), || {
                "the receipt does not list the host paths that the build saw".to_owned()
            });
        }
        // That it is the plan's is among the shortfalls.
        RootFsRecord::Tree { .. } => {}
    }
}
