use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use belljar_core::{AttemptId, Digest, Invalid, bounds};
use belljar_plan::{Link, Receipt};
use belljar_sys::durable;

/// The directory into which the spawner writes, and only the spawner can write.
pub(crate) struct Receipts {
    directory: PathBuf,
    /// Who the directory and each receipt must belong to: root.
    owner: u32,
}

/// Why a receipt cannot be relied upon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptError {
    /// There is none.
    #[error("there is no receipt of this attempt")]
    Missing,
    /// Somebody else than the spawner could have written it.
    #[error("{what} must be of uid {owner} and writable by nobody else")]
    Unsafe {
        /// The directory or the receipt.
        what: &'static str,
        /// Who it must belong to.
        owner: u32,
    },
    /// It is not a regular file.
    #[error("the receipt is not a regular file")]
    Irregular,
    /// Its content is no receipt.
    #[error("the receipt is not one: {0}")]
    Malformed(Invalid),
    /// It is about another attempt than its name says.
    #[error("the receipt is about the attempt {0}")]
    OtherAttempt(AttemptId),
    /// It could not be read this time.
    #[error("the receipt could not be read: {0}")]
    Io(io::Error),
}

impl ReceiptError {
    /// Whether asking again may end otherwise.
    pub(crate) fn retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

impl Receipts {
    /// Receipts in `directory`, all of them `owner`'s.
    pub(crate) fn new(directory: PathBuf, owner: u32) -> Self {
        Self { directory, owner }
    }

    /// Reads the receipt of `attempt`, and gives its file, too.
    pub(crate) fn read(&self, attempt: &AttemptId) -> Result<(Receipt, Vec<u8>), ReceiptError> {
        let bytes = self.bytes(attempt)?;
        let receipt = Receipt::from_canonical(&bytes).map_err(ReceiptError::Malformed)?;
        if receipt.attempt != *attempt {
            return Err(ReceiptError::OtherAttempt(receipt.attempt));
        }
        Ok((receipt, bytes))
    }

    /// Where the receipt of `attempt` stands in the chain, and its digest.
    pub(crate) fn link(&self, attempt: &AttemptId) -> Result<(Link, Digest), ReceiptError> {
        let bytes = self.bytes(attempt)?;
        let link = Link::of_receipt(&bytes).map_err(ReceiptError::Malformed)?;
        Ok((link, Digest::of(&bytes)))
    }

    /// An attempt's id cannot be a path (see [`AttemptId`]), and no link of the file system is followed.
    fn bytes(&self, attempt: &AttemptId) -> Result<Vec<u8>, ReceiptError> {
        let directory = durable::open_directory(&self.directory).map_err(ReceiptError::Io)?;
        self.check("the directory of receipts", &directory)?;
        let file = durable::open_regular(&directory, &format!("{attempt}.json")).map_err(|e| {
            match e.kind() {
                io::ErrorKind::NotFound => ReceiptError::Missing,
                io::ErrorKind::InvalidData => ReceiptError::Irregular,
                _ => ReceiptError::Io(e),
            }
        })?;
        self.check("the receipt", &file)?;
        let mut bytes = Vec::new();
        let mut bounded = file.take(bounds::RECEIPT_BYTES as u64 + 1);
        bounded.read_to_end(&mut bytes).map_err(ReceiptError::Io)?;
        Ok(bytes)
    }

    fn check(&self, what: &'static str, file: &std::fs::File) -> Result<(), ReceiptError> {
        let status = file.metadata().map_err(ReceiptError::Io)?;
        if status.uid() != self.owner || status.mode() & 0o022 != 0 {
            return Err(ReceiptError::Unsafe {
                what,
                owner: self.owner,
            });
        }
        Ok(())
    }
}
