use belljar_core::{Digest, Invalid, ObjectId, oci};
use serde_json::{Value, json};

use crate::documents::{descriptor, encoded};

/// What an attestation is, beside an image at a registry: a Sigstore bundle.
pub const ARTIFACT_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The configuration of what has none (image-spec v1.1, "guidance for an empty descriptor").
pub const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// What a bundle is about, as cosign names it.
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The manifest of an artifact that refers to the image of the manifest `subject`: the Sigstore bundle `bundle` (image-spec
/// v1.1, `subject`), as cosign finds it.
///
/// # Errors
/// Never: what it says can always be written.
pub fn referrer(subject: ObjectId, bundle: ObjectId) -> Result<Vec<u8>, Invalid> {
    encoded(&json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": descriptor(EMPTY_TYPE, ObjectId::of(EMPTY)),
        "layers": [descriptor(ARTIFACT_TYPE, bundle)],
        "subject": descriptor(oci::MANIFEST, subject),
        "annotations": annotations(),
    }))
}

fn annotations() -> Value {
    json!({
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": PREDICATE,
    })
}

/// The tag under which referrers are listed at a registry that does not do so itself (distribution-spec v1.1, "referrers tag
/// schema").
pub fn fallback_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.to_hex())
}

/// Whether a tag is one of those, or one that cosign derives from them: an image under it would take the place of what others
/// say of another image.
pub fn is_about_another(tag: &str) -> bool {
    // Of a longer digest the tag has the beginning (distribution-spec v1.1, "referrers tag schema").
    let mut functions = ["sha256-", "sha512-"].into_iter();
    let hex = functions.find_map(|function| tag.strip_prefix(function)?.get(..64));
    hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The list of referrers under that tag, with one more; `before` is what stands there, if anything does. None if it names that
/// one already.
///
/// # Errors
/// When what stands there is no index.
pub fn with_referrer(
    before: Option<&[u8]>,
    referrer: ObjectId,
) -> Result<Option<Vec<u8>>, Invalid> {
    let mut index = match before {
        None => json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [] }),
        Some(bytes) => serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))?,
    };
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(Invalid::field("manifests", "missing: it is no image index"));
    };
    let digest = Value::from(referrer.digest.to_string());
    if manifests
        .iter()
        .any(|one| one.get("digest") == Some(&digest))
    {
        return Ok(None);
    }
    let mut one = descriptor(oci::MANIFEST, referrer);
    one["artifactType"] = ARTIFACT_TYPE.into();
    one["annotations"] = annotations();
    manifests.push(one);
    encoded(&index).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_are_about_another_image_are_known() {
        let tag = fallback_tag(Digest::of(b"an image"));
        let longer = tag.replace("256", "512");
        for about in [&tag, &format!("{tag}.sig"), &format!("{tag}.att"), &longer] {
            assert!(is_about_another(about), "{about}");
        }
        for own in [
            "1",
            "sha256-",
            "sha256-1",
            &tag[..70],
            &tag.replace('-', "_"),
        ] {
            assert!(!is_about_another(own), "{own}");
        }
    }

    #[test]
    fn a_list_of_referrers_grows_and_names_each_once() {
        let [one, two] = [b"one", b"two"].map(|text| ObjectId::of(text));
        let first = with_referrer(None, one).unwrap().unwrap();
        assert_eq!(with_referrer(Some(&first), one), Ok(None));
        let both = with_referrer(Some(&first), two).unwrap().unwrap();
        let index: Value = serde_json::from_slice(&both).unwrap();
        let named: Vec<_> = index["manifests"].as_array().unwrap().iter().collect();
        assert_eq!(named.len(), 2);
        assert_eq!(named[1]["digest"], two.digest.to_string());
        assert_eq!(named[1]["artifactType"], ARTIFACT_TYPE);
        for bad in [&b"nonsense"[..], b"[]", b"{\"manifests\":{}}"] {
            assert!(with_referrer(Some(bad), one).is_err());
        }
    }
}
