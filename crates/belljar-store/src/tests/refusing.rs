//! Archives and images that lie, or hold what a tree cannot: each refused in words, and nothing left.

use std::io::{Read as _, Write};

use belljar_core::{Derivation, Fact, Platform, Recipe};
use proptest::prelude::*;
use serde_json::{Value, json};
use tar::EntryType;

use super::deriving::{Tar, gzip};
use super::*;

impl Rig {
    /// Why a recipe was refused; nothing was kept then.
    fn refused(&self, recipe: Recipe) -> String {
        let before = self.memory.ids();
        let answer = self
            .connect(Role::Client)
            .reply(&Request::Derive { recipe });
        let Answer::DerivationRefused { why } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(self.memory.ids(), before, "{why}");
        for name in [TMP, DERIVATIONS] {
            let left = std::fs::read_dir(self.directory.path().join(name)).unwrap();
            assert_eq!(left.count(), 0, "{name}: {why}");
        }
        assert_readable(&why);
        why
    }

    fn refused_tar(&self, archive: &[u8]) -> String {
        let archive = self.memory.put(archive);
        self.refused(Recipe::Tar { archive })
    }
}

/// A reason is for people: it shows a bounded part of what is wrong, and as characters that are seen.
fn assert_readable(why: &str) {
    assert!(why.len() <= 2048, "{} bytes: {why}", why.len());
    let quoted = why
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\'', "\\'");
    assert_eq!(why.escape_debug().to_string(), quoted);
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn one(kind: EntryType, path: &str) -> Vec<u8> {
    Tar::new().add(kind, path, 0o644, b"").end()
}

fn link(kind: EntryType, path: &str, target: &str) -> Vec<u8> {
    Tar::new().file("a", b"1").link(kind, path, target).end()
}

/// A pax header with these records before a file.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions(records.iter().copied())
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, "f", &b"1"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn without_end(mut archive: Vec<u8>) -> Vec<u8> {
    archive.truncate(archive.len() - 1024);
    archive
}

#[test]
fn hostile_archives_are_refused_in_words() {
    let rig = Rig::new();
    let good = Tar::new().file("a", b"some content").end();
    let mut wrong_sum = good.clone();
    wrong_sum[0] = b'b';
    let mut damaged = gzip(&good);
    let middle = damaged.len() - 6;
    damaged[middle] ^= 1;
    let mut damaged_zstd = zstd(&good);
    let last = damaged_zstd.len() - 1;
    damaged_zstd[last] ^= 1;
    let zeros = vec![0; 300 << 20];
    let bomb = Tar::new().file("zeros", &zeros).end();
    let with_tail = [&good[..], b"more"].concat();
    // What would be a header has nothing of one, and what a terminal obeys in each of its fields.
    let garbage = "\u{1b}]0;raw\u{7}\u{202e}".repeat(100).into_bytes();
    let mut wrong_size = good.clone();
    wrong_size[124..136].copy_from_slice(b"\x1b[2Jraw\xff\xff\xff\n\n");
    let sum = wrong_size[..148].iter().chain(&wrong_size[156..512]);
    let sum = sum.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    wrong_size[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let cut = |bytes: &[u8], by: usize| bytes[..bytes.len() - by].to_vec();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "absolute",
            Tar::new().file("/etc/passwd", b"").end(),
            "`/etc/passwd`, which has an absolute path",
        ),
        (
            "dots",
            Tar::new().file("a/../../etc", b"").end(),
            "has `..` in its path",
        ),
        (
            "dots in a hard link",
            link(EntryType::Link, "b", "../a"),
            "`b`, which has `..` in its path",
        ),
        (
            "absolute hard link",
            link(EntryType::Link, "b", "/a"),
            "has an absolute path",
        ),
        (
            "hard link to nothing",
            link(EntryType::Link, "b", "c"),
            "did not come before it",
        ),
        (
            "hard link to itself",
            link(EntryType::Link, "b", "b"),
            "did not come before it",
        ),
        (
            "through a link",
            Tar::new()
                .link(EntryType::Symlink, "d", "/etc")
                .file("d/passwd", b"")
                .end(),
            "`d/passwd` leads through `d`, which is a symbolic link",
        ),
        (
            "through a file",
            Tar::new().file("d", b"").file("d/x", b"").end(),
            "leads through `d`, which is a file",
        ),
        (
            "file and directory",
            Tar::new().directory("d").file("d", b"").end(),
            "comes both as a directory",
        ),
        (
            "character device",
            one(EntryType::Char, "etc/null"),
            "`etc/null`, which is a character device",
        ),
        (
            "block device",
            one(EntryType::Block, "sda"),
            "is a block device",
        ),
        ("FIFO", one(EntryType::Fifo, "run/pipe"), "is a named pipe"),
        (
            "the name of dev itself",
            one(EntryType::Char, "dev"),
            "is a character device",
        ),
        (
            "unknown type",
            one(EntryType::new(b'V'), "v"),
            "of the unknown type `V`",
        ),
        (
            "not UTF-8",
            Tar::new().raw(b"a\xff").end(),
            "has a name that is not UTF-8",
        ),
        (
            "control character",
            Tar::new().file("a\nb", b"").end(),
            "control character",
        ),
        (
            "a nameless file",
            Tar::new().file("./", b"x").file(".", b"x").end(),
            "has no name",
        ),
        (
            "two pax paths",
            pax(&[("path", b"x"), ("path", b"y")]),
            "says one thing twice",
        ),
        (
            "pax sparse",
            pax(&[("GNU.sparse.major", b"1")]),
            "sparse file in a form",
        ),
        (
            "pax path that leaves",
            pax(&[("path", b"../x")]),
            "has `..` in its path",
        ),
        (
            "pax size that lies",
            pax(&[("size", b"99999999")]),
            "is cut",
        ),
        ("cut in content", cut(&good, 1024 + 507), "is cut"),
        ("cut in a header", good[..100].to_vec(), "is cut"),
        (
            "no end mark",
            without_end(good.clone()),
            "its end mark is missing",
        ),
        ("empty", Vec::new(), "its end mark is missing"),
        ("no archive", b"#!/bin/sh\n".repeat(200), "cannot be read"),
        ("garbage", garbage, "damaged, or no tar archive"),
        (
            "a size of garbage",
            wrong_size,
            "damaged, or no tar archive",
        ),
        ("wrong checksum", wrong_sum, "checksum"),
        ("goes on", with_tail, "goes on after its end mark"),
        ("cut gzip", cut(&gzip(&good), 9), "is cut"),
        ("damaged gzip", damaged, "cannot be read"),
        ("cut zstd", cut(&zstd(&good), 3), "cannot be read"),
        ("damaged zstd", damaged_zstd, "checksum"),
        ("gzip bomb", gzip(&bomb), "made to fill disks"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "is compressed by bzip2"),
        ("ZIP", b"PK\x03\x04....".to_vec(), "is a ZIP archive"),
        (
            "an image archive",
            Tar::new().file("oci-layout", b"{}").end(),
            "is an archive of an OCI image",
        ),
    ];
    for (name, archive, due) in cases {
        let why = rig.refused_tar(&archive);
        assert!(why.contains(due), "{name}: {why}");
        assert!(!why.contains("raw"), "{name}: {why}");
    }
}

#[test]
fn a_document_that_is_none_is_repeated_in_part_and_readably() {
    let rig = Rig::new();
    let long = format!("\u{1b}[2J\u{202e}{}", "x".repeat(100_000));
    for document in [
        json!({"manifests": long})
            .to_string()
            .replace("\\u001b", "\u{1b}"),
        json!({"manifests": [{"mediaType": long, "digest": long, "size": 1}]}).to_string(),
        json!({"manifests": [{"mediaType": "", "digest": "", "size": long}]}).to_string(),
    ] {
        let why = rig.refused(oci(rig.memory.put(document.as_bytes())));
        assert!(why.starts_with("the image "), "{why}");
    }
}

#[test]
fn forms_of_archives_give_the_same_tree() {
    let rig = Rig::new();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let mut gnu = tar::Builder::new(Vec::new());
    let mut posix = tar::Builder::new(Vec::new());
    for (builder, is_posix) in [(&mut gnu, false), (&mut posix, true)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        if is_posix {
            let path: &[(&str, &[u8])] =
                &[("path", long.as_bytes()), ("SCHILY.xattr.user.x", b"1")];
            builder.append_pax_extensions(path.iter().copied()).unwrap();
            builder
                .append_data(&mut header, "short", &b"1"[..])
                .unwrap();
        } else {
            builder.append_data(&mut header, &long, &b"1"[..]).unwrap();
        }
    }
    let (gnu, posix) = (gnu.into_inner().unwrap(), posix.into_inner().unwrap());
    let halves = [gzip(&gnu[..700]), gzip(&gnu[700..])].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7][..], &zstd(&gnu)].concat();
    let mut xz = Vec::new();
    let mut writer = lzma_rust2::XzWriter::new(&mut xz, lzma_rust2::XzOptions::default()).unwrap();
    writer.write_all(&gnu).unwrap();
    writer.finish().unwrap();
    let mut trees = Vec::new();
    for archive in [
        gnu.clone(),
        posix,
        gzip(&gnu),
        halves,
        zstd(&gnu),
        skippable,
        xz,
    ] {
        let archive = rig.memory.put(&archive);
        let recipe = Recipe::Tar { archive };
        match rig.connect(Role::Client).reply(&Request::Derive { recipe }) {
            Answer::Derived { tree, .. } => trees.push(tree),
            other => panic!("{other:?}"),
        }
    }
    trees.dedup();
    assert_eq!(trees.len(), 1);
}

/// An image of layers, kept in the rig; cases change its documents.
struct Image {
    layers: Vec<ObjectId>,
    layer_type: &'static str,
    runs: Value,
    listed: Value,
}

impl Image {
    fn new(rig: &Rig, layers: &[Vec<u8>]) -> Self {
        Self {
            layers: layers.iter().map(|layer| rig.memory.put(layer)).collect(),
            layer_type: "application/vnd.oci.image.layer.v1.tar",
            runs: json!({"os": "linux", "architecture": "amd64"}),
            listed: Value::Null,
        }
    }

    fn index(&self, rig: &Rig) -> ObjectId {
        let blob = |object: ObjectId, media_type: &str| {
            let digest = object.digest.to_string();
            json!({"mediaType": media_type, "digest": digest, "size": object.size})
        };
        let put = |value: &Value| rig.memory.put(value.to_string().as_bytes());
        let layers = self
            .layers
            .iter()
            .map(|layer| blob(*layer, self.layer_type));
        let config = blob(put(&self.runs), "application/vnd.oci.image.config.v1+json");
        let manifest =
            json!({"schemaVersion": 2, "config": config, "layers": layers.collect::<Vec<_>>()});
        let mut listed = blob(put(&manifest), "application/vnd.oci.image.manifest.v1+json");
        if !self.listed.is_null() {
            listed["platform"] = self.listed.clone();
        }
        put(&json!({"schemaVersion": 2, "manifests": [listed]}))
    }
}

fn oci(index: ObjectId) -> Recipe {
    Recipe::Oci {
        index,
        platform: Platform::LinuxAmd64,
    }
}

fn pulled(image: ObjectId) -> Recipe {
    Recipe::Pulled {
        repository: "r.example/team/c".parse().unwrap(),
        image,
        platform: Platform::LinuxAmd64,
    }
}

#[test]
fn what_a_reference_named_is_an_index_or_a_manifest_and_never_both() {
    let rig = Rig::new();
    let layer = Tar::new().file("etc/kept", b"1").end();
    let index = Image::new(&rig, &[layer]).index(&rig);
    let bytes = |object| {
        let mut bytes = Vec::new();
        let mut reader = BlobSource::read(&rig.memory, object).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let document = |object| serde_json::from_slice::<Value>(&bytes(object)).unwrap();
    let listed = &document(index)["manifests"][0];
    let manifest = ObjectId {
        digest: listed["digest"].as_str().unwrap().parse().unwrap(),
        size: listed["size"].as_u64().unwrap(),
    };
    let mut trees = Vec::new();
    for image in [index, manifest] {
        let recipe = pulled(image);
        let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
        let Answer::Derived {
            tree, derivation, ..
        } = answer
        else {
            panic!("{answer:?}")
        };
        trees.push(tree);
        let record = Derivation::from_canonical(&bytes(derivation)).unwrap();
        assert!(matches!(record.facts[0], Fact::OciImage { manifest: of, .. } if of == manifest));
    }
    assert_eq!(trees[0], trees[1]);
    let mut both = document(manifest);
    both["manifests"] = json!([]);
    // A store that has made nothing yet: nothing may be left there.
    let rig = Rig::new();
    let both = rig.memory.put(both.to_string().as_bytes());
    let why = rig.refused(pulled(both));
    assert!(why.contains("an index and a manifest at once"), "{why}");
    let neither = rig.memory.put(b"{}");
    let why = rig.refused(pulled(neither));
    assert!(why.contains("which is none"), "{why}");
}

#[test]
fn layers_become_one_tree_and_the_image_is_recorded() {
    let rig = Rig::new();
    let lower = Tar::new()
        .file("etc/kept", b"1")
        .file("etc/gone", b"1")
        .file("opt/a/b", b"1")
        .file("var/lib/x", b"1")
        .end();
    let upper = Tar::new()
        .file("etc/.wh.gone", b"")
        .file("opt/a/.wh..wh..opq", b"")
        .file("opt/a/new", b"2")
        .file(".wh.var", b"")
        .file(".wh..wh.plnk", b"")
        .end();
    let image = Image::new(&rig, &[lower, gzip(&upper)]);
    let recipe = oci(image.index(&rig));
    let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
    let Answer::Derived {
        tree,
        derivation,
        dropped,
        ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!(format!("{dropped:?}"), "{UnionMetadata: 1}");
    let flat = Tar::new()
        .file("etc/kept", b"1")
        .file("opt/a/new", b"2")
        .end();
    let archive = rig.memory.put(&flat);
    let recipe = Recipe::Tar { archive };
    let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
    assert!(
        matches!(answer, Answer::Derived { tree: other, .. } if other == tree),
        "{answer:?}"
    );
    let record = Derivation::from_canonical(&rig.content(derivation)).unwrap();
    // Index, manifest, configuration, two layers.
    assert_eq!(record.from.len(), 5);
    let [Fact::OciImage { layers, .. }] = record.facts.as_slice() else {
        panic!("{:?}", record.facts)
    };
    assert_eq!(layers, &image.layers);
}

#[test]
fn images_that_lie_are_refused_in_words() {
    let rig = Rig::new();
    let layer = Tar::new().file("a", b"1").end();
    let good = || Image::new(&rig, std::slice::from_ref(&layer));
    let raw = |text: &str| rig.memory.put(text.as_bytes());
    let nested = (0..7).fold(raw(r#"{"manifests":[]}"#), |inner, _| {
        raw(&json!({"manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner.digest.to_string(), "size": inner.size}]}).to_string())
    });
    let other = Image {
        runs: json!({"os": "linux", "architecture": "arm64"}),
        ..good()
    };
    let listed = Image {
        listed: json!({"os": "windows", "architecture": "amd64"}),
        ..good()
    };
    // What the list says is not believed.
    let liar = Image {
        listed: json!({"os": "linux", "architecture": "amd64"}),
        ..other
    };
    let foreign = Image {
        layer_type: "application/vnd.example+encrypted",
        ..good()
    };
    let bad = Image::new(&rig, &[layer.clone(), Tar::new().file("../x", b"").end()]);
    let cases = [
        (raw("{"), "which is none"),
        (raw("[]"), "which is none"),
        (
            raw(r#"{"manifests":[]}"#),
            "its index names no image manifest",
        ),
        (
            raw(
                r#"{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha512:00","size":1}]}"#,
            ),
            "digest of another kind",
        ),
        (nested, "indexes inside each other"),
        (
            listed.index(&rig),
            "is not for linux/amd64; there is one for windows/amd64",
        ),
        (
            liar.index(&rig),
            "is not for linux/amd64; there is one for linux/arm64",
        ),
        (
            foreign.index(&rig),
            "`application/vnd.example+encrypted`, which is not read",
        ),
        (Image::new(&rig, &[]).index(&rig), "has 0 layers"),
        (bad.index(&rig), "has a layer 2, "),
    ];
    for (index, due) in cases {
        let why = rig.refused(oci(index));
        assert!(why.contains(due), "{due}: {why}");
    }
    let two = [
        good().index(&rig),
        Image::new(&rig, &[layer.clone(), layer.clone()]).index(&rig),
    ];
    let lists: Vec<Value> = two
        .iter()
        .map(|index| serde_json::from_slice(&rig.content(*index)).unwrap())
        .collect();
    let both = json!({"manifests": [lists[0]["manifests"][0], lists[1]["manifests"][0]]});
    let why = rig.refused(oci(raw(&both.to_string())));
    assert!(why.contains("is more than one: for linux/amd64"), "{why}");
}

#[test]
fn a_missing_layer_is_named() {
    let rig = Rig::new();
    let mut image = Image::new(&rig, &[]);
    let absent = ObjectId::of(b"never uploaded");
    image.layers.push(absent);
    let recipe = oci(image.index(&rig));
    let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
    assert_eq!(answer, Answer::DerivationLacks { object: absent });
}

#[test]
fn what_is_withheld_is_as_what_is_not_there() {
    let rig = Rig::new();
    let layer = |name: &str| Tar::new().file(name, b"x").end();
    let image = Image::new(&rig, &[layer("a"), layer("b")]);
    let index = image.index(&rig);
    let noise = rig.memory.put(b"no document at all");
    let wants = |recipe: &Recipe, withheld: Option<ObjectId>| {
        let mut peer = rig.connect(Role::Client);
        let recipe = recipe.clone();
        peer.ask(&Request::Derive { recipe });
        let mut wanted = Vec::new();
        loop {
            match peer.hear().unwrap() {
                Answer::DerivationWants { object } => {
                    wanted.push(object);
                    let consent = match withheld == Some(object) {
                        true => Consent::Withheld {},
                        false => Consent::Given {},
                    };
                    peer.send(&control(&consent));
                }
                answer => {
                    peer.close();
                    return (wanted, answer);
                }
            }
        }
    };
    // Index, manifest, configuration, and each layer: nothing is read that was not asked for.
    let recipe = oci(index);
    let (wanted, answer) = wants(&recipe, None);
    assert!(matches!(answer, Answer::Derived { .. }), "{answer:?}");
    assert_eq!(wanted.len(), 5);
    for (at, object) in (1..).zip(&wanted) {
        let (asked, answer) = wants(&recipe, Some(*object));
        let object = *object;
        assert_eq!(answer, Answer::DerivationLacks { object });
        assert_eq!(asked, wanted[..at], "nothing is asked for after it");
    }
    // What is no document says so only to who has it.
    let recipe = oci(noise);
    let (_, answer) = wants(&recipe, None);
    assert!(matches!(answer, Answer::DerivationRefused { .. }));
    let (_, answer) = wants(&recipe, Some(noise));
    assert_eq!(answer, Answer::DerivationLacks { object: noise });
    // Who does not answer gets nothing, and the connection ends.
    let mut peer = rig.connect(Role::Client);
    peer.ask(&Request::Derive { recipe: oci(index) });
    assert!(matches!(peer.hear(), Some(Answer::DerivationWants { .. })));
    peer.ask(&Request::Put { object: noise });
    assert_eq!(peer.failure(), Failure::Refused);
    peer.assert_ended();
}

#[test]
fn a_damaged_object_is_the_stores_trouble_and_not_the_archives() {
    let rig = Rig::new();
    let good = Tar::new().file("a", &[7; 100_000]).end();
    let archive = ObjectId::of(&good);
    let mut rotten = good;
    rotten[50_000] ^= 1;
    rig.memory.put_as(archive, &rotten);
    let recipe = Recipe::Tar { archive };
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.fails(&Request::Derive { recipe }), Failure::Internal);
    // It is put aside, and nothing came of it.
    assert_eq!(rig.memory.ids(), [ObjectId::of(b"")]);
}

#[test]
fn a_full_disk_keeps_no_record() {
    let archive = Tar::new()
        .file("a", &[7; 100_000])
        .file("b", &[8; 100_000])
        .end();
    let rig = Rig::with_capacity(archive.len() as u64 + 50_000);
    let archive = rig.memory.put(&archive);
    let mut peer = rig.connect(Role::Client);
    let recipe = Recipe::Tar { archive };
    assert_eq!(peer.fails(&Request::Derive { recipe }), Failure::Full);
    let marks = std::fs::read_dir(rig.directory.path().join(DERIVATIONS)).unwrap();
    assert_eq!(marks.count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Bytes of any kind, behind each magic, and archives with bytes changed: an answer always comes.
    #[test]
    fn hostile_bytes_are_always_answered(
        magic in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0\0\x04"]),
        noise in proptest::collection::vec(any::<u8>(), 0..2000),
        changes in proptest::collection::vec((0_usize..3072, any::<u8>()), 0..12),
    ) {
        let rig = Rig::new();
        let mut archive = Tar::new().file("a/b", b"content").link(EntryType::Symlink, "l", "a/b").directory("d").end();
        for (at, byte) in changes {
            let length = archive.len();
            archive[at % length] = byte;
        }
        for bytes in [[magic, &noise[..]].concat(), gzip(&archive), archive] {
            let archive = rig.memory.put(&bytes);
            for recipe in [Recipe::Tar { archive }, oci(archive), pulled(archive)] {
                let answer = rig.connect(Role::Client).reply(&Request::Derive { recipe });
                let fine = matches!(
                    answer,
                    Answer::Derived { .. } | Answer::DerivationRefused { .. } | Answer::DerivationLacks { .. }
                );
                prop_assert!(fine, "{answer:?}");
            }
        }
    }
}
