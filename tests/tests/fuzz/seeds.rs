//! Where changes begin: a few good values of each kind.

use belljar_audit::{AuditEvent, Trail};
use belljar_core::oci::LayerType;
use belljar_core::{
    ArtifactFetch, ArtifactForm, BuildSpec, BuilderId, Derivation, Digest, Fact, Fetch, FetchUrl,
    Fetches, GitFetch, GitId, GitSubmodule, InputName, Mirrors, ObjectId, Producer, Recipe,
    RelPath, Sha512Digest, Timestamp,
};
use belljar_oci::{Layer, Node, Part};
use belljar_plan::store::StepMark;
use belljar_plan::{
    ImageBase, ImageLayer, ImageRecord, Plan, Receipt, frame, signer, spawner, store,
};
use belljar_tree::{
    Directory, FileNode, Leaf, Mtime, Name, NodeProperties, NodeProperty, SymlinkNode,
    SymlinkTarget, Tree, build,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write;

#[path = "../../../crates/belljar-attest/src/fixture.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of belljar-attest, which use more of it"
)]
mod fixture;
#[path = "../../../crates/belljar-store/src/tests/zip_file.rs"]
mod zip_file;

use crate::answers;

/// The seeds of each target.
pub(crate) fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let ((spec, receipt), plain) = (fixture::hermetic(), fixture::receipt());
    let text = |text: &str| text.as_bytes().to_vec();
    let (with_artifact, given) = given();
    let left = given.derivations[0].canonical().unwrap();
    let record = fixture::derivation("image").canonical().unwrap();
    let (with_commit, of_commit) = with_commit();
    let specs =
        [fixture::spec(), spec, with_artifact, with_commit].map(|spec| spec.canonical().unwrap());
    let receipts =
        [plain.clone(), receipt, imaged(plain), given].map(|receipt| receipt.canonical().unwrap());
    let (tree, mut directories) = tree();
    let marked = marked();
    directories.push(marked.encode());
    let marked = Tree::new(marked, vec![]).unwrap().encode();
    vec![
        ("archive", archives()),
        ("belljar_lock", vec![text(LOCK), text("version = 1")]),
        ("bundle", vec![bundle()]),
        ("cargo_lock", vec![text(CARGO)]),
        ("challenge", answers::challenges()),
        ("derivation", vec![record, left, of_commit]),
        ("directory", directories),
        (
            "fetch_url",
            [
                "https://a.example/x-1.tar.gz\n//b.example/y?z=1",
                "http://[2001:db8::1]:8080/a/b?c\n../d#e",
                "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            ]
            .map(text)
            .into(),
        ),
        (
            "filter",
            vec![
                text(
                    "state = ENDED AND outcome != succeeded AND create_time >= 2026-11-01T00:00:00Z",
                ),
                text("submitter = \"unix:uid=0\""),
            ],
        ),
        ("frame", frames()),
        ("git_lines", answers::git_lines()),
        ("image", answers::images(&archives()[0])),
        ("layer", layers()),
        ("manifest", vec![text(MANIFEST), text(SMALL), text(IMAGE)]),
        (
            "names",
            ["a/b.c", "target/**/*.[a-z]?", "[!a]b", "cargo-1"]
                .map(text)
                .into(),
        ),
        ("npm_lock", vec![text(NPM)]),
        ("pack", packs()),
        ("receipt", receipts.into()),
        ("resource", resources()),
        ("spec", specs.into()),
        ("steps", vec![steps()]),
        ("trail", vec![trail()]),
        ("tree", vec![tree, marked]),
        ("zstd", answers::zstd()),
    ]
}

const CARGO: &str = r#"version = 4

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["itoa"]

[[package]]
name = "itoa"
version = "1.0.19"
source = "registry+https://registry.example/index"
checksum = "3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4"
"#;

const LOCK: &str = r#"version = 1

[image.rust]
tree = { digest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", size = 315 }
derivation = { digest = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9", size = 618 }
source = { file = "rust.tar", digest = "sha256:baa5a0964d3320fbc0c6a922140453c8513ea24ab8fd0577034804a967248096", size = 98304000 }
"#;

const MANIFEST: &str = r#"image = "rust"
run = ["make", "make check"]
outputs = ["app", "doc/*.html"]
working_directory = "sub"
deps = ["Cargo.lock", "web/package-lock.json"]
source_date_epoch = 1700000000
env = { CFLAGS = "-O2" }

[fetch.zlib]
urls = ["https://downloads.example.org/zlib-1.3.1.tar.gz"]
sha256 = "9a93b2b7dfdac77ceba5a558a580e74667dd6fede4585b91eefb60f03b72df23"
unpack = true
strip_components = 1

[fetch.tool]
urls = ["https://a.example/tool", "http://b.example/tool"]
integrity = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
executable = true

[fetch.lib]
git = ["https://a.example/lib.git", "https://b.example/lib"]
commit = "0123456789abcdef0123456789abcdef01234567"
submodules = true

[fetch.seed]
artifact = "sha256:9a93b2b7dfdac77ceba5a558a580e74667dd6fede4585b91eefb60f03b72df23"
directory = true
build = "builds/01m80ts0f9k8jr4yh4r7abv98y"
builder = "https://builds.example.org/builders/hermetic/v1"

[limits]
wall_seconds = 600
"#;

const SMALL: &str = r#"image = "host"
run = ["true"]
outputs = ["a"]
"#;

const IMAGE: &str = r#"image = "host"
run = ["make"]
outputs = ["root", "log"]
[output.oci]
base = "rust"
root = "root"
entrypoint = ["/app", "-x"]
command = ["run"]
env = { PATH = "/bin" }
user = "65532:65532"
working_directory = "/srv"
labels = { "org.example" = "one" }
"#;

/// A receipt with an image.
fn imaged(mut receipt: Receipt) -> Receipt {
    let object = ObjectId::of(b"{}");
    receipt.image_output = Some(ImageRecord {
        manifest: object,
        sha512: Sha512Digest::of(b"{}"),
        config: object,
        index: object,
        layers: vec![ImageLayer {
            object,
            media_type: LayerType::Tar,
        }],
        base: Some(ImageBase {
            manifest: object,
            config: object,
        }),
    });
    receipt
}

/// A layer, a base's two documents, a list of referrers.
fn layers() -> Vec<Vec<u8>> {
    let path = |text: &str| RelPath::new(text).unwrap();
    let file = Node::File {
        object: ObjectId::of(b"app"),
        executable: true,
    };
    let target = "../bin/app".to_owned();
    let long = format!("d/{}", "n".repeat(120));
    let entries = [
        (path("bin/app"), file.clone()),
        (path("etc/link"), Node::Symlink { target }),
        (path(&long), file),
    ];
    let layer = Layer::new(entries, None).unwrap();
    let parts = layer.parts(7).map(|part| match part {
        Part::Bytes(bytes) => bytes,
        Part::Content(_) => b"app".to_vec(),
    });
    let config = json!({
        "config": {"Env": ["A=1"], "Labels": {"a": "b"}},
        "history": [{"created_by": "x"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
    });
    let config = config.to_string();
    let object = ObjectId::of(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": belljar_core::oci::CONFIGURATION, "digest": object.digest, "size": object.size},
        "layers": [{"mediaType": belljar_core::oci::LAYERS[1], "digest": object.digest, "size": 1}],
    });
    let list = belljar_oci::with_referrer(None, object).unwrap().unwrap();
    vec![
        parts.collect::<Vec<_>>().concat(),
        format!("{manifest}\n{config}").into_bytes(),
        list,
    ]
}

const NPM: &str = r#"{"name": "app", "lockfileVersion": 3, "packages": {"": {"name": "app"}, "node_modules/one": {"version": "1.0.0", "resolved": "https://r.example/one/-/one-1.0.0.tgz", "integrity": "sha512-1SDgH6ZSPTlggy1yI6+Dbkiz8xzpHJEVAlF/AM1tHPLsf5STom9rwtjE4hKAF20FfXXNTFqEYXyJNWh1GiZedQ=="}}}"#;

/// A build that was given a directory that another one has left.
fn given() -> (BuildSpec, Receipt) {
    let fetch = ArtifactFetch {
        artifact: Digest::of(b"left"),
        form: ArtifactForm::Directory,
        build: Some(fixture::attempt().build().clone()),
        builder: BuilderId::new("urn:belljar:embedded/builders/dev/v1").ok(),
    };
    let recipe = Recipe::OutputDirectory {
        producer: Producer {
            attempt: fixture::attempt(),
            provenance: Digest::of(b"bundle"),
        },
        receipt: ObjectId::of(b"receipt"),
        output: RelPath::new("share").unwrap(),
    };
    fixture::given(fetch, recipe)
}

/// A specification that has a commit fetched, and the encoded record of its tree.
fn with_commit() -> (BuildSpec, Vec<u8>) {
    let path = || RelPath::new("third/sub").unwrap();
    let (commit, sub) = (GitId::from_bytes([1; 20]), GitId::from_bytes([2; 20]));
    let (pack, below) = (ObjectId::of(b"pack"), ObjectId::of(b"below"));
    let url = FetchUrl::new("https://a.example/lib.git").unwrap();
    let fetch = Fetch::Git(GitFetch {
        repositories: Mirrors::new(vec![url]).unwrap(),
        commit,
        submodules: true,
    });
    let spec = BuildSpec {
        fetches: Fetches::new([(InputName::new("lib").unwrap(), fetch)].into()).unwrap(),
        ..fixture::spec()
    };
    let put = |path, commit, pack, url: Option<&str>| Fact::GitCommit {
        path,
        commit,
        tree: GitId::from_bytes([3; 20]),
        pack,
        url: url.map(str::to_owned),
    };
    let link = Fact::GitLink {
        path: RelPath::new("third/sub/deep").unwrap(),
        commit,
        url: None,
    };
    let record = Derivation {
        recipe: Recipe::Git {
            commit,
            pack,
            submodules: vec![GitSubmodule {
                path: path(),
                commit: sub,
                pack: below,
            }],
        },
        from: [pack, below].into(),
        facts: vec![
            put(None, commit, pack, None),
            put(Some(path()), sub, below, Some("../sub.git")),
            link,
        ],
        ..fixture::derivation("commit")
    };
    (spec, record.canonical().unwrap())
}

/// A bundle whose signature nobody has made: reading is not verifying.
fn bundle() -> Vec<u8> {
    let key = "SHA256:CjbdlCy/FTJQXlSTkMaLSXgU+YX2w2OInSVjN709Fks";
    let bundle = json!({
        "mediaType": belljar_attest::MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": "e30=",
            "payloadType": belljar_attest::PAYLOAD_TYPE,
            "signatures": [{"sig": "MEUCIQDh", "keyid": key}],
        },
    });
    serde_json::to_vec(&bundle).unwrap()
}

fn resources() -> Vec<Vec<u8>> {
    let hex = Digest::of(b"content").to_hex();
    let names = [
        format!("blobs/{hex}/7"),
        format!("web/compressed-blobs/zstd/blake3/{hex}/7"),
        format!("web/uploads/5c2f0d5e-0001/blobs/blake3/{hex}/7/main.c"),
        format!("uploads/u/compressed-blobs/zstd/{hex}/18446744073709551615"),
        format!("blake3:{hex}"),
        hex,
    ];
    names.map(String::into_bytes).into()
}

/// Packs, trees and `.gitmodules` as the target takes them.
fn packs() -> Vec<Vec<u8>> {
    use crate::targets::pack_file::{PackFile, commit, delta, id, tree};
    use gix_object::Kind;
    let mut pack = PackFile::new();
    let at = pack.at();
    let first = pack.add(Kind::Blob, b"one line\n");
    let distance = pack.at() - at;
    pack.ofs_delta(distance, &delta(9, 8, b"\x90\x04\x04word"));
    let second = id(Kind::Blob, b"one word");
    pack.ref_delta(second, &delta(8, 4, b"\x91\x04\x04"));
    let third = id(Kind::Blob, b"word");
    let all = [
        ("100644", "a", first),
        ("100755", "b", second),
        ("120000", "c", third),
    ];
    let root = pack.add(Kind::Tree, &tree(&all));
    let head = pack.add(Kind::Commit, &commit(root, ""));
    let mut pack = pack.end();
    pack.truncate(pack.len() - 20);
    let blob = id(Kind::Blob, b"x");
    let entries = [
        ("100644", "a", blob),
        ("100755", "b.c", blob),
        ("160000", "sub", blob),
    ];
    let modules = "# all\n[submodule \"a\\\"b\"]\n\tpath = sub\n\turl = \"../x\" ; there\n";
    vec![
        [b"p", &head.as_bytes()[..], &pack].concat(),
        [b"t", &tree(&entries)[..]].concat(),
        [b"m", modules.as_bytes()].concat(),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let (spec, attempt) = (fixture::spec(), fixture::attempt());
    let stage = spawner::Request {
        number: 7,
        operation: spawner::Operation::Stage {
            attempt: attempt.clone(),
            spec: spec.digest().unwrap(),
            plan: Box::new(Plan::compile(&spec)),
        },
    };
    let kill = spawner::Request {
        number: 8,
        operation: spawner::Operation::Kill {
            attempt: attempt.clone(),
            by: "unix:uid=0".to_owned(),
        },
    };
    let attest = signer::Request::Attest {
        attempt,
        spec: String::from_utf8(spec.canonical().unwrap()).unwrap(),
        asserted: fixture::asserted(),
    };
    let put = store::Request::PutMany {
        blobs: vec![ObjectId::of(b"one").into(), ObjectId::of(b"other").into()],
    };
    let by_blake3 = store::Answer::Kept {
        refused: vec![],
        named: vec![store::NamedBlob {
            index: 1,
            digest: Digest::of(b"one"),
        }],
    };
    vec![
        frame::encode(&stage).unwrap(),
        frame::encode(&kill).unwrap(),
        frame::encode(&attest).unwrap(),
        frame::encode(&put).unwrap(),
        frame::encode(&by_blake3).unwrap(),
        b"Dcontent".to_vec(),
    ]
}

fn tree() -> (Vec<u8>, Vec<Vec<u8>>) {
    let path = |text: &str| RelPath::new(text).unwrap();
    let file = Leaf::File {
        object: ObjectId::of(b"content"),
        executable: true,
    };
    let target = SymlinkTarget::new("../a").unwrap();
    let leaves = [
        (path("a"), file.clone()),
        (path("d/b"), file),
        (path("d/l"), Leaf::Symlink { target }),
        (path("e"), Leaf::EmptyDirectory),
    ];
    let built = build(leaves).unwrap();
    let directories: Vec<Vec<u8>> = built
        .directories
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    let (root, children): (Vec<_>, Vec<_>) = directories
        .iter()
        .map(|bytes| Directory::decode(bytes).unwrap())
        .partition(|directory| directory.object_id() == built.root);
    let tree = Tree::new(root.into_iter().next().unwrap(), children).unwrap();
    (tree.encode(), directories)
}

/// A directory in which everything has properties, and itself.
fn marked() -> Directory {
    let all = |mode| {
        let named = ["a", "b"].map(|name| NodeProperty {
            name: name.to_owned(),
            value: "v".to_owned(),
        });
        let all = NodeProperties::default().with_mtime(Mtime::new(1_000_000_000, 7).unwrap());
        let all = all.with_named(named.into()).unwrap();
        all.with_mode(mode).unwrap()
    };
    let file = FileNode {
        name: Name::new("f").unwrap(),
        object: ObjectId::of(b"content"),
        executable: true,
        properties: Some(Box::new(all(0o711))),
    };
    let link = SymlinkNode {
        name: Name::new("l").unwrap(),
        target: SymlinkTarget::new("f").unwrap(),
        properties: Some(Box::new(all(0o777))),
    };
    let directory = Directory::new(vec![file], vec![], vec![link]).unwrap();
    directory.with_properties(all(0o700)).unwrap()
}

fn steps() -> Vec<u8> {
    let marks = [(0, 0), (1, 7)].map(|(step, offset)| StepMark { step, offset });
    let lines = marks.map(|mark| serde_json::to_string(&mark).unwrap() + "\n");
    lines.concat().into_bytes()
}

fn trail() -> Vec<u8> {
    let attempt = fixture::attempt();
    let mut trail = Trail::new(attempt.build().clone());
    let events = [
        AuditEvent::Submitted {
            by: "unix:uid=0".to_owned(),
            authenticated_by: "SO_PEERCRED".to_owned(),
            request_id: None,
            project: None,
            spec: fixture::spec().digest().unwrap(),
        },
        AuditEvent::AttemptStarted { attempt },
    ];
    let lines = events.map(|event| trail.append(Timestamp::from_millis(1_763_771_400_000), event));
    lines.map(Result::unwrap).concat()
}

/// A tar archive, plain and by gzip; and what the other compressions begin with.
fn archives() -> Vec<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header
    };
    let mut directory = header(tar::EntryType::Directory, 0);
    tar.append_data(&mut directory, "d/", &b""[..]).unwrap();
    let mut file = header(tar::EntryType::Regular, 7);
    tar.append_data(&mut file, "d/f", &b"content"[..]).unwrap();
    for (kind, name) in [(tar::EntryType::Symlink, "l"), (tar::EntryType::Link, "h")] {
        tar.append_link(&mut header(kind, 0), name, "d/f").unwrap();
    }
    let plain = tar.into_inner().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(&plain).unwrap();
    let mut zstd = b"\x28\xb5\x2f\xfd\x00\x58\x39\x00\x00".to_vec();
    zstd.extend_from_slice(b"content");
    let xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46".to_vec();
    let mut later = zip_file::Entry::file("d/f", b"content");
    later.later = true;
    let zip = zip_file::ZipFile::default()
        .add(zip_file::Entry::file("d/", b""))
        .add(later)
        .add(zip_file::Entry::file("g", b"content content content"));
    let zip = zip.end_with(b"comment");
    let empty = zip_file::ZipFile::default().end();
    vec![plain, gzip.finish().unwrap(), zstd, xz, zip, empty]
}
