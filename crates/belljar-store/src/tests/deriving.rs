use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use belljar_core::{Derivation, Fact, Platform, Recipe};
use belljar_plan::unpack::Said;

use super::*;
use crate::derive::{Unpacker, Unpackers, work};

/// Unpackers that are threads of the test: nothing of what confines the real ones is tried here.
pub(super) struct Threads;

impl Unpackers for Threads {
    fn start(&self) -> io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        std::thread::spawn(move || {
            // What an unpacker fails of, the store notices.
            let _ = work(&theirs);
        });
        Ok(Unpacker {
            connection,
            process: None,
        })
    }
}

/// A tar archive under construction.
pub(super) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn add(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(super) fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    /// A file whose name is any bytes.
    pub(super) fn raw(mut self, path: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    pub(super) fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, 0o644, content)
    }

    pub(super) fn directory(self, path: &str) -> Self {
        self.add(tar::EntryType::Directory, path, 0o755, b"")
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

impl Rig {
    pub(super) fn derive(&self, recipe: Recipe) -> Answer {
        self.connect(Role::Client)
            .reply(&Request::Derive { recipe })
    }

    fn derive_tar(&self, archive: &[u8]) -> Answer {
        let archive = self.memory.put(archive);
        self.derive(Recipe::Tar { archive })
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn a_tar_becomes_a_tree_with_a_record_and_the_same_one_again() {
    let rig = Rig::new();
    let archive = Tar::new()
        .directory("./")
        .directory("./bin/")
        .add(
            tar::EntryType::Regular,
            "./bin/tool",
            0o4755,
            b"#!/bin/sh\n",
        )
        .link(tar::EntryType::Symlink, "./lib", "usr/lib")
        .link(tar::EntryType::Link, "./bin/again", "./bin/tool")
        .add(tar::EntryType::Char, "dev/null", 0o666, b"")
        .file("usr/lib/old", b"1")
        .file("usr/lib/old", b"2")
        .end();
    let Answer::Derived {
        tree,
        derivation,
        entries,
        bytes,
        dropped,
    } = rig.derive_tar(&archive)
    else {
        panic!("no tree")
    };
    assert_eq!((entries, bytes), (7, 21));
    assert_eq!(format!("{dropped:?}"), "{SpecialFiles: 1, SetIdBits: 1}");
    let leaf = |content: &[u8], executable| Leaf::File {
        object: ObjectId::of(content),
        executable,
    };
    let target = belljar_tree::SymlinkTarget::new("usr/lib").unwrap();
    let due = build(
        [
            ("bin/tool", leaf(b"#!/bin/sh\n", true)),
            ("bin/again", leaf(b"#!/bin/sh\n", true)),
            ("lib", Leaf::Symlink { target }),
            ("usr/lib/old", leaf(b"2", false)),
        ]
        .map(|(path, leaf)| (RelPath::new(path).unwrap(), leaf)),
    )
    .unwrap();
    assert_eq!(tree, due.root);
    let record = Derivation::from_canonical(&rig.content(derivation)).unwrap();
    assert_eq!(record.tree, tree);
    assert_eq!(record.from, [ObjectId::of(&archive)].into());
    // The file that was replaced is not kept: objects are the archive, the two files that stand, their
    // directories (top, bin, usr, lib), the record, and the empty one.
    assert_eq!(rig.memory.ids().len(), 9);

    let again = rig.derive_tar(&archive);
    assert!(
        matches!(again, Answer::Derived { derivation: other, .. } if other == derivation),
        "{again:?}"
    );
    let zipped = rig.derive_tar(&gzip(&archive));
    assert!(
        matches!(zipped, Answer::Derived { tree: other, derivation: another, .. } if other == tree && another != derivation),
        "{zipped:?}"
    );
}

#[test]
fn the_spawner_gets_records_that_the_store_made_and_no_others() {
    let rig = Rig::new();
    let Answer::Derived { derivation, .. } = rig.derive_tar(&Tar::new().file("a", b"1").end())
    else {
        panic!("no tree")
    };
    let mut peer = rig.connect(Role::Spawner);
    let ask = |record| Request::Derivation { record };
    assert_eq!(peer.reply(&ask(derivation)), Answer::Derivation {});
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let received = peer.connection.receive(&mut buffer).unwrap().unwrap();
    let Frame::Data(bytes) = frame::parse(&buffer[..received.length]).unwrap() else {
        panic!("no content")
    };
    assert_eq!(ObjectId::of(bytes), derivation);
    // The same with one more entry, uploaded by somebody.
    let mut forged = Derivation::from_canonical(bytes).unwrap();
    forged.entries += 1;
    let forged = rig.memory.put(&forged.canonical().unwrap());
    assert_eq!(peer.fails(&ask(forged)), Failure::Missing);
}

#[test]
fn a_derivation_is_about_its_own_tree_only() {
    let rig = Rig::new();
    let Answer::Derived {
        tree, derivation, ..
    } = rig.derive_tar(&Tar::new().file("a", b"1").end())
    else {
        panic!("no tree")
    };
    let of = |tree| StagedTree {
        derivation: Some(derivation),
        ..staged(tree)
    };
    let mut peer = rig.connect(Role::Spawner);
    let other = stage_all(1, vec![of(rig.tree("b", b"b"))]);
    assert_eq!(peer.fails(&other), Failure::Content);
    let own = stage_all(1, vec![of(tree)]);
    assert!(matches!(peer.reply(&own), Answer::Staged { .. }));
}

/// Unpackers that never come to an end, counted.
#[derive(Clone, Default)]
struct Stuck(Arc<AtomicUsize>);

impl Unpackers for Stuck {
    fn start(&self) -> io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        self.0.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let mut buffer = vec![0; bounds::FRAME_BYTES];
            // The order; then nothing, until the store hangs up.
            while matches!(theirs.receive(&mut buffer), Ok(Some(_))) {}
        });
        Ok(Unpacker {
            connection,
            process: None,
        })
    }
}

impl Stuck {
    fn wait_for(&self, count: usize) {
        let begun = Instant::now();
        while self.0.load(Ordering::SeqCst) < count {
            assert!(begun.elapsed() < Duration::from_secs(20), "not all began");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An unpacker that has found an image in what it never read.
struct Liar;

impl Unpackers for Liar {
    fn start(&self) -> io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; bounds::FRAME_BYTES];
            let _ = theirs.receive(&mut buffer);
            let object = ObjectId::of(b"an image of somebody else's");
            let fact = Fact::OciImage {
                manifest: object,
                config: object,
                layers: vec![object],
            };
            for said in [Said::Fact { fact }, Said::End {}] {
                let _ = theirs.send(&frame::encode(&said).unwrap());
            }
        });
        Ok(Unpacker {
            connection,
            process: None,
        })
    }
}

#[test]
fn an_image_that_was_not_read_is_in_no_record() {
    let rig = Rig::with_unpackers(Box::new(Liar));
    let index = rig.memory.put(b"an index");
    let mut peer = rig.connect(Role::Client);
    let class = peer.fails(&Request::Derive {
        recipe: Recipe::Oci {
            index,
            platform: Platform::LinuxAmd64,
        },
    });
    assert_eq!(class, Failure::Refused);
}

#[test]
fn who_hangs_up_gives_its_place_back() {
    let stuck = Stuck::default();
    let rig = Rig::with_unpackers(Box::new(stuck.clone()));
    let archive = rig.memory.put(b"an archive");
    let request = Request::Derive {
        recipe: Recipe::Tar { archive },
    };
    let waiting: Vec<_> = (0..bounds::DERIVATIONS)
        .map(|_| {
            let peer = rig.connect(Role::Client);
            peer.ask(&request);
            peer
        })
        .collect();
    stuck.wait_for(bounds::DERIVATIONS);
    let answer = rig.connect(Role::Client).reply(&request);
    assert_eq!(answer, Answer::DerivationsBusy {});
    // Each session ends, though its unpacker does not.
    waiting.into_iter().for_each(Peer::close);
    let peer = rig.connect(Role::Client);
    peer.ask(&request);
    stuck.wait_for(bounds::DERIVATIONS + 1);
    peer.close();
}

#[test]
fn what_would_use_the_reserve_is_not_unpacked() {
    let rig = Rig::with_reserve(u64::MAX);
    let archive = Tar::new().file("a", b"x").end();
    let archive = rig.memory.put(&archive);
    let mut peer = rig.connect(Role::Client);
    let class = peer.fails(&Request::Derive {
        recipe: Recipe::Tar { archive },
    });
    assert_eq!(class, Failure::Full);
}
