use belljar_core::{ObjectId, Platform, Recipe, Repository, Scheme, bounds, oci};
use belljar_policy::Way;

use super::super::archive::{MOST, carry_out};
use super::is_told;
use super::trouble::Trouble;

#[path = "../../../crates/belljard/src/fetch/pull/challenge.rs"]
mod challenge;
#[allow(dead_code, reason = "belljard uses more of it")]
#[path = "../../../crates/belljard/src/fetch/pull/document.rs"]
mod document;
#[path = "../../../crates/belljard/src/fetch/pull/kept.rs"]
mod kept;
#[path = "../../../crates/belljard/src/fetch/pull/token.rs"]
mod token;

use challenge::Challenge;
use document::{Configuration, Descriptor, Document, Manifest};

const HERE: Platform = Platform::LinuxAmd64;

/// An image as a registry gives it: its index, the manifest and the configuration for this platform, a line each, and a
/// layer. belljard reads the documents to know what to pull, and an unpacker reads all of them again.
pub fn image(bytes: &[u8]) {
    image_is_read(bytes);
}

/// The same; says whether all of it is understood.
pub fn image_is_read(bytes: &[u8]) -> bool {
    if bytes.len() > MOST {
        return false;
    }
    let parts: Vec<&[u8]> = bytes.splitn(4, |byte| *byte == b'\n').collect();
    let kinds: Vec<_> = parts.iter().take(3).map(|part| read(part)).collect();
    let mut given = 0;
    let recipe = Recipe::Pulled {
        repository: repository(),
        image: ObjectId::of(parts[0]),
        platform: HERE,
    };
    let made = carry_out(recipe, |object| {
        // Who names another one by now gets what comes next.
        let named = parts.iter().position(|part| ObjectId::of(part) == object);
        let at = named.unwrap_or(given).min(parts.len() - 1);
        given += 1;
        parts[at]
    });
    let due = [Kind::Index, Kind::Image, Kind::Configuration];
    made && kinds == due
}

/// What a document is to belljard.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Index,
    Image,
    Configuration,
    Nothing,
}

fn read(bytes: &[u8]) -> Kind {
    let document = Document {
        object: ObjectId::of(bytes),
        content: bytes.to_vec(),
    };
    let mut kind = match Configuration::read(&document) {
        Ok(configuration) if configuration.fits(HERE) => Kind::Configuration,
        _ => Kind::Nothing,
    };
    for media_type in [&oci::INDEXES[..], &oci::MANIFESTS, &oci::SCHEMA_1].concat() {
        let manifest = match Manifest::read(&document, media_type) {
            Ok(manifest) => manifest,
            Err(trouble) => {
                is_told(&trouble);
                continue;
            }
        };
        let is_index = oci::INDEXES.contains(&media_type);
        assert_eq!(manifest.entries().is_some(), is_index);
        assert!(is_index || oci::MANIFESTS.contains(&media_type));
        kind = if is_index { Kind::Index } else { Kind::Image };
        let entries = manifest.entries().unwrap_or_default();
        assert!(entries.len() <= bounds::OCI_CANDIDATES);
        entries.iter().for_each(look);
        if let Ok(config) = manifest.config() {
            look(config);
        }
        let layers = manifest.layers();
        assert!(layers.len() <= bounds::OCI_LAYERS);
        layers.iter().for_each(look);
    }
    kind
}

/// Looks at all that is said of something.
fn look(descriptor: &Descriptor) {
    let object = descriptor.object();
    if let Ok(layer) = descriptor.layer() {
        assert_eq!(object.as_ref(), Ok(&layer));
        assert!(descriptor.is(&oci::LAYERS) && !descriptor.is(&oci::FOREIGN_LAYERS));
    }
    if let Err(trouble) = object {
        is_told(&trouble);
    }
    let most = bounds::OCI_WORD_BYTES.max(100) * '\u{10ffff}'.escape_unicode().count();
    assert!(descriptor.sort().len() <= most);
    let _ = descriptor.platform().map(|platform| platform.fits(HERE));
}

/// What a registry wants to be convinced by: headers, a line each; and behind an empty line what gives a token answers.
pub fn challenge(bytes: &[u8]) {
    challenge_is_read(bytes);
}

/// The same; says whether there is somewhere to ask for a token, and whether one is given.
pub fn challenge_is_read(bytes: &[u8]) -> bool {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (headers, answer) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[][..]),
    };
    let token = token::read(answer);
    if let Some(token) = &token {
        assert!(!token.is_empty() && token.len() <= bounds::TOKEN_BYTES);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let Ok(headers) = str::from_utf8(headers) else {
        return false;
    };
    let asked = [(Way::Pull, "pull"), (Way::Push, "pull%2Cpush")].map(|(way, may)| {
        match Challenge::read(headers.lines(), &repository(), way) {
            Ok(Challenge::Token(url)) => {
                assert_eq!(url.scheme(), Scheme::Https);
                let (_, query) = url.target().split_once('?').expect("a query");
                let named = |pair: &&str| pair.to_ascii_lowercase().starts_with("scope");
                let scopes: Vec<_> = query.split(['&', ';']).filter(named).collect();
                assert_eq!(scopes, [format!("scope=repository%3Ateam%2Fc%3A{may}")]);
                true
            }
            Ok(Challenge::Basic) => false,
            Err(trouble) => {
                is_told(&trouble);
                false
            }
        }
    });
    asked == [true, true] && token.is_some()
}

fn repository() -> Repository {
    "r.example/team/c".parse().expect("a repository")
}
