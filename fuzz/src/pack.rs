use belljar_core::{GitId, ObjectId, Recipe};
use gix_object::Kind;

use super::archive::{MOST, unpack};

#[allow(dead_code, reason = "the store's own tests use more of it")]
#[path = "../../crates/belljar-store/src/tests/pack_file.rs"]
pub mod pack_file;

use pack_file::{PackFile, commit, ended, tree};

/// A pack of git, as an unpacker reads it. Behind `t` stands the content of a tree, of a commit in an honest pack; behind
/// `m` a `.gitmodules` in such a one; behind anything else the name of a commit, and a pack without the digest at its end,
/// which nobody would hit upon.
pub fn pack(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let (commit, bytes) = match kind {
        b't' => with_tree(PackFile::new(), rest),
        b'm' => {
            let mut pack = PackFile::new();
            let modules = pack.add(Kind::Blob, rest);
            let link = GitId::from_bytes([1; 20]);
            let root = tree(&[("100644", ".gitmodules", modules), ("160000", "sub", link)]);
            with_tree(pack, &root)
        }
        _ => {
            let Some((name, body)) = rest.split_first_chunk() else {
                return;
            };
            (GitId::from_bytes(*name), ended(body.to_vec()))
        }
    };
    if bytes.len() > MOST {
        return;
    }
    let recipe = Recipe::Git {
        commit,
        pack: ObjectId::of(&bytes),
        submodules: Vec::new(),
    };
    unpack(recipe, &bytes);
}

/// A pack with a commit of this tree, and with a file `x`.
fn with_tree(mut pack: PackFile, content: &[u8]) -> (GitId, Vec<u8>) {
    pack.add(Kind::Blob, b"x");
    let root = pack.add(Kind::Tree, content);
    let commit = pack.add(Kind::Commit, &commit(root, ""));
    (commit, pack.end())
}
