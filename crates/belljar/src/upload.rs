//! Source trees into the daemon's store: only what it does not have yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::remote::execution::v2::batch_update_blobs_request::Request as Blob;
use bazel_remote_apis::google::bytestream::WriteRequest;
use belljar_core::{Invalid, ObjectId, bounds};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{self, Client, call, object_id, reapi_digest, sha256};
use crate::source::{self, SourceFile, Sources};

/// Batches and streams under way at once.
const AT_ONCE: usize = 8;
/// Blobs in one batch: as many as go to the store together, which makes them durable together.
const BATCH: usize = bounds::DIGESTS_PER_FRAME;
/// Pieces of a file that wait to be sent.
const PIECES: usize = 4;

const ASKING: &str = "asking which inputs are missing";
const SENDING: &str = "uploading the inputs";

/// What went up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploaded {
    /// Blobs that the daemon did not have.
    pub(crate) blobs: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Blobs of the tree in all.
    pub(crate) of: usize,
}

/// Why a tree could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon said no.
    #[error(transparent)]
    Daemon(#[from] client::Error),
    /// A file could not be read again, or is another one by now.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A blob of a batch was refused.
    #[error("{SENDING}: {object} was refused: {message}")]
    Refused {
        /// Which.
        object: ObjectId,
        /// Why.
        message: String,
    },
    /// A task of the upload was lost.
    #[error("{SENDING}: a part of it was lost")]
    Lost(#[from] JoinError),
}

/// Where a blob's content is: which directory or which file of the sources.
#[derive(Clone, Copy, Debug)]
enum Place {
    Directory(usize),
    File(usize),
}

/// Sends what is missing of `sources`.
///
/// # Errors
/// The first thing that goes wrong; what was sent before stays.
pub(crate) async fn upload(client: &Client, sources: &Arc<Sources>) -> Result<Uploaded, Error> {
    let mut blobs: BTreeMap<ObjectId, Place> = BTreeMap::new();
    blobs.extend(
        sources
            .files
            .iter()
            .enumerate()
            .map(|(at, file)| (file.object, Place::File(at))),
    );
    blobs.extend(
        sources
            .directories
            .iter()
            .enumerate()
            .map(|(at, (object, _))| (*object, Place::Directory(at))),
    );
    let missing = missing(client, &blobs).await?;
    let uploaded = Uploaded {
        blobs: missing.len(),
        bytes: missing.iter().map(|(object, _)| object.size).sum(),
        of: blobs.len(),
    };
    let mut tasks = JoinSet::new();
    for portion in portions(missing) {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            done??;
        }
        let (client, sources) = (client.clone(), Arc::clone(sources));
        tasks.spawn(async move {
            match portion {
                Portion::Batch(blobs) => batch(client, sources, blobs).await,
                Portion::Stream(object, place) => stream(client, sources, object, place).await,
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(uploaded)
}

/// Those blobs that the daemon does not have.
async fn missing(
    client: &Client,
    blobs: &BTreeMap<ObjectId, Place>,
) -> Result<Vec<(ObjectId, Place)>, Error> {
    let all: Vec<ObjectId> = blobs.keys().copied().collect();
    let mut missing = Vec::new();
    for asked in all.chunks(bounds::BATCH_BLOBS) {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: asked.iter().copied().map(reapi_digest).collect(),
            digest_function: sha256(),
            instance_name: client.instance(),
        };
        let answer = client.blobs.clone().find_missing_blobs(call(request)).await;
        let answer = answer
            .map_err(|status| client::Error::call(ASKING, &status))?
            .into_inner();
        for digest in answer.missing_blob_digests {
            let object = object_id(ASKING, Some(digest))?;
            let place = blobs.get(&object).ok_or_else(|| {
                client::Error::answer(
                    ASKING,
                    Invalid::new(format!("{object} is missing, which was not asked about")),
                )
            })?;
            missing.push((object, *place));
        }
    }
    Ok(missing)
}

/// What goes up by one call.
enum Portion {
    /// Small blobs, together.
    Batch(Vec<(ObjectId, Place)>),
    /// One large blob.
    Stream(ObjectId, Place),
}

fn portions(missing: Vec<(ObjectId, Place)>) -> Vec<Portion> {
    let most = bounds::BATCH_BYTES as u64;
    let mut portions = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for (object, place) in missing {
        if object.size > most / 4 {
            portions.push(Portion::Stream(object, place));
            continue;
        }
        if !batch.is_empty() && (bytes + object.size > most || batch.len() == BATCH) {
            portions.push(Portion::Batch(std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += object.size;
        batch.push((object, place));
    }
    if !batch.is_empty() {
        portions.push(Portion::Batch(batch));
    }
    portions
}

async fn batch(
    client: Client,
    sources: Arc<Sources>,
    blobs: Vec<(ObjectId, Place)>,
) -> Result<(), Error> {
    let sent = blobs.len();
    let requests = tokio::task::spawn_blocking(move || read_batch(&sources, &blobs)).await??;
    let request = reapi::BatchUpdateBlobsRequest {
        requests,
        digest_function: sha256(),
        instance_name: client.instance(),
    };
    let answer = client.blobs.clone().batch_update_blobs(call(request)).await;
    let answer = answer
        .map_err(|status| client::Error::call(SENDING, &status))?
        .into_inner();
    if answer.responses.len() != sent {
        let reason = format!("{} blobs were answered of {sent}", answer.responses.len());
        return Err(client::Error::answer(SENDING, Invalid::new(reason)).into());
    }
    for response in answer.responses {
        let object = object_id(SENDING, response.digest)?;
        if let Some(status) = response.status.filter(|status| status.code != 0) {
            return Err(Error::Refused {
                object,
                message: status.message,
            });
        }
    }
    Ok(())
}

fn read_batch(sources: &Sources, blobs: &[(ObjectId, Place)]) -> Result<Vec<Blob>, source::Error> {
    let read = |(object, place): &(ObjectId, Place)| {
        let data = match *place {
            Place::Directory(at) => sources.directories[at].1.clone(),
            Place::File(at) => {
                let file = &sources.files[at];
                let opened = sources.open(file)?;
                let mut data = Vec::new();
                (&opened)
                    .take(object.size + 1)
                    .read_to_end(&mut data)
                    .map_err(|e| sources.unreadable(file, e))?;
                sources.unchanged(file, &opened)?;
                if file.remembered && ObjectId::of(&data) != *object {
                    return Err(sources.misremembered(file));
                }
                data
            }
        };
        Ok(Blob {
            digest: Some(reapi_digest(*object)),
            data,
            ..Default::default()
        })
    };
    blobs.iter().map(read).collect()
}

async fn stream(
    client: Client,
    sources: Arc<Sources>,
    object: ObjectId,
    place: Place,
) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let name = client.resource(&format!(
        "uploads/{}/blobs/{}/{}",
        crate::random::uuid(),
        object.digest.to_hex(),
        object.size
    ));
    let reading =
        tokio::task::spawn_blocking(move || send(&sources, object, place, &name, &sender));
    let answer = client
        .streams
        .clone()
        .write(ReceiverStream::new(receiver))
        .await;
    // A file that changed is the better explanation of a stream that the daemon refused.
    reading.await??;
    let committed = answer
        .map_err(|status| client::Error::call(SENDING, &status))?
        .into_inner()
        .committed_size;
    if u64::try_from(committed) != Ok(object.size) {
        let reason = format!("{committed} bytes of {object} were taken");
        return Err(client::Error::answer(SENDING, Invalid::new(reason)).into());
    }
    Ok(())
}

/// Sends a blob piece by piece; stops without an error when the daemon does not want more.
fn send(
    sources: &Sources,
    object: ObjectId,
    place: Place,
    name: &str,
    sender: &mpsc::Sender<WriteRequest>,
) -> Result<(), source::Error> {
    let mut content = Content::open(sources, place)?;
    let mut offset = 0_u64;
    loop {
        let data = content.next()?;
        let end = offset + data.len() as u64;
        let last = end >= object.size;
        if last || data.is_empty() {
            // Before the last piece, so that what changed meanwhile is never committed.
            content.check(end == object.size)?;
        }
        let request = WriteRequest {
            resource_name: if offset == 0 {
                name.to_owned()
            } else {
                String::new()
            },
            write_offset: i64::try_from(offset).unwrap_or(i64::MAX),
            finish_write: last,
            data,
        };
        if sender.blocking_send(request).is_err() || last {
            return Ok(());
        }
        offset = end;
    }
}

/// A blob that is being read.
enum Content<'a> {
    Directory(std::slice::Chunks<'a, u8>),
    File(&'a Sources, &'a SourceFile, File),
}

impl<'a> Content<'a> {
    fn open(sources: &'a Sources, place: Place) -> Result<Self, source::Error> {
        Ok(match place {
            Place::Directory(at) => {
                Self::Directory(sources.directories[at].1.chunks(bounds::CHUNK_BYTES))
            }
            Place::File(at) => {
                let file = &sources.files[at];
                Self::File(sources, file, sources.open(file)?)
            }
        })
    }

    /// The next piece; empty at the end.
    fn next(&mut self) -> Result<Vec<u8>, source::Error> {
        match self {
            Self::Directory(chunks) => Ok(chunks.next().unwrap_or_default().to_vec()),
            Self::File(sources, file, opened) => {
                let mut data = vec![0; bounds::CHUNK_BYTES];
                let read = opened
                    .read(&mut data)
                    .map_err(|e| sources.unreadable(file, e))?;
                data.truncate(read);
                Ok(data)
            }
        }
    }

    /// Whether it is still what was hashed, seen from its end.
    fn check(&self, whole: bool) -> Result<(), source::Error> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::File(sources, file, opened) => {
                sources.unchanged(file, opened)?;
                if whole {
                    Ok(())
                } else {
                    Err(source::Error::Changed(file.path.clone()))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Daemon;
    use crate::source::Selection;
    use std::path::Path;

    fn collect(dir: &Path) -> Arc<Sources> {
        let selection = Selection {
            dir,
            output: None,
            ask_git: false,
            memory: None,
        };
        Arc::new(Sources::collect(selection).unwrap())
    }

    #[tokio::test]
    async fn only_what_is_missing_goes_up_and_arrives_whole() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..250 {
            std::fs::write(dir.path().join(format!("f{n}")), n.to_string()).unwrap();
        }
        std::fs::write(dir.path().join("empty"), "").unwrap();
        let large: Vec<u8> = (0..=250).cycle().take(bounds::BATCH_BYTES).collect();
        std::fs::write(dir.path().join("large"), &large).unwrap();
        let daemon = Daemon::start().await;
        let known = ObjectId::of(b"7");
        daemon
            .state
            .lock()
            .unwrap()
            .blobs
            .insert(known, b"7".to_vec());
        let sources = collect(dir.path());
        let uploaded = upload(&daemon.client, &sources).await.unwrap();
        assert_eq!(
            (uploaded.blobs, uploaded.of),
            (252, 253),
            "250 files, an empty and a large one, a directory, less one"
        );
        {
            let state = daemon.state.lock().unwrap();
            assert_eq!(state.streamed.len(), 1);
            assert!(
                state.batches.iter().all(|count| *count <= BATCH),
                "{:?}",
                state.batches
            );
            assert_eq!(state.blobs[&ObjectId::of(&large)], large);
            assert!(state.blobs.contains_key(&sources.tree));
            assert!(
                sources
                    .files
                    .iter()
                    .all(|file| state.blobs.contains_key(&file.object))
            );
        }
        assert_eq!(upload(&daemon.client, &sources).await.unwrap().blobs, 0);
    }

    #[tokio::test]
    async fn a_file_that_changed_since_is_told_and_never_committed() {
        for size in [5, bounds::BATCH_BYTES] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("changing");
            std::fs::write(&path, vec![1; size]).unwrap();
            let sources = collect(dir.path());
            std::fs::write(&path, vec![2; size]).unwrap();
            let daemon = Daemon::start().await;
            let refused = upload(&daemon.client, &sources).await.unwrap_err();
            assert!(
                matches!(refused, Error::Source(source::Error::Changed(_))),
                "{refused}"
            );
            assert!(
                !daemon
                    .state
                    .lock()
                    .unwrap()
                    .blobs
                    .contains_key(&sources.files[0].object)
            );
        }
    }
}
