//! Messages between the store and the unpacker: a process of the store's own program, confined, made for
//! one derivation and thrown away, which reads hostile bytes. Content that it reads comes by pipes,
//! content that it finds goes back as data frames.

use belljar_core::{Dropped, Fact, ObjectId, Recipe, RelPath};
use serde::{Deserialize, Serialize};

/// What the unpacker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// What to do: the first message.
    Unpack {
        /// The recipe.
        recipe: Recipe,
    },
    /// To `Need`: the object's content can be read from the pipe whose end comes with this message. It has
    /// to be read to its end.
    Content {},
    /// To `Need`: the store does not have it. The derivation fails; there is no use in going on.
    Missing {},
}

/// What the unpacker says. The store trusts nothing in it: names are parsed by their types, entries have
/// to fit what came before, and everything is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// It needs an object of the store; answered by [`Told::Content`] or [`Told::Missing`]. An object that
    /// was given before must have been read to its end by now.
    Need {
        /// Which.
        object: ObjectId,
    },
    /// A layer begins over what came before: entries may replace others of lower layers.
    Layer {},
    /// A directory; that it is there already is fine. Directories that lie between come by themselves.
    Directory {
        /// Where.
        path: RelPath,
    },
    /// A regular file; data frames follow, then `FileEnd`. It takes the place of another file or link.
    File {
        /// Where.
        path: RelPath,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A commit of git; data frames with all of it follow, then `FileEnd`. Its tree comes after it.
    Commit {
        /// Where its tree will stand; none for the root.
        path: Option<RelPath>,
    },
    /// The file or commit that was begun is complete.
    FileEnd {},
    /// A file with the content of an object that was given before.
    Given {
        /// Where.
        path: RelPath,
        /// The object.
        object: ObjectId,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link. It takes the place of another file or link.
    Symlink {
        /// Where.
        path: RelPath,
        /// Where it points.
        target: String,
    },
    /// Another name of a file or link that came before: it gets the same content.
    HardLink {
        /// Where.
        path: RelPath,
        /// The entry that came before.
        target: RelPath,
    },
    /// What lower layers have at this path is gone (OCI image-spec, whiteouts).
    Whiteout {
        /// Where; with everything below it.
        path: RelPath,
    },
    /// What lower layers have in this directory is gone.
    Opaque {
        /// The directory; none for the root.
        path: Option<RelPath>,
    },
    /// Something was left out.
    Dropped {
        /// What.
        what: Dropped,
        /// How often.
        count: u64,
    },
    /// Something was found that belongs into the record.
    Fact {
        /// What.
        fact: Fact,
    },
    /// Nothing can be made of it; nothing follows.
    Refused {
        /// The sentence, with the name in it.
        why: String,
    },
    /// Everything was said.
    End {},
}
