//! What reads hostile bytes, one function each: it must neither panic nor accept two encodings of one value where
//! there is to be one. `cargo fuzz` calls them by the programs in `fuzz_targets/`, the suite `tests/tests/fuzz` on
//! the corpus and on changes of it.

mod archive;
mod fetched;
mod pack;
mod project;
mod resource;
mod zstd;

use belljar_attest::Bundle;
use belljar_core::{
    BuildSpec, Derivation, Digest, FetchUrl, ImageConfig, ImageReference, InputName, ObjectId,
    OutputPattern, Platform, RelPath, Scheme, bounds,
};
use belljar_oci::{Base, Documents, LayerReader, Made, Part};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::StepMark;
use belljar_plan::{Receipt, signer, spawner, store, unpack};
use belljar_tree::{Directory, Tree};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use archive::archive;
pub use fetched::{
    challenge, challenge_is_read, git_lines, git_lines_are_read, image, image_is_read,
};
pub use pack::{pack, pack_file};
pub use project::{belljar_lock, manifest};
pub use resource::resource;
pub use zstd::{zstd, zstd_is_read};

/// A function that is to withstand any bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names of their programs and their corpora.
pub const TARGETS: [(&str, Target); 24] = [
    ("archive", archive),
    ("belljar_lock", belljar_lock),
    ("bundle", bundle),
    ("cargo_lock", cargo_lock),
    ("challenge", challenge),
    ("derivation", derivation),
    ("directory", directory),
    ("fetch_url", fetch_url),
    ("filter", filter),
    ("frame", frame),
    ("git_lines", git_lines),
    ("image", image),
    ("layer", layer),
    ("manifest", manifest),
    ("names", names),
    ("npm_lock", npm_lock),
    ("pack", pack),
    ("receipt", receipt),
    ("resource", resource),
    ("spec", spec),
    ("steps", steps),
    ("trail", trail),
    ("tree", tree),
    ("zstd", zstd),
];

/// A Sigstore bundle, as `belljar verify` and the signer read it.
pub fn bundle(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::from_json(bytes) {
        let again = bundle.to_json().expect("what was read can be written");
        assert_eq!(
            Bundle::from_json(&again).expect("and read").payload(),
            bundle.payload()
        );
    }
    let key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert!(belljar_attest::verify(bytes, key, &Digest::of(b"")).is_err());
}

/// A `Cargo.lock`, as the command line and the store read it.
pub fn cargo_lock(bytes: &[u8]) {
    if let Ok(lock) = belljar_lock::cargo::Lock::parse(bytes) {
        for package in &lock.packages {
            let _ = (package.archive(), package.directory(), package.purl());
        }
        let _ = lock.config();
    }
}

/// A record of a derivation, as the spawner and the signer read it.
pub fn derivation(bytes: &[u8]) {
    if let Ok(record) = Derivation::from_canonical(bytes) {
        assert_eq!(record.canonical().expect("canonical"), bytes);
    }
}

/// A `Directory` message, as the store and the spawner read it.
pub fn directory(bytes: &[u8]) {
    if let Ok(directory) = Directory::decode(bytes) {
        assert_eq!(directory.encode(), bytes);
    }
}

/// A URL, and where the answer to it leads by the line after it; a digest as SRI gives it; a reference of an image.
pub fn fetch_url(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let (first, second) = text.split_once('\n').unwrap_or((text, "/"));
    let _ = belljar_lock::sri::sha256(first);
    if let Ok(reference) = first.parse::<ImageReference>() {
        assert_eq!(reference.to_string(), first);
    }
    let Ok(url) = FetchUrl::new(first) else {
        return;
    };
    assert_eq!(FetchUrl::new(url.as_str()), Ok(url.clone()));
    assert!(!url.host().is_empty() && url.target().starts_with('/'));
    if let Ok(next) = url.redirected(second) {
        let downgrade = url.scheme() == Scheme::Https && next.scheme() == Scheme::Http;
        assert!(!downgrade, "{url} leads to {next}");
    }
}

/// The filter of a list.
pub fn filter(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = belljar_wire::Filter::parse(text);
    }
}

/// A message between two processes, whoever of them reads it.
pub fn frame(bytes: &[u8]) {
    let Ok(Frame::Control(rest)) = frame::parse(bytes) else {
        return;
    };
    message::<spawner::Request>(rest);
    message::<spawner::Message>(rest);
    message::<store::Request>(rest);
    message::<store::Answer>(rest);
    message::<store::Collected>(rest);
    message::<signer::Request>(rest);
    message::<signer::Answer>(rest);
    message::<unpack::Said>(rest);
    message::<unpack::Told>(rest);
}

fn message<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(rest: &[u8]) {
    let Ok(message) = frame::decode::<T>(rest) else {
        return;
    };
    // What was read may be longer when it is written: numbers and escapes have several forms.
    if let Ok(again) = frame::encode(&message) {
        let Ok(Frame::Control(rest)) = frame::parse(&again) else {
            panic!("a control message is one");
        };
        assert_eq!(frame::decode::<T>(rest).as_ref(), Ok(&message));
    }
}

/// A layer of an image that became of outputs, as `belljar verify` reads it: what is accepted has one form. Also the manifest and
/// the configuration of a base, as the store reads them, one line each, and a list of referrers, as belljard does.
pub fn layer(bytes: &[u8]) {
    if let Ok((layer, mtime)) = LayerReader::new(bytes).read() {
        let mut rest = bytes;
        for part in layer.parts(mtime) {
            rest = match part {
                Part::Bytes(part) => rest.strip_prefix(&part[..]).expect("the same header"),
                Part::Content(object) => {
                    let size = usize::try_from(object.size).expect("it was read");
                    assert_eq!(ObjectId::of(&rest[..size]), object);
                    &rest[size..]
                }
            };
        }
        assert!(rest.is_empty());
    }
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (manifest, config) = (lines.next().unwrap_or_default(), lines.next());
    if let Ok(base) = Base::new(manifest, config.unwrap_or_default()) {
        let made = Made {
            base: Some(&base),
            platform: Platform::LinuxAmd64,
            config: &ImageConfig::default(),
            layer: ObjectId::of(b"layer"),
            epoch: 0,
        };
        if let Ok(documents) = Documents::new(&made) {
            let named = belljar_oci::named(&documents.manifest, bounds::OCI_LAYERS);
            assert_eq!(named.expect("it is one").1, documents.layers);
        }
    }
    if let Ok(Some(list)) = belljar_oci::with_referrer(Some(bytes), ObjectId::of(b"one")) {
        assert_eq!(
            belljar_oci::with_referrer(Some(&list), ObjectId::of(b"one")),
            Ok(None)
        );
    }
}

/// Paths, patterns and names of inputs.
pub fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(path) = RelPath::new(text) {
        assert!(
            !path
                .as_str()
                .split('/')
                .any(|part| matches!(part, "" | "." | ".."))
        );
    }
    if let Ok(pattern) = OutputPattern::new(text) {
        assert_eq!(
            OutputPattern::new(pattern.to_string()).as_ref(),
            Ok(&pattern)
        );
    }
    let _ = InputName::new(text);
}

/// A lock file of npm's.
pub fn npm_lock(bytes: &[u8]) {
    let _ = belljar_lock::npm::Lock::parse(bytes);
}

/// A receipt, as the signer and the command line read it.
pub fn receipt(bytes: &[u8]) {
    if let Ok(receipt) = Receipt::from_canonical(bytes) {
        assert_eq!(receipt.canonical().expect("canonical"), bytes);
    }
}

/// A specification, as the signer reads it.
pub fn spec(bytes: &[u8]) {
    if let Ok(spec) = BuildSpec::from_canonical(bytes) {
        assert_eq!(spec.canonical().expect("canonical"), bytes);
    }
}

/// Where steps begin in a log.
pub fn steps(bytes: &[u8]) {
    if let Ok((_, read)) = StepMark::parse(bytes) {
        assert!(read <= bytes.len());
    }
}

/// An audit trail.
pub fn trail(bytes: &[u8]) {
    if let Ok(entries) = belljar_audit::verify(bytes) {
        let count = entries.len() as u64;
        assert!(belljar_audit::verify_prefix(bytes, count, Digest::of(bytes)).is_ok());
    }
}

/// A `Tree` message.
pub fn tree(bytes: &[u8]) {
    if let Ok(tree) = Tree::decode(bytes) {
        let again = Tree::decode(&tree.encode()).expect("what was written can be read");
        assert_eq!(again.encode(), tree.encode());
    }
}
