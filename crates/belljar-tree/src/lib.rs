//! Trees of files as the Remote Execution API (REAPI v2, `build.bazel.remote.execution.v2`) writes them,
//! as types that cannot hold a bad value. Pure: no I/O.
//!
//! * [`Directory`] is one directory: its canonical encoding is what its digest is about, so only that
//!   encoding is read ([`Directory::decode`]).
//! * [`Tree`] is a directory together with everything below it.
//! * [`build`] makes the directories of a list of paths, bottom-up.
//! * [`outermost`] makes of such a list the trees of its outermost directories.
//! * [`erofs`] makes a tree into what a kernel can mount.
//! * [`NodeProperties`] are times, modes and other properties of nodes: what comes with them keeps them, and
//!   what is built here has none.
//! * [`check_unpacked_size`] is for directories that other clients keep, whatever their properties.
//!
//! Canonical means: names sorted by their bytes within files, directories and symbolic links, unique
//! across the three; properties sorted by name and unique; fields in the order of their numbers, defaults left
//! out, nothing unknown.

mod builder;
mod directory;
pub mod erofs;
mod message;
mod name;
mod outermost;
mod properties;
mod tree;
mod unpacked;

pub use builder::{Built, Leaf, build};
pub use directory::{Directory, DirectoryNode, FileNode, SymlinkNode};
pub use name::{Name, SymlinkTarget};
pub use outermost::outermost;
pub use properties::{Mtime, NodeProperties, NodeProperty};
pub use tree::Tree;
pub use unpacked::check_unpacked_size;
