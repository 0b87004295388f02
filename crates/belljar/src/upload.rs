//! Source trees into the daemon's store: only what it does not have yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::remote::execution::v2::batch_update_blobs_request::Request as Blob;
use belljar_core::{Hasher, Invalid, ObjectId, bounds};
use tokio::task::{JoinError, JoinSet};

use crate::client::{self, Client, call, object_id, reapi_digest, sha256};
use crate::patience::answered;
use crate::source::{self, SourceFile, Sources};
use crate::write::{Content, Pieces, write};

/// Batches and streams under way at once.
const AT_ONCE: usize = 8;
/// Blobs in one batch: as many as go to the store together, which makes them durable together.
const BATCH: usize = bounds::DIGESTS_PER_FRAME;

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
                Portion::Stream(object, place) => {
                    let large = Large {
                        sources,
                        object,
                        place,
                    };
                    write(&client, SENDING, object, large).await
                }
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
        let answer = answered(&client.heard, ASKING, || {
            let request = call(request.clone());
            let mut client = client.blobs.clone();
            async move { client.find_missing_blobs(request).await }
        });
        let answer = answer.await?;
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
    let answer = answered(&client.heard, SENDING, || {
        let request = call(request.clone());
        let mut client = client.blobs.clone();
        async move { client.batch_update_blobs(request).await }
    });
    let answer = answer.await?;
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

/// One large blob, which is sent by itself.
struct Large {
    sources: Arc<Sources>,
    object: ObjectId,
    place: Place,
}

impl Content for Large {
    type Error = Error;

    fn pieces(&self, offset: u64) -> Result<impl Pieces<Error = Error>, Error> {
        let mut begun = Begun {
            sources: &self.sources,
            object: self.object,
            from: match self.place {
                Place::Directory(at) => Origin::Directory(&self.sources.directories[at].1),
                Place::File(at) => {
                    let file = &self.sources.files[at];
                    Origin::File(file, self.sources.open(file)?)
                }
            },
            offset,
            seen: None,
        };
        begun.look_back()?;
        Ok(begun)
    }

    fn lost(error: JoinError) -> Error {
        Error::Lost(error)
    }
}

/// A blob that is being read.
struct Begun<'a> {
    sources: &'a Sources,
    object: ObjectId,
    from: Origin<'a>,
    offset: u64,
    /// Of a file whose content is remembered: what was read of it, from its beginning on.
    seen: Option<Hasher>,
}

enum Origin<'a> {
    Directory(&'a [u8]),
    File(&'a SourceFile, File),
}

impl Begun<'_> {
    /// Where content is remembered, also what went up before is looked at: a digest is of the whole.
    fn look_back(&mut self) -> Result<(), Error> {
        let Origin::File(file, _) = &self.from else {
            return Ok(());
        };
        if !file.remembered {
            return Ok(());
        }
        self.seen = Some(Hasher::new());
        let until = std::mem::take(&mut self.offset);
        while self.offset < until {
            let most = usize::try_from(until - self.offset).unwrap_or(usize::MAX);
            if self.read(most)?.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, most: usize) -> Result<Vec<u8>, Error> {
        let most = most.min(bounds::CHUNK_BYTES);
        let data = match &self.from {
            Origin::Directory(bytes) => {
                let at = usize::try_from(self.offset).unwrap_or(usize::MAX);
                let rest = bytes.get(at..).unwrap_or_default();
                rest[..rest.len().min(most)].to_vec()
            }
            Origin::File(file, opened) => {
                let mut data = vec![0; most];
                let read = opened
                    .read_at(&mut data, self.offset)
                    .map_err(|e| self.sources.unreadable(file, e))?;
                data.truncate(read);
                data
            }
        };
        self.offset += data.len() as u64;
        if let Some(seen) = &mut self.seen {
            seen.update(&data);
        }
        Ok(data)
    }
}

impl Pieces for Begun<'_> {
    type Error = Error;

    fn next(&mut self) -> Result<Vec<u8>, Error> {
        self.read(bounds::CHUNK_BYTES)
    }

    fn check(&mut self, whole: bool) -> Result<(), Error> {
        let Origin::File(file, opened) = &self.from else {
            return Ok(());
        };
        self.sources.unchanged(file, opened)?;
        if !whole {
            return Err(source::Error::Changed(file.path.clone()).into());
        }
        let seen = self.seen.take().map(Hasher::finish);
        if seen.is_some_and(|seen| seen != self.object.digest) {
            return Err(self.sources.misremembered(file).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{BREAK, Daemon};
    use crate::source::Selection;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

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

    #[tokio::test]
    async fn a_broken_upload_goes_on_where_it_broke() {
        let dir = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..=250).cycle().take(1_500_000).collect();
        std::fs::write(dir.path().join("large"), &large).unwrap();
        let pieces = BREAK.next_multiple_of(bounds::CHUNK_BYTES);
        for (breaks, late, begun) in [
            (2, 0, vec![0, pieces, 2 * pieces]),
            // What was on its way when it was asked for has come meanwhile.
            (1, 1, vec![0, pieces - 100_000, pieces]),
        ] {
            let daemon = Daemon::start().await;
            {
                let mut state = daemon.state.lock().unwrap();
                (state.breaks, state.late) = (breaks, late);
            }
            upload(&daemon.client, &collect(dir.path())).await.unwrap();
            let state = daemon.state.lock().unwrap();
            assert_eq!(state.begun, begun);
            assert_eq!(state.blobs[&ObjectId::of(&large)], large);
        }
    }

    /// Collects with a memory in `home`, in which everything has come to rest.
    fn remember(dir: &Path, home: &Path) -> Sources {
        let now = SystemTime::now() + Duration::from_secs(60);
        Sources::collect(Selection {
            dir,
            output: None,
            ask_git: false,
            memory: Some(source::Memory { home, now }),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn content_that_is_not_what_was_remembered_is_told_and_forgotten() {
        for size in [5, bounds::BATCH_BYTES] {
            let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            std::fs::write(dir.path().join("file"), vec![1; size]).unwrap();
            let right = remember(dir.path(), home.path()).files[0].object;
            // A record that is sound in itself, of a digest that is not the file's.
            let shelf = std::fs::read_dir(home.path().join("belljar")).unwrap();
            let kept = shelf.map(|entry| entry.unwrap().path()).next().unwrap();
            let mut record = std::fs::read(&kept).unwrap();
            record.truncate(record.len() - 32);
            let at = record.len() - 32;
            record[at..].fill(7);
            record.extend(belljar_core::Digest::of(&record).as_bytes());
            std::fs::write(&kept, record).unwrap();
            let sources = Arc::new(remember(dir.path(), home.path()));
            assert!(sources.files[0].remembered && sources.files[0].object != right);
            for breaks in [0, 1] {
                let daemon = Daemon::start().await;
                daemon.state.lock().unwrap().breaks = breaks;
                let refused = upload(&daemon.client, &sources).await.unwrap_err();
                let changed = matches!(refused, Error::Source(source::Error::Changed(_)));
                assert!(changed, "{refused}");
                assert!(
                    !daemon
                        .state
                        .lock()
                        .unwrap()
                        .blobs
                        .contains_key(&sources.files[0].object)
                );
            }
            let sources = remember(dir.path(), home.path());
            assert!(!sources.files[0].remembered && sources.files[0].object == right);
        }
    }
}
