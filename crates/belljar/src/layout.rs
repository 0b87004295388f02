//! The image that became of a build's outputs, as an image layout (OCI image-spec v1.1): brought home, and read again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use belljar_attest::{ImageCopy, Verdict, VerifyError, verify_image};
use belljar_core::evidence::IMAGE;
use belljar_core::{Digest, Hasher, Invalid, ObjectId, RelPath, bounds};
use belljar_oci::{Base, LAYOUT, Layer, LayerReader};
use belljar_wire::{Artifact, ArtifactKind, ImageArtifact};
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::fetch::{self, Output};
use crate::home::read;
use crate::regular;

/// The file that says that a directory is a layout.
const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// The annotation of a manifest that names the base's (image-spec, "pre-defined annotation keys").
const BASE: &str = "org.opencontainers.image.base.digest";

/// Fetches an image and lays it below `output`, in the place of what stood there.
///
/// # Errors
/// As [`fetch::artifacts`].
pub(crate) async fn bring(
    client: &Client,
    output: &Output,
    image: &ImageArtifact,
) -> Result<(), Error> {
    let path = |name: &str| {
        RelPath::new(format!("{IMAGE}{name}")).map_err(|e| Error::Usage(e.to_string()))
    };
    let directory = |name: &str| -> Result<_, Error> {
        let kind = ArtifactKind::DIRECTORY;
        Ok(Artifact {
            path: path(name)?,
            kind,
        })
    };
    let file = |name: &str, object| -> Result<_, Error> {
        let executable = false;
        let kind = ArtifactKind::File { object, executable };
        Ok(Artifact {
            path: path(name)?,
            kind,
        })
    };
    let mut all = vec![
        directory("")?,
        directory("/blobs")?,
        directory("/blobs/sha256")?,
    ];
    // A layer may be there twice, and is one blob.
    let blobs: BTreeSet<ObjectId> = image.in_layout().collect();
    for object in blobs {
        all.push(file(
            &format!("/blobs/sha256/{}", object.digest.to_hex()),
            object,
        )?);
    }
    all.push(file(&format!("/{INDEX}"), image.index)?);
    let root = path("")?;
    fetch::artifacts(client, output, [&root], &all).await?;
    Ok(output.write(&path(&format!("/{MARK}"))?, LAYOUT.as_bytes())?)
}

/// Whether a path is an image layout.
pub(crate) fn is_one(path: &Path) -> bool {
    path.join(MARK).is_file()
}

/// Verifies the image in a layout: that all of it is what its digests say, and that it is what its provenance says.
///
/// # Errors
/// What of it does not hold, or cannot be read.
pub(crate) fn verify(path: &Path, bundle: &[u8], key: &str) -> Result<Verdict, Error> {
    let layout = Layout { path };
    let another = |why: Invalid| Error::NotVerified(VerifyError::AnotherImage(why));
    let manifest = layout.manifest().map_err(|e| e.with(another))?;
    let read = layout.image(&manifest).map_err(|e| e.with(another))?;
    let copy = ImageCopy {
        manifest: &manifest,
        object: read.object,
        layer: &read.layer,
        mtime: read.mtime,
        base: read.base.as_ref(),
    };
    verify_image(bundle, key, &copy).map_err(Error::NotVerified)
}

/// A directory with an image.
struct Layout<'a> {
    path: &'a Path,
}

/// What is needed to compute the image again.
struct Image {
    object: ObjectId,
    layer: Layer,
    mtime: u64,
    base: Option<Base>,
}

/// Why a layout cannot be read.
enum Unread {
    File(Error),
    Wrong(Invalid),
}

impl Unread {
    fn with(self, wrong: impl FnOnce(Invalid) -> Error) -> Error {
        match self {
            Self::File(error) => error,
            Self::Wrong(invalid) => wrong(invalid),
        }
    }
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

impl From<Invalid> for Unread {
    fn from(invalid: Invalid) -> Self {
        Self::Wrong(invalid)
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
}

impl Descriptor {
    fn object(&self) -> ObjectId {
        let (digest, size) = (self.digest, self.size);
        ObjectId { digest, size }
    }
}

/// Reads a document.
fn document(path: &Path) -> Result<Vec<u8>, Error> {
    let most = usize::try_from(bounds::OCI_DOCUMENT_BYTES);
    read(path, most.unwrap_or(usize::MAX))
}

impl Layout<'_> {
    /// The manifest of the one image in it.
    fn manifest(&self) -> Result<Vec<u8>, Unread> {
        let mark = document(&self.path.join(MARK))?;
        let mark: Value = parsed(MARK, &mark)?;
        if mark.get("imageLayoutVersion") != Some(&"1.0.0".into()) {
            return Err(Invalid::field(MARK, "not of version 1.0.0").into());
        }
        let index: Index = parsed(INDEX, &document(&self.path.join(INDEX))?)?;
        match index.manifests.as_slice() {
            [one] => self.document(one.object()),
            several => {
                let why = format!("it names {} images, and one is due", several.len());
                Err(Invalid::field(INDEX, why).into())
            }
        }
    }

    /// Reads the image of a manifest, every blob of it.
    fn image(&self, manifest: &[u8]) -> Result<Image, Unread> {
        let (config, layers) = belljar_oci::named(manifest, bounds::OCI_LAYERS)?;
        self.document(config)?;
        let (own, below) = layers
            .split_last()
            .ok_or_else(|| Invalid::field("layers", "there is none"))?;
        for layer in below {
            let mut blob = self.blob(layer.object)?;
            io::copy(&mut blob, &mut io::sink()).map_err(|e| self.unread(layer.object, e))?;
            blob.finish()?;
        }
        let mut blob = self.blob(own.object)?;
        let read = LayerReader::new(io::BufReader::with_capacity(1 << 16, &mut blob)).read();
        let (layer, mtime) = read.map_err(|e| self.unread(own.object, e))?;
        blob.finish()?;
        let value: Value = parsed("the manifest", manifest)?;
        let base = value
            .get("annotations")
            .and_then(|annotations| annotations.get(BASE))
            .and_then(Value::as_str);
        Ok(Image {
            object: own.object,
            layer,
            mtime,
            base: base.map(|digest| self.base(digest)).transpose()?,
        })
    }

    /// The base, of which the layout has manifest and configuration, too.
    fn base(&self, digest: &str) -> Result<Base, Unread> {
        let digest: Digest = digest.parse()?;
        let manifest = document(&self.place(digest))?;
        let object = ObjectId::of(&manifest);
        if object.digest != digest {
            return Err(other(digest).into());
        }
        let (config, _) = Base::named_by(&manifest)?;
        Ok(Base::new(&manifest, &self.document(config)?)?)
    }

    fn document(&self, object: ObjectId) -> Result<Vec<u8>, Unread> {
        let bytes = document(&self.place(object.digest))?;
        match ObjectId::of(&bytes) == object {
            true => Ok(bytes),
            false => Err(other(object.digest).into()),
        }
    }

    fn blob(&self, object: ObjectId) -> Result<Blob, Unread> {
        let path = self.place(object.digest);
        let file = regular::open(&path, OFlags::empty()).map_err(|e| self.unread(object, e))?;
        // Nobody reads a sparse one for hours that is too large anyway.
        let size = file.metadata().map_err(|e| self.unread(object, e))?.len();
        if size != object.size || size > bounds::BLOB_BYTES {
            return Err(other(object.digest).into());
        }
        Ok(Blob {
            file,
            object,
            hasher: Hasher::new(),
            size: 0,
        })
    }

    fn place(&self, digest: Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.to_hex())
    }

    fn unread(&self, object: ObjectId, source: io::Error) -> Unread {
        if source.kind() == io::ErrorKind::InvalidData {
            return Invalid::field(object.digest.to_string(), source.to_string()).into();
        }
        let path = self.place(object.digest);
        let what = "read";
        Error::File { what, path, source }.into()
    }
}

/// A blob that is hashed while it is read.
struct Blob {
    file: File,
    object: ObjectId,
    hasher: Hasher,
    size: u64,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

impl Blob {
    /// Whether what was read, which is all of it, is what its name says.
    fn finish(self) -> Result<(), Invalid> {
        let (digest, size) = (self.hasher.finish(), self.size);
        match self.object == (ObjectId { digest, size }) {
            true => Ok(()),
            false => Err(other(self.object.digest)),
        }
    }
}

fn other(digest: Digest) -> Invalid {
    Invalid::field(digest.to_string(), "the blob is not what its name says")
}

fn parsed<T: for<'a> Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T, Invalid> {
    serde_json::from_slice(bytes).map_err(|e| Invalid::field(what, e.to_string()))
}
