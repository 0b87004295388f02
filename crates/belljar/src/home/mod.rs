//! Bringing home what a build that has ended left: the one way of `run` and `fetch`.

mod evidence;

use std::path::Path;

use belljar_attest::{PublicKey, Verdict};
use belljar_core::evidence::{IMAGE, LOG, RECEIPT, RECEIPT_BUNDLE, RECORD, TRAIL};
use belljar_core::{Invalid, ObjectId, Outcome, RelPath, bounds};
use belljar_wire::{BuildRecord, ServerInfo};

use crate::audit;
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit;
use crate::fetch::{self, Output};
use crate::layout;
use crate::regular;
use crate::report::{self, Ended};
use crate::steps;
use crate::terminal::{self, Terminal, line};

/// Fetches artifacts and evidence of a build that succeeded, and verifies one against the other; of any build
/// its receipt, with the bundle about it, which is verified, and its audit trail, whose chain is verified. Gives what the bundle says.
///
/// # Errors
/// Whatever keeps them from coming home, or does not hold.
pub(crate) async fn bring(
    client: &Client,
    output: &Output,
    build: &BuildRecord,
    server: &ServerInfo,
    terminal: &mut Terminal,
) -> Result<Option<Verdict>, Error> {
    let client = &client.of(&build.project);
    let mut verdict = None;
    if build.outcome.as_ref().is_some_and(Outcome::is_success) {
        let roots = fetch::roots(&build.spec.outputs, &build.artifacts)?;
        fetch::artifacts(client, output, &roots, &build.artifacts).await?;
        match &build.image {
            Some(image) => layout::bring(client, output, image).await?,
            // It would be another build's.
            None => output.clear(&name(IMAGE)?)?,
        }
        terminal.phase(&format!(
            "artifacts: {}, in {}",
            build.artifacts.len(),
            output.path().display()
        ));
        verdict = Some(evidence::bring_home(client, output, build, server, &roots).await?);
        terminal.phase("the provenance was verified against them");
    }
    if let Some(receipt) = build.evidence.receipt {
        let bytes = fetch::object(client, receipt, bounds::RECEIPT_BYTES).await?;
        output.write(&name(RECEIPT)?, &bytes)?;
        if let Some(bundle) = build.evidence.receipt_bundle {
            let bytes = fetch::object(client, bundle, bounds::BUNDLE_BYTES).await?;
            evidence::of_receipt(&bytes, receipt, server, verdict.as_ref())?;
            output.write(&name(RECEIPT_BUNDLE)?, &bytes)?;
        }
    }
    let trail = client.audit_trail(&build.id).await?;
    audit::trail(&trail, &build.id, verdict.as_ref())?;
    output.write(&name(TRAIL)?, &trail)?;
    Ok(verdict)
}

/// Fetches the log as the store keeps it.
///
/// # Errors
/// As [`bring`].
pub(crate) async fn log(
    client: &Client,
    output: &Output,
    kept: Option<ObjectId>,
) -> Result<Option<ObjectId>, Error> {
    let (staged, mut file) = output.file()?;
    if let Some(kept) = kept {
        fetch::into_file(client, output, kept, &mut file).await?;
    }
    output.place(staged, &name(LOG)?)?;
    Ok(kept)
}

/// Writes the record, and tells how the build ended. Gives the exit status for that.
///
/// # Errors
/// When the record cannot be written, or nobody be told.
pub(crate) fn conclude(ended: &Ended<'_>, output: &Output, json: bool) -> Result<u8, Error> {
    let report = report::Run::new(ended);
    let mut record = crate::json(&report, true)?;
    record.push('\n');
    output.write(&name(RECORD)?, record.as_bytes())?;
    let outcome = ended.build.outcome.as_ref();
    let text = if json {
        crate::json(&report, false)?
    } else {
        summary(ended)
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(outcome.map_or(exit::INFRASTRUCTURE, exit::of_outcome))
}

/// The end of a build, for people.
fn summary(ended: &Ended<'_>) -> String {
    let build = ended.build;
    let outcome = build
        .outcome
        .as_ref()
        .map_or_else(String::new, Outcome::to_string);
    let name = belljar_wire::build_name(&build.id);
    let mut lines = vec![format!("{name} {}", line(&outcome))];
    lines.extend(steps::lines(&build.spec, &build.steps));
    let out = ended.output.display();
    for (path, object) in fetch::files(&build.artifacts) {
        lines.push(format!(
            "  {path}  {}  {} bytes",
            object.digest, object.size
        ));
    }
    for (path, tree) in report::directories(&build.artifacts) {
        lines.push(format!("  {path}/  {}  a directory", tree.root.digest));
    }
    if let Some(image) = &build.image {
        lines.push(format!("  {IMAGE}  {}  an image", image.manifest.digest));
    }
    match ended.verdict {
        Some(verdict) => {
            lines.push(format!(
                "built by {}, signed by {}",
                line(&verdict.builder),
                verdict.key_id
            ));
            lines.push(format!(
                "artifacts, evidence, {LOG} and {RECORD} are in {out}"
            ));
        }
        None => lines.push(format!("{LOG} and {RECORD} are in {out}")),
    }
    lines.join("\n")
}

/// Puts a log that was kept while it came in its place.
///
/// # Errors
/// When it cannot be put there.
pub(crate) fn place_log(output: &Output, staged: fetch::Staged) -> Result<(), Error> {
    Ok(output.place(staged, &name(LOG)?)?)
}

fn name(text: &str) -> Result<RelPath, Error> {
    RelPath::new(text).map_err(|invalid| Error::Usage(invalid.to_string()))
}

/// Reads a whole regular file of at most `most` bytes.
///
/// # Errors
/// When it cannot be read, is something else, or is larger.
pub(crate) fn read(path: &Path, most: usize) -> Result<Vec<u8>, Error> {
    regular::read(path, most).map_err(|source| Error::File {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

/// Reads a public key, in PEM. What is none is a file that cannot be read, and says nothing of any evidence.
///
/// # Errors
/// As [`read`]; when what is in it is no key.
pub(crate) fn read_key(path: &Path) -> Result<String, Error> {
    let file = |source| Error::File {
        what: "read the public key",
        path: path.to_owned(),
        source,
    };
    let text = regular::read(path, bounds::CONFIG_BYTES).map_err(file)?;
    let key = PublicKey::from_pem(&String::from_utf8_lossy(&text));
    key.map(|key| key.to_pem())
        .map_err(|e| file(std::io::Error::other(e)))
}

/// The evidence of a build cannot be used.
fn unusable(doing: &'static str, invalid: Invalid) -> Error {
    client::Error::answer(doing, invalid).into()
}
