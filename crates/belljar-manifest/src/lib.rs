//! What a project says: `belljar.toml`, what a build shall do, and `belljar.lock`, images by name.
//!
//! Pure: both files come with sources that somebody else may have written, so their bytes are hostile, and the
//! answer depends on them alone. What is refused is told with line, column and field, at a bounded length.
//!
//! * [`Manifest`] and [`Lock`] are the two files, read and checked.
//! * [`LockFile`] is a lock file of a package manager that a manifest names.

#[cfg(test)]
#[path = "../../../fuzz/changes.rs"]
mod changes;
pub mod lock;
mod lock_file;
mod manifest;
mod place;
mod values;
mod wrong;

pub use lock::Lock;
pub use lock_file::LockFile;
pub use manifest::{FILE, Manifest, Named, no_dockerfile};
pub use place::Place;
pub use wrong::Wrong;
