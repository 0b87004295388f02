use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use belljar_core::{Derivation, ObjectId, Recipe};
use belljar_tests::{Images, Instance, Part, Project, STORE_UID, program, wait_for};
use belljar_tree::Directory;
use belljar_wire::Reason;
use serde_json::{Value, json};

/// What an entry of an archive is: a file with its content and whether it is executable, a link, or
/// something else.
enum Is<'a> {
    File(&'a [u8], bool),
    Symlink(&'a str),
    Other(tar::EntryType),
}

/// A tar archive, whose names may be bad.
fn tar(entries: &[(&str, Is<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, is) in entries {
        let mut header = tar::Header::new_gnu();
        let (kind, mode, content) = match is {
            Is::File(content, executable) => {
                let mode = if *executable { 0o755 } else { 0o644 };
                (tar::EntryType::Regular, mode, *content)
            }
            Is::Symlink(target) => {
                let place = &mut header.as_gnu_mut().unwrap().linkname;
                place[..target.len()].copy_from_slice(target.as_bytes());
                (tar::EntryType::Symlink, 0o777, &b""[..])
            }
            Is::Other(kind) => (*kind, 0o644, &b""[..]),
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(content: &[u8]) -> Is<'_> {
    Is::File(content, false)
}

/// What all the images of one test come down to.
fn flat() -> Vec<u8> {
    tar(&[
        ("bin/tool", Is::File(b"#!/bin/sh\n", true)),
        ("etc/os-release", file(b"ID=test\n")),
        ("lib", Is::Symlink("usr/lib")),
        ("usr/lib/x", file(b"2")),
    ])
}

/// An image layout of two layers that come down to the same.
fn layout(dir: &Path) {
    let lower = tar(&[
        ("bin/tool", Is::File(b"#!/bin/sh\n", true)),
        ("etc/secret", file(b"gone later")),
        ("usr/lib/x", file(b"1")),
        ("var/cache/a/b", file(b"gone with all its parents")),
        ("dev/null", Is::Other(tar::EntryType::Char)),
    ]);
    let upper = tar(&[
        ("etc/.wh.secret", file(b"")),
        ("etc/os-release", file(b"ID=test\n")),
        (".wh.var", file(b"")),
        ("dev/.wh..wh..opq", file(b"")),
        ("lib", Is::Symlink("usr/lib")),
        ("usr/lib/x", file(b"2")),
    ]);
    layout_of(dir, &[lower, upper], |_, _, _| ());
}

/// An image layout of these layers, whose manifest and index are changed before they are written.
fn layout_of(dir: &Path, layers: &[Vec<u8>], change: impl FnOnce(&Path, &mut Value, &mut Value)) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let object = ObjectId::of(bytes);
        fs::write(blobs.join(object.digest.to_hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": object.digest.to_string(), "size": object.size})
    };
    let layers = layers
        .iter()
        .map(|layer| put(layer, "application/vnd.oci.image.layer.v1.tar"));
    let layers: Vec<Value> = layers.collect();
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({"os": "linux", "architecture": architecture}).to_string();
    let config = put(
        config.as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let media = "application/vnd.oci.image.manifest.v1+json";
    let mut index =
        json!({"schemaVersion": 2, "manifests": [put(manifest.to_string().as_bytes(), media)]});
    let before = manifest.clone();
    change(&blobs, &mut manifest, &mut index);
    if manifest != before {
        index["manifests"] = json!([put(manifest.to_string().as_bytes(), media)]);
    }
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// A directory in which images are made and imported.
struct Workshop {
    instance: Instance,
    dir: Project,
}

impl Workshop {
    fn new() -> Self {
        Self {
            instance: Instance::started(),
            dir: Project::bare(),
        }
    }

    fn lock(&self) -> PathBuf {
        self.dir.path().join("belljar.lock")
    }

    fn begin(&self, source: &Path, name: &str) -> Child {
        let mut command = self.instance.command("image import");
        let command = command
            .arg(source)
            .args(["--json", "--name", name, "--lock"])
            .arg(self.lock());
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn import(&self, source: &Path, name: &str) -> (i32, Value) {
        ended(&self.begin(source, name).wait_with_output().unwrap())
    }

    /// Everything that the store keeps.
    fn kept(&self) -> BTreeSet<PathBuf> {
        let store = self.instance.state().join("store");
        let mut kept = BTreeSet::new();
        for name in ["objects/sha256", "derivations", "tmp"] {
            for entry in fs::read_dir(store.join(name)).unwrap() {
                let path = entry.unwrap().path();
                match fs::read_dir(&path) {
                    Ok(below) => kept.extend(below.map(|entry| entry.unwrap().path())),
                    Err(_) => drop(kept.insert(path)),
                }
            }
        }
        kept
    }
}

fn ended(output: &Output) -> (i32, Value) {
    let said = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap_or(-1),
        json.unwrap_or_else(|e| panic!("{e}: {said}")),
    )
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nPPid:\t{parent}\n"))
    })
    .collect()
}

/// How many system call filters a process has.
fn filters(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn archive_layout_and_image_archive_of_the_same_content_are_the_same_tree() {
    let workshop = Workshop::new();
    let plain = workshop.dir.write("plain.tar", flat());
    let oci = workshop.dir.path().join("layout");
    layout(&oci);
    let packed = workshop.dir.path().join("oci.tar");
    let mut builder = tar::Builder::new(fs::File::create(&packed).unwrap());
    builder.append_dir_all(".", &oci).unwrap();
    builder.into_inner().unwrap();
    let mut trees = Vec::new();
    for (source, name) in [(&plain, "plain"), (&oci, "layout"), (&packed, "packed")] {
        let (code, json) = workshop.import(source, name);
        assert_eq!(code, 0, "{json}");
        assert_eq!(json["schema"], "belljar.image/v1");
        trees.push(json["tree"].clone());
        let record = workshop.instance.object(&json["derivation"]);
        let record = Derivation::from_canonical(&record).unwrap();
        assert_eq!(json!(record.tree), json["tree"]);
        // Index, manifest, configuration and two layers, against one archive.
        assert_eq!(record.from.len(), if name == "plain" { 1 } else { 5 });
        let special = json["dropped"]["special_files"].as_u64().unwrap_or(0);
        assert_eq!(special, u64::from(name != "plain"), "{json}");
    }
    // The layers leave an empty dev/ behind, which the flat archive does not have.
    assert_eq!(trees[1], trees[2]);
    let top = |tree: &Value| Directory::decode(&workshop.instance.object(tree)).unwrap();
    let (one, other) = (top(&trees[0]), top(&trees[1]));
    let without_dev = other
        .directories()
        .iter()
        .filter(|node| node.name.as_str() != "dev");
    assert_eq!(one.directories(), without_dev.cloned().collect::<Vec<_>>());
    assert_eq!(
        (one.files(), one.symlinks()),
        (other.files(), other.symlinks())
    );

    // It asks nobody, so it takes no socket.
    let list = Command::new(program("belljar"))
        .args(["image", "list", "--json", "--lock"])
        .arg(workshop.lock())
        .output()
        .unwrap();
    let (code, json) = ended(&list);
    let names: Vec<&Value> = json["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["name"])
        .collect();
    assert_eq!(code, 0);
    assert_eq!(names, ["layout", "packed", "plain"]);
}

#[test]
fn a_tree_and_its_record_are_kept_over_a_restart() {
    let mut instance = Instance::started();
    let client = instance.client();
    let archive = client.put(&flat());
    let recipe = Recipe::Tar { archive };
    let derived = client.derive(&recipe).unwrap();
    assert_eq!((derived.entries, derived.bytes), (8, 19));
    let record = derived.input.derivation.unwrap();
    let read = Derivation::from_canonical(&client.read(record).unwrap()).unwrap();
    assert_eq!(
        (read.tree, read.from),
        (derived.input.tree, [archive].into())
    );
    assert_eq!(client.derive(&recipe), Ok(derived.clone()));
    instance.kill_part(Part::Store);
    instance.start_part(Part::Store);
    assert_eq!(client.derive(&recipe), Ok(derived));
}

#[test]
fn hostile_archives_are_refused_in_words_and_leave_nothing() {
    let workshop = Workshop::new();
    let cut = {
        let mut archive = flat();
        archive.truncate(700);
        archive
    };
    let through = tar(&[("a", Is::Symlink("/etc")), ("a/passwd", file(b"root::0:0"))]);
    let cases = [
        (
            "leaves",
            tar(&[("../x", file(b""))]),
            "has an entry `../x`, which has `..`",
        ),
        (
            "absolute",
            tar(&[("/x", file(b""))]),
            "`/x`, which has an absolute path",
        ),
        ("through a link", through, "`a/passwd` leads through `a`"),
        (
            "a device",
            tar(&[("sda", Is::Other(tar::EntryType::Block))]),
            "`sda`, which is a block device",
        ),
        (
            "a pipe",
            tar(&[("p", Is::Other(tar::EntryType::Fifo))]),
            "`p`, which is a named pipe",
        ),
        ("cut", cut, "is cut"),
        ("no archive", b"hello\n".repeat(200), "cannot be read"),
        (
            "garbage",
            "\u{1b}]0;raw\u{7}\u{202e}".repeat(100).into_bytes(),
            "cannot be read: a header has a malformed number or a wrong checksum",
        ),
        ("bzip2", b"BZh91AY&SY".to_vec(), "is compressed by bzip2"),
    ];
    for (name, archive, due) in cases {
        let source = workshop.dir.write("image.tar", &archive);
        let before = workshop.kept();
        let (code, json) = workshop.import(&source, "x");
        assert_eq!(code, 2, "{name}: {json}");
        let why = json["error"].as_str().unwrap();
        assert!(why.contains(due), "{name}: {why}");
        assert!(!why.contains("raw") && why.len() < 1000, "{name}: {why}");
        let new: Vec<_> = workshop.kept().difference(&before).cloned().collect();
        // What was uploaded is the caller's own.
        let hex = ObjectId::of(&archive).digest.to_hex();
        assert!(
            new.len() == 1 && new[0].ends_with(&hex[2..]),
            "{name}: {new:?}"
        );
    }
    assert!(!workshop.lock().exists());
}

/// An entry byte by byte: type, name, target, the field of its size, content.
struct Raw<'a>(u8, &'a [u8], &'a [u8], Option<[u8; 12]>, &'a [u8]);

fn raw(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for Raw(kind, name, target, size, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name);
        fields.linkname[..target.len()].copy_from_slice(target);
        if let Some(size) = size {
            fields.size = *size;
        }
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn empty(name: &[u8]) -> Raw<'_> {
    Raw(b'0', name, b"", None, b"")
}

/// A file of which an extended header says more: the records as they stand there.
fn pax(records: &[u8]) -> Vec<u8> {
    raw(&[
        Raw(b'x', b"x", b"", None, records),
        Raw(b'0', b"f", b"", None, b"content"),
    ])
}

/// Names, the shortest way, without an archive in memory: each is an empty file.
fn many(entries: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut packed = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    for number in 0..entries {
        let name = format!("d{}/{number}", number % 512);
        let one = raw(&[Raw(b'0', name.as_bytes(), b"", None, b"")]);
        packed.write_all(&one[..512]).unwrap();
    }
    packed.write_all(&[0; 1024]).unwrap();
    packed.finish().unwrap()
}

fn zeros(bytes: usize) -> Vec<u8> {
    let content = vec![0; bytes];
    raw(&[Raw(b'0', b"zeros", b"", None, &content)])
}

/// A sparse file of 2 TiB with one block at its end, as GNU tar wrote them.
fn sparse() -> Vec<u8> {
    let mut archive = raw(&[Raw(b'S', b"sparse", b"", None, &[7; 512])]);
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&archive[..512]);
    let fields = header.as_gnu_mut().unwrap();
    let octal = |field: &mut [u8; 12], value: u64| {
        // Base 256, for what has more than eleven octal digits.
        *field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    };
    octal(&mut fields.sparse[0].offset, (2 << 40) - 512);
    octal(&mut fields.sparse[0].numbytes, 512);
    octal(&mut fields.realsize, 2 << 40);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    archive
}

/// Imports what is at `source`, which is refused in these words. Nothing of it stays but what was uploaded.
fn refused(workshop: &Workshop, name: &str, source: &Path, due: &str) -> Option<String> {
    let before = workshop.kept();
    let (code, json) = workshop.import(source, "x");
    let why = json["error"].as_str().unwrap_or_default();
    let uploaded: BTreeSet<_> = files_below(source)
        .iter()
        .map(|path| ObjectId::of(&fs::read(path).unwrap()).digest.to_hex()[2..].to_owned())
        .collect();
    let new = workshop.kept();
    let strange: Vec<_> = new
        .difference(&before)
        .filter(|path| !uploaded.contains(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    let fine = code == 2 && why.contains(due) && strange.is_empty();
    (!fine).then(|| format!("{name}: {code} {json} {strange:?}, due: {due}"))
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(below) => below
            .flat_map(|entry| files_below(&entry.unwrap().path()))
            .collect(),
        Err(_) => vec![path.to_owned()],
    }
}

#[test]
fn archives_that_lie_in_every_field_are_refused_and_leave_nothing() {
    let workshop = Workshop::new();
    let huge = [
        0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    let negative = [0xff; 12];
    let packed = |bytes: &[u8]| ::zstd::encode_all(bytes, 1).unwrap();
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let file = |name, content| Raw(b'0', name, b"", None, content);
    let to_etc = || Raw(b'2', b"a", b"/etc", None, b"");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a bomb by gzip",
            gzip(&zeros(300 << 20)),
            "made to fill disks",
        ),
        (
            "a bomb by zstd",
            packed(&zeros(300 << 20)),
            "made to fill disks",
        ),
        (
            "a bomb in a bomb",
            packed(&packed(&zeros(300 << 20))),
            "cannot be read",
        ),
        ("a million entries", many(1_000_000), "200000"),
        ("a sparse file of 2 TiB", sparse(), "made to fill disks"),
        (
            "a size beyond all",
            raw(&[Raw(b'0', b"f", b"", Some(huge), b"x")]),
            "is cut",
        ),
        (
            "a size below zero",
            raw(&[Raw(b'0', b"f", b"", Some(negative), b"x")]),
            "cannot be read",
        ),
        (
            "no size",
            raw(&[Raw(b'0', b"f", b"", Some(*b"none of this"), b"x")]),
            "cannot be read",
        ),
        (
            "a hard link through a symbolic one",
            raw(&[to_etc(), Raw(b'1', b"b", b"a/passwd", None, b"")]),
            "did not come before it",
        ),
        (
            "a hard link to a directory",
            raw(&[
                Raw(b'5', b"d", b"", None, b""),
                Raw(b'1', b"b", b"d", None, b""),
            ]),
            "directory",
        ),
        (
            "a hard link out of it",
            raw(&[
                file(b"f", b"1"),
                Raw(b'1', b"b", b"../../etc/passwd", None, b""),
            ]),
            "has `..` in its path",
        ),
        (
            "a file through a hard link to a symbolic one",
            raw(&[
                to_etc(),
                Raw(b'1', b"b", b"a", None, b""),
                file(b"b/passwd", b"x"),
            ]),
            "leads through `b`",
        ),
        (
            "a directory in the place of a link",
            raw(&[
                to_etc(),
                Raw(b'5', b"a", b"", None, b""),
                file(b"a/passwd", b"x"),
            ]),
            "`a`",
        ),
        (
            "a long name that leaves",
            raw(&[
                Raw(b'L', b"././@LongLink", b"", None, b"../../etc/passwd\0"),
                file(b"f", b"x"),
            ]),
            "has `..` in its path",
        ),
        (
            "a long target that leaves",
            raw(&[
                file(b"g", b"1"),
                Raw(b'K', b"././@LongLink", b"", None, b"/etc/passwd\0"),
                Raw(b'1', b"f", b"g", None, b""),
            ]),
            "has an absolute path",
        ),
        (
            "a NUL in a long name",
            raw(&[
                Raw(b'L', b"././@LongLink", b"", None, b"a\0b\0"),
                file(b"f", b"x"),
            ]),
            "cannot be taken",
        ),
        ("no UTF-8", raw(&[file(b"a\xc3\x28", b"x")]), "not UTF-8"),
        (
            "a terminal's command",
            raw(&[file(b"a\x1b[2J", b"x")]),
            "control character",
        ),
        (
            "an overlong dot",
            raw(&[file(b"\xc0\xae\xc0\xae/x", b"x")]),
            "not UTF-8",
        ),
        (
            "pax: a path that leaves",
            pax(b"13 path=../x\n"),
            "has `..` in its path",
        ),
        (
            "pax: a NUL in a path",
            pax(b"12 path=a\0b\n"),
            "cannot be taken",
        ),
        ("pax: larger than it is", pax(b"15 size=999999\n"), "is cut"),
        (
            "pax: smaller than it is",
            pax(b"10 size=0\n"),
            "cannot be read",
        ),
        (
            "pax: a size that is none",
            pax(b"12 size=-12\n"),
            "malformed extended header",
        ),
        (
            "pax: a record longer than all",
            pax(b"99 path=x\n"),
            "malformed",
        ),
        ("pax: no record", pax(b"nonsense"), "malformed"),
        (
            "pax: a sparse file",
            pax(b"22 GNU.sparse.major=1\n"),
            "sparse file",
        ),
        (
            "pax: twice",
            pax(b"10 path=a\n10 path=b\n"),
            "one thing twice",
        ),
        (
            "a device",
            raw(&[Raw(b'3', b"etc/null", b"", None, b"")]),
            "is a character device",
        ),
        (
            "a device as dev",
            raw(&[Raw(b'4', b"dev", b"", None, b"")]),
            "is a block device",
        ),
        (
            "a device below a link named dev",
            raw(&[
                Raw(b'2', b"dev", b"/etc", None, b""),
                Raw(b'3', b"x/dev/null", b"", None, b""),
            ]),
            "is a character device",
        ),
        (
            "a volume's label",
            raw(&[Raw(b'V', b"v", b"", None, b"")]),
            "unknown type `V`",
        ),
        (
            "a multi-volume rest",
            raw(&[Raw(b'M', b"v", b"", None, b"x")]),
            "unknown type `M`",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, archive, due) in cases {
        let source = workshop.dir.write("image.tar", &archive);
        wrong.extend(refused(&workshop, name, &source, due));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!workshop.lock().exists());
}

#[test]
fn images_that_lie_in_every_document_are_refused_and_leave_nothing() {
    type Change = fn(&Path, &mut Value, &mut Value);
    let workshop = Workshop::new();
    let etc = || Raw(b'2', b"a", b"/etc", None, b"");
    let nothing: Change = |_, _, _| ();
    let layers = |names: &[&[u8]]| {
        vec![raw(&names
            .iter()
            .map(|name| empty(name))
            .collect::<Vec<_>>())]
    };
    let cases: Vec<(&str, Vec<Vec<u8>>, Change, &str)> = vec![
        (
            "a blob under another's name",
            layers(&[b"f"]),
            |blobs, manifest, _| {
                let hex = manifest["layers"][0]["digest"].as_str().unwrap()[7..].to_owned();
                let path = blobs.join(hex);
                let mut bytes = fs::read(&path).unwrap();
                bytes[0] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            "as announced",
        ),
        (
            "a layer longer than it is",
            layers(&[b"f"]),
            |_, manifest, _| {
                let size = manifest["layers"][0]["size"].as_u64().unwrap();
                manifest["layers"][0]["size"] = json!(size + 1);
            },
            "not",
        ),
        (
            "a layer that has no end",
            layers(&[b"f"]),
            |_, manifest, _| {
                manifest["layers"][0]["size"] = json!(u64::MAX);
            },
            "not",
        ),
        (
            "a layer of size below zero",
            layers(&[b"f"]),
            |_, manifest, _| {
                manifest["layers"][0]["size"] = json!(-1);
            },
            "which is none",
        ),
        (
            "a layer that leads elsewhere",
            layers(&[b"f"]),
            |_, manifest, _| {
                manifest["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd");
            },
            "digest",
        ),
        (
            "the same layer over and over",
            layers(&[b"f"]),
            |_, manifest, _| {
                let layer = manifest["layers"][0].clone();
                manifest["layers"] = json!(vec![layer; 1000]);
            },
            "has 1000 layers",
        ),
        (
            "an index with itself over and over",
            layers(&[b"f"]),
            |_, _, index| {
                let one = index["manifests"][0].clone();
                index["manifests"] = json!(vec![one; 100]);
            },
            "names more than 64 manifests",
        ),
        (
            "indexes in indexes",
            layers(&[b"f"]),
            |blobs, _, index| {
                for _ in 0..8 {
                    let bytes = index.to_string();
                    let object = ObjectId::of(bytes.as_bytes());
                    fs::write(blobs.join(object.digest.to_hex()), bytes).unwrap();
                    let media = "application/vnd.oci.image.index.v1+json";
                    *index = json!({"manifests": [{"mediaType": media, "digest": object.digest.to_string(), "size": object.size}]});
                }
            },
            "indexes inside each other",
        ),
        (
            "a whiteout of what is above",
            layers(&[b"a/.wh..."]),
            nothing,
            "cannot be taken",
        ),
        (
            "a whiteout of the directory itself",
            layers(&[b"a/.wh.."]),
            nothing,
            "cannot be taken",
        ),
        (
            "a whiteout of nothing",
            layers(&[b"a/.wh."]),
            nothing,
            "cannot be taken",
        ),
        (
            "a whiteout outside",
            layers(&[b"../.wh.x"]),
            nothing,
            "has `..` in its path",
        ),
        (
            "a file through a lower layer's link",
            vec![raw(&[etc()]), raw(&[empty(b"a/passwd")])],
            nothing,
            "leads through `a`",
        ),
        (
            "a hard link into a lower layer's link",
            vec![
                raw(&[etc()]),
                raw(&[Raw(b'1', b"b", b"a/passwd", None, b"")]),
            ],
            nothing,
            "did not come before it",
        ),
    ];
    let mut wrong = Vec::new();
    for (number, (name, layers, change, due)) in cases.into_iter().enumerate() {
        let dir = workshop.dir.path().join(format!("image-{number}"));
        layout_of(&dir, &layers, change);
        wrong.extend(refused(&workshop, name, &dir, due));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!workshop.lock().exists());
    // What stands below a link is nowhere, and can be taken away there: the link stays, and nothing behind it goes.
    let mut trees = Vec::new();
    for whiteout in [&b"a/.wh.passwd"[..], b"a/.wh..wh..opq"] {
        let dir = workshop.dir.path().join(format!("link-{}", trees.len()));
        layout_of(&dir, &[raw(&[etc()]), raw(&[empty(whiteout)])], nothing);
        let (code, json) = workshop.import(&dir, "x");
        assert_eq!((code, &json["entries"]), (0, &json!(1)), "{json}");
        trees.push(json["tree"].clone());
    }
    assert_eq!(trees[0], trees[1]);
}

#[test]
fn what_is_missing_is_named_and_says_what_to_do() {
    let workshop = Workshop::new();
    let archive = ObjectId::of(b"never uploaded");
    let refused = workshop.instance.client().derive(&Recipe::Tar { archive });
    let problem = refused.unwrap_err();
    assert_eq!(problem.reason, Reason::InputMissing);
    let digest = archive.digest.to_string();
    assert!(problem.message.contains(&digest), "{problem}");

    let source = workshop.dir.write("image.tar", flat());
    assert_eq!(workshop.import(&source, "c").0, 0);
    let project = Project::new("image = \"c\"\nrun = [\"true\"]\noutputs = [\"out\"]\n");
    let lock = fs::read_to_string(workshop.lock()).unwrap();
    project.write("belljar.lock", lock);
    // At a daemon that never saw it.
    let run = Instance::started().run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    let why = run.json["error"].as_str().unwrap();
    assert!(why.contains("the image `c`, tree sha256:"), "{run}");
    let hint = run.json["hint"].as_str().unwrap();
    assert!(hint.contains("import it again, from `image.tar`"), "{run}");
}

/// A root file system of the packages that this host uses too, with a C compiler.
fn debian(workshop: &Workshop) -> PathBuf {
    Images::of_tests().debian(workshop.instance.command("image build-debian"))
}

#[test]
fn a_debian_image_tells_nothing_of_the_host_that_made_it() {
    let workshop = Workshop::new();
    let archive = debian(&workshop);
    let (code, json) = workshop.import(&archive, "c");
    assert_eq!(code, 0, "{json}");
    let directory = |object: &Value| Directory::decode(&workshop.instance.object(object)).unwrap();
    let below = |from: &Directory, name: &str| {
        let node = from
            .directories()
            .iter()
            .find(|node| node.name.as_str() == name);
        directory(&json!(node.unwrap_or_else(|| panic!("no {name}")).object))
    };
    let top = directory(&json["tree"]);
    let (usr, etc) = (below(&top, "usr"), below(&top, "etc"));
    let gcc = below(&usr, "bin");
    let mut compilers = gcc
        .symlinks()
        .iter()
        .filter(|link| link.name.as_str() == "gcc");
    assert!(compilers.next().is_some());
    let made_up = ["hostname", "resolv.conf", "machine-id"];
    let found = etc.files().iter().map(|file| file.name.as_str());
    let found: Vec<_> = found.filter(|name| made_up.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(below(&below(&etc, "apt"), "sources.list.d").is_empty());
}

#[test]
fn a_program_is_built_on_a_debian_image_twice_the_same() {
    let mut workshop = Workshop::new();
    let archive = debian(&workshop);
    let (code, imported) = workshop.import(&archive, "debian");
    assert_eq!(code, 0, "{imported}");
    let project = Project::new(
        "image = \"debian\"\nrun = [\"gcc -O1 -o hello hello.c\", \"./hello > greeting\"]\n\
         outputs = [\"hello\", \"greeting\"]\n",
    );
    project.write(
        "hello.c",
        "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n",
    );
    project.write("belljar.lock", fs::read(workshop.lock()).unwrap());
    let runs = [(); 2].map(|()| workshop.instance.run(&project));
    for run in &runs {
        run.assert_succeeded();
        assert_eq!(run.file("greeting"), b"hello\n");
        assert_eq!(run.json["verdict"]["hermetic"], true, "{run}");
        let due = json!({"tree": imported["tree"], "derivation": imported["derivation"]});
        assert_eq!(run.json["spec"]["image"]["tree"], due, "{run}");
        let rootfs = &run.receipt()["rootfs"];
        assert_eq!(rootfs["tree"], imported["tree"], "{run}");
        assert_eq!(rootfs["derivation"], imported["derivation"], "{run}");
    }
    assert_eq!(runs[0].json["artifacts"], runs[1].json["artifacts"]);
}

/// A plain archive that takes a while.
fn large(workshop: &Workshop) -> PathBuf {
    let content = vec![7; 256 << 20];
    workshop
        .dir
        .write("large.tar", tar(&[("large", file(&content))]))
}

#[test]
fn an_unpacker_is_confined_and_its_death_leaves_nothing() {
    let workshop = Workshop::new();
    let source = large(&workshop);
    let store = workshop.instance.pid_of(Part::Store);
    let [nursery] = children(store)[..] else {
        panic!("{:?}", children(store))
    };
    let begun = workshop.begin(&source, "x");
    let unpacker = wait_for("an unpacker", Duration::from_secs(60), || {
        // It has the nursery's filters, and one of its own.
        let confined = |pid: &u32| filters(*pid) == filters(nursery) + 1;
        children(nursery).into_iter().find(confined)
    });
    let status = fs::read_to_string(format!("/proc/{unpacker}/status")).unwrap();
    for due in [
        format!("Uid:\t{STORE_UID}\t{STORE_UID}\t{STORE_UID}\t{STORE_UID}\n"),
        "CapPrm:\t0000000000000000\n".to_owned(),
        "NoNewPrivs:\t1\n".to_owned(),
        "Seccomp:\t2\n".to_owned(),
        "Threads:\t1\n".to_owned(),
    ] {
        assert!(status.contains(&due), "{due}{status}");
    }
    let open = fs::read_dir(format!("/proc/{unpacker}/fd")).unwrap();
    let open: Vec<_> = open
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let log = |path: &String| path.ends_with("/daemon-logs/store.log");
    let inner = |path: &String| path.starts_with("socket:") || path.starts_with("pipe:");
    assert!(open.iter().all(|path| log(path) || inner(path)), "{open:?}");
    assert!(open.len() <= 3, "{open:?}");
    kill(unpacker);
    let (code, json) = ended(&begun.wait_with_output().unwrap());
    assert_eq!(code, 8, "{json}");
    let kept = workshop.kept();
    let marks = kept
        .iter()
        .filter(|path| !path.to_string_lossy().contains("objects"));
    assert_eq!(marks.count(), 0, "{kept:?}");
    assert!(!workshop.lock().exists());
    let said = workshop.instance.said(Part::Store);
    assert!(said.contains("the unpacker ended early"), "{said}");
    // The next one does it.
    let source = workshop.dir.write("image.tar", flat());
    assert_eq!(workshop.import(&source, "x").0, 0);
}

#[test]
fn a_store_that_loses_its_nursery_ends_to_be_started_anew() {
    let mut workshop = Workshop::new();
    let source = large(&workshop);
    let nursery = children(workshop.instance.pid_of(Part::Store))[0];
    let begun = workshop.begin(&source, "x");
    wait_for("an unpacker", Duration::from_secs(60), || {
        children(nursery).pop()
    });
    kill(nursery);
    // Not as one that was asked to end: a service manager starts it anew.
    let status = workshop.instance.has_ended(Part::Store);
    assert_eq!(status.code(), Some(1), "{status}");
    let said = workshop.instance.said(Part::Store);
    assert!(said.contains("the nursery has ended"), "{said}");
    // Who waited for a tree is told, and may ask again.
    let (code, json) = ended(&begun.wait_with_output().unwrap());
    assert_eq!(code, 8, "{json}");
    let source = workshop.dir.write("image.tar", flat());
    assert_eq!(workshop.import(&source, "x").0, 8);
    workshop.instance.start_part(Part::Store);
    assert_eq!(workshop.import(&source, "x").0, 0);
}

#[test]
fn a_store_that_dies_takes_its_nursery_and_unpackers_with_it() {
    let mut workshop = Workshop::new();
    let source = large(&workshop);
    let nursery = children(workshop.instance.pid_of(Part::Store))[0];
    let begun = workshop.begin(&source, "x");
    let unpacker = wait_for("an unpacker", Duration::from_secs(60), || {
        children(nursery).pop()
    });
    workshop.instance.kill_part(Part::Store);
    let (code, json) = ended(&begun.wait_with_output().unwrap());
    assert_eq!(code, 8, "{json}");
    wait_for("their end", Duration::from_secs(20), || {
        let gone = |pid| !Path::new(&format!("/proc/{pid}")).exists();
        (gone(nursery) && gone(unpacker)).then_some(())
    });
    workshop.instance.start_part(Part::Store);
    assert_eq!(workshop.import(&source, "x").0, 0);
}
