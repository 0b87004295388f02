//! Archives that would take much memory of who reads them, in processes that are confined.

use belljar_core::{ObjectId, Outcome, Platform, Recipe, Unpack};
use belljar_tests::Instance;
use belljar_wire::Reason;
use serde_json::json;
use tar::{EntryType, Header};

use crate::lies::refusal;
use crate::server::{Server, content};
use crate::{fetch, gzip, run, spec, started};

/// An entry that gets this name, or leads there, by one of GNU's before it.
fn entry_told_by(telling: EntryType, kind: EntryType, told: &[u8]) -> Vec<u8> {
    let header = |kind: EntryType, name: &[u8], size: usize| {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size as u64);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let mut bytes = header(telling, b"././@LongLink", told.len());
    bytes.extend_from_slice(told);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(header(kind, b"x", 0));
    bytes
}

#[test]
fn directories_between_count_as_those_that_are_named_do() {
    // Few entries, each 128 directories deep: what comes between them has far longer paths than the entries together.
    let below = vec!["d".repeat(31); 127].join("/");
    let files = (0..1562).map(|n| {
        let name = format!("{n:031}/{below}");
        entry_told_by(EntryType::GNULongName, EntryType::Regular, name.as_bytes())
    });
    let archive = gzip(&[files.collect::<Vec<_>>().concat(), vec![0; 1024]].concat());
    let server = Server::start(vec![("/deep", content(&archive))]);
    let instance = started(&server, "");
    let wanted = fetch(&[server.url("/deep")], &archive, Unpack::tar(0).unwrap());
    let outcome = refusal(&instance, "deep", wanted);
    let due = "all paths and link targets together are longer than";
    assert_eq!(outcome.kind(), "refused", "{outcome}");
    assert!(outcome.to_string().contains(due), "{outcome}");
}

#[test]
fn what_stands_before_the_content_of_an_entry_does_not_fill_the_memory_of_who_reads_it() {
    let long = vec![b'a'; 5 << 20];
    let fits = vec![b'a'; 1 << 20];
    let pax = |value: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("comment", value)]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let ended = |bytes: Vec<u8>| gzip(&[bytes, vec![0; 1024]].concat());
    let links = |kind| ended(entry_told_by(kind, EntryType::Symlink, &long));
    let cases = [
        ("/name", links(EntryType::GNULongName)),
        ("/target", links(EntryType::GNULongLink)),
        ("/attributes", gzip(&pax(&long))),
        ("/holes", ended(holes())),
    ];
    let fitting = gzip(&pax(&fits));
    let mut answers: Vec<_> = cases
        .iter()
        .map(|(path, bytes)| (*path, content(bytes)))
        .collect();
    answers.push(("/fits", content(&fitting)));
    let server = Server::start(answers);
    let instance = started(&server, "");
    for (path, archive) in &cases {
        let wanted = fetch(&[server.url(path)], archive, Unpack::tar(0).unwrap());
        let outcome = refusal(&instance, &path[1..], wanted);
        assert_eq!(outcome.kind(), "refused", "{path}: {outcome}");
        let due = "it looks made to fill memory";
        assert!(outcome.to_string().contains(due), "{path}: {outcome}");
    }
    let client = instance.client();
    let wanted = fetch(&[server.url("/fits")], &fitting, Unpack::tar(0).unwrap());
    let spec = spec(&client, "cp /deps/x/file out", &[("x", wanted)]);
    assert_eq!(
        run(&client, "fits", &spec).outcome,
        Some(Outcome::Succeeded)
    );
}

/// A sparse file of GNU's that is nothing but holes, each of which is told.
fn holes() -> Vec<u8> {
    let blocks = 10_000;
    let mut bytes = Vec::new();
    for block in 0..blocks {
        let mut told = [0; 512];
        for at in 0..21 {
            let offset = format!("{:011o}\0", 2 * (21 * block + at + 1));
            told[24 * at..24 * at + 12].copy_from_slice(offset.as_bytes());
            told[24 * at + 12..24 * at + 24].copy_from_slice(b"00000000000\0");
        }
        told[504] = u8::from(block + 1 < blocks);
        bytes.extend_from_slice(&told);
    }
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().unwrap();
    fields.name[0] = b'x';
    fields.isextended = [1];
    fields
        .realsize
        .copy_from_slice(format!("{:011o}\0", 42 * blocks).as_bytes());
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    [&header.as_bytes()[..], &bytes].concat()
}

#[test]
fn a_manifest_of_too_many_layers_is_not_kept_while_others_are_looked_at() {
    let instance = Instance::started();
    let client = instance.client();
    let put = |text: String| {
        let object = client.put(text.as_bytes());
        json!({"digest": object.digest.to_string(), "size": object.size})
    };
    let config = put(r#"{"os":"linux","architecture":"amd64"}"#.to_owned());
    let layer = json!({"digest": "", "size": 0});
    let manifests: Vec<_> = [1, 129]
        .map(|layers| {
            let layers = vec![layer.clone(); layers];
            let mut named = put(json!({"config": config, "layers": layers}).to_string());
            named["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
            named
        })
        .into();
    let index = json!({"manifests": manifests}).to_string();
    let index: ObjectId = client.put(index.as_bytes());
    let platform = Platform::LinuxAmd64;
    let refused = client.derive(&Recipe::Oci { index, platform }).unwrap_err();
    assert_eq!(refused.reason, Reason::DerivationRefused);
    assert!(refused.message.contains("has 129 layers"), "{refused}");
}
