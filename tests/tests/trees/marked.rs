use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use belljar_core::{ObjectId, Outcome, RelPath};
use belljar_tests::{Client, Instance, TreeOf};
use belljar_tree::{
    Directory, DirectoryNode, FileNode, Leaf, Mtime, Name, NodeProperties, NodeProperty,
    SymlinkNode, SymlinkTarget, build,
};
use belljar_wire::Reason;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::mounted::Rig;
use crate::{log, on, run, with};

/// The time of everything that has none.
const USUAL_TIME: (i64, u32) = (315_532_800, 0);

/// What one node is given: a time, a mode, something named. Any may be left out.
#[derive(Clone, Debug)]
struct Mark {
    time: Option<(i64, u32)>,
    mode: Option<u32>,
    named: bool,
}

impl Mark {
    /// For a node with this mode when it is given none, as far as such a one may have it; with all that is seen where
    /// `filled`.
    fn properties(&self, usual: u32, filled: bool) -> Option<NodeProperties> {
        let mode = self.mode.map(|mode| match usual {
            0o644 => mode & !0o111,
            0o755 => mode | 0o100,
            _ => usual,
        });
        let (time, mode) = match filled {
            true => (self.time.or(Some(USUAL_TIME)), mode.or(Some(usual))),
            false => (self.time, mode),
        };
        let mut all = NodeProperties::default();
        if let Some((seconds, nanos)) = time {
            all = all.with_mtime(Mtime::new(seconds, nanos).unwrap());
        }
        if let Some(mode) = mode {
            all = all.with_mode(mode).unwrap();
        }
        if self.named && !filled {
            let (name, value) = ("name".to_owned(), "value".to_owned());
            all = all.with_named(vec![NodeProperty { name, value }]).unwrap();
        }
        (!all.is_empty()).then_some(all)
    }
}

/// Marks a tree, node by node in one order; the marks come again from the beginning when there are more nodes.
struct Marker<'a> {
    plain: BTreeMap<ObjectId, Directory>,
    marks: &'a [Mark],
    next: usize,
    filled: bool,
    made: Vec<Vec<u8>>,
}

impl Marker<'_> {
    fn mark(&mut self, usual: u32) -> Option<NodeProperties> {
        let mark = &self.marks[self.next % self.marks.len()];
        self.next += 1;
        mark.properties(usual, self.filled)
    }

    fn directory(&mut self, plain: ObjectId) -> ObjectId {
        let plain = self.plain[&plain].clone();
        let own = self.mark(0o755);
        let files = plain.files().iter().map(|node| {
            let usual = if node.executable { 0o755 } else { 0o644 };
            let properties = self.mark(usual).map(Box::new);
            FileNode {
                properties,
                ..node.clone()
            }
        });
        let files = files.collect();
        let links = plain.symlinks().iter().map(|node| {
            let properties = self.mark(0o777).map(Box::new);
            SymlinkNode {
                properties,
                ..node.clone()
            }
        });
        let links = links.collect();
        let below = plain.directories().iter().map(|node| DirectoryNode {
            object: self.directory(node.object),
            ..node.clone()
        });
        let below = below.collect();
        let mut marked = Directory::new(files, below, links).unwrap();
        if let Some(own) = own {
            marked = marked.with_properties(own).unwrap();
        }
        self.made.push(marked.encode());
        marked.object_id()
    }
}

/// The tree of these leaves with these marks, in the store; and the digest of the same tree in which everything has time and
/// mode.
fn marked(rig: &Rig, leaves: Vec<(RelPath, Leaf)>, marks: &[Mark]) -> (ObjectId, ObjectId) {
    let built = build(leaves).unwrap();
    let read = |(id, bytes): &(ObjectId, Vec<u8>)| (*id, Directory::decode(bytes).unwrap());
    let plain: BTreeMap<_, _> = built.directories.iter().map(read).collect();
    let [tree, due] = [false, true].map(|filled| {
        let mut marker = Marker {
            plain: plain.clone(),
            marks,
            next: 0,
            filled,
            made: Vec::new(),
        };
        let root = marker.directory(built.root);
        rig.put_all(marker.made.iter().map(Vec::as_slice));
        root
    });
    (tree, due)
}

/// The digest of what stands on disk, with the time and the mode of everything.
fn seen(at: &Path) -> ObjectId {
    let properties = |at: &Path| {
        let status = fs::symlink_metadata(at).unwrap();
        let nanos = u32::try_from(status.mtime_nsec()).unwrap();
        let all = NodeProperties::default().with_mtime(Mtime::new(status.mtime(), nanos).unwrap());
        assert_eq!((status.uid(), status.gid()), (0, 0));
        all.with_mode(status.mode() & 0o7777).unwrap()
    };
    let (mut files, mut below, mut links) = (vec![], vec![], vec![]);
    for entry in fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = Name::new(entry.file_name().to_str().unwrap()).unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let object = seen(&path);
            below.push(DirectoryNode { name, object });
            continue;
        }
        let all = properties(&path);
        let executable = all.mode().unwrap() & 0o111 != 0;
        let properties = Some(Box::new(all));
        if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            links.push(SymlinkNode {
                name,
                target: SymlinkTarget::new(target.to_str().unwrap()).unwrap(),
                properties,
            });
        } else {
            files.push(FileNode {
                name,
                object: ObjectId::of(&fs::read(&path).unwrap()),
                executable,
                properties,
            });
        }
    }
    let directory = Directory::new(files, below, links).unwrap();
    directory
        .with_properties(properties(at))
        .unwrap()
        .object_id()
}

fn mark() -> impl Strategy<Value = Mark> {
    let time = (-62_135_596_800..=253_402_300_799i64, 0..1_000_000_000u32);
    let near = (-2..3i64, 0..2u32);
    let time = proptest::option::of(prop_oneof![time, near]);
    let mode = proptest::option::of(0..=0o777u32);
    (time, mode, any::<bool>()).prop_map(|(time, mode, named)| Mark { time, mode, named })
}

#[test]
fn any_tree_with_times_and_modes_is_mounted_with_them() {
    let rig = Rig::new();
    let names = "[ab]{1,2}(/[ab.\\-~]{0,3}[a-zé]{1,40}){0,3}";
    let contents = prop_oneof!["[xyz]{0,3}", "x{3900,9000}"];
    let leaves = proptest::collection::btree_map(names, (0..4u8, contents), 0..80);
    let marks = proptest::collection::vec(mark(), 1..40);
    let mut runner = TestRunner::new(Config::with_cases(12));
    let ran = runner.run(&(leaves, marks), |(leaves, marks)| {
        rig.put_all(leaves.values().map(|(_, text)| text.as_bytes()));
        let leaf = |(kind, text): (u8, String)| match kind {
            0 => Leaf::EmptyDirectory,
            1 => Leaf::Symlink {
                target: SymlinkTarget::new(format!("{}.", &text[..text.len().min(4050)])).unwrap(),
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
        let (tree, due) = marked(&rig, leaves, &marks);
        prop_assert_eq!(rig.mounted(tree, seen), due);
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn directories_and_links_of_every_size_have_times_of_their_own() {
    let rig = Rig::new();
    rig.put_all([b"content".as_slice()]);
    let path = |text: &str| RelPath::new(text).unwrap();
    let file = || Leaf::File {
        object: ObjectId::of(b"content"),
        executable: false,
    };
    let link = |length: usize| Leaf::Symlink {
        target: SymlinkTarget::new("t".repeat(length)).unwrap(),
    };
    let marks = [Mark {
        time: Some((-1, 999_999_999)),
        mode: Some(0o711),
        named: false,
    }];
    // Around the sizes at which a directory no longer stands beside its larger inode, or fills its blocks.
    for count in [0, 1, 235, 236, 237, 238, 239, 252, 253, 254, 700] {
        let leaves = (0..count).map(|i| (path(&format!("d/{i:05}")), file()));
        let mut leaves: Vec<_> = leaves.collect();
        if leaves.is_empty() {
            leaves.push((path("d"), Leaf::EmptyDirectory));
        }
        let (tree, due) = marked(&rig, leaves, &marks);
        assert_eq!(rig.mounted(tree, seen), due, "{count}");
    }
    let lengths = [1, 59, 4000, 4031, 4032, 4033, 4063, 4064, 4065, 4095];
    let leaves = lengths.map(|length| (path(&format!("l{length}")), link(length)));
    let (tree, due) = marked(&rig, leaves.into(), &marks);
    assert_eq!(rig.mounted(tree, seen), due);
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn timed(seconds: i64, nanos: u32) -> NodeProperties {
    NodeProperties::default().with_mtime(Mtime::new(seconds, nanos).unwrap())
}

fn with_mode(mode: u32) -> NodeProperties {
    NodeProperties::default().with_mode(mode).unwrap()
}

fn node(client: &Client, text: &str, executable: bool, properties: NodeProperties) -> FileNode {
    FileNode {
        name: name(text),
        object: client.put(format!("{text}\n").as_bytes()),
        executable,
        properties: Some(Box::new(properties)),
    }
}

/// A tree in which everything has properties, of other modes in each: one that its owner may read, one that anybody may, a
/// program, a link, and a directory.
fn upload(client: &Client) -> ObjectId {
    let below = vec![node(client, "below", false, with_mode(0o444))];
    let below = Directory::new(below, vec![], vec![]).unwrap();
    let own = timed(1_000_000_001, 0).with_mode(0o750).unwrap();
    let below = below.with_properties(own).unwrap();
    let files = vec![
        node(client, "mine", false, with_mode(0o600)),
        node(client, "old", false, timed(-1, 5).with_mode(0o664).unwrap()),
        node(
            client,
            "program",
            true,
            timed(1_000_000_002, 123_456_789).with_mode(0o711).unwrap(),
        ),
    ];
    let link = SymlinkNode {
        name: name("link"),
        target: SymlinkTarget::new("old").unwrap(),
        properties: Some(Box::new(timed(1_000_000_003, 0))),
    };
    let node = DirectoryNode {
        name: name("d"),
        object: client.put(&below.encode()),
    };
    let named = NodeProperty {
        name: "SubtreeReadOnly".to_owned(),
        value: "true".to_owned(),
    };
    let own = timed(1_000_000_004, 0).with_mode(0o775).unwrap();
    let own = own.with_named(vec![named]).unwrap();
    let top = Directory::new(files, vec![node], vec![link]).unwrap();
    client.put(&top.with_properties(own).unwrap().encode())
}

#[test]
fn a_build_sees_the_times_and_modes_that_its_trees_came_with() {
    let instance = Instance::started();
    let client = instance.client();
    let tree = upload(&client);
    let script = "stat -c '%n %U %a %Y %y' . mine old program link d
        cat mine d/below > out
        echo x 2>/dev/null >> d/below && echo POSSIBLE
        chmod u+w d/below; echo x >> d/below; echo x >> old; echo x >> mine
        stat -c '%n %a' d/below old mine
        cd /deps/x; stat -c '%n %U %a %Y' . mine old program link d
        cat old; cat mine 2>/dev/null && echo POSSIBLE; ls d 2>/dev/null && echo POSSIBLE; true";
    let mut spec = client.spec(&[], &[script], &["out"]);
    spec.source = tree;
    spec.source_date_epoch = 1_000_000_000;
    for (request, spec) in [
        ("on-the-host", with(spec.clone(), &[("x", tree)])),
        ("on-an-image", {
            let image = TreeOf::root_file_system().upload(&client);
            with(on(spec, image), &[("x", tree)])
        }),
    ] {
        let build = run(&client, request, &spec);
        let told = log(&instance, &build);
        assert_eq!(build.outcome, Some(Outcome::Succeeded), "{told}");
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines,
            [
                ". build 775 1000000004 2001-09-09 01:46:44.000000000 +0000",
                "mine build 600 1000000000 2001-09-09 01:46:40.000000000 +0000",
                "old build 664 -1 1969-12-31 23:59:59.000000005 +0000",
                "program build 711 1000000002 2001-09-09 01:46:42.123456789 +0000",
                "link build 777 1000000003 2001-09-09 01:46:43.000000000 +0000",
                "d build 750 1000000001 2001-09-09 01:46:41.000000000 +0000",
                "d/below 644",
                "old 664",
                "mine 600",
                ". root 775 1000000004",
                "mine root 600 315532800",
                "old root 664 -1",
                "program root 711 1000000002",
                "link root 777 1000000003",
                "d root 750 1000000001",
                "old",
            ]
        );
        assert!(client.read(ObjectId::of(b"mine\nbelow\n")).is_ok());
    }
}

#[test]
fn a_root_file_system_has_times_and_modes_too() {
    let instance = Instance::started();
    let client = instance.client();
    let image = TreeOf::root_file_system()
        .file("etc/x", "x\n")
        .file("opt/y", "y\n")
        .upload(&client);
    let read = |object| Directory::decode(&client.read(object).unwrap()).unwrap();
    let top = read(image);
    // One that the sandbox has itself, and one that it has not.
    let closed = top.directories().iter().map(|node| DirectoryNode {
        object: match node.name.as_str() {
            "etc" | "opt" => {
                let closed = read(node.object).with_properties(with_mode(0o700));
                client.put(&closed.unwrap().encode())
            }
            _ => node.object,
        },
        ..node.clone()
    });
    let mut files = top.files().to_vec();
    files.extend([
        node(
            &client,
            "open",
            false,
            timed(7, 0).with_mode(0o666).unwrap(),
        ),
        node(&client, "secret", false, with_mode(0o600)),
    ]);
    let top = Directory::new(files, closed.collect(), top.symlinks().to_vec()).unwrap();
    let top = top.with_properties(with_mode(0o700)).unwrap();
    let image = client.put(&top.encode());
    let script = "stat -c '%n %U %a %Y' /open /secret; stat -c '%n %a' / /etc /opt; cat /etc/x
        ls /opt 2>/dev/null && echo POSSIBLE
        cat /open; cat /secret 2>/dev/null && echo POSSIBLE
        echo x 2>/dev/null > /open && echo POSSIBLE; echo > out";
    let build = run(
        &client,
        "one",
        &on(client.spec(&[], &[script], &["out"]), image),
    );
    let told = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "/open root 666 7",
            "/secret root 600 315532800",
            "/ 755",
            "/etc 755",
            "/opt 700",
            "x",
            "open"
        ]
    );
}

/// A directory with one file, `f`, that has these properties as they are on the wire.
fn wire(client: &Client, is_executable: bool, properties: &[u8]) -> ObjectId {
    let field = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], content].concat()
    };
    let hash = client.put(b"").digest.to_hex();
    let node = [
        field(0x0a, b"f"),
        field(0x12, &field(0x0a, hash.as_bytes())),
        if is_executable { vec![0x20, 1] } else { vec![] },
        field(0x32, properties),
    ];
    client.put(&field(0x0a, &node.concat()))
}

#[test]
fn properties_that_no_build_could_see_are_refused_by_name() {
    let instance = Instance::started();
    let client = instance.client();
    let plain = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    // Modes and times in the encoding of the message.
    let cases: [(&str, bool, &[u8], &str, &str); 7] = [
        (
            "set-uid",
            true,
            &[0x1a, 3, 8, 0xed, 0x13],
            "unix_mode",
            "4755 has set-uid",
        ),
        (
            "type",
            true,
            &[0x1a, 4, 8, 0xed, 0x83, 0x02],
            "unix_mode",
            "0o100755 has bits",
        ),
        (
            "no-program",
            false,
            &[0x1a, 3, 8, 0xed, 0x03],
            "unix_mode",
            "lets somebody execute",
        ),
        (
            "program",
            true,
            &[0x1a, 3, 8, 0xa4, 0x03],
            "unix_mode",
            "lets nobody execute",
        ),
        (
            "nanos",
            false,
            &[0x12, 6, 0x10, 0x80, 0x94, 0xeb, 0xdc, 0x03],
            "mtime.nanos",
            "1000000000",
        ),
        (
            "year",
            false,
            &[0x12, 7, 8, 0x80, 0x83, 0xd1, 0xff, 0xaf, 0x07],
            "mtime.seconds",
            "1 and 9999",
        ),
        ("nothing", false, &[], "node_properties", "leave it out"),
    ];
    for (case, is_executable, properties, field, words) in cases {
        let tree = wire(&client, is_executable, properties);
        let mut source = plain.clone();
        source.source = tree;
        for (spec, at) in [
            (source, "spec.source"),
            (on(plain.clone(), tree), "spec.image_tree.tree"),
            (with(plain.clone(), &[("x", tree)]), "spec.inputs.x.tree"),
        ] {
            let problem = client.submit(&format!("{case}-{at}"), &spec).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidField, "{case}: {problem:?}");
            let told = &problem.message;
            assert!(told.starts_with(at), "{case}: {told}");
            assert!(told.contains("files[0].node_properties"), "{case}: {told}");
            assert!(
                told.contains(field) && told.contains("`f`"),
                "{case}: {told}"
            );
            assert!(told.contains(words), "{case}: {told}");
        }
    }
}

#[test]
fn modes_that_shut_the_build_out_are_told_as_such() {
    let instance = Instance::started();
    let client = instance.client();
    let shut = |top: u32, below: u32| {
        let inner = vec![node(&client, "f", false, with_mode(0o644))];
        let inner = Directory::new(inner, vec![], vec![]).unwrap();
        let inner = inner.with_properties(with_mode(below)).unwrap();
        let node = DirectoryNode {
            name: name("d"),
            object: client.put(&inner.encode()),
        };
        let top_directory = Directory::new(vec![], vec![node], vec![]).unwrap();
        client.put(
            &top_directory
                .with_properties(with_mode(top))
                .unwrap()
                .encode(),
        )
    };
    let closed = "ls d 2>/dev/null && echo POSSIBLE; chmod 700 d; cat d/f > out; chmod 0 d";
    for (request, top, below, workdir, script, told) in [
        (
            "top",
            0,
            0o755,
            None,
            "echo > out",
            "`.` cannot be opened: Permission denied",
        ),
        (
            "workdir",
            0o755,
            0,
            Some("d"),
            "echo > ../out",
            "`d` cannot be opened: Permission denied",
        ),
        (
            "read-only",
            0o555,
            0o755,
            None,
            "cat d/f; echo > out",
            "cannot create out: Permission denied",
        ),
        ("owned", 0o755, 0, None, closed, "Succeeded"),
    ] {
        let mut spec = client.spec(&[], &[script], &["out"]);
        spec.source = shut(top, below);
        spec.working_directory = workdir.map(|text| RelPath::new(text).unwrap());
        let build = run(&client, request, &spec);
        let all = format!("{:?} {}", build.outcome, log(&instance, &build));
        assert!(
            all.contains(told) && !all.contains("POSSIBLE"),
            "{request}: {all}"
        );
    }
    assert!(client.read(ObjectId::of(b"f\n")).is_ok());
    // What is not the build's stays shut.
    let script = "ls /deps/x && echo POSSIBLE; chmod 755 /deps/x && echo POSSIBLE; echo > out";
    let spec = client.spec(&[("in", "1")], &[script], &["out"]);
    let build = run(&client, "input", &with(spec, &[("x", shut(0, 0))]));
    let told = log(&instance, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded), "{told}");
    assert!(!told.contains("POSSIBLE"), "{told}");
}
