//! Seeds of what servers answer, and of what clients pack.

use belljar_core::{ObjectId, oci};
use serde_json::{Value, json};

/// Images as registries give them, of OCI and of Docker, with this layer.
pub(crate) fn images(layer: &[u8]) -> Vec<Vec<u8>> {
    let of = |kind: usize| {
        let named = |media_type: &str, content: &[u8]| {
            let object = ObjectId::of(content);
            json!({"mediaType": media_type, "digest": object.digest, "size": object.size})
        };
        let config = json!({
            "os": "linux",
            "architecture": "amd64",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [ObjectId::of(layer).digest]},
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFESTS[kind],
            "config": named(oci::CONFIGURATIONS[kind], config.as_bytes()),
            "layers": [named(oci::LAYERS[3 * kind], layer)],
        });
        let manifest = manifest.to_string();
        let on = |architecture: &str, content: &[u8]| {
            let mut named = named(oci::MANIFESTS[kind], content);
            named["platform"] = json!({"os": "linux", "architecture": architecture});
            named
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": oci::INDEXES[kind],
            "manifests": [on("arm64", b"other"), on("amd64", manifest.as_bytes())],
            "annotations": {"a": Value::Null},
        });
        let documents = format!("{index}\n{manifest}\n{config}\n");
        [documents.as_bytes(), layer].concat()
    };
    vec![of(0), of(1)]
}

/// What registries want to be convinced by, and tokens.
pub(crate) fn challenges() -> Vec<Vec<u8>> {
    let one = "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:other:pull\"\n\n\
        {\"token\": \"eyJhbGciOiJFUzI1NiJ9.e30.c2ln\", \"expires_in\": 300}";
    let other = "Basic realm=\"x\"\nDigest realm=\"y\", nonce=\"z\", bearer Realm=\"https://auth.example:8443/t?a=b\"\n\n\
        {\"access_token\": \"a.b_c-d\"}";
    [one, other].map(|text| text.as_bytes().to_vec()).into()
}

/// What git servers answer: what they can, and a pack.
pub(crate) fn git_lines() -> Vec<Vec<u8>> {
    let line = |content: &[u8]| {
        let length = format!("{:04x}", content.len() + 4);
        [length.as_bytes(), content].concat()
    };
    let text = |text: &str| line(text.as_bytes());
    let advertisement = [
        b"a".to_vec(),
        text("# service=git-upload-pack\n"),
        b"0000".to_vec(),
        text("version 2\n"),
        text("agent=git/2.47.0\n"),
        text("ls-refs=unborn\n"),
        text("fetch=shallow wait-for-done\n"),
        text("object-format=sha1\n"),
        b"0000".to_vec(),
    ];
    let pack = [
        b"p".to_vec(),
        text("shallow-info\n"),
        text("shallow 0123456789abcdef0123456789abcdef01234567\n"),
        b"0001".to_vec(),
        text("packfile\n"),
        text("\x02Counting objects: 100% (3/3), done.\n"),
        text("\x01PACK\0\0\0\x02"),
        text("\x01\0\0\0\0"),
        b"0000".to_vec(),
    ];
    vec![advertisement.concat(), pack.concat()]
}

/// What clients pack, with the reference implementation: a frame with a checksum, and several with one that is skipped.
pub(crate) fn zstd() -> Vec<Vec<u8>> {
    let text: String = (0..200)
        .map(|i| format!("line {} of {i}: {:x}\n", i % 7, i * i * 7919))
        .collect();
    let packed = |content: &str, checksum: bool| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(checksum).unwrap();
        std::io::Write::write_all(&mut encoder, content.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let sized = |size: usize, packed: &[u8]| {
        let units = u16::try_from(size.div_ceil(16)).unwrap();
        [&units.to_le_bytes()[..], packed].concat()
    };
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let several = [&packed("one ", false)[..], skipped, &packed("two", true)].concat();
    // One byte, many times.
    let mut repeated = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
    let last: u32 = (100_000 << 3) | (1 << 1) | 1;
    repeated.extend(&last.to_le_bytes()[..3]);
    repeated.push(b'x');
    vec![
        sized(text.len(), &packed(&text, true)),
        sized(7, &several),
        sized(100_000, &repeated),
    ]
}
