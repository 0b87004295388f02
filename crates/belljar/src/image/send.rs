//! Pieces of local files into the daemon's store: only what it does not have yet.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{Invalid, ObjectId, bounds};
use rustix::fs::OFlags;
use tokio::task::JoinError;

use crate::client::{self, Client, call, object_id, reapi_digest, sha256};
use crate::error::Error;
use crate::patience::answered;
use crate::regular;
use crate::write::{Content, Pieces, write};

const ASKING: &str = "asking which blobs are missing";
const SENDING: &str = "uploading";

/// A file that is open for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

/// Where the content of an object is.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// What it must turn out to be: the store looks.
    pub(crate) object: ObjectId,
    pub(crate) file: Arc<Opened>,
    pub(crate) offset: u64,
}

/// What went up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
}

impl Opened {
    /// Opens a regular file.
    ///
    /// # Errors
    /// When it cannot be opened, or is something else.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::with(path, OFlags::empty())
    }

    /// Opens a regular file of an image layout. Whoever made that may have put a link to something else there, whose
    /// content is nobody's business.
    ///
    /// # Errors
    /// As [`Self::open`]; and when it is a symbolic link.
    pub(crate) fn inside(path: &Path) -> Result<Self, Error> {
        Self::with(path, OFlags::NOFOLLOW)
    }

    fn with(path: &Path, flags: OFlags) -> Result<Self, Error> {
        let file = regular::open(path, flags).map_err(|source| unreadable(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }
}

/// A local file that cannot be read.
pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File {
        what: "read",
        path: path.to_owned(),
        source,
    }
}

/// Sends what is missing, one after the other: they are large.
///
/// # Errors
/// The first thing that goes wrong; what was sent before stays.
pub(crate) async fn send(client: &Client, spans: &[Span]) -> Result<Sent, Error> {
    let mut sent = Sent::default();
    let objects: Vec<ObjectId> = spans.iter().map(|span| span.object).collect();
    for object in missing(client, &objects).await? {
        let span = spans.iter().find(|span| span.object == object);
        let span = span.ok_or_else(|| {
            let why = format!("{object} is missing, which was not asked about");
            client::Error::answer(ASKING, Invalid::new(why))
        })?;
        write(client, SENDING, object, span.clone()).await?;
        sent.blobs += 1;
        sent.bytes += object.size;
    }
    Ok(sent)
}

/// Those objects that the daemon does not have.
///
/// # Errors
/// What the daemon says.
pub(crate) async fn missing(client: &Client, objects: &[ObjectId]) -> Result<Vec<ObjectId>, Error> {
    let mut missing = Vec::new();
    for asked in objects.chunks(bounds::BATCH_BLOBS) {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: client.instance(),
            blob_digests: asked.iter().copied().map(reapi_digest).collect(),
            digest_function: sha256(),
        };
        let answer = answered(&client.heard, ASKING, || {
            let request = call(request.clone());
            let mut client = client.blobs.clone();
            async move { client.find_missing_blobs(request).await }
        });
        for digest in answer.await?.missing_blob_digests {
            missing.push(object_id(ASKING, Some(digest))?);
        }
    }
    Ok(missing)
}

impl Content for Span {
    type Error = Error;

    fn pieces(&self, offset: u64) -> Result<impl Pieces<Error = Error>, Error> {
        Ok(Begun { span: self, offset })
    }

    fn lost(error: JoinError) -> Error {
        Error::Process("read a file", error.into())
    }
}

/// A span that is being read. What it turns out to be, the store looks.
struct Begun<'a> {
    span: &'a Span,
    offset: u64,
}

impl Pieces for Begun<'_> {
    type Error = Error;

    fn next(&mut self) -> Result<Vec<u8>, Error> {
        let (span, opened) = (self.span, &self.span.file);
        let left = span.object.size.saturating_sub(self.offset);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut data = vec![0; most.min(bounds::CHUNK_BYTES)];
        let read = opened
            .file
            .read_exact_at(&mut data, span.offset + self.offset);
        read.map_err(|e| unreadable(&opened.path, e))?;
        self.offset += data.len() as u64;
        Ok(data)
    }

    fn check(&mut self, _whole: bool) -> Result<(), Error> {
        Ok(())
    }
}
