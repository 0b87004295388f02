//! Directories that earlier builds have left, by their receipts.

use belljar_core::{AttemptId, Digest, Producer, Recipe, Unpack};
use belljar_plan::{OutputEntry, OutputKind, Receipt};
use belljar_tree::SymlinkTarget;

use super::*;

#[path = "../../../belljar-attest/src/fixture.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of belljar-attest, which use more of it"
)]
mod fixture;

fn recipe(receipt: ObjectId, output: &str) -> Recipe {
    let attempt: AttemptId = fixture::attempt();
    Recipe::OutputDirectory {
        producer: Producer {
            attempt,
            provenance: Digest::of(b"bundle"),
        },
        receipt,
        output: RelPath::new(output).unwrap(),
    }
}

impl Rig {
    fn keep(&self, receipt: &Receipt) -> ObjectId {
        self.memory.put(&receipt.canonical().unwrap())
    }

    fn why(&self, recipe: Recipe) -> String {
        let before = self.memory.ids();
        let answer = self
            .connect(Role::Client)
            .reply(&Request::Derive { recipe });
        assert_eq!(self.memory.ids(), before, "{answer:?}");
        match answer {
            Answer::DerivationRefused { why } => why,
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn a_directory_becomes_the_tree_that_it_was_whatever_stands_beside_it() {
    let rig = Rig::new();
    let page = rig.memory.put(b"a page");
    let mut receipt = fixture::receipt();
    let path = RelPath::new("share/empty").unwrap();
    let kind = OutputKind::Directory;
    receipt.outputs.push(OutputEntry { path, kind });
    let derived = rig.derive(recipe(rig.keep(&receipt), "share"));
    let Answer::Derived { tree, entries, .. } = derived else {
        panic!("{derived:?}")
    };
    let path = |text: &str| RelPath::new(text).unwrap();
    let file = || Leaf::File {
        object: page,
        executable: true,
    };
    let target = SymlinkTarget::new("page").unwrap();
    let due = build([
        (path("alias"), Leaf::Symlink { target }),
        (path("deep/page"), file()),
        (path("page"), file()),
        (path("empty"), Leaf::EmptyDirectory),
    ]);
    assert_eq!((tree, entries), (due.unwrap().root, 5));
    // One that lies in another is a tree as well.
    let derived = rig.derive(recipe(rig.keep(&receipt), "share/deep"));
    let due = build([(path("page"), file())]).unwrap().root;
    assert!(
        matches!(derived, Answer::Derived { tree, .. } if tree == due),
        "{derived:?}"
    );
}

#[test]
fn what_no_receipt_lists_is_refused_and_leaves_nothing() {
    let rig = Rig::new();
    let receipt = rig.keep(&fixture::receipt());
    for (output, due) in [
        ("app", "has no directory `app` among its outputs"),
        ("share/none", "has no directory `share/none`"),
        ("sha", "has no directory `sha`"),
    ] {
        let why = rig.why(recipe(receipt, output));
        assert!(why.contains(due), "{why}");
    }
    // The content of a file that it lists is not there.
    let why = rig.why(recipe(receipt, "share"));
    assert!(why.contains(&Digest::of(b"a page").to_string()), "{why}");
    let none = rig.memory.put(b"{}");
    let why = rig.why(recipe(none, "share"));
    assert!(why.contains("the receipt cannot be read"), "{why}");
    // Something of one path that is given twice, as no collection leaves it.
    rig.memory.put(b"a page");
    let mut receipt = fixture::receipt();
    let mut twice = receipt.outputs.clone();
    receipt.outputs.append(&mut twice);
    receipt
        .outputs
        .push(fixture::file("share/page/below", b"a page"));
    let why = rig.why(recipe(rig.keep(&receipt), "share"));
    assert!(why.contains("share") || why.contains("page"), "{why}");
}

#[test]
fn a_file_that_an_earlier_build_has_left_is_read_to_its_end_like_any_other() {
    let rig = Rig::new();
    let content = rig.memory.put(b"the program");
    let of = |content| Recipe::Artifact {
        producer: Producer {
            attempt: fixture::attempt(),
            provenance: Digest::of(b"bundle"),
        },
        content,
        unpack: Unpack::file("tool", true).unwrap(),
    };
    let derived = rig.derive(of(content));
    let leaf = Leaf::File {
        object: content,
        executable: true,
    };
    let due = build([(RelPath::new("tool").unwrap(), leaf)]).unwrap().root;
    assert!(
        matches!(derived, Answer::Derived { tree, .. } if tree == due),
        "{derived:?}"
    );
    let why = rig.why(of(ObjectId::of(b"never")));
    assert!(why.contains(&Digest::of(b"never").to_string()), "{why}");
}
