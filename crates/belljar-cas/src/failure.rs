use std::io;
use std::path::PathBuf;

use belljar_core::{BlobName, Invalid, ObjectId, bounds};
use rustix::io::Errno;

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("{0} is not in the store")]
    Missing(ObjectId),
    /// There is one of this digest and another size: the id is wrong, or the object is damaged.
    #[error("{object} is in the store with {found} bytes")]
    Size {
        /// What was asked for.
        object: ObjectId,
        /// Bytes that are there.
        found: u64,
    },
    /// The store's own trouble.
    #[error("{object} cannot be read")]
    Io {
        /// What was asked for.
        object: ObjectId,
        /// What the system says.
        source: io::Error,
    },
}

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The content is not what was expected.
    #[error("the content is {found}, not {expected} as announced")]
    Mismatch {
        /// What was announced.
        expected: BlobName,
        /// What came, by the same function.
        found: BlobName,
    },
    /// More came than was expected.
    #[error("more content came than the {} bytes announced", .expected.size)]
    TooLong {
        /// What was announced.
        expected: BlobName,
    },
    /// It is larger than any object may be.
    #[error(
        "the content has more than the {} bytes that one object may have",
        bounds::BLOB_BYTES
    )]
    TooLarge,
    /// The disk, or the quota on it, is full.
    #[error(
        "the store's disk is full; `belljar store status` says what takes the room, `belljar store gc` removes what nobody needs"
    )]
    Full(#[source] io::Error),
    /// Only so much room is left as is kept for builds that run.
    #[error(
        "the store's disk has {available} bytes left, of which {reserve} are kept for builds that run; {needed} more do \
         not fit. `belljar store status` says what takes the room, `belljar store gc` removes what nobody needs"
    )]
    Reserved {
        /// Bytes that were to come.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// Bytes that are kept.
        reserve: u64,
    },
    /// The store's own trouble.
    #[error("the object cannot be written: {doing} failed")]
    Io {
        /// The step that failed.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a store's root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It is on overlayfs, whose files have no stable identity and cannot carry mountable images.
    #[error(
        "the store's root {} is on overlayfs. hint: put it on a volume of a plain file system (ext4, xfs, btrfs)",
        .0.display()
    )]
    Overlay(PathBuf),
    /// Others could write into it.
    #[error(
        "the store's root {} must belong to user {uid} and be writable by nobody else; \
         it belongs to user {owner} with mode {mode:04o}. hint: chown and chmod 0750",
        .path.display()
    )]
    Exposed {
        /// The root.
        path: PathBuf,
        /// Whose it should be.
        uid: u32,
        /// Whose it is.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process owns it right now.
    #[error("the store's root {} is in use by another process. hint: stop that one first", .0.display())]
    InUse(PathBuf),
    /// Something in it could not be made or opened.
    #[error("{} cannot be used as part of the store", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The first write failed.
    #[error(
        "no object can be written below {}. hint: the file system must offer unnamed temporary files (O_TMPFILE)",
        .path.display()
    )]
    FirstWrite {
        /// The root.
        path: PathBuf,
        /// What failed.
        source: WriteError,
    },
}

/// Why there is no image of a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// An object of it is not in the store.
    #[error("`{path}` needs {object}, which is not in the store")]
    Missing {
        /// Where in the tree; `.` is its top.
        path: String,
        /// What is missing.
        object: ObjectId,
    },
    /// An object of it is not a canonical directory, or something stands too deep.
    #[error("`{path}` is refused: {why}")]
    Malformed {
        /// Where in the tree.
        path: String,
        /// What is wrong.
        why: Invalid,
    },
    /// An object of it has other content than its digest says.
    #[error("`{path}`: {object} is damaged in the store. hint: upload it again")]
    Damaged {
        /// Where in the tree.
        path: String,
        /// What is damaged.
        object: ObjectId,
    },
    /// There are too many entries.
    #[error("the tree has more than {} entries", bounds::TREE_ENTRIES)]
    TooManyEntries,
    /// There is too much content.
    #[error("the tree has more than {} bytes of content", bounds::TREE_BYTES)]
    TooManyBytes,
    /// Names and targets are too long together.
    #[error(
        "the tree has more than {} bytes of names, link targets and properties",
        bounds::TREE_NAMES_BYTES
    )]
    TooManyNames,
    /// The disk, or the quota on it, is full.
    #[error(
        "the store's disk is full; `belljar store status` says what takes the room, `belljar store gc` removes what nobody needs"
    )]
    Full(#[source] io::Error),
    /// There is no room for the image.
    #[error(transparent)]
    NoRoom(WriteError),
    /// The image cannot be written or read.
    #[error("the image of the tree cannot be kept")]
    Image(#[source] io::Error),
    /// The store's own trouble with an object.
    #[error("`{path}` cannot be read")]
    Io {
        /// Where in the tree.
        path: String,
        /// What cannot be read.
        object: ObjectId,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a directory on disk has no tree digest.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is something in it that no tree has.
    #[error("`{path}` {why}")]
    Foreign {
        /// Where.
        path: String,
        /// What is foreign about it.
        why: String,
    },
    /// It could not be read.
    #[error("`{path}` cannot be read")]
    Io {
        /// Where.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Whether the system says that the disk does not give a file: the medium has failed there (EIO), or what the file system
/// finds has not its own sum (EBADMSG) or form (EUCLEAN).
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN))
}

/// Whether the system says that there is no space, by disk or by quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
