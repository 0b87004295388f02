//! The chain of receipts: one file for each attempt, durable before anyone is told of it.
//!
//! `head.json` names the newest receipt. It is replaced before the receipt gets its name, and the receipt
//! is durable under `<attempt>.tmp` before that: after a crash at any point either the chain ends before
//! the new receipt, or it can be completed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use belljar_core::{AttemptId, Digest, canonical_json};
use belljar_plan::Receipt;
use serde::{Deserialize, Serialize};

/// The newest link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    sequence: u64,
    attempt: AttemptId,
    digest: Digest,
}

/// The directory of receipts, held by the one process that writes there.
#[derive(Debug)]
pub struct Chain {
    directory: PathBuf,
    group: u32,
    head: Option<Head>,
}

const HEAD: &str = "head.json";

impl Chain {
    /// Opens the directory, which must be root's and closed to others, and completes what a crash has
    /// interrupted. Receipts will be readable by `group`.
    ///
    /// # Errors
    /// When the head cannot be read or the receipt that it names is neither there nor completable.
    pub fn open(directory: &Path, group: u32) -> io::Result<Self> {
        let mut chain = Self {
            directory: directory.to_owned(),
            group,
            head: None,
        };
        chain.head = match fs::read(directory.join(HEAD)) {
            Ok(bytes) => Some(serde_json::from_slice::<Head>(&bytes).map_err(|e| {
                io::Error::other(format!("{}: {e}", directory.join(HEAD).display()))
            })?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        chain.complete()?;
        if let Some(head) = &chain.head {
            let named = chain.path(&head.attempt);
            if Digest::of(&fs::read(&named)?) != head.digest {
                return Err(io::Error::other(format!(
                    "{} is not the receipt that the chain ends with",
                    named.display()
                )));
            }
        }
        chain.remove_drafts()?;
        Ok(chain)
    }

    /// Gives the receipt that the head names its own name, if it does not have it yet.
    fn complete(&self) -> io::Result<()> {
        let Some(Head { attempt, .. }) = &self.head else {
            return Ok(());
        };
        let named = self.path(attempt);
        if !named.exists() {
            fs::rename(self.draft(attempt), named)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Removes what was being written when a spawner died, and has no place in the chain.
    fn remove_drafts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Gives `receipt` its place in the chain and makes it durable.
    ///
    /// # Errors
    /// What the file system says; `AlreadyExists` when the attempt has a receipt.
    pub fn append(&mut self, mut receipt: Receipt) -> io::Result<Digest> {
        // The one before may have come no further than into the chain.
        self.complete()?;
        if self.path(&receipt.attempt).exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the attempt has a receipt already",
            ));
        }
        receipt.sequence = self.head.as_ref().map_or(1, |head| head.sequence + 1);
        receipt.previous = self.head.as_ref().map(|head| head.digest);
        receipt.previous_attempt = self.head.as_ref().map(|head| head.attempt.clone());
        let bytes = receipt.canonical().map_err(io::Error::other)?;
        let head = Head {
            sequence: receipt.sequence,
            attempt: receipt.attempt,
            digest: Digest::of(&bytes),
        };
        let draft = self.draft(&head.attempt);
        self.write(&draft, &bytes)?;
        let new_head = self.directory.join("head.tmp");
        self.write(&new_head, &canonical_json(&head).map_err(io::Error::other)?)?;
        self.sync()?;
        fs::rename(new_head, self.directory.join(HEAD))?;
        // Whatever comes now, the next receipt follows this one.
        let digest = head.digest;
        self.head = Some(head);
        self.sync()?;
        self.complete()?;
        Ok(digest)
    }

    /// The receipt of an attempt, if it has one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find(&self, attempt: &AttemptId) -> io::Result<Option<(Digest, Receipt)>> {
        match fs::read(self.path(attempt)) {
            Ok(bytes) => {
                let receipt = Receipt::from_canonical(&bytes).map_err(io::Error::other)?;
                Ok(Some((Digest::of(&bytes), receipt)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn path(&self, attempt: &AttemptId) -> PathBuf {
        self.directory.join(format!("{attempt}.json"))
    }

    fn draft(&self, attempt: &AttemptId) -> PathBuf {
        self.directory.join(format!("{attempt}.tmp"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        fchown(&file, None, Some(self.group))?;
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::{Inputs, ObjectId, Outcome, Timestamp};
    use belljar_plan::{Binaries, CleanRoom, InputRecord, RootFsRecord, Usage};

    fn receipt(number: u32) -> Receipt {
        let digest = Digest::of(b"");
        Receipt {
            sequence: 0,
            previous: None,
            previous_attempt: None,
            run_nonce: String::new(),
            boot_id: String::new(),
            attempt: format!("01jd8q6z8r4x7j2m5t9v0w3y6b-{number}")
                .parse()
                .unwrap(),
            spec: digest,
            plan: digest,
            binaries: Binaries {
                spawner: digest,
                spawner_config: digest,
                version: String::new(),
                kernel: String::new(),
            },
            rootfs: RootFsRecord::Host { paths: Vec::new() },
            image_rule: None,
            input: InputRecord {
                tree: ObjectId::of(b""),
                unchanged: None,
            },
            inputs: Inputs::default(),
            derivations: Vec::new(),
            enforcement: None,
            self_probes: Vec::new(),
            steps: Vec::new(),
            outcome: Outcome::Succeeded,
            usage: Usage::default(),
            log: None,
            outputs: Vec::new(),
            image_output: None,
            clean_room: CleanRoom::default(),
            started: Timestamp::from_millis(0),
            finished: Timestamp::from_millis(0),
        }
    }

    fn open(directory: &Path) -> Chain {
        let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata(directory).unwrap());
        Chain::open(directory, group).unwrap()
    }

    #[test]
    fn receipts_are_chained_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path()).append(receipt(1)).unwrap();
        let mut chain = open(directory.path());
        chain.append(receipt(2)).unwrap();
        let (_, second) = chain.find(&receipt(2).attempt).unwrap().unwrap();
        assert_eq!((second.sequence, second.previous), (2, Some(first)));
        assert_eq!(second.previous_attempt, Some(receipt(1).attempt));
        assert_eq!(
            chain.append(receipt(2)).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn an_interrupted_append_is_completed_and_a_changed_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let digest = open(directory.path()).append(receipt(1)).unwrap();
        let (named, draft) = (
            directory
                .path()
                .join(format!("{}.json", receipt(1).attempt)),
            directory.path().join(format!("{}.tmp", receipt(1).attempt)),
        );
        fs::rename(&named, &draft).unwrap();
        let chain = open(directory.path());
        assert_eq!(chain.find(&receipt(1).attempt).unwrap().unwrap().0, digest);
        fs::write(&named, "{}").unwrap();
        let group = chain.group;
        assert!(Chain::open(directory.path(), group).is_err());
    }

    #[test]
    fn what_a_crash_has_left_outside_the_chain_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).append(receipt(1)).unwrap();
        let drafts = [format!("{}.tmp", receipt(2).attempt), "head.tmp".to_owned()];
        for draft in &drafts {
            fs::write(directory.path().join(draft), "{").unwrap();
        }
        let mut chain = open(directory.path());
        assert!(
            drafts
                .iter()
                .all(|draft| !directory.path().join(draft).exists())
        );
        chain.append(receipt(2)).unwrap();
    }

    #[test]
    fn a_receipt_that_could_not_be_named_is_so_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let mut chain = open(directory.path());
        chain.append(receipt(1)).unwrap();
        let named = directory
            .path()
            .join(format!("{}.json", receipt(1).attempt));
        fs::rename(
            &named,
            directory.path().join(format!("{}.tmp", receipt(1).attempt)),
        )
        .unwrap();
        chain.append(receipt(2)).unwrap();
        let (first, _) = chain.find(&receipt(1).attempt).unwrap().unwrap();
        let (_, second) = chain.find(&receipt(2).attempt).unwrap().unwrap();
        assert_eq!((second.sequence, second.previous), (2, Some(first)));
    }
}
