use belljar_core::{
    BuildSpec, Fetch, FetchUrl, Fetches, GitFetch, GitId, InputName, Inputs, Mirrors, Recipe,
};
use gix_object::Kind;

use super::artifacts::{derive, sign_for};
use super::pack_file::{PackFile, commit, tree};
use super::scene::{Scene, Told, spec};
use super::{Row, SIGNER, row};

/// A pack with a commit, beside which another one stands in its tree.
fn packed() -> (GitId, Vec<u8>) {
    let mut pack = PackFile::new();
    let blob = pack.add(Kind::Blob, b"forged\n");
    let link = GitId::from_bytes([2; 20]);
    let root = tree(&[("100644", "file", blob), ("160000", "sub", link)]);
    let root = pack.add(Kind::Tree, &root);
    let commit = pack.add(Kind::Commit, &commit(root, ""));
    (commit, pack.end())
}

/// The tree of a commit that is there, as what this fetch names.
fn given(scene: &mut Scene, change: impl FnOnce(&mut GitFetch)) -> Told {
    let (commit, pack) = packed();
    let recipe = Recipe::Git {
        commit,
        pack: scene.keep(&pack),
        submodules: Vec::new(),
    };
    let url = FetchUrl::new("https://a.example/x").unwrap();
    let mut fetch = GitFetch {
        repositories: Mirrors::new(vec![url]).unwrap(),
        commit,
        submodules: false,
    };
    change(&mut fetch);
    let input = derive(scene, &recipe);
    let name = InputName::new("x").unwrap();
    let given = BuildSpec {
        fetches: Fetches::new([(name.clone(), Fetch::Git(fetch))].into()).unwrap(),
        ..spec("ls /deps/x > out")
    };
    let inputs = Inputs::new([(name, input)].into()).unwrap();
    sign_for(scene, &given, &inputs)
}

pub(super) const ROWS: &[Row] = &[
    row(
        "the tree of another commit than the specification has fetched",
        SIGNER,
        "was not made of what the specification has fetched",
        |scene| given(scene, |fetch| fetch.commit = GitId::from_bytes([1; 20])),
    ),
    row(
        "the tree of a commit without its submodules, where the specification has those fetched, too",
        SIGNER,
        "was not made of what the specification has fetched",
        |scene| given(scene, |fetch| fetch.submodules = true),
    ),
];
