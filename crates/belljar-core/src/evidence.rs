//! What a run leaves in `--output` beside the artifacts, and its names, which no output may take:
//! `belljar.toml` cannot declare them, and the store rejects them in what a build has left.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Invalid, OutputPattern, RelPath};

/// The signer's public key, in PEM.
pub const PUBLIC_KEY: &str = "builder.pub";
/// The record of the build: what `belljar run --json` prints.
pub const RECORD: &str = "build.json";
/// What the build wrote to its log, byte for byte.
pub const LOG: &str = "build.log";
/// The spawner's receipt of the last attempt.
pub const RECEIPT: &str = "receipt.json";
/// The Sigstore bundle about it.
pub const RECEIPT_BUNDLE: &str = "receipt.json.sigstore.json";
/// The audit trail.
pub const TRAIL: &str = "audit.jsonl";
/// Behind the name of each output: the Sigstore bundle.
pub const BUNDLE_SUFFIX: &str = ".sigstore.json";
/// Behind the name of each output: the bundle's DSSE envelope on one line (in-toto's JSON Lines).
pub const ENVELOPE_SUFFIX: &str = ".intoto.jsonl";

/// The Sigstore bundle where there is none beside each output: see [`bounds::EVIDENCE_BESIDE_BYTES`].
///
/// [`bounds::EVIDENCE_BESIDE_BYTES`]: crate::bounds::EVIDENCE_BESIDE_BYTES
pub const BUNDLE: &str = "provenance.sigstore.json";
/// Its envelope.
pub const ENVELOPE: &str = "provenance.intoto.jsonl";

/// The image that became of the outputs, as a directory (OCI image-spec v1.1, "image layout"); and the name of its manifest
/// among what provenance is about.
pub const IMAGE: &str = "image.oci";

/// The names of the files at the top.
const TOP: [&str; 11] = [
    PUBLIC_KEY,
    RECORD,
    LOG,
    RECEIPT,
    RECEIPT_BUNDLE,
    TRAIL,
    BUNDLE,
    ENVELOPE,
    IMAGE,
    "image.oci.sigstore.json",
    "image.oci.intoto.jsonl",
];

/// Whether a pattern of outputs leaves the files at the top their names.
///
/// # Errors
/// Names the file that stands in the way.
pub fn pattern_keeps_clear(pattern: &OutputPattern) -> Result<(), Invalid> {
    if let Some(path) = pattern.literal() {
        return keeps_clear(&path);
    }
    if let Some(above) = pattern.fixed_directory() {
        return keeps_clear(&above);
    }
    let matches = |name: &&&str| RelPath::new(**name).is_ok_and(|path| pattern.matches(&path));
    match TOP.iter().find(matches) {
        Some(name) => Err(Invalid::new(format!(
            "`{pattern}` could take the place of the evidence file `{name}`"
        ))),
        None => Ok(()),
    }
}

/// Whether an output leaves the files at the top their names.
///
/// # Errors
/// Names the file that stands in the way.
pub fn keeps_clear(output: &RelPath) -> Result<(), Invalid> {
    let first = output.components().next().unwrap_or_default();
    match TOP.iter().find(|name| **name == first) {
        Some(name) => Err(Invalid::new(format!(
            "`{output}` would take the place of the evidence file `{name}`"
        ))),
        None => Ok(()),
    }
}

/// Whether no output stands where evidence of another one goes.
///
/// # Errors
/// Names both.
pub fn are_apart(outputs: &BTreeSet<RelPath>) -> Result<(), Invalid> {
    let mut beside = BTreeMap::new();
    for output in outputs {
        for suffix in [BUNDLE_SUFFIX, ENVELOPE_SUFFIX] {
            let path = RelPath::new(format!("{output}{suffix}")).map_err(|e| {
                Invalid::new(format!(
                    "the evidence beside `{output}` would have a bad name: {}",
                    e.reason
                ))
            })?;
            beside.insert(String::from(path), output);
        }
    }
    for other in outputs {
        // Looked up, since there may be ten thousand of them.
        if let Some(output) = other.prefixes().find_map(|path| beside.get(path)) {
            return Err(Invalid::new(format!(
                "`{other}` would take the place of the evidence of `{output}`"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn outputs_cannot_take_the_place_of_evidence() {
        for bad in [
            "builder.pub",
            "build.json",
            "build.log",
            "build.log/x",
            "receipt.json",
            "receipt.json.sigstore.json",
            "audit.jsonl",
            "provenance.sigstore.json",
            "provenance.intoto.jsonl/x",
            "image.oci",
        ] {
            assert!(keeps_clear(&path(bad)).is_err(), "{bad}");
        }
        let pattern = |text: &str| pattern_keeps_clear(&OutputPattern::new(text).unwrap());
        for bad in ["*", "**", "build.*", "build.log/*", "receipt.json/**/x"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
        for good in ["*.whl", "dist/*", "**/report", "*/x", "build.log.d/*"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        assert!(pattern("build.log").is_err());
        for good in ["a/builder.pub", "build.log.txt", "app", "provenance"] {
            assert!(keeps_clear(&path(good)).is_ok(), "{good}");
        }
        let set = |paths: &[&str]| paths.iter().map(|text| path(text)).collect();
        assert!(are_apart(&set(&["app", "app.json", "b/app.sigstore.json"])).is_ok());
        assert!(are_apart(&set(&["app", "app.sigstore.json"])).is_err());
        let refused = are_apart(&set(&["a/app", "a/app.intoto.jsonl/x/y"])).unwrap_err();
        let due = "`a/app.intoto.jsonl/x/y` would take the place of the evidence of `a/app`";
        assert_eq!(refused.reason, due);
        assert!(are_apart(&set(&["app", "app.sigstore.json-x", "x/app.sigstore.json"])).is_ok());
        assert!(are_apart(&set(&[&"n".repeat(250)])).is_err());
    }
}
