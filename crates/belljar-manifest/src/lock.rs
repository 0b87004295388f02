//! `belljar.lock`: images by name, beside `belljar.toml`. Written by `belljar image`; to be committed.
//!
//! ```toml
//! version = 1
//!
//! [image.rust]
//! tree = { digest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", size = 315 }
//! derivation = { digest = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9", size = 618 }
//! source = { file = "rust.tar", digest = "sha256:baa5a0964d3320fbc0c6a922140453c8513ea24ab8fd0577034804a967248096", size = 98304000 }
//!
//! [image.go]
//! tree = { digest = "sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", size = 411 }
//! derivation = { digest = "sha256:4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a", size = 702 }
//! source = { reference = "registry.example.org/go:1.26@sha256:ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d", digest = "sha256:ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d", size = 1609 }
//! ```

use std::collections::BTreeMap;
use std::fmt;

use belljar_core::{Digest, ImageReference, Input, InputName, Invalid, ObjectId, bounds};
use toml::de::DeTable;

use crate::values::{Refusal, Value, known, number, refuse, required, string, subtable, table};
use crate::wrong::{Wrong, text};

/// Name of the file, beside the sources.
pub const FILE: &str = "belljar.lock";
/// The version of its form.
const VERSION: u64 = 1;
/// What says which file an image was imported from.
const FROM_FILE: &str = "file";
/// What says by which reference it was pulled.
const FROM_REGISTRY: &str = "reference";
/// What stands for no image, and is no name of one.
const HOST: &str = "host";

/// What a `belljar.lock` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    images: BTreeMap<InputName, Image>,
}

/// An image with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The tree and the store's record of it.
    pub input: Input,
    /// Where it is from.
    pub source: Source,
}

/// Where an image is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// In words.
    pub origin: Origin,
    /// The archive, the index of the image layout, or what the reference named.
    pub object: ObjectId,
}

/// What an image was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// What was imported: the name of the file or directory, for people.
    File(String),
    /// What was pulled, with its digest.
    Registry(ImageReference),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Registry(reference) => write!(f, "{reference}"),
        }
    }
}

/// Takes `text` as the name of an image.
///
/// # Errors
/// When it is none, or is taken.
pub fn image_name(text: &str) -> Result<InputName, Invalid> {
    if text == HOST {
        return Err(Invalid::new(
            "`host` stands for the host's own files; choose another name",
        ));
    }
    InputName::new(text).map_err(|_| {
        Invalid::new(format!(
            "`{}` is no name of an image: 1 to 64 characters out of lower-case letters, digits, `.`, `_` and `-`, the first a letter or digit",
            text.escape_debug()
        ))
    })
}

impl Lock {
    /// Reads the bytes of a `belljar.lock`.
    ///
    /// # Errors
    /// What is wrong is told with line, column and field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let text = text(bytes)?;
        read(text).map_err(|refusal| Wrong::in_text(text, refusal))
    }

    /// The images, by name.
    pub fn images(&self) -> impl ExactSizeIterator<Item = (&InputName, &Image)> {
        self.images.iter()
    }

    /// The image that has this name.
    ///
    /// # Errors
    /// When there is none: says which there are, and how to get one.
    pub fn image(&self, name: &InputName) -> Result<&Image, Invalid> {
        self.images.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.images.keys().map(InputName::as_str).collect();
            let known = match known.as_slice() {
                [] => "it names none".to_owned(),
                known => format!("it names {}", known.join(", ")),
            };
            Invalid::new(format!(
                "`{name}` is not in {FILE}, {known}; import it: belljar image import FILE --name {name}, or belljar image pull REFERENCE --name {name}"
            ))
        })
    }

    /// Sets what a name stands for.
    pub fn set(&mut self, name: InputName, image: Image) {
        self.images.insert(name, image);
    }

    /// What the file is to hold.
    ///
    /// # Errors
    /// When it would be larger than [`bounds::CONFIG_BYTES`], so that nobody could read it.
    pub fn text(&self) -> Result<String, Invalid> {
        let object =
            |object: ObjectId| format!("digest = \"{}\", size = {}", object.digest, object.size);
        let mut text = format!("# Written by `belljar image`.\nversion = {VERSION}\n");
        for (name, image) in &self.images {
            // A dot would begin a table of its own; nothing that a name may hold needs an escape.
            text.push_str(&format!("\n[image.\"{name}\"]\n"));
            text.push_str(&format!("tree = {{ {} }}\n", object(image.input.tree)));
            if let Some(derivation) = image.input.derivation {
                text.push_str(&format!("derivation = {{ {} }}\n", object(derivation)));
            }
            let (key, origin) = match &image.source.origin {
                Origin::File(file) => (FROM_FILE, file.clone()),
                Origin::Registry(reference) => (FROM_REGISTRY, reference.to_string()),
            };
            text.push_str(&format!(
                "source = {{ {key} = {}, {} }}\n",
                toml::Value::String(origin),
                object(image.source.object)
            ));
        }
        if text.len() > bounds::CONFIG_BYTES {
            let (due, most) = (text.len(), bounds::CONFIG_BYTES);
            return Err(Invalid::new(format!(
                "{FILE} would have {due} bytes; {most} are allowed"
            )));
        }
        Ok(text)
    }
}

fn read(text: &str) -> Result<Lock, Refusal> {
    let document = table(text)?;
    let top = document.get_ref();
    known(top, "", &["version", "image"])?;
    let version = required(top, "version")?;
    if number("version", version)? != VERSION {
        let reason = format!("only version {VERSION} is read; a newer belljar wrote this file");
        return Err(refuse(version, Invalid::field("version", reason)));
    }
    let mut lock = Lock::default();
    if let Some(images) = top.get("image") {
        for (key, value) in subtable("image", images)? {
            let name = image_name(key.get_ref().as_ref())
                .map_err(|e| (key.span().start, e.within("image")))?;
            let field = format!("image.{name}");
            let image = image(&field, value)?;
            lock.set(name, image);
        }
    }
    Ok(lock)
}

fn image(field: &str, value: &Value<'_>) -> Result<Image, Refusal> {
    let table = subtable(field, value)?;
    known(table, field, &["tree", "derivation", "source"])?;
    let part = |name: &str| {
        let inner = table.get(name).ok_or_else(|| {
            refuse(
                value,
                Invalid::field(format!("{field}.{name}"), "missing; it is required"),
            )
        })?;
        Ok::<_, Refusal>((format!("{field}.{name}"), inner))
    };
    let (tree_field, tree) = part("tree")?;
    let (source_field, source) = part("source")?;
    let derivation = match table.get("derivation") {
        None => None,
        Some(inner) => Some(object(
            &format!("{field}.derivation"),
            inner,
            &["digest", "size"],
        )?),
    };
    Ok(Image {
        input: Input {
            tree: object(&tree_field, tree, &["digest", "size"])?,
            derivation,
        },
        source: origin(&source_field, source)?,
    })
}

fn origin(field: &str, value: &Value<'_>) -> Result<Source, Refusal> {
    let table = subtable(field, value)?;
    let fields = ["digest", "size", FROM_FILE, FROM_REGISTRY];
    let object = object(field, value, &fields)?;
    let origin = match (table.get(FROM_FILE), table.get(FROM_REGISTRY)) {
        (Some(file), None) => {
            let field = format!("{field}.{FROM_FILE}");
            Origin::File(string(&field, file)?.to_owned())
        }
        (None, Some(reference)) => {
            let field = format!("{field}.{FROM_REGISTRY}");
            let wrong = |invalid: Invalid| refuse(reference, invalid.within(&field));
            let parsed: ImageReference = string(&field, reference)?.parse().map_err(wrong)?;
            if parsed.digest() != Some(object.digest) {
                let why = "its digest is not that beside it";
                return Err(wrong(Invalid::new(why)));
            }
            Origin::Registry(parsed)
        }
        _ => {
            let why = format!("either `{FROM_FILE}` or `{FROM_REGISTRY}` is due");
            return Err(refuse(value, Invalid::field(field, why)));
        }
    };
    Ok(Source { origin, object })
}

fn object(field: &str, value: &Value<'_>, fields: &[&str]) -> Result<ObjectId, Refusal> {
    let table: &DeTable<'_> = subtable(field, value)?;
    known(table, field, fields)?;
    let part = |name: &str| {
        table.get(name).ok_or_else(|| {
            let field = format!("{field}.{name}");
            refuse(value, Invalid::field(field, "missing; it is required"))
        })
    };
    let (digest, size) = (part("digest")?, part("size")?);
    let digest_field = format!("{field}.digest");
    let parsed: Digest = string(&digest_field, digest)?
        .parse()
        .map_err(|e: Invalid| refuse(digest, e.within(&digest_field)))?;
    let size_field = format!("{field}.size");
    let bytes = number(&size_field, size)?;
    if bytes > bounds::BLOB_BYTES {
        let reason = format!("{bytes} bytes are more than an object may have");
        return Err(refuse(size, Invalid::field(size_field, reason)));
    }
    Ok(ObjectId {
        digest: parsed,
        size: bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::changed;
    use proptest::prelude::*;

    fn image(content: &[u8]) -> Image {
        Image {
            input: Input {
                tree: ObjectId::of(content),
                derivation: Some(ObjectId::of(b"record")),
            },
            source: Source {
                origin: Origin::File("a \"strange\"\nname\\.tar".to_owned()),
                object: ObjectId::of(b"archive"),
            },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut lock = Lock::default();
        for name in ["rust", "c", "debian.12"] {
            lock.set(image_name(name).unwrap(), image(name.as_bytes()));
            assert_eq!(read(&lock.text().unwrap()).unwrap(), lock);
        }
        let missing = lock.image(&image_name("go").unwrap()).unwrap_err();
        assert!(
            missing
                .reason
                .contains("it names c, debian.12, rust; import it"),
            "{missing}"
        );
    }

    #[test]
    fn what_nobody_could_read_is_not_written() {
        let mut lock = Lock::default();
        let mut long = image(b"c");
        long.source.origin = Origin::File("x".repeat(bounds::CONFIG_BYTES));
        lock.set(image_name("c").unwrap(), long);
        let refusal = lock.text().unwrap_err().reason;
        assert!(refusal.ends_with("bytes; 1048576 are allowed"), "{refusal}");
    }

    #[test]
    fn the_documented_example_is_read() {
        let example: String = include_str!("lock.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim()))
            .collect();
        assert_eq!(read(&example).unwrap().images().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_column_and_field() {
        let mut lock = Lock::default();
        lock.set(image_name("c").unwrap(), image(b"c"));
        let good = lock.text().unwrap();
        let refusal = |text: &str| Lock::parse(text.as_bytes()).unwrap_err().to_string();
        let digest = Digest::of(b"archive");
        let mut other = image(b"c");
        other.source.origin = Origin::Registry(format!("r.example/c:1@{digest}").parse().unwrap());
        let mut lock = Lock::default();
        lock.set(image_name("c").unwrap(), other);
        let pulled = lock.text().unwrap();
        let instead = |old: &str, new: &str| {
            assert!(good.contains(old), "{old}");
            refusal(&good.replacen(old, new, 1))
        };
        let cases = [
            (refusal(""), "1:1: version: missing"),
            (refusal("version = 2"), "1:11: version: only version 1"),
            (
                instead("version = 1", "version = 1\nextra = 1"),
                "3:1: extra: unknown field",
            ),
            (instead("\"c\"", "\"host\""), "4:8: image: `host`"),
            (instead("\"c\"", "\"C\""), "4:8: image: `C`"),
            (
                instead("tree = ", "bush = "),
                "5:1: image.c.bush: unknown field",
            ),
            (
                instead("sha256:", "sha512:"),
                "5:19: image.c.tree.digest: `sha512:",
            ),
            (
                instead(", size = 1 }", " }"),
                "5:8: image.c.tree.size: missing",
            ),
            (
                instead("size = 1 }", "size = -1 }"),
                "image.c.tree.size: -1 is out of range",
            ),
            (
                instead("size = 1 }", "size = 1, mode = 7 }"),
                "image.c.tree.mode: unknown field",
            ),
            (
                instead("{ file = ", "{ reference = \"c:1\", file = "),
                "7:10: image.c.source: either `file` or `reference`",
            ),
            (
                instead("file = ", "archive = "),
                "image.c.source.archive: unknown field",
            ),
            (
                refusal(&pulled.replacen("r.example", "r", 1)),
                "7:24: image.c.source.reference: `r/c` does not begin with the host",
            ),
            (
                refusal(&pulled.replacen(&format!("@{digest}"), "", 1)),
                "7:24: image.c.source.reference: its digest is not that beside it",
            ),
        ];
        for (found, due) in cases {
            assert!(found.contains(due), "{found}\n{due}");
        }
    }

    #[test]
    fn what_is_told_of_a_hostile_file_is_short() {
        let long = "x".repeat(200_000);
        let mut lock = Lock::default();
        lock.set(image_name("c").unwrap(), image(b"c"));
        let good = lock.text().unwrap();
        for text in [
            format!("{long} = 1"),
            format!("version = {long}"),
            format!("version = 1\n[image.\"{long}\"]"),
            good.replacen("sha256:", &format!("sha256:{long}"), 1),
            good.replacen("tree = ", &format!("{long} = "), 1),
            format!("{good}\n[image.{}]", vec!["a"; 50_000].join(".")),
            format!("version = {}", "[".repeat(100_000)),
        ] {
            let told = Lock::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(told.len() < 4 * bounds::REASON_BYTES, "{}", told.len());
        }
    }

    fn some_image() -> impl Strategy<Value = (InputName, Image)> {
        let name = "[a-z0-9][a-z0-9._-]{0,12}".prop_map(|name| image_name(&name));
        let name = name.prop_filter_map("it is taken", Result::ok);
        let object = || {
            (any::<u64>(), 0..=bounds::BLOB_BYTES).prop_map(|(seed, size)| ObjectId {
                digest: Digest::of(&seed.to_le_bytes()),
                size,
            })
        };
        let parts = (
            name,
            object(),
            prop::option::of(object()),
            prop_oneof![any::<String>().prop_map(Ok), "[a-z0-9]{1,9}".prop_map(Err)],
            object(),
        );
        parts.prop_map(|(name, tree, derivation, from, object)| {
            let input = Input { tree, derivation };
            let reference = |tag| format!("r.example:5000/team/c:{tag}@{}", object.digest);
            let origin = match from {
                Ok(file) => Origin::File(file),
                Err(tag) => Origin::Registry(reference(tag).parse().unwrap()),
            };
            let source = Source { origin, object };
            (name, Image { input, source })
        })
    }

    fn of(images: Vec<(InputName, Image)>) -> Lock {
        Lock {
            images: images.into_iter().collect(),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(images in prop::collection::vec(some_image(), 0..5)) {
            let lock = of(images);
            prop_assert_eq!(read(&lock.text().unwrap()).unwrap(), lock);
        }

        /// A good file with bytes of it gone, put in or replaced: what is accepted can be written and read again, what is
        /// not is refused with a place.
        #[test]
        fn a_changed_file_is_read_or_refused_with_a_place(
            text in prop::collection::vec(some_image(), 1..3).prop_flat_map(|images| {
                changed(of(images).text().unwrap(), |text| read(text).is_ok())
            }),
        ) {
            if let Ok(lock) = Lock::parse(text.as_bytes()) {
                prop_assert_eq!(read(&lock.text().unwrap()).unwrap(), lock);
            }
        }
    }
}
