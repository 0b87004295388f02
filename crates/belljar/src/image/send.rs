//! Pieces of local files into the daemon's store: only what it does not have yet.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::WriteRequest;
use belljar_core::{Invalid, ObjectId, bounds};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{self, Client, call, object_id, reapi_digest, sha256};
use crate::error::Error;

/// Pieces that wait to be sent.
const PIECES: usize = 4;
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
        let failed = |source| unreadable(path, source);
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("it is not a regular file")));
        }
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
        stream(client, span.clone()).await?;
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
        let answer = client.blobs.clone().find_missing_blobs(call(request)).await;
        let answer = answer.map_err(|status| client::Error::call(ASKING, &status))?;
        for digest in answer.into_inner().missing_blob_digests {
            missing.push(object_id(ASKING, Some(digest))?);
        }
    }
    Ok(missing)
}

async fn stream(client: &Client, span: Span) -> Result<(), Error> {
    let object = span.object;
    let (sender, receiver) = mpsc::channel(PIECES);
    let name = client.resource(&format!(
        "uploads/{}/blobs/{}/{}",
        crate::random::uuid(),
        object.digest.to_hex(),
        object.size
    ));
    let reading = tokio::task::spawn_blocking(move || feed(&span, &name, &sender));
    let requests = ReceiverStream::new(receiver);
    let answer = client.streams.clone().write(requests).await;
    // A file that changed is the better explanation of a stream that the daemon refused.
    let read = reading.await;
    read.map_err(|e| Error::Process("read a file", e.into()))??;
    let answer = answer.map_err(|status| client::Error::call(SENDING, &status))?;
    let committed = answer.into_inner().committed_size;
    if u64::try_from(committed) != Ok(object.size) {
        let why = format!("{committed} bytes of {object} were taken");
        return Err(client::Error::answer(SENDING, Invalid::new(why)).into());
    }
    Ok(())
}

/// Reads piece by piece; stops without an error when the daemon does not want more.
fn feed(span: &Span, name: &str, sender: &mpsc::Sender<WriteRequest>) -> Result<(), Error> {
    let (object, opened) = (span.object, &span.file);
    let mut offset = 0;
    loop {
        let left = object.size - offset;
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut data = vec![0; most.min(bounds::CHUNK_BYTES)];
        let read = opened.file.read_exact_at(&mut data, span.offset + offset);
        read.map_err(|e| unreadable(&opened.path, e))?;
        let begin = offset;
        offset += data.len() as u64;
        let last = offset == object.size;
        let request = WriteRequest {
            resource_name: if begin == 0 {
                name.to_owned()
            } else {
                String::new()
            },
            write_offset: i64::try_from(begin).unwrap_or(i64::MAX),
            finish_write: last,
            data,
        };
        if sender.blocking_send(request).is_err() || last {
            return Ok(());
        }
    }
}
