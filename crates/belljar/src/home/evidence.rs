use std::collections::{BTreeMap, BTreeSet};

use belljar_attest::{PublicKey, Verdict, verify, verify_receipt, verify_receipt_of};
use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_manifest::evidence::{BUNDLE_SUFFIX, ENVELOPE_SUFFIX, PUBLIC_KEY};
use belljar_wire::{BuildRecord, ServerInfo};
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::fetch::{self, Output};

const DOING: &str = "reading the evidence";

/// Fetches the bundle, verifies it against what was fetched, and writes it beside each output,
/// with the public key at the top.
pub(super) async fn bring_home(
    client: &Client,
    output: &Output,
    build: &BuildRecord,
    server: &ServerInfo,
    roots: &BTreeSet<RelPath>,
) -> Result<Verdict, Error> {
    let unusable = |invalid: Invalid| super::unusable(DOING, invalid);
    let bundle = build.evidence.bundle;
    let bundle = bundle.ok_or_else(|| {
        unusable(Invalid::field(
            "evidence.bundle",
            "a build that succeeded has one",
        ))
    })?;
    let bytes = fetch::object(client, bundle, bounds::BUNDLE_BYTES).await?;
    let key = PublicKey::from_pem(&server.public_key_pem)
        .map_err(|e| unusable(e.within("public_key_pem")))?;
    let mut verdict = None;
    // A bundle is about all artifacts together: one out of each output shows that it is about these.
    for object in one_file_each(build, roots).into_values() {
        let said =
            verify(&bytes, &server.public_key_pem, &object.digest).map_err(Error::NotVerified)?;
        verdict.get_or_insert(said);
    }
    let verdict =
        verdict.ok_or_else(|| unusable(Invalid::field("artifacts", "none of them is a file")))?;
    about(&verdict, build).map_err(unusable)?;
    let envelope = envelope(&bytes).map_err(unusable)?;
    for declared in roots {
        let beside = |suffix: &str| RelPath::new(format!("{declared}{suffix}")).map_err(unusable);
        output.write(&beside(BUNDLE_SUFFIX)?, &bytes)?;
        output.write(&beside(ENVELOPE_SUFFIX)?, envelope.as_bytes())?;
    }
    output.write(
        &RelPath::new(PUBLIC_KEY).map_err(unusable)?,
        key.to_pem().as_bytes(),
    )?;
    Ok(verdict)
}

/// Verifies the bundle about a receipt: by the key and builder of the provenance, if there is one.
pub(super) fn of_receipt(
    bundle: &[u8],
    receipt: ObjectId,
    server: &ServerInfo,
    provenance: Option<&Verdict>,
) -> Result<(), Error> {
    let key = &server.public_key_pem;
    let verified = match provenance {
        Some(provenance) => verify_receipt_of(provenance, bundle, key),
        None => verify_receipt(bundle, key, &receipt.digest),
    };
    verified.map(drop).map_err(Error::NotVerified)
}

/// Whether a verdict is about this build: its specification, its sources, its last attempt.
fn about(verdict: &Verdict, build: &BuildRecord) -> Result<(), Invalid> {
    let due = build.spec.digest()?;
    if verdict.spec != due {
        return Err(Invalid::field(
            "evidence.bundle",
            format!("it is about the specification {}, not {due}", verdict.spec),
        ));
    }
    if verdict.source != build.spec.source.digest {
        return Err(Invalid::field(
            "evidence.bundle",
            format!("it is about the source tree {}", verdict.source),
        ));
    }
    match build.evidence.receipt {
        Some(receipt) if receipt.digest != verdict.receipt => Err(Invalid::field(
            "evidence.receipt",
            format!("the bundle names the receipt {}", verdict.receipt),
        )),
        _ => Ok(()),
    }
}

/// The first regular file of each output that has one.
fn one_file_each<'a>(
    build: &'a BuildRecord,
    roots: &'a BTreeSet<RelPath>,
) -> BTreeMap<&'a RelPath, ObjectId> {
    let mut files = BTreeMap::new();
    for (path, object) in fetch::files(&build.artifacts) {
        if let Some(root) = roots.iter().find(|root| path.starts_with(root)) {
            files.entry(root).or_insert(object);
        }
    }
    files
}

/// The DSSE envelope of a bundle on a line of its own (in-toto's attestation bundles, JSON Lines).
fn envelope(bundle: &[u8]) -> Result<String, Invalid> {
    let bundle: Value = serde_json::from_slice(bundle).map_err(|e| Invalid::new(e.to_string()))?;
    let envelope = bundle
        .get("dsseEnvelope")
        .ok_or_else(|| Invalid::field("dsseEnvelope", "missing"))?;
    Ok(format!("{envelope}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_one_line() {
        let bundle = br#"{ "mediaType": "x", "dsseEnvelope": { "payload": "YQ==",
            "signatures": [ { "sig": "eA==" } ] } }"#;
        let line = envelope(bundle).unwrap();
        assert_eq!(
            line,
            "{\"payload\":\"YQ==\",\"signatures\":[{\"sig\":\"eA==\"}]}\n"
        );
        assert!(envelope(b"{}").is_err());
        assert!(envelope(b"nonsense").is_err());
    }
}
