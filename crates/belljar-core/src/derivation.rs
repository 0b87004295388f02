use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    GitId, GitSubmodule, Invalid, ObjectId, Producer, RelPath, Repository, Sha512Digest, Unpack,
    bounds, canonical_json,
};

/// How the store shall make a tree out of objects that it has. The same recipe gives the same tree and
/// the same record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Recipe {
    /// What a tar archive holds (POSIX ustar and pax, GNU), plain or compressed by gzip, zstd or xz.
    Tar {
        /// The archive.
        archive: ObjectId,
    },
    /// What a build's fetch makes of its content.
    Fetched {
        /// What was fetched.
        content: ObjectId,
        /// What is made of it.
        unpack: Unpack,
    },
    /// What is made of a file that an earlier build has left.
    Artifact {
        /// Who has left it. Only belljard says so; the signer looks at it.
        producer: Producer,
        /// It.
        content: ObjectId,
        /// What is made of it.
        unpack: Unpack,
    },
    /// A directory that an earlier build has left.
    OutputDirectory {
        /// Who has left it. Only belljard says so; the signer looks at it.
        producer: Producer,
        /// The receipt of that attempt.
        receipt: ObjectId,
        /// Which of its directories.
        output: RelPath,
    },
    /// The root file system of an OCI image (OCI image-spec v1): its layers, one over the other.
    Oci {
        /// The image index, as `index.json` of an image layout holds it.
        index: ObjectId,
        /// Which of its images.
        platform: Platform,
    },
    /// The root file system of an OCI image that belljard has pulled from a registry.
    Pulled {
        /// Where it was. Only belljard has seen that.
        repository: Repository,
        /// The image index or the image manifest that was named there.
        image: ObjectId,
        /// Which of its images.
        platform: Platform,
    },
    /// The tree of a commit of a git repository, of packs that belljard has fetched.
    Git {
        /// The commit.
        commit: GitId,
        /// A pack with it, and with everything that it names but its history (gitformat-pack(5)).
        pack: ObjectId,
        /// Commits that stand in its tree or in each other's, in the order in which they are put there. Where the tree names
        /// another, an empty directory stands.
        submodules: Vec<GitSubmodule>,
    },
    /// The packages that a `Cargo.lock` names, as a directory source with the configuration that points to
    /// it.
    CargoLock {
        /// The lock file.
        lock: ObjectId,
        /// A `Directory` message (REAPI v2) with the archives of all packages in it. Which is which is told by
        /// their digests, not by their names.
        packages: ObjectId,
    },
    /// The packages that a `package-lock.json` or `npm-shrinkwrap.json` names, as a cache of npm's. Optional
    /// ones that are for some systems only may be missing.
    NpmLock {
        /// The lock file.
        lock: ObjectId,
        /// As for [`Recipe::CargoLock`].
        packages: ObjectId,
    },
}

/// What an image runs on, written as `os/architecture` (OCI image-spec, image index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Platform {
    /// x86-64.
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    /// aarch64.
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

/// What a tree cannot say, and was left out on the way into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// Device nodes, FIFOs and sockets below `dev/`: a sandbox has a `/dev` of its own.
    SpecialFiles,
    /// Set-user-id and set-group-id bits.
    SetIdBits,
    /// Permission bits other than 0644 and 0755: only whether a file is executable is kept.
    Modes,
    /// Owners other than user and group 0: everything belongs to user 0 inside.
    Owners,
    /// Extended attributes and access control lists.
    ExtendedAttributes,
    /// Files that a union file system keeps its own notes in (`.wh..wh.*`).
    UnionMetadata,
}

/// Something that was found in what a tree was made from, beside the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fact {
    /// The OCI image that was chosen.
    OciImage {
        /// Its manifest.
        manifest: ObjectId,
        /// Its configuration.
        config: ObjectId,
        /// Its layers, the lowest first.
        layers: Vec<ObjectId>,
    },
    /// A package of a lock file, whose archive had the digest that stands there.
    Package {
        /// Its package URL (ECMA-427).
        purl: String,
        /// Its archive.
        archive: ObjectId,
        /// The archive's SHA-512, where the lock file has that.
        sha512: Option<Sha512Digest>,
        /// Where the lock file says that it was; nobody has looked.
        location: String,
    },
    /// A commit whose tree was put somewhere: all that it names has the SHA-1 by which it is named.
    GitCommit {
        /// Where; none for the root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<RelPath>,
        /// The commit.
        commit: GitId,
        /// Its tree.
        tree: GitId,
        /// The pack that it was in.
        pack: ObjectId,
        /// Where `.gitmodules` says that it can be had, if it is a submodule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// A commit that a tree names and that was not given: an empty directory stands there.
    GitLink {
        /// Where.
        path: RelPath,
        /// The commit.
        commit: GitId,
        /// Where `.gitmodules` says that it can be had, if it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// A package of a lock file that was not given and is not needed on every system.
    LeftOut {
        /// Its package URL.
        purl: String,
    },
}

/// The store's record of a tree that it made: what from, by which recipe, and what came of it. It is
/// an object of the store itself, with one encoding ([`Derivation::canonical`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// [`Derivation::SCHEMA`].
    pub schema: String,
    /// What was asked for.
    pub recipe: Recipe,
    /// Every object that was read for it, verified while it was read.
    pub from: BTreeSet<ObjectId>,
    /// The root `Directory` message of what came of it (REAPI v2).
    pub tree: ObjectId,
    /// Files, directories and links in the tree.
    pub entries: u64,
    /// Content bytes of all its files, each counted where it stands.
    pub bytes: u64,
    /// What was left out, and how often.
    pub dropped: BTreeMap<Dropped, u64>,
    /// What else was found, in the order in which it was.
    pub facts: Vec<Fact>,
}

impl Derivation {
    /// Names this version of the record.
    pub const SCHEMA: &'static str = "belljar.derivation/v1";

    /// The one encoding: canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// When it would be larger than [`bounds::DERIVATION_BYTES`].
    pub fn canonical(&self) -> Result<Vec<u8>, Invalid> {
        let bytes = canonical_json(self).map_err(|e| Invalid::new(e.to_string()))?;
        if bytes.len() > bounds::DERIVATION_BYTES {
            return Err(Invalid::new(format!(
                "the record of the derivation has {} bytes; {} are allowed",
                bytes.len(),
                bounds::DERIVATION_BYTES
            )));
        }
        Ok(bytes)
    }

    /// Reads the canonical encoding back.
    ///
    /// # Errors
    /// When `bytes` are not a record of this version, or not its canonical encoding.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::DERIVATION_BYTES {
            return Err(Invalid::new("the record of the derivation is too large"));
        }
        let record: Self =
            serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))?;
        if record.schema != Self::SCHEMA {
            return Err(Invalid::field("schema", "of another version"));
        }
        if record.canonical()? != bytes {
            return Err(Invalid::new(
                "the record of the derivation is not in its canonical form (RFC 8785)",
            ));
        }
        Ok(record)
    }
}

impl Fact {
    /// What was read before it was found.
    pub fn read_from(&self) -> Vec<ObjectId> {
        match self {
            // Its layers are read after it.
            Self::OciImage {
                manifest, config, ..
            } => vec![*manifest, *config],
            Self::Package { archive, .. } => vec![*archive],
            Self::GitCommit { pack, .. } => vec![*pack],
            Self::LeftOut { .. } | Self::GitLink { .. } => Vec::new(),
        }
    }
}

impl Derivation {
    /// The OCI image that the tree was made of: manifest, configuration, and layers, the lowest first.
    pub fn image(&self) -> Option<(ObjectId, ObjectId, &[ObjectId])> {
        let (Recipe::Oci { .. } | Recipe::Pulled { .. }) = &self.recipe else {
            return None;
        };
        self.facts.iter().find_map(|fact| match fact {
            Fact::OciImage {
                manifest,
                config,
                layers,
            } => Some((*manifest, *config, layers.as_slice())),
            _ => None,
        })
    }
}

impl Platform {
    const ALL: [(Self, &'static str); 2] = [
        (Self::LinuxAmd64, "linux/amd64"),
        (Self::LinuxArm64, "linux/arm64"),
    ];

    /// `os/architecture`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Platform {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(platform, _)| *platform).ok_or_else(|| {
            Invalid::new(format!(
                "`{}` is not a platform that builds run on; `linux/amd64` and `linux/arm64` are",
                text.escape_debug()
            ))
        })
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpecialFiles => "special files below dev/",
            Self::SetIdBits => "set-user-id and set-group-id bits",
            Self::Modes => "permission bits other than 0644 and 0755",
            Self::Owners => "owners other than 0",
            Self::ExtendedAttributes => "extended attributes",
            Self::UnionMetadata => "notes of a union file system",
        })
    }
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SpecialFiles,
        Self::SetIdBits,
        Self::Modes,
        Self::Owners,
        Self::ExtendedAttributes,
        Self::UnionMetadata,
    ];

    /// The stable word for it, as in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::SpecialFiles => "special_files",
            Self::SetIdBits => "set_id_bits",
            Self::Modes => "modes",
            Self::Owners => "owners",
            Self::ExtendedAttributes => "extended_attributes",
            Self::UnionMetadata => "union_metadata",
        }
    }
}

impl FromStr for Dropped {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        let mut all = Self::ALL.into_iter();
        all.find(|dropped| dropped.word() == word)
            .ok_or_else(|| Invalid::new(format!("`{}` is not known", word.escape_debug())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Derivation {
        Derivation {
            schema: Derivation::SCHEMA.to_owned(),
            recipe: Recipe::Oci {
                index: ObjectId::of(b"index"),
                platform: Platform::LinuxAmd64,
            },
            from: [ObjectId::of(b"index"), ObjectId::of(b"layer")].into(),
            tree: ObjectId::of(b""),
            entries: 3,
            bytes: 4,
            dropped: [(Dropped::Owners, 2)].into(),
            facts: vec![Fact::OciImage {
                manifest: ObjectId::of(b"manifest"),
                config: ObjectId::of(b"config"),
                layers: vec![ObjectId::of(b"layer")],
            }],
        }
    }

    #[test]
    fn records_have_one_encoding() {
        let bytes = record().canonical().unwrap();
        assert_eq!(Derivation::from_canonical(&bytes), Ok(record()));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""dropped":{"owners":2}"#), "{text}");
        assert!(text.contains(r#""platform":"linux/amd64""#), "{text}");
        for bad in [
            text.replacen('{', r#"{"extra":1,"#, 1),
            text.replacen("derivation/v1", "derivation/v2", 1),
            text.replacen("\"entries\"", " \"entries\"", 1),
            text.replacen("\"kind\":\"oci\"", "\"extra\":1,\"kind\":\"oci\"", 1),
        ] {
            assert_ne!(bad, text);
            assert!(Derivation::from_canonical(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms_and_what_is_dropped_have_one_word() {
        for (platform, text) in Platform::ALL {
            assert_eq!(platform.as_str(), text);
            assert_eq!(text.parse(), Ok(platform));
            assert_eq!(serde_json::to_value(platform).unwrap(), text);
        }
        assert!("windows/amd64".parse::<Platform>().is_err());
        for dropped in Dropped::ALL {
            assert_eq!(serde_json::to_value(dropped).unwrap(), dropped.word());
            assert_eq!(dropped.word().parse(), Ok(dropped));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Derivation::from_canonical(&bytes);
        }
    }
}
