//! What is to be imported: a tar archive, or an OCI image layout as a directory or in an archive.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use belljar_core::{Digest, Hasher, ObjectId, Platform, Recipe, bounds};

use super::send::{Opened, Span, unreadable};
use crate::error::Error;

/// Blobs of one image layout.
const BLOBS: usize = 10_000;
/// Bytes of an image layout's index.
const INDEX_BYTES: u64 = bounds::OCI_DOCUMENT_BYTES;

/// What shall be imported.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// What the store has to do.
    pub(crate) recipe: Recipe,
    /// What it needs for that.
    pub(crate) spans: Vec<Span>,
    /// What it is, in words.
    pub(crate) what: &'static str,
}

impl Parcel {
    /// The archive, or the index of the image layout.
    pub(crate) fn object(&self) -> ObjectId {
        match self.recipe {
            Recipe::Tar { archive } => archive,
            Recipe::Fetched { content, .. } | Recipe::Artifact { content, .. } => content,
            Recipe::OutputDirectory { receipt, .. } => receipt,
            Recipe::Oci { index, .. } => index,
            Recipe::Pulled { image, .. } => image,
            Recipe::Git { pack, .. } => pack,
            Recipe::CargoLock { lock, .. } | Recipe::NpmLock { lock, .. } => lock,
        }
    }

    /// Looks what `path` is, and where the blobs are.
    ///
    /// # Errors
    /// When it cannot be read, or is nothing that can be imported.
    pub(crate) fn open(path: &Path, platform: Platform) -> Result<Self, Error> {
        let status = std::fs::metadata(path).map_err(|e| unreadable(path, e))?;
        if status.is_dir() {
            return layout(path, platform);
        }
        let opened = Arc::new(Opened::open(path)?);
        match contents(&opened.file).map_err(|e| unreadable(path, e))? {
            Contents::Layout { index, blobs } => {
                let span = |(digest, offset, size)| Span {
                    object: ObjectId { digest, size },
                    file: Arc::clone(&opened),
                    offset,
                };
                let index = whole(&opened, index.0, index.1)?;
                let recipe = Recipe::Oci {
                    index: index.object,
                    platform,
                };
                let mut spans: Vec<Span> = blobs.into_iter().map(span).collect();
                spans.push(index);
                Ok(Self {
                    recipe,
                    spans,
                    what: "an OCI archive",
                })
            }
            Contents::DockerSave => Err(Error::Usage(format!(
                "{} was written by `docker save` in a form of its own; convert it: skopeo copy docker-archive:{0} oci-archive:image.tar",
                path.display()
            ))),
            Contents::Other => {
                let size = opened
                    .file
                    .metadata()
                    .map_err(|e| unreadable(path, e))?
                    .len();
                let archive = whole(&opened, 0, size)?;
                let recipe = Recipe::Tar {
                    archive: archive.object,
                };
                Ok(Self {
                    recipe,
                    spans: vec![archive],
                    what: "a tar archive",
                })
            }
        }
    }
}

/// A part of a file as one object.
fn whole(opened: &Arc<Opened>, offset: u64, size: u64) -> Result<Span, Error> {
    if size > bounds::BLOB_BYTES {
        return Err(Error::Usage(format!(
            "{} has {size} bytes; one object may have {}. Compress it",
            opened.path.display(),
            bounds::BLOB_BYTES
        )));
    }
    let hash = || {
        let mut file = &opened.file;
        file.seek(SeekFrom::Start(offset))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; bounds::READ_CHUNK_BYTES];
        let mut part = file.take(size);
        loop {
            match part.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    };
    let digest = hash().map_err(|e| unreadable(&opened.path, e))?;
    Ok(Span {
        object: ObjectId { digest, size },
        file: Arc::clone(opened),
        offset,
    })
}

/// An image layout (OCI image-spec) as a directory.
fn layout(path: &Path, platform: Platform) -> Result<Parcel, Error> {
    if !path.join("oci-layout").is_file() {
        return Err(Error::Usage(format!(
            "{} is a directory, and no OCI image layout: it has no file `oci-layout`. Of a root file system make an archive: tar -C {0} -cf image.tar .",
            path.display()
        )));
    }
    let index = Arc::new(Opened::inside(&path.join("index.json"))?);
    let size = index
        .file
        .metadata()
        .map_err(|e| unreadable(path, e))?
        .len();
    if size > INDEX_BYTES {
        return Err(too_large(&index.path));
    }
    let index = whole(&index, 0, size)?;
    let blobs = path.join("blobs/sha256");
    let failed = |e| unreadable(&blobs, e);
    let mut spans = Vec::new();
    for entry in std::fs::read_dir(&blobs).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        // What has no digest as its name is no blob, such as an unfinished download.
        let Some(digest) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) else {
            continue;
        };
        if spans.len() == BLOBS {
            return Err(too_many(path));
        }
        let opened = Opened::inside(&entry.path())?;
        let size = opened.file.metadata().map_err(failed)?.len();
        spans.push(Span {
            object: ObjectId { digest, size },
            file: Arc::new(opened),
            offset: 0,
        });
    }
    let recipe = Recipe::Oci {
        index: index.object,
        platform,
    };
    spans.push(index);
    Ok(Parcel {
        recipe,
        spans,
        what: "an OCI image layout",
    })
}

fn too_many(path: &Path) -> Error {
    Error::Usage(format!(
        "{} has more than {BLOBS} blobs; keep one image in it",
        path.display()
    ))
}

fn too_large(path: &Path) -> Error {
    Error::Usage(format!(
        "{} is larger than the {INDEX_BYTES} bytes that an image index may have",
        path.display()
    ))
}

/// What a file holds.
#[derive(Debug)]
enum Contents {
    /// An image layout in a plain tar archive: offset and size of its index, and digest, offset and size
    /// of each blob.
    Layout {
        index: (u64, u64),
        blobs: Vec<(Digest, u64, u64)>,
    },
    /// What `docker save` writes, before it wrote image layouts.
    DockerSave,
    /// Something else: the store will see.
    Other,
}

/// Looks into a file without unpacking it. What is no plain tar archive is something else.
fn contents(file: &File) -> io::Result<Contents> {
    let mut archive = tar::Archive::new(file);
    let Ok(entries) = archive.entries_with_seek() else {
        return Ok(Contents::Other);
    };
    let (mut marked, mut index, mut blobs) = (false, None, Vec::new());
    let (mut docker, mut manifest) = (false, false);
    for entry in entries {
        let Ok(entry) = entry else {
            return Ok(Contents::Other);
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        let place = (entry.raw_file_position(), entry.size());
        let is_file = entry.header().entry_type().is_file();
        match name {
            "oci-layout" => marked = true,
            "index.json" if is_file => index = Some(place),
            "manifest.json" => manifest = true,
            "" | "blobs/" | "blobs" | "blobs/sha256" | "blobs/sha256/" => {}
            "repositories" => docker = true,
            _ if name.ends_with("/layer.tar") => docker = true,
            _ => match name.strip_prefix("blobs/sha256/").map(Digest::from_hex) {
                Some(Ok(digest)) if is_file => blobs.push((digest, place.0, place.1)),
                _ if is_of_docker(name) => {}
                // Neither has it: a root file system, which need not be read to its end here.
                _ => return Ok(Contents::Other),
            },
        }
        if blobs.len() > BLOBS {
            return Ok(Contents::Other);
        }
    }
    Ok(match index {
        Some(index) if marked && index.1 <= INDEX_BYTES => Contents::Layout { index, blobs },
        _ if docker && manifest => Contents::DockerSave,
        _ => Contents::Other,
    })
}

/// Whether `docker save` writes files of such a name: a digest, or something in a directory of that name.
fn is_of_docker(name: &str) -> bool {
    let first = name.split(['/', '.']).next().unwrap_or_default();
    Digest::from_hex(first).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn archive(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let path = dir.join("image.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap();
        path
    }

    fn open(path: &Path) -> Result<Parcel, Error> {
        Parcel::open(path, Platform::LinuxAmd64)
    }

    #[test]
    fn files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let hex = Digest::of(b"blob").to_hex();
        let blob = format!("blobs/sha256/{hex}");
        let layer = format!("{hex}/layer.tar");
        let config = format!("{hex}.json");

        let oci: &[(&str, &[u8])] = &[
            ("oci-layout", b"{}"),
            (&blob, b"blob"),
            ("index.json", b"index"),
        ];
        let path = archive(dir.path(), oci);
        let parcel = open(&path).unwrap();
        assert_eq!(parcel.what, "an OCI archive");
        assert_eq!(parcel.object(), ObjectId::of(b"index"));
        let objects: Vec<_> = parcel.spans.iter().map(|span| span.object).collect();
        assert_eq!(objects, [ObjectId::of(b"blob"), ObjectId::of(b"index")]);
        let bytes = std::fs::read(&path).unwrap();
        for span in &parcel.spans {
            let begin = usize::try_from(span.offset).unwrap();
            let end = begin + usize::try_from(span.object.size).unwrap();
            assert_eq!(ObjectId::of(&bytes[begin..end]), span.object);
        }

        let docker: &[(&str, &[u8])] = &[(&layer, b""), (&config, b"{}"), ("manifest.json", b"[]")];
        let refused = open(&archive(dir.path(), docker)).unwrap_err().to_string();
        assert!(refused.contains("skopeo copy docker-archive:"), "{refused}");

        let path = archive(dir.path(), &[("etc/passwd", b""), ("index.json", b"")]);
        assert_eq!(open(&path).unwrap().what, "a tar archive");
        std::fs::write(&path, b"anything").unwrap();
        assert_eq!(open(&path).unwrap().object(), ObjectId::of(b"anything"));
    }

    #[test]
    fn directories_are_layouts_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("tar -C "), "{refused}");
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        std::fs::write(dir.path().join("index.json"), "index").unwrap();
        std::fs::write(blobs.join(Digest::of(b"blob").to_hex()), "blob").unwrap();
        std::fs::write(blobs.join("unfinished"), "b").unwrap();
        let parcel = open(dir.path()).unwrap();
        assert_eq!(parcel.object(), ObjectId::of(b"index"));
        assert_eq!(parcel.spans.len(), 2);
    }
}
