//! `belljar verify`: offline, with nothing but the artifact or receipt, its bundle and a public key.

use std::io::Read;
use std::path::{Path, PathBuf};

use belljar_attest::{Verdict, is_about_a_receipt, verify_receipt, verify_receipt_of};
use belljar_core::evidence::{BUNDLE, BUNDLE_SUFFIX};
use belljar_core::{Digest, Hasher, bounds};
use rustix::fs::OFlags;

use crate::cli;
use crate::error::Error;
use crate::exit;
use crate::home::{read, read_key};
use crate::layout;
use crate::regular;
use crate::report;
use crate::terminal;

/// Does it.
///
/// # Errors
/// Whatever keeps the bundle from vouching for the artifact.
pub(crate) fn run(arguments: &cli::Verify) -> Result<u8, Error> {
    let bundle = arguments
        .bundle
        .clone()
        .unwrap_or_else(|| found(&arguments.artifact));
    let bundle = read(&bundle, bounds::BUNDLE_BYTES)?;
    let key = read_key(&arguments.key)?;
    let of = |verdict, what| provenance((verdict, what), &key, arguments);
    let text = if layout::is_one(&arguments.artifact) {
        let verdict = layout::verify(&arguments.artifact, &bundle, &key)?;
        of(verdict, "about this image, which was computed again")?
    } else {
        let artifact = digest(&arguments.artifact)?;
        match is_about_a_receipt(&bundle) {
            true => receipt(&bundle, &key, &artifact, arguments)?,
            false => {
                let verdict = belljar_attest::verify(&bundle, &key, &artifact);
                let verdict = verdict.map_err(Error::NotVerified)?;
                of(verdict, "about this artifact")?
            }
        }
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

/// What the provenance of an artifact says, and the statement about its receipt, if one is given.
fn provenance(
    (verdict, what): (Verdict, &str),
    key: &str,
    arguments: &cli::Verify,
) -> Result<String, Error> {
    demand(&verdict, arguments.builder.as_deref())?;
    let receipt = match &arguments.receipt_bundle {
        Some(path) => {
            let bundle = read(path, bounds::BUNDLE_BYTES)?;
            Some(verify_receipt_of(&verdict, &bundle, key).map_err(Error::NotVerified)?)
        }
        None => None,
    };
    if arguments.json {
        return crate::json(
            &report::Verified::new(Some(&verdict), receipt.as_ref()),
            false,
        );
    }
    let and = match &receipt {
        Some(receipt) => format!("\nverified: its receipt is genuine\n{receipt}"),
        None => String::new(),
    };
    Ok(format!(
        "verified: the provenance is genuine and {what}\n{verdict}{and}"
    ))
}

/// What the statement about a receipt says.
fn receipt(
    bundle: &[u8],
    key: &str,
    receipt: &Digest,
    arguments: &cli::Verify,
) -> Result<String, Error> {
    if arguments.builder.is_some() || arguments.receipt_bundle.is_some() {
        let why = "--builder and --receipt-bundle are for artifacts: a receipt names no builder.id";
        return Err(Error::Usage(why.to_owned()));
    }
    let verdict = verify_receipt(bundle, key, receipt).map_err(Error::NotVerified)?;
    if arguments.json {
        return crate::json(&report::Verified::new(None, Some(&verdict)), false);
    }
    Ok(format!("verified: the receipt is genuine\n{verdict}"))
}

/// Whether the builder is the one that is demanded, if one is.
fn demand(verdict: &Verdict, builder: Option<&str>) -> Result<(), Error> {
    match builder {
        Some(demanded) if demanded != verdict.builder => Err(Error::OtherBuilder {
            found: verdict.builder.clone(),
            demanded: demanded.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Where the bundle of an artifact is: beside it, else the one about all artifacts in the nearest directory above.
/// Whatever is found there has to be genuine and about this artifact, so a wrong one can only be refused.
fn found(artifact: &Path) -> PathBuf {
    // Without a slash behind a directory.
    let artifact = artifact.components().as_path();
    let mut name = artifact.as_os_str().to_owned();
    name.push(BUNDLE_SUFFIX);
    let beside = PathBuf::from(name);
    if beside.symlink_metadata().is_ok() {
        return beside;
    }
    let parent = match artifact.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().unwrap_or_default();
    let mut above = parent.ancestors().map(|directory| directory.join(BUNDLE));
    above
        .find(|bundle| bundle.symlink_metadata().is_ok())
        .unwrap_or(beside)
}

fn digest(path: &Path) -> Result<Digest, Error> {
    let unreadable = |source| Error::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = regular::open(path, OFlags::empty()).map_err(unreadable)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
