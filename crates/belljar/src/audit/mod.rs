//! `belljar audit show`: one build's story out of its record, which is verified while it is read.

mod words;

use belljar_attest::{Account, Verdict};
use belljar_audit::{AuditEvent, Entry};
use belljar_core::{BuildId, Digest, bounds};

use crate::cli;
use crate::client::{self, Client};
use crate::error::Error;
use crate::exit;
use crate::fetch;
use crate::home::{read, read_key};
use crate::report::{self, Chain};
use crate::session;
use crate::terminal::{self, Terminal};

/// The pieces of a record, as they were found.
struct Pieces {
    trail: Vec<u8>,
    receipt: Option<Vec<u8>>,
    bundle: Option<Vec<u8>>,
    /// The key in PEM, and who vouched for it.
    key: Option<(String, &'static str)>,
}

/// Everything that was read and found to hold together.
struct Record {
    entries: Vec<Entry>,
    account: Option<Account>,
    verdict: Option<Verdict>,
}

/// Does it.
///
/// # Errors
/// When the record cannot be read, or does not hold.
pub(crate) fn show(arguments: &cli::AuditShow, terminal: &mut Terminal) -> Result<u8, Error> {
    let given = match &arguments.key {
        Some(path) => Some((read_key(path)?, "given")),
        None => None,
    };
    let pieces = match (&arguments.trail, &arguments.build) {
        (None, Some(build)) => session::ask(
            &arguments.ask.whom,
            terminal,
            async |client: &Client, _: &mut Terminal| ask(client, build, given).await,
        )?,
        _ => offline(arguments, given)?,
    };
    let record = Record::check(&pieces, arguments.build.as_ref())?;
    let key_from = pieces.key.as_ref().map(|(_, from)| *from);
    let chain = Chain {
        verified: true,
        entries: record.entries.len(),
        signed: record
            .verdict
            .as_ref()
            .map(|verdict| verdict.asserted.audit_entries),
    };
    let text = if arguments.ask.json {
        let receipt = pieces.receipt.as_deref().map(serde_json::from_slice);
        let receipt = receipt
            .transpose()
            .map_err(|e| Error::Contradiction(format!("the receipt is no JSON: {e}")))?;
        let verdict = record.verdict.as_ref();
        let story = report::Story::new(chain, &record.entries, receipt.as_ref(), verdict, key_from);
        crate::json(&story, false)?
    } else {
        words::story(&record, chain, key_from)
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

/// The record of a build, as a daemon has it.
async fn ask(
    client: &Client,
    build: &BuildId,
    given: Option<(String, &'static str)>,
) -> Result<Pieces, Error> {
    let client = &client.of(&client.get(build).await?.project);
    let evidence = client.evidence(build).await?;
    let object = async |object: Option<_>, most| match object {
        Some(object) => fetch::object(client, object, most).await.map(Some),
        None => Ok(None),
    };
    let bundle = object(evidence.bundle, bounds::BUNDLE_BYTES).await?;
    let key = match (&bundle, given) {
        (Some(_), None) => Some((client.server_info().await?.public_key_pem, "daemon")),
        (_, given) => given,
    };
    let trail = client.audit_trail(build).await?;
    if trail.is_empty() {
        let invalid = belljar_core::Invalid::new("the build has none yet: it has not begun");
        return Err(client::Error::answer("reading the audit trail", invalid).into());
    }
    Ok(Pieces {
        trail,
        receipt: object(evidence.receipt, bounds::RECEIPT_BYTES).await?,
        bundle,
        key,
    })
}

/// The record out of files.
fn offline(
    arguments: &cli::AuditShow,
    key: Option<(String, &'static str)>,
) -> Result<Pieces, Error> {
    let file = |path: &Option<std::path::PathBuf>, most| {
        path.as_ref().map(|path| read(path, most)).transpose()
    };
    Ok(Pieces {
        trail: file(&arguments.trail, bounds::AUDIT_TRAIL_BYTES)?.unwrap_or_default(),
        receipt: file(&arguments.receipt, bounds::RECEIPT_BYTES)?,
        bundle: file(&arguments.bundle, bounds::BUNDLE_BYTES)?,
        key,
    })
}

impl Record {
    /// Verifies every piece, and that they belong together.
    fn check(pieces: &Pieces, build: Option<&BuildId>) -> Result<Self, Error> {
        let account = pieces.receipt.as_deref().map(Account::read).transpose();
        let account =
            account.map_err(|e| Error::Contradiction(format!("the receipt is none: {e}")))?;
        let verdict = match (&pieces.bundle, &pieces.key) {
            (Some(bundle), Some((key, _))) => Some(vouched(bundle, key, account.as_ref())?),
            _ => None,
        };
        let entries = verified(&pieces.trail, verdict.as_ref())?;
        let about = entries.first().map(|entry| &entry.build);
        if let Some((due, about)) = build.zip(about).filter(|(due, about)| due != about) {
            return Err(Error::Contradiction(format!(
                "the trail is about build {about}, not {due}"
            )));
        }
        for entry in &entries {
            agrees(entry, account.as_ref(), pieces.bundle.as_deref())?;
        }
        if let Some(account) = &account {
            receipt_is_named(account, &entries)?;
        }
        Ok(Self {
            entries,
            account,
            verdict,
        })
    }
}

/// What a bundle says, if it is genuine and about this receipt.
fn vouched(bundle: &[u8], key: &str, account: Option<&Account>) -> Result<Verdict, Error> {
    let contradiction = |what: &str| Error::Contradiction(what.to_owned());
    let account =
        account.ok_or_else(|| contradiction("there is a bundle, and no receipt beside it"))?;
    let artifact = account.artifact();
    let artifact = artifact
        .ok_or_else(|| contradiction("there is a bundle, and the receipt names no artifact"))?;
    let verdict = belljar_attest::verify(bundle, key, &artifact).map_err(Error::NotVerified)?;
    if verdict.receipt != account.digest() {
        return Err(Error::Contradiction(format!(
            "the signed statement names the receipt {}, and this one is {}",
            verdict.receipt,
            account.digest()
        )));
    }
    Ok(verdict)
}

/// Whether an entry agrees with the other pieces.
fn agrees(entry: &Entry, account: Option<&Account>, bundle: Option<&[u8]>) -> Result<(), Error> {
    let line = entry.sequence;
    match (&entry.event, account, bundle) {
        (
            AuditEvent::Collected {
                attempt, receipt, ..
            },
            Some(account),
            _,
        ) if attempt == account.attempt() && *receipt != account.digest() => {
            Err(Error::Contradiction(format!(
                "line {line} of the trail names the receipt {receipt}, and this one is {}",
                account.digest()
            )))
        }
        (AuditEvent::Signed { bundle: named, .. }, _, Some(bundle))
            if *named != Digest::of(bundle) =>
        {
            Err(Error::Contradiction(format!(
                "line {line} of the trail names the bundle {named}, and this one is {}",
                Digest::of(bundle)
            )))
        }
        _ => Ok(()),
    }
}

/// Whether the trail tells of the receipt's attempt at all: else it is another build's.
fn receipt_is_named(account: &Account, entries: &[Entry]) -> Result<(), Error> {
    let named = entries
        .iter()
        .filter_map(|entry| entry.event.attempt())
        .any(|attempt| attempt == account.attempt());
    match named {
        true => Ok(()),
        false => Err(Error::Contradiction(format!(
            "the receipt is about attempt {}, of which the trail does not tell",
            account.attempt()
        ))),
    }
}

/// The entries of a trail, if its chain holds, and if it is the one that the signed statement names.
fn verified(bytes: &[u8], verdict: Option<&Verdict>) -> Result<Vec<Entry>, Error> {
    let entries = match verdict.map(|verdict| &verdict.asserted) {
        Some(asserted) => {
            belljar_audit::verify_prefix(bytes, asserted.audit_entries, asserted.audit_trail)
        }
        None => belljar_audit::verify(bytes),
    };
    entries.map_err(Error::Trail)
}

/// Checks the trail of `build` as it came from a daemon.
///
/// # Errors
/// When its chain does not hold, or it is about another build.
pub(crate) fn trail(bytes: &[u8], build: &BuildId, verdict: Option<&Verdict>) -> Result<(), Error> {
    let entries = verified(bytes, verdict)?;
    match entries.first() {
        Some(entry) if entry.build == *build => Ok(()),
        _ => Err(Error::Contradiction(format!(
            "the trail is not about build {build}"
        ))),
    }
}
