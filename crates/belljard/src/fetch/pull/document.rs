//! What of an image's documents decides what has to be pulled. The store reads all of them again, by itself, and what it
//! makes of them counts.

use belljar_core::{Digest, Invalid, ObjectId, Platform, bounds, oci};
use serde::Deserialize;

use super::Trouble;
use super::kept::{Any, List, Word};

/// A document of a registry's, complete, with the digest that it must have.
pub(crate) struct Document {
    /// What it is called by who has it.
    pub(crate) object: ObjectId,
    pub(crate) content: Vec<u8>,
}

/// Which document is wanted.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// What this tag means today.
    Tag(&'a str),
    /// An image index or an image manifest.
    Image(Digest),
    /// The configuration of an image.
    Configuration(ObjectId),
}

/// What names content, in a document. It takes little memory, whatever stands there.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    media_type: Word,
    digest: Word,
    size: u64,
    /// Whether it is said to be somewhere else, too.
    urls: Option<Any>,
    platform: Option<Configuration>,
}

/// What an image runs on, in a descriptor or a configuration.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    os: Word,
    #[serde(default)]
    architecture: Word,
}

/// An image index or an image manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u64,
    media_type: Option<Word>,
    manifests: Option<List<Descriptor, { bounds::OCI_CANDIDATES }>>,
    config: Option<Descriptor>,
    layers: Option<List<Descriptor, { bounds::OCI_LAYERS }>>,
}

impl Wanted<'_> {
    /// Where a registry has it, below the name of the repository.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Tag(tag) => format!("manifests/{tag}"),
            Self::Image(digest) => format!("manifests/{digest}"),
            Self::Configuration(object) => format!("blobs/{}", object.digest),
        }
    }

    /// The digest that it must have.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Image(digest) => Some(*digest),
            Self::Configuration(object) => Some(object.digest),
        }
    }

    /// What is understood as an answer.
    pub(super) fn accepted(&self) -> String {
        match self {
            Self::Configuration(_) => "*/*".to_owned(),
            Self::Tag(_) | Self::Image(_) => [oci::MANIFESTS, oci::INDEXES].concat().join(", "),
        }
    }
}

impl Configuration {
    /// Whether it is for this platform.
    pub(crate) fn fits(&self, platform: Platform) -> bool {
        let runs = format!("{}/{}", self.os.as_str(), self.architecture.as_str());
        runs == platform.as_str()
    }

    /// Reads the configuration of an image.
    pub(crate) fn read(document: &Document) -> Result<Self, Trouble> {
        json(document, "the configuration")
    }
}

impl Descriptor {
    /// What it names.
    pub(crate) fn object(&self) -> Result<ObjectId, Trouble> {
        let digest = self.digest.as_str().parse().map_err(|e: Invalid| {
            Trouble::refused(format!("it names content by a digest of another kind: {e}"))
        })?;
        let size = self.size;
        Ok(ObjectId { digest, size })
    }

    /// Whether it is one of these.
    pub(crate) fn is(&self, types: &[&str]) -> bool {
        types.contains(&self.media_type.as_str())
    }

    /// What it says that it is, safe to print.
    pub(crate) fn sort(&self) -> String {
        excerpt(self.media_type.as_str())
    }

    /// What it says that it runs on, if it says so.
    pub(crate) fn platform(&self) -> Option<&Configuration> {
        self.platform.as_ref()
    }

    /// Takes the descriptor of a layer that the registry has and that is read.
    pub(crate) fn layer(&self) -> Result<ObjectId, Trouble> {
        let sort = self.sort();
        let elsewhere = self.urls == Some(Any(true));
        if elsewhere || self.is(&oci::FOREIGN_LAYERS) {
            return Err(Trouble::refused(format!(
                "it has a foreign layer (`{sort}`), which comes from elsewhere than the registry; such are not pulled. Push \
                 the image with its layers, or import it from an archive"
            )));
        }
        if !self.is(&oci::LAYERS) {
            return Err(Trouble::refused(format!(
                "it has a layer of the media type `{sort}`, which is not read"
            )));
        }
        self.object()
    }
}

impl Manifest {
    /// Reads a document that came as `media_type`.
    pub(crate) fn read(document: &Document, media_type: &str) -> Result<Self, Trouble> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let is = |types: &[&str]| types.contains(&media_type);
        let old = || {
            Trouble::refused(
                "it is an image of the older form (schema 1), whose digest does not say what is in it; push it anew with a newer tool",
            )
        };
        if is(&oci::SCHEMA_1) {
            return Err(old());
        }
        if !is(&oci::INDEXES) && !is(&oci::MANIFESTS) {
            let sort = excerpt(media_type);
            return Err(Trouble::refused(format!(
                "the registry gives something of the media type `{sort}`, which is neither an image index nor an image manifest"
            )));
        }
        let read: Self = json(document, "it")?;
        if read.schema_version == 1 {
            return Err(old());
        }
        // Such a one is another image to each who reads it (CVE-2021-41190).
        let index = read.manifests.is_some();
        let image = read.config.is_some() || read.layers.is_some();
        let said = read.media_type.as_ref();
        let said = said.map_or(media_type, Word::as_str);
        if index == image || index != is(&oci::INDEXES) || said != media_type {
            return Err(Trouble::refused(format!(
                "its content is not what the registry says that it is, `{}`",
                excerpt(media_type)
            )));
        }
        let manifests = read.manifests.as_ref().map_or(0, |list| list.all);
        let layers = read.layers.as_ref().map_or(0, |list| list.all);
        for (what, has, most) in [
            ("manifests", manifests, bounds::OCI_CANDIDATES),
            ("layers", layers, bounds::OCI_LAYERS),
        ] {
            if has > most {
                let why = format!("it names {has} {what}; {most} are looked at");
                return Err(Trouble::refused(why));
            }
        }
        Ok(read)
    }

    /// What an index names; none of an image.
    pub(crate) fn entries(&self) -> Option<&[Descriptor]> {
        self.manifests.as_ref().map(|list| &list.first[..])
    }

    /// The configuration of an image.
    pub(crate) fn config(&self) -> Result<&Descriptor, Trouble> {
        let config = self.config.as_ref();
        config.ok_or_else(|| Trouble::refused("its manifest names no configuration"))
    }

    /// The layers of an image.
    pub(crate) fn layers(self) -> Vec<Descriptor> {
        self.layers.map_or(Vec::new(), |list| list.first)
    }
}

fn json<T: serde::de::DeserializeOwned>(document: &Document, what: &str) -> Result<T, Trouble> {
    serde_json::from_slice(&document.content).map_err(|e| {
        let digest = document.object.digest;
        Trouble::refused(format!("{what} ({digest}) cannot be read: {e}"))
    })
}

/// The beginning of what a registry says, safe to print.
pub(super) fn excerpt(text: &str) -> String {
    text.escape_debug().take(100).collect()
}

/// What a document may have at most, in bytes.
pub(super) const MOST: u64 = bounds::OCI_DOCUMENT_BYTES;
