use std::collections::BTreeSet;

use belljar_attest::{PublicKey, Verdict, verify_all, verify_receipt, verify_receipt_of};
use belljar_core::evidence::{BUNDLE, BUNDLE_SUFFIX, ENVELOPE, ENVELOPE_SUFFIX, IMAGE, PUBLIC_KEY};
use belljar_core::{Digest, Invalid, ObjectId, RelPath, bounds};
use belljar_wire::{BuildRecord, ServerInfo};
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::fetch::{self, Output};
use crate::layout;

const DOING: &str = "reading the evidence";

/// Fetches the bundle, verifies it against what was fetched, and writes it beside each output, or once where that
/// would be too much, with the public key at the top.
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
    let mut files = one_file_each(build, roots);
    files.extend(build.image.iter().map(|image| image.manifest.digest));
    let (first, others) = files
        .split_first()
        .ok_or_else(|| unusable(Invalid::field("artifacts", "none of them is a file")))?;
    // A bundle is about all artifacts together: one out of each output shows that it is about these.
    let verdict =
        verify_all(&bytes, &server.public_key_pem, first, others).map_err(Error::NotVerified)?;
    about(&verdict, build).map_err(unusable)?;
    let envelope = envelope(&bytes).map_err(unusable)?;
    let mut roots = roots.clone();
    if build.image.is_some() {
        roots.insert(named(IMAGE)?);
        let layout = output.path().join(IMAGE);
        layout::verify(&layout, &bytes, &server.public_key_pem)?;
    }
    lay(output, &roots, &bytes, envelope.as_bytes()).await?;
    output.write(&named(PUBLIC_KEY)?, key.to_pem().as_bytes())?;
    Ok(verdict)
}

/// Writes bundle and envelope beside each output, or at the top if those would take more than
/// [`bounds::EVIDENCE_BESIDE_BYTES`]. What an earlier run left where there is none now goes: it is not about these.
async fn lay(
    output: &Output,
    roots: &BTreeSet<RelPath>,
    bundle: &[u8],
    envelope: &[u8],
) -> Result<(), Error> {
    let beside = |root: &RelPath, suffix: &str| named(&format!("{root}{suffix}"));
    let together = (bundle.len() + envelope.len()).saturating_mul(roots.len());
    let each = roots.len() == 1 || together <= bounds::EVIDENCE_BESIDE_BYTES;
    // First, since an output may be called as the bundle at the top is without its suffix.
    for (name, content) in [(BUNDLE, bundle), (ENVELOPE, envelope)] {
        match each {
            true => output.clear(&named(name)?)?,
            false => output.write(&named(name)?, content)?,
        }
    }
    for root in roots {
        for (suffix, content) in [(BUNDLE_SUFFIX, bundle), (ENVELOPE_SUFFIX, envelope)] {
            let at = beside(root, suffix)?;
            match each {
                true => output.write(&at, content)?,
                false if [BUNDLE, ENVELOPE].contains(&at.as_str()) => {}
                false => output.clear(&at)?,
            }
        }
        // Nothing here waits for anything: whoever waits for signals has a turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn named(name: &str) -> Result<RelPath, Error> {
    RelPath::new(name).map_err(|invalid| super::unusable(DOING, invalid))
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
fn one_file_each(build: &BuildRecord, roots: &BTreeSet<RelPath>) -> Vec<Digest> {
    let mut due: BTreeSet<&str> = roots.iter().map(RelPath::as_str).collect();
    fetch::files(&build.artifacts)
        .filter(|(path, _)| path.prefixes().any(|root| due.remove(root)))
        .map(|(_, object)| object.digest)
        .collect()
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

    fn roots(count: usize) -> BTreeSet<RelPath> {
        let names = (0..count).map(|n| format!("d/{n}"));
        names.map(|name| RelPath::new(name).unwrap()).collect()
    }

    fn names(output: &Output, below: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(output.path().join(below));
        let names = entries.into_iter().flatten().map(|entry| {
            let name = entry.unwrap().file_name();
            name.into_string().unwrap()
        });
        names.filter(|name| !name.starts_with('.')).collect()
    }

    #[tokio::test]
    async fn what_is_laid_beside_outputs_is_bounded_and_the_rest_of_earlier_runs_goes() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        let beside = ["d/0.intoto.jsonl", "d/0.sigstore.json"];
        let at_the_top = [ENVELOPE, BUNDLE].map(str::to_owned);
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();

        let large = vec![b'x'; bounds::EVIDENCE_BESIDE_BYTES / 4];
        lay(&output, &roots(2), &large, b"line").await.unwrap();
        assert_eq!(names(&output, "d").len(), 4);
        assert!(!dir.path().join(BUNDLE).exists());

        lay(&output, &roots(4), &large, b"line").await.unwrap();
        assert_eq!(names(&output, "d"), set(&[]), "those of the run before");
        let mut top = names(&output, ".");
        assert!(top.remove("d"));
        assert_eq!(top, set(&at_the_top));

        // One output has its bundle beside it, however large.
        let larger = vec![b'x'; bounds::EVIDENCE_BESIDE_BYTES + 1];
        lay(&output, &roots(1), &larger, b"line").await.unwrap();
        assert_eq!(names(&output, "."), set(&["d".to_owned()]));
        for name in beside {
            assert!(dir.path().join(name).exists(), "{name}");
        }

        // An output may be called as the bundle at the top.
        let mut called = roots(4);
        called.insert(RelPath::new("provenance").unwrap());
        lay(&output, &called, &large, b"line").await.unwrap();
        assert!(dir.path().join(BUNDLE).exists());
    }

    #[tokio::test]
    async fn whoever_waits_for_signals_has_a_turn_while_evidence_is_laid() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        let roots = roots(1000);
        tokio::select! {
            biased;
            _ = lay(&output, &roots, b"bundle", b"line") => panic!("nobody else had a turn"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(names(&output, "d").len(), 2, "the first and no more");
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

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
