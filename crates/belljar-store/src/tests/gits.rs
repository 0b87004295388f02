//! Trees of commits, out of packs that git writes and out of such as it never would.

use belljar_core::{Derivation, Dropped, Fact, GitId, GitSubmodule, Recipe};
use belljar_plan::unpack::Said;
use belljar_tree::SymlinkTarget;
use gix_object::Kind;

use super::pack_file::{PackFile, commit, delta, ended, id, tree};
use super::*;
use crate::derive::Unpacker;

fn recipe(commit: GitId, pack: ObjectId, submodules: Vec<GitSubmodule>) -> Recipe {
    Recipe::Git {
        commit,
        pack,
        submodules,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// The tree that came of a recipe, and its record.
fn made(rig: &Rig, recipe: Recipe) -> (ObjectId, Derivation) {
    let answer = rig.derive(recipe);
    let Answer::Derived {
        tree, derivation, ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    let mut bytes = Vec::new();
    let mut content = rig.memory.read(derivation).unwrap();
    content.read_to_end(&mut bytes).unwrap();
    (tree, Derivation::from_canonical(&bytes).unwrap())
}

/// Why nothing came of a recipe. Nothing is left then.
fn why_not(rig: &Rig, recipe: Recipe) -> String {
    let before = rig.memory.ids();
    let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
    assert_eq!(rig.memory.ids(), before, "{answer:?}");
    match answer {
        Answer::DerivationRefused { why } => why,
        other => panic!("{other:?}"),
    }
}

/// A pack with a commit of a tree of these entries, beside what is in it already.
fn with(mut pack: PackFile, entries: &[(&str, &str, GitId)]) -> (GitId, Vec<u8>) {
    let tree = pack.add(Kind::Tree, &tree(entries));
    let commit = pack.add(Kind::Commit, &commit(tree, ""));
    (commit, pack.end())
}

#[test]
fn the_tree_of_a_commit_is_made_whatever_it_is_made_of() {
    let rig = Rig::new();
    let mut pack = PackFile::new();
    let base = b"one line of many\n".repeat(20);
    let at = pack.at();
    let first = pack.add(Kind::Blob, &base);
    // Its first ten bytes, and a word.
    let short = delta(base.len(), 14, b"\x90\x0a\x04word");
    let second = id(Kind::Blob, b"one line oword");
    let (next, distance) = (pack.at(), pack.at() - at);
    pack.ofs_delta(distance, &short);
    // Of one that is itself made, by its name, before that is known.
    let third = id(Kind::Blob, b"one line oword!");
    pack.ref_delta(second, &delta(14, 15, b"\x90\x0e\x01!"));
    let fourth = id(Kind::Blob, b"word");
    let distance = pack.at() - next;
    pack.ofs_delta(distance, &delta(14, 4, b"\x91\x0a\x04"));
    let empty = pack.add(Kind::Blob, b"");
    let link = pack.add(Kind::Blob, b"../first");
    let module = GitId::from_bytes([7; 20]);
    let below = [
        ("120000", "link", link),
        ("160000", "module", module),
        ("100644", "module.a", empty),
        ("100644", "second", second),
    ];
    let below = pack.add(Kind::Tree, &tree(&below));
    let (head, bytes) = with(
        pack,
        &[
            ("40000", "below", below),
            ("100644", "empty", empty),
            ("100755", "first", first),
            ("100644", "fourth", fourth),
            ("100644", "third", third),
        ],
    );
    let object = rig.memory.put(&bytes);
    let (found, record) = made(&rig, recipe(head, object, Vec::new()));
    let file = |content: &[u8], executable| Leaf::File {
        object: ObjectId::of(content),
        executable,
    };
    let target = SymlinkTarget::new("../first").unwrap();
    let due = build([
        (path("below/link"), Leaf::Symlink { target }),
        (path("below/module"), Leaf::EmptyDirectory),
        (path("below/module.a"), file(b"", false)),
        (path("below/second"), file(b"one line oword", false)),
        (path("empty"), file(b"", false)),
        (path("first"), file(&base, true)),
        (path("fourth"), file(b"word", false)),
        (path("third"), file(b"one line oword!", false)),
    ]);
    assert_eq!(found, due.unwrap().root);
    let root = match &record.facts[0] {
        Fact::GitCommit { tree, .. } => *tree,
        other => panic!("{other:?}"),
    };
    let due = vec![
        Fact::GitCommit {
            path: None,
            commit: head,
            tree: root,
            pack: object,
            url: None,
        },
        Fact::GitLink {
            path: path("below/module"),
            commit: module,
            url: None,
        },
    ];
    assert_eq!(record.facts, due);
    assert_eq!(record.from, [object].into());
}

#[test]
fn submodules_stand_where_the_trees_above_name_them() {
    let rig = Rig::new();
    let mut pack = PackFile::new();
    let deep = pack.add(Kind::Blob, b"deep\n");
    let (inner, inner_pack) = with(pack, &[("100644", "file", deep)]);
    let mut pack = PackFile::new();
    let modules = b"[submodule \"x\"]\npath = in/ner\nurl = ../inner\n";
    let modules = pack.add(Kind::Blob, modules);
    let below = pack.add(Kind::Tree, &tree(&[("160000", "ner", inner)]));
    let entries = [("100644", ".gitmodules", modules), ("40000", "in", below)];
    let (middle, middle_pack) = with(pack, &entries);
    let mut pack = PackFile::new();
    let modules = b"[submodule \"y\"]\npath = sub\nurl = https://a.example/middle\n";
    let modules = pack.add(Kind::Blob, modules);
    let entries = [
        ("100644", ".gitmodules", modules),
        ("160000", "sub", middle),
    ];
    let (outer, outer_pack) = with(pack, &entries);
    let [inner_pack, middle_pack, outer_pack] =
        [inner_pack, middle_pack, outer_pack].map(|bytes| rig.memory.put(&bytes));
    let sub = |at: &str, commit, pack| GitSubmodule {
        path: path(at),
        commit,
        pack,
    };
    let links = |record: Derivation| {
        let links = record.facts.into_iter().filter_map(|fact| match fact {
            Fact::GitLink { path, commit, url } => Some((path.to_string(), commit, url)),
            _ => None,
        });
        links.collect::<Vec<_>>()
    };
    let (_, record) = made(&rig, recipe(outer, outer_pack, Vec::new()));
    let url = Some("https://a.example/middle".to_owned());
    assert_eq!(links(record), [("sub".to_owned(), middle, url.clone())]);
    let one = vec![sub("sub", middle, middle_pack)];
    let (_, record) = made(&rig, recipe(outer, outer_pack, one.clone()));
    let inner_url = Some("../inner".to_owned());
    assert_eq!(links(record), [("sub/in/ner".to_owned(), inner, inner_url)]);
    let both = [one.clone(), vec![sub("sub/in/ner", inner, inner_pack)]].concat();
    let (found, record) = made(&rig, recipe(outer, outer_pack, both.clone()));
    let urls = record.facts.iter().map(|fact| match fact {
        Fact::GitCommit { url, path, .. } => (path.as_ref().map(RelPath::as_str), url.clone()),
        other => panic!("{other:?}"),
    });
    let urls = urls.collect::<Vec<_>>();
    assert_eq!(urls[1], (Some("sub"), url));
    let file = |content: &[u8]| Leaf::File {
        object: ObjectId::of(content),
        executable: false,
    };
    let due = build([
        (
            path(".gitmodules"),
            file(b"[submodule \"y\"]\npath = sub\nurl = https://a.example/middle\n"),
        ),
        (
            path("sub/.gitmodules"),
            file(b"[submodule \"x\"]\npath = in/ner\nurl = ../inner\n"),
        ),
        (path("sub/in/ner/file"), file(b"deep\n")),
    ]);
    assert_eq!(found, due.unwrap().root);
    // Nothing stands where no tree names it, or as another commit.
    for (odd, due) in [
        (
            vec![sub("elsewhere", middle, middle_pack)],
            "`elsewhere` is not named by any tree",
        ),
        (
            vec![sub("sub", inner, inner_pack)],
            "`sub` is not named by any tree",
        ),
        (
            vec![both[1].clone(), both[0].clone()],
            "`sub/in/ner` is not named",
        ),
        ([one.clone(), one].concat(), "`sub` is not named"),
        (
            vec![sub("sub", middle, inner_pack)],
            "has not got that commit",
        ),
    ] {
        let why = why_not(&rig, recipe(outer, outer_pack, odd));
        assert!(why.contains(due), "{why}");
    }
}

/// What is refused: a name for it, the commit that is asked for, the pack, and a part of the reason.
fn hostile() -> Vec<(&'static str, GitId, Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    let one = |name: &'static str, mode: &'static str, due: &'static str| {
        let mut pack = PackFile::new();
        let blob = pack.add(Kind::Blob, b"x");
        let (commit, bytes) = with(pack, &[(mode, name, blob)]);
        (name, commit, bytes, due)
    };
    for name in [
        ".",
        "..",
        ".git",
        ".GiT",
        "git~1",
        ".git ",
        ".git.",
        ".g\u{200c}it",
        ".git::$INDEX_ALLOCATION",
        "a/b",
        "",
    ] {
        all.push(one(name, "100644", "cannot be"));
    }
    all.push(one("mode", "100664", "has the mode 100664"));
    all.push(one("mode", "100600", "has the mode 100600"));
    // As gitoxide reads them these are modes that git writes.
    all.push(one("mode", "040000", "has the mode 040000"));
    all.push(one("mode", "0100644", "has the mode 0100644"));
    all.push(one("mode", "300644", "has the mode 300644"));
    all.push(one("mode", "240000", "has the mode 240000"));
    all.push(one(".gitmodules", "120000", "cannot be taken"));
    all.push(one("tree", "40000", "has a blob where a tree is named"));
    let mut pack = PackFile::new();
    let blob = pack.add(Kind::Blob, b"x");
    let (commit_id, bytes) = with(pack, &[("100644", "a", blob)]);
    let other = GitId::from_bytes([1; 20]);
    all.push(("other", other, bytes.clone(), "has not got that commit"));
    all.push(("blob", blob, bytes.clone(), "which is no commit"));
    all.push((
        "cut",
        commit_id,
        bytes[..bytes.len() - 1].to_vec(),
        "is cut or damaged",
    ));
    all.push(("nothing", commit_id, b"PACK".to_vec(), "is cut"));
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    all.push(("damaged", commit_id, damaged, "is cut or damaged"));
    let body = bytes[..bytes.len() - 20].to_vec();
    let longer = [body.clone(), b"more".to_vec()].concat();
    all.push(("longer", commit_id, ended(longer), "goes on after"));
    let mut fewer = body.clone();
    fewer[11] = 4;
    all.push((
        "fewer",
        commit_id,
        ended(fewer),
        "fewer objects than it says",
    ));
    let mut many = body;
    many[8] = 0x7f;
    all.push(("many", commit_id, ended(many), "objects; "));
    all.extend(odd_objects(blob));
    all.extend(bombs());
    all
}

/// Trees and commits that no honest repository has, and objects that are made of nothing.
fn odd_objects(blob: GitId) -> Vec<(&'static str, GitId, Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    let with_blob = || {
        let mut pack = PackFile::new();
        pack.add(Kind::Blob, b"x");
        pack
    };
    for (name, entries, due) in [
        (
            "unsorted",
            vec![("100644", "b", blob), ("100644", "a", blob)],
            "out of order",
        ),
        (
            "twice",
            vec![("100644", "a", blob), ("100644", "a", blob)],
            "out of order",
        ),
    ] {
        let (commit, bytes) = with(with_blob(), &entries);
        all.push((name, commit, bytes, due));
    }
    // A file and a directory of one name, which the order alone does not show.
    let mut pack = with_blob();
    let below = pack.add(Kind::Tree, &tree(&[("100644", "x", blob)]));
    let entries = [
        ("100644", "a", blob),
        ("100644", "a.b", blob),
        ("40000", "a", below),
    ];
    let (commit_id, bytes) = with(pack, &entries);
    all.push(("both", commit_id, bytes, "stands there twice"));
    let (commit_id, bytes) = with(PackFile::new(), &[("100644", "a", blob)]);
    all.push(("lacks", commit_id, bytes, "lacks the object"));
    let mut pack = with_blob();
    let commit_id = pack.add(Kind::Commit, &commit(blob, ""));
    all.push((
        "tree",
        commit_id,
        pack.end(),
        "has a blob where a tree is named",
    ));
    let mut pack = with_blob();
    let commit_id = pack.add(Kind::Commit, &commit(GitId::from_bytes([2; 20]), ""));
    all.push(("no tree", commit_id, pack.end(), "lacks the object"));
    let mut pack = with_blob();
    let commit_id = pack.add(Kind::Commit, b"no commit");
    all.push(("no commit", commit_id, pack.end(), "cannot be read"));
    let mut pack = with_blob();
    let commit_id = {
        let root = pack.add(Kind::Tree, &tree(&[("100644", "a", blob)]));
        let parent = pack.add(Kind::Commit, &commit(root, ""));
        pack.add(Kind::Commit, &commit(root, &format!("parent {parent}\n")))
    };
    all.push(("history", commit_id, pack.end(), "history is not fetched"));
    let mut pack = with_blob();
    pack.ref_delta(GitId::from_bytes([3; 20]), &delta(1, 1, b"\x01y"));
    let (commit_id, bytes) = with(pack, &[("100644", "a", blob)]);
    all.push(("thin", commit_id, bytes, "a thin pack"));
    for (name, distance, delta, due) in [
        (
            "between",
            1,
            delta(1, 1, b"\x01y"),
            "does not begin where it should",
        ),
        (
            "before",
            500,
            delta(1, 1, b"\x01y"),
            "does not begin where it should",
        ),
        (
            "zero",
            0,
            delta(1, 1, b"\x01y"),
            "does not begin where it should",
        ),
        ("base", 0xffff, delta(2, 1, b"\x01y"), "cannot be read"),
        ("copy", 0xffff, delta(1, 4, b"\x90\x04"), "cannot be read"),
        ("short", 0xffff, delta(1, 4, b"\x01y"), "cannot be read"),
        ("long", 0xffff, delta(1, 1, b"\x02yz"), "cannot be read"),
        ("reserved", 0xffff, delta(1, 1, b"\0"), "cannot be read"),
        ("sizeless", 0xffff, vec![0x80], "whose size cannot be read"),
    ] {
        let mut pack = PackFile::new();
        let at = pack.at();
        pack.add(Kind::Blob, b"x");
        let distance = if distance == 0xffff {
            pack.at() - at
        } else {
            distance
        };
        pack.ofs_delta(distance, &delta);
        let (commit_id, bytes) = with(pack, &[("100644", "a", blob)]);
        all.push((name, commit_id, bytes, due));
    }
    all
}

/// What is made to fill memory or disks.
fn bombs() -> Vec<(&'static str, GitId, Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    let nothing = id(Kind::Blob, b"");
    let mut pack = PackFile::new();
    pack.put(3, 1 << 40, &[], b"x");
    let (commit_id, bytes) = with(pack, &[("100644", "a", nothing)]);
    all.push((
        "says much",
        commit_id,
        bytes,
        "has an object of 1099511627776 bytes",
    ));
    let mut pack = PackFile::new();
    let at = pack.at();
    pack.add(Kind::Blob, b"x");
    let distance = pack.at() - at;
    pack.ofs_delta(distance, &delta(1, 1 << 30, b"\x90\x01"));
    let (commit_id, bytes) = with(pack, &[("100644", "a", nothing)]);
    all.push((
        "makes much",
        commit_id,
        bytes,
        "has an object of 1073741824 bytes",
    ));
    // Each of which is small, and twice as large as the one before.
    let mut pack = PackFile::new();
    let mut before = pack.at();
    pack.add(Kind::Blob, &[b'x'; 1 << 16]);
    let mut size: usize = 1 << 16;
    for _ in 0..12 {
        let distance = pack.at() - before;
        before = pack.at();
        // From its beginning, 64 KiB at once.
        let copies = [0x80].repeat(2 * size / 0x10000);
        pack.ofs_delta(distance, &delta(size, 2 * size, &copies));
        size *= 2;
    }
    let (commit_id, bytes) = with(pack, &[("100644", "a", nothing)]);
    all.push((
        "doubles",
        commit_id,
        bytes,
        "it looks made to fill memory or disks",
    ));
    // Trees that stand twice in the next one.
    let mut pack = PackFile::new();
    let blob = pack.add(Kind::Blob, b"x");
    let mut below = pack.add(Kind::Tree, &tree(&[("100644", "x", blob)]));
    for _ in 0..20 {
        below = pack.add(
            Kind::Tree,
            &tree(&[("40000", "a", below), ("40000", "b", below)]),
        );
    }
    let commit_id = pack.add(Kind::Commit, &commit(below, ""));
    all.push(("trees", commit_id, pack.end(), "more than 200000 entries"));
    all.push(long_names());
    // A few bytes, made over and over of what takes long.
    let mut pack = PackFile::new();
    let at = pack.at();
    let size = 16 << 20;
    pack.add(Kind::Blob, &vec![0; size]);
    for _ in 0..bounds::GIT_WORK_BYTES / size as u64 {
        let distance = pack.at() - at;
        pack.ofs_delta(distance, &delta(size, 1, b"\x90\x01"));
    }
    let (commit_id, bytes) = with(pack, &[("100644", "a", nothing)]);
    all.push((
        "busy",
        commit_id,
        bytes,
        "it looks made to keep machines busy",
    ));
    all
}

/// Few entries, each far below the root.
fn long_names() -> (&'static str, GitId, Vec<u8>, &'static str) {
    let mut pack = PackFile::new();
    let blob = pack.add(Kind::Blob, b"x");
    let directory = "d".repeat(250);
    let above = 15 * (directory.len() + 1);
    let names = (0..=bounds::UNPACKED_NAMES_BYTES / above).map(|n| format!("{n:05}"));
    let names: Vec<String> = names.collect();
    let entries: Vec<_> = names.iter().map(|n| ("100644", &n[..], blob)).collect();
    let mut below = pack.add(Kind::Tree, &tree(&entries));
    for _ in 0..15 {
        below = pack.add(Kind::Tree, &tree(&[("40000", &directory[..], below)]));
    }
    let commit_id = pack.add(Kind::Commit, &commit(below, ""));
    let due = "has paths in its tree that together are longer than";
    ("long", commit_id, pack.end(), due)
}

#[test]
fn packs_that_git_would_not_write_are_refused_and_leave_nothing() {
    let rig = Rig::new();
    for (name, commit, bytes, due) in hostile() {
        let pack = rig.memory.put(&bytes);
        let why = why_not(&rig, recipe(commit, pack, Vec::new()));
        assert!(why.contains(due), "{name:?}: {why}");
        assert!(
            why.contains(&format!("the pack of {commit}")),
            "{name:?}: {why}"
        );
    }
}

/// What an unpacker does that somebody has taken over.
#[derive(Clone)]
enum Does {
    Say(Said),
    Send(Vec<u8>),
    /// Has this given, and reads it to its end.
    Need(ObjectId),
}

/// Such a one.
struct Forger(Vec<Does>);

impl Unpackers for Forger {
    fn start(&self) -> std::io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        let all = self.0.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; bounds::FRAME_BYTES];
            let _ = theirs.receive(&mut buffer);
            for one in all {
                // The store may have heard enough.
                let _ = match one {
                    Does::Say(said) => theirs.send(&frame::encode(&said).unwrap()),
                    Does::Send(piece) => theirs.send_parts(&frame::data(&piece).unwrap()),
                    Does::Need(object) => {
                        let need = frame::encode(&Said::Need { object }).unwrap();
                        let _ = theirs.send(&need);
                        let received = theirs.receive(&mut buffer);
                        if let Some(pipe) = received.ok().flatten().and_then(|one| one.descriptor) {
                            let _ = std::fs::File::from(pipe).read_to_end(&mut Vec::new());
                        }
                        Ok(())
                    }
                };
            }
        });
        Ok(Unpacker {
            connection,
            process: None,
        })
    }
}

/// A file and a commit with it, as an unpacker says them.
struct Story {
    pack: ObjectId,
    commit: Vec<u8>,
    tree: GitId,
    link: GitId,
}

impl Story {
    fn new() -> Self {
        let link = GitId::from_bytes([7; 20]);
        let file = id(Kind::Blob, b"honest\n");
        let below = tree(&[("100755", "file", file)]);
        let below = id(Kind::Tree, &below);
        let root = tree(&[("40000", "below", below), ("160000", "sub", link)]);
        let tree = id(Kind::Tree, &root);
        Self {
            pack: ObjectId::of(b"a pack"),
            commit: commit(tree, ""),
            tree,
            link,
        }
    }

    fn name(&self) -> GitId {
        id(Kind::Commit, &self.commit)
    }

    /// All of it, with this commit, file and commit in the place of the submodule.
    fn told(&self, commit: &[u8], file: (&str, &[u8], bool), link: GitId) -> Vec<Does> {
        let (at, content, executable) = file;
        let put = Fact::GitCommit {
            path: None,
            commit: self.name(),
            tree: self.tree,
            pack: self.pack,
            url: None,
        };
        let found = Fact::GitLink {
            path: path("sub"),
            commit: link,
            url: None,
        };
        let directory = |at: &str| Does::Say(Said::Directory { path: path(at) });
        vec![
            Does::Need(self.pack),
            Does::Say(Said::Commit { path: None }),
            Does::Send(commit.to_vec()),
            Does::Say(Said::FileEnd {}),
            directory("below"),
            directory("sub"),
            Does::Say(Said::File {
                path: path(at),
                executable,
            }),
            Does::Send(content.to_vec()),
            Does::Say(Said::FileEnd {}),
            Does::Say(Said::Fact { fact: put }),
            Does::Say(Said::Fact { fact: found }),
            Does::Say(Said::End {}),
        ]
    }

    fn end(&self, does: Vec<Does>) -> Answer {
        let rig = Rig::with_unpackers(Box::new(Forger(does)));
        let pack = rig.memory.put(b"a pack");
        let before = rig.memory.ids();
        let answer = rig.derive(recipe(self.name(), pack, Vec::new()));
        if !matches!(answer, Answer::Derived { .. }) {
            assert_eq!(rig.memory.ids(), before);
        }
        answer
    }
}

/// The tree that a server's pack has an unpacker say is none of the commit's unless git itself would call it so.
#[test]
fn an_unpacker_that_was_taken_over_cannot_give_another_tree_than_the_commits() {
    let story = Story::new();
    let (commit_bytes, link) = (story.commit.clone(), story.link);
    let file = ("below/file", b"honest\n".as_slice(), true);
    let honest = || story.told(&commit_bytes, file, link);
    let answer = story.end(honest());
    assert!(matches!(answer, Answer::Derived { .. }), "{answer:?}");
    let other = commit(
        story.tree,
        "parent 0123456789012345678901234567890123456789\n",
    );
    let without = |gone: &[usize]| {
        let mut all = honest();
        for index in gone.iter().rev() {
            all.remove(*index);
        }
        all
    };
    let with = |at: usize, more: Vec<Does>| {
        let mut all = honest();
        all.splice(at..at, more);
        all
    };
    let extra = |at: &str| {
        let (path, executable) = (path(at), false);
        let file = Said::File { path, executable };
        vec![
            Does::Say(file),
            Does::Send(b"x".to_vec()),
            Does::Say(Said::FileEnd {}),
        ]
    };
    let hard = Said::HardLink {
        path: path("below/other"),
        target: path("below/file"),
    };
    let left_out = Said::Dropped {
        what: Dropped::Modes,
        count: 1,
    };
    for (name, does) in [
        ("another commit", story.told(&other, file, link)),
        ("no commit", without(&[1, 2, 3])),
        (
            "other content",
            story.told(&commit_bytes, ("below/file", b"forged\n", true), link),
        ),
        (
            "another mode",
            story.told(&commit_bytes, ("below/file", b"honest\n", false), link),
        ),
        (
            "another name",
            story.told(&commit_bytes, ("below/life", b"honest\n", true), link),
        ),
        (
            "another place",
            story.told(&commit_bytes, ("file", b"honest\n", true), link),
        ),
        (
            "another submodule",
            story.told(&commit_bytes, file, GitId::from_bytes([8; 20])),
        ),
        ("no file", without(&[6, 7, 8])),
        ("no submodule", without(&[10])),
        ("a file more", with(9, extra("more"))),
        ("a file in the submodule", with(9, extra("sub/more"))),
        (
            "a directory more",
            with(9, vec![Does::Say(Said::Directory { path: path("more") })]),
        ),
        ("a link", with(9, vec![Does::Say(hard)])),
        ("a file anew", with(9, extra("below/file"))),
        ("a layer", with(4, vec![Does::Say(Said::Layer {})])),
        ("something left out", with(9, vec![Does::Say(left_out)])),
        (
            "a long commit",
            with(3, vec![Does::Send(vec![b'x'; bounds::CHUNK_BYTES]); 17]),
        ),
    ] {
        let answer = story.end(does);
        let refused = matches!(
            &answer,
            Answer::Failed {
                class: Failure::Refused,
                ..
            }
        );
        assert!(refused, "{name}: {answer:?}");
    }
    // Nor can one come into what is about none.
    let rig = Rig::with_unpackers(Box::new(Forger(vec![Does::Say(Said::Commit {
        path: None,
    })])));
    let archive = rig.memory.put(b"an archive");
    let class = rig.connect(Role::Client).fails(&Request::Derive {
        recipe: Recipe::Tar { archive },
    });
    assert_eq!(class, Failure::Refused);
}
