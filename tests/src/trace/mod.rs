//! What one of Belljar's processes does that lasts or that others see, call by call, and its death at a named
//! one of these calls. The programs are the product's own: nothing in them knows of this. They are looked at by
//! ptrace(2), from a process beside them, `belljar-test-tracer`.
//!
//! * [`calls`] knows the system calls that count, and reads their arguments.
//! * [`names`] gives each a name that says what it is for.
//! * [`tracer`] runs a program and stops it at each of them.
//! * [`disk`] replays what was recorded, up to any point, as a disk would have it after a loss of power.

pub mod calls;
pub mod disk;
pub mod names;
pub mod tracer;

use serde::{Deserialize, Serialize};

/// A file, by its device and inode.
pub type File = (u64, u64);

/// One call that counts, which has returned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When it had returned, in nanoseconds of the machine's monotonic clock.
    pub at: u64,
    /// Its name; none where it only changes what another one made.
    pub name: Option<String>,
    /// What it has changed on disk, if that is what it does and it succeeded.
    pub change: Option<Change>,
}

/// A change on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A file was made: under this path, or without a name.
    Create {
        /// Which.
        file: File,
        /// Its path, if it has one.
        path: Option<String>,
        /// Its permission bits.
        mode: u32,
    },
    /// Bytes, in hexadecimal digits.
    Write {
        /// Of which file.
        file: File,
        /// Where.
        offset: u64,
        /// What.
        bytes: String,
    },
    /// Another length.
    Truncate {
        /// Of which file.
        file: File,
        /// How long.
        length: u64,
    },
    /// Mode, owner or time of a file, as they then were.
    Attributes {
        /// Of which file.
        file: File,
        /// Permission bits.
        mode: u32,
        /// Group.
        group: u32,
        /// Modification time, in seconds.
        modified: i64,
    },
    /// A directory was made.
    Directory {
        /// Where.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has one more name.
    Link {
        /// Which.
        file: File,
        /// The name.
        path: String,
    },
    /// A name was changed, in the place of whatever had the new one.
    Rename {
        /// From this.
        from: String,
        /// To this.
        to: String,
    },
    /// A name was removed, of a file or of a directory.
    Remove {
        /// Which.
        path: String,
    },
    /// The file is durable, all of it.
    Sync {
        /// Which.
        file: File,
        /// If it is a directory: its path.
        directory: Option<String>,
    },
    /// Everything is.
    SyncAll,
}

/// When, in the life of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum When {
    /// It does not happen.
    Before,
    /// It has happened, and its caller does not know.
    After,
    /// It does not happen, for lack of room, as its caller is told (`ENOSPC`): nobody dies.
    Full,
}

/// Where a process is to die, or to find the disk full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// At the call with this name.
    pub name: String,
    /// At which of these, from 1.
    pub occurrence: usize,
    /// Before it or after it.
    pub when: When,
}

impl Kill {
    /// As it stands in a file for the tracer.
    pub fn to_line(&self) -> String {
        let when = match self.when {
            When::Before => "before",
            When::After => "after",
            When::Full => "full",
        };
        format!("{when}\t{}\t{}", self.occurrence, self.name)
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, '\t');
        let when = match parts.next()? {
            "before" => When::Before,
            "after" => When::After,
            "full" => When::Full,
            _ => return None,
        };
        Some(Self {
            when,
            occurrence: parts.next()?.parse().ok()?,
            name: parts.next()?.to_owned(),
        })
    }
}
