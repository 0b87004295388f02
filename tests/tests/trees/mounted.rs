use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use belljar_cas::{BlobSink, ImageOrder, Images, Provenance, Reader, Writer, scan};
use belljar_core::{ObjectId, RelPath, bounds};
use belljar_sys::mount::{self, Attributes};
use belljar_sys::namespace;
use belljar_tree::{Leaf, SymlinkTarget, build};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const READ_ONLY: Attributes = Attributes {
    read_only: true,
    devices: false,
    no_exec: false,
};

/// A store, and places to mount at, in a mount namespace of this thread's own.
pub(super) struct Rig {
    root: tempfile::TempDir,
    writer: Writer,
    reader: Reader,
    images: Images,
}

impl Rig {
    pub(super) fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("belljar-mounted-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let writer = Writer::open(root.path()).unwrap();
        namespace::unshare_mounts().unwrap();
        mount::make_all_private().unwrap();
        for name in ["layer", "over"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Self {
            reader: Reader::new(root.path()).unwrap(),
            images: Images::open(root.path()).unwrap(),
            writer,
            root,
        }
    }

    fn put(&self, bytes: &[u8]) -> ObjectId {
        self.put_all([bytes]);
        ObjectId::of(bytes)
    }

    /// Puts many at the price of a few.
    pub(super) fn put_all<'a>(&self, blobs: impl IntoIterator<Item = &'a [u8]>) {
        let blobs: Vec<_> = blobs.into_iter().collect();
        for some in blobs.chunks(bounds::OBJECTS_AT_ONCE) {
            let mut batch = self.writer.batch().unwrap();
            for bytes in some {
                let mut blob = self.writer.begin(None).unwrap();
                blob.write(bytes).unwrap();
                blob.finish_into(&mut batch).unwrap();
            }
            self.writer.keep(batch).unwrap();
        }
    }

    fn tree(&self, leaves: Vec<(RelPath, Leaf)>) -> ObjectId {
        let built = build(leaves).unwrap();
        self.put_all(built.directories.iter().map(|(_, bytes)| bytes.as_slice()));
        built.root
    }

    /// What stands on disk where `tree` is mounted as a sandbox has it.
    pub(super) fn mounted<T>(&self, tree: ObjectId, look: impl FnOnce(&Path) -> T) -> T {
        let name = tree.digest.to_hex();
        let order = ImageOrder {
            name: &name,
            tree,
            mtime: 315_532_800,
        };
        let (provenance, _) = self.images.prepare(&self.reader, order).unwrap();
        assert!(matches!(provenance, Provenance::Made | Provenance::Known));
        let image = File::open(self.root.path().join("images").join(&name)).unwrap();
        let source = format!("/proc/self/fd/{}", image.as_raw_fd());
        let place = |name: &str| self.root.path().join(name);
        let layer = mount::make("erofs", &[("source", Some(&source))], READ_ONLY).unwrap();
        mount::attach(layer, &place("layer")).unwrap();
        let text = |name: &str| place(name).to_str().unwrap().to_owned();
        let (layer, objects) = (text("layer"), text("objects/sha256"));
        let options = [
            ("lowerdir+", Some(layer.as_str())),
            ("datadir+", Some(objects.as_str())),
            ("metacopy", Some("on")),
            ("redirect_dir", Some("on")),
        ];
        let over = mount::make("overlay", &options, READ_ONLY).unwrap();
        mount::attach(over, &place("over")).unwrap();
        let seen = look(&place("over"));
        mount::detach(&place("over")).unwrap();
        mount::detach(&place("layer")).unwrap();
        seen
    }

    fn assert_scanned_as_itself(&self, tree: ObjectId) {
        let found = self.mounted(tree, |over| {
            scan(File::open(over).unwrap().as_fd(), ".").unwrap()
        });
        assert_eq!(found, tree);
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

#[test]
fn any_tree_that_is_mounted_is_scanned_as_the_same_tree() {
    let rig = Rig::new();
    let names = "[ab]{1,2}(/[ab.\\-~]{0,3}[a-zé]{1,40}){0,3}";
    let contents = prop_oneof!["[xyz]{0,3}", "x{4000,9000}"];
    let leaves = proptest::collection::btree_map(names, (0..4u8, contents), 0..80);
    let mut runner = TestRunner::new(Config::with_cases(12));
    let ran = runner.run(&leaves, |leaves| {
        rig.put_all(leaves.values().map(|(_, text)| text.as_bytes()));
        let leaf = |(kind, text): (u8, String)| match kind {
            0 => Leaf::EmptyDirectory,
            1 => Leaf::Symlink {
                target: SymlinkTarget::new(format!("{}.", &text[..text.len().min(4000)])).unwrap(),
            },
            kind => Leaf::File {
                object: ObjectId::of(text.as_bytes()),
                executable: kind == 3,
            },
        };
        let leaves: Vec<_> = leaves
            .into_iter()
            .filter_map(|(at, what)| Some((RelPath::new(at).ok()?, leaf(what))))
            .collect();
        prop_assume!(build(leaves.clone()).is_ok());
        rig.assert_scanned_as_itself(rig.tree(leaves));
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn directories_and_links_of_every_size_are_mounted_whole() {
    let rig = Rig::new();
    let object = rig.put(b"content");
    let file = || Leaf::File {
        object,
        executable: false,
    };
    // Around the sizes at which a directory no longer stands beside its inode, or fills its blocks.
    for count in [
        0, 1, 100, 200, 226, 227, 228, 229, 230, 253, 254, 255, 256, 700, 5000,
    ] {
        let leaves = (0..count).map(|i| (path(&format!("d/{i:05}")), file()));
        let mut leaves: Vec<_> = leaves.collect();
        if leaves.is_empty() {
            leaves.push((path("d"), Leaf::EmptyDirectory));
        }
        rig.assert_scanned_as_itself(rig.tree(leaves));
    }
    let link = |length: usize| Leaf::Symlink {
        target: SymlinkTarget::new("t".repeat(length)).unwrap(),
    };
    let lengths = [1, 59, 60, 4000, 4063, 4064, 4065, 4095];
    let leaves = lengths.map(|length| (path(&format!("l{length}")), link(length)));
    rig.assert_scanned_as_itself(rig.tree(leaves.into()));
    let long = (0..300).map(|i| (path(&format!("{}{i:03}", "n".repeat(252))), file()));
    rig.assert_scanned_as_itself(rig.tree(long.collect()));
    let deep: Vec<_> = (0..126).map(|_| "d").collect();
    rig.assert_scanned_as_itself(rig.tree(vec![(path(&deep.join("/")), file())]));
}

#[test]
fn an_object_that_is_gone_is_an_error_and_never_other_content() {
    let rig = Rig::new();
    let object = rig.put(b"content");
    let file = Leaf::File {
        object,
        executable: false,
    };
    let tree = rig.tree(vec![(path("f"), file)]);
    let read = |over: &Path| fs::read(over.join("f"));
    assert_eq!(rig.mounted(tree, read).unwrap(), b"content");
    let hex = object.digest.to_hex();
    let place = rig.root.path().join("objects/sha256").join(&hex[..2]);
    fs::remove_file(place.join(&hex[2..])).unwrap();
    assert!(rig.mounted(tree, read).is_err());
}
