//! Verification of statements about receipts.

use belljar_core::{Digest, Invalid, canonical_json};
use belljar_plan::Receipt;
use serde::Deserialize;
use serde_json::Value;

use super::VerifyError;
use super::signed::{head, signed, unreadable};
use super::view::Subject;
use crate::provenance::RECEIPT;
use crate::{BuilderConfig, Bundle, ReceiptVerdict, Verdict};

#[derive(Deserialize)]
struct View {
    subject: Vec<Subject>,
    predicate: Value,
}

/// Whether a bundle says of itself that it is about a receipt: which of the two ways to verify it is due.
pub fn is_about_a_receipt(bundle: &[u8]) -> bool {
    let payload = Bundle::from_json(bundle).map(|bundle| bundle.payload().to_vec());
    let payload: Option<Value> = payload.ok().and_then(|p| serde_json::from_slice(&p).ok());
    let kind = payload
        .as_ref()
        .and_then(|value| value["predicateType"].as_str());
    kind.is_some_and(|kind| BuilderConfig::of_receipt_type(kind).is_some())
}

/// Checks offline that `bundle` (a file's bytes) holds a statement about the receipt file with the digest `receipt`,
/// signed by the key `public_key` (PEM), as [`super::verify`] does for an artifact. The receipt in the statement is
/// that file, byte for byte in its canonical form.
///
/// # Errors
/// The first check that fails, see [`VerifyError`].
pub fn verify_receipt(
    bundle: &[u8],
    public_key: &str,
    receipt: &Digest,
) -> Result<ReceiptVerdict, VerifyError> {
    let (bundle, key_id) = signed(bundle, public_key)?;
    let (view, predicate_type) = read(bundle.payload()).map_err(VerifyError::NotAReceipt)?;
    let hex = receipt.to_hex();
    match view.subject.as_slice() {
        [subject] if subject.digest.sha256 == hex => {}
        subjects => {
            return Err(VerifyError::NotASubject {
                artifact: *receipt,
                subjects: subjects.len(),
            });
        }
    }
    verdict(view.predicate, *receipt, predicate_type, key_id).map_err(VerifyError::NotAReceipt)
}

/// Checks that `bundle` is about the receipt that verified provenance names, by the same builder and key.
///
/// # Errors
/// As [`verify_receipt`]; and when the builder is another one.
pub fn verify_receipt_of(
    provenance: &Verdict,
    bundle: &[u8],
    public_key: &str,
) -> Result<ReceiptVerdict, VerifyError> {
    let verdict = verify_receipt(bundle, public_key, &provenance.receipt)?;
    let base = crate::Mode::in_id(&provenance.builder).map(|(base, _)| base);
    if base != BuilderConfig::of_receipt_type(&verdict.predicate_type) {
        let why = format!(
            "`{}` is not of the builder {}",
            verdict.predicate_type.escape_debug(),
            provenance.builder.escape_debug()
        );
        return Err(VerifyError::NotAReceipt(Invalid::field(
            "predicateType",
            why,
        )));
    }
    Ok(verdict)
}

fn read(payload: &[u8]) -> Result<(View, String), Invalid> {
    let (value, predicate_type) = head(payload)?;
    if BuilderConfig::of_receipt_type(&predicate_type).is_none() {
        let why = format!("`{}`; a receipt's is due", predicate_type.escape_debug());
        return Err(Invalid::field("predicateType", why));
    }
    let view = View::deserialize(value).map_err(unreadable)?;
    if view.subject.iter().any(|subject| subject.name != RECEIPT) {
        return Err(Invalid::field("subject", "a receipt is due"));
    }
    Ok((view, predicate_type))
}

fn verdict(
    predicate: Value,
    due: Digest,
    predicate_type: String,
    key_id: String,
) -> Result<ReceiptVerdict, Invalid> {
    let bytes = canonical_json(&predicate).map_err(|e| Invalid::new(e.to_string()))?;
    if Digest::of(&bytes) != due {
        return Err(Invalid::field(
            "predicate",
            "not the receipt that the subject names",
        ));
    }
    let receipt = Receipt::from_canonical(&bytes).map_err(|e| e.within("predicate"))?;
    Ok(ReceiptVerdict {
        receipt: due,
        predicate_type,
        attempt: receipt.attempt,
        sequence: receipt.sequence,
        previous: receipt.previous,
        outcome: receipt.outcome,
        spec: receipt.spec,
        started: receipt.started,
        finished: receipt.finished,
        key_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Producers, Statement, fixture, verify};
    use belljar_core::Outcome;

    fn builder() -> BuilderConfig {
        BuilderConfig::new("urn:belljar:embedded").unwrap()
    }

    fn key() -> Key {
        Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap()
    }

    fn digest(receipt: &Receipt) -> Digest {
        Digest::of(&receipt.canonical().unwrap())
    }

    fn bundle(key: &Key, receipt: &Receipt, builder: &BuilderConfig) -> Vec<u8> {
        let statement = Statement::receipt(receipt, builder).unwrap();
        key.attest(&statement).unwrap().to_json().unwrap()
    }

    #[test]
    fn a_receipt_is_vouched_for_whatever_it_says() {
        let key = key();
        let mut failed = fixture::receipt();
        failed.outcome = Outcome::Failed {
            step: 0,
            exit_code: 2,
        };
        for receipt in [fixture::receipt(), fixture::hermetic().1, failed] {
            let (bundle, due) = (bundle(&key, &receipt, &builder()), digest(&receipt));
            assert!(is_about_a_receipt(&bundle));
            let verdict = verify_receipt(&bundle, &key.public().to_pem(), &due).unwrap();
            assert_eq!(
                (verdict.receipt, verdict.attempt, verdict.outcome),
                (due, receipt.attempt, receipt.outcome)
            );
            assert_eq!(
                verdict.predicate_type,
                "urn:belljar:embedded/predicates/receipt/v1"
            );
        }
    }

    #[test]
    fn another_receipt_key_or_kind_is_refused() {
        let (key, another) = (key(), key());
        let receipt = fixture::receipt();
        let (pem, due) = (key.public().to_pem(), digest(&receipt));
        let good = bundle(&key, &receipt, &builder());
        let class = |bundle: &[u8], pem: &str, due: &Digest| {
            verify_receipt(bundle, pem, due).unwrap_err().class()
        };
        assert_eq!(class(&good, &pem, &Digest::of(b"other")), "not_a_subject");
        let other = another.public().to_pem();
        assert_eq!(class(&good, &other, &due), "wrong_key");
        // Neither of the two kinds of statements is taken for the other.
        let spec = fixture::spec();
        let provenance = Statement::provenance(
            &spec,
            &receipt,
            &fixture::asserted(),
            &Producers::default(),
            &builder(),
        )
        .unwrap();
        let provenance = key.attest(&provenance).unwrap().to_json().unwrap();
        assert!(!is_about_a_receipt(&provenance));
        assert_eq!(class(&provenance, &pem, &due), "not_a_receipt");
        assert_eq!(
            verify(&good, &pem, &due).unwrap_err().class(),
            "not_provenance"
        );
        // A subject that the predicate is not.
        let text = String::from_utf8(Bundle::from_json(&good).unwrap().payload().to_vec()).unwrap();
        let named = Digest::of(b"another receipt");
        let forged = text.replacen(&due.to_hex(), &named.to_hex(), 1);
        let forged = key.sign(forged.into_bytes()).unwrap().to_json().unwrap();
        assert_eq!(class(&forged, &pem, &named), "not_a_receipt");
    }

    #[test]
    fn provenance_and_receipt_go_together_or_not_at_all() {
        let (key, receipt) = (key(), fixture::receipt());
        let pem = key.public().to_pem();
        let statement = Statement::provenance(
            &fixture::spec(),
            &receipt,
            &fixture::asserted(),
            &Producers::default(),
            &builder(),
        );
        let provenance = key.attest(&statement.unwrap()).unwrap().to_json().unwrap();
        let verdict = verify(&provenance, &pem, &Digest::of(fixture::ARTIFACT)).unwrap();
        let good = bundle(&key, &receipt, &builder());
        assert!(verify_receipt_of(&verdict, &good, &pem).is_ok());
        let mut other = fixture::receipt();
        other.sequence += 1;
        let refused = |bundle: &[u8]| {
            verify_receipt_of(&verdict, bundle, &pem)
                .unwrap_err()
                .class()
        };
        assert_eq!(refused(&bundle(&key, &other, &builder())), "not_a_subject");
        let elsewhere = BuilderConfig::new("urn:belljar:other").unwrap();
        assert_eq!(
            refused(&bundle(&key, &receipt, &elsewhere)),
            "not_a_receipt"
        );
    }
}
