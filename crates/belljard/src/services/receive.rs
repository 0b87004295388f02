//! One upload by `ByteStream.Write`.

use std::time::{Duration, Instant};

use belljar_core::{BlobName, Invalid, ObjectId, bounds};
use belljar_policy::Right;
use belljar_wire::Problem;
use belljar_wire::bytestream::WriteRequest;
use tokio::time::timeout;
use tonic::codegen::Bytes;
use tonic::{Status, Streaming};

use super::objects::{Objects, Shelf, upload_key};
use super::resource::{Form, Upload, of_instance, to_write};
use super::unpacker::Unpacker;
use super::zstd::Malformed;
use super::{Caller, refused};
use crate::peers::{Put, PutError};

/// How long a client may need for the next [`bounds::PACE_BYTES`].
const PATIENCE: Duration = Duration::from_secs(bounds::PACE_SECONDS);

/// Takes an upload to its end. Gives what `WriteResponse.committed_size` has to say.
pub(super) async fn receive(
    objects: &Objects,
    caller: &Caller,
    messages: Streaming<WriteRequest>,
) -> Result<i64, Status> {
    let (name, incoming) = Incoming::begin(messages).await?;
    let (shelf, upload) = named(objects, caller, &name)?;
    let Upload { blob, form, .. } = upload;
    if blob.size > bounds::BLOB_BYTES {
        let reason = format!(
            "{} bytes; a blob may have {}",
            blob.size,
            bounds::BLOB_BYTES
        );
        return Err(Problem::invalid(Invalid::field("resource_name", reason)).into());
    }
    // REAPI: what is there already is answered at once.
    if shelf.contains(blob).await? {
        return Ok(match form {
            Form::Identity => length(blob.size),
            Form::Zstd => -1,
        });
    }
    let key = upload_key(caller.identity(), shelf.project(), &upload.uuid, blob);
    let permit = match form {
        Form::Identity => None,
        Form::Zstd => Some(shelf.zstd().await?),
    };
    let _turn = shelf.upload().await?;
    let (sender, offset) = (shelf.sender(), incoming.offset);
    let put = shelf.store().resume(key, sender, blob, offset).await;
    let put = put.map_err(|e| refused(&e))?.map_err(|committed| {
        let due = format!("{committed} is due, as QueryWriteStatus says, or 0 to begin again");
        wrong_offset(offset, &due)
    })?;
    let object = match permit {
        None => plain(incoming, put).await,
        Some(permit) => {
            let unpacker = Unpacker::start(put.left(), permit);
            packed(incoming, put, unpacker).await
        }
    }?;
    // Before it is answered: who has sent it all has it.
    shelf.take(&[(blob, object)]).await?;
    Ok(length(blob.size))
}

/// Whose upload a resource name is, and which.
fn named(objects: &Objects, caller: &Caller, name: &str) -> Result<(Shelf, Upload), Problem> {
    let (project, rest) = of_instance(name)?;
    let project = caller.project("resource_name", project, &[Right::Submit])?;
    Ok((objects.of(caller, project), to_write(rest)?))
}

/// A length as the protocol has it.
pub(super) fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Content as it is. The last piece waits until the client says that it is the last: only then it is the
/// store's turn to decide.
async fn plain(mut incoming: Incoming, mut put: Put) -> Result<ObjectId, Status> {
    let mut last: Option<Bytes> = None;
    while let Some((data, finish)) = incoming.next().await? {
        let more = last.is_some() && !data.is_empty();
        if more || data.len() as u64 > put.left() {
            put.forget().await;
            return Err(too_long());
        }
        let piece = last.take().unwrap_or(data);
        if piece.len() as u64 == put.left() && !finish {
            last = Some(piece);
            continue;
        }
        put.write(&piece).await.map_err(|e| refused(&e))?;
        if finish {
            return end(put).await;
        }
    }
    Err(unfinished())
}

/// Packed content. What comes out of it is written while more of it comes in; the last byte waits as the last piece of plain
/// content does.
async fn packed(
    mut incoming: Incoming,
    mut put: Put,
    unpacker: Unpacker,
) -> Result<ObjectId, Status> {
    let Unpacker {
        packed,
        mut unpacked,
    } = unpacker;
    let feed = async move {
        while let Some((data, finish)) = incoming.next().await.map_err(Refusal::Broken)? {
            // Who takes no more says why, at the other end.
            if packed.send(data).await.is_err() || finish {
                return Ok(());
            }
        }
        Err(Refusal::Broken(unfinished()))
    };
    let drain = async {
        let mut last = None;
        while let Some(piece) = unpacked.recv().await {
            let mut piece = piece.map_err(Refusal::Content)?;
            if piece.len() as u64 == put.left() {
                // Behind it there comes nothing but the end, or a reason why not.
                last = piece.pop();
            }
            put.write(&piece).await.map_err(Refusal::Store)?;
        }
        Ok(last)
    };
    match tokio::try_join!(feed, drain) {
        Ok(((), last)) => {
            if let Some(last) = last {
                put.write(&[last]).await.map_err(|e| refused(&e))?;
            }
            end(put).await
        }
        Err(Refusal::Broken(status)) => Err(status),
        Err(Refusal::Store(error)) => Err(refused(&error)),
        Err(Refusal::Content(why)) => {
            put.forget().await;
            Err(refused(&PutError::Content(why.to_string())))
        }
    }
}

/// Why packed content was not taken.
enum Refusal {
    /// The client broke off; it may go on later.
    Broken(Status),
    /// It sent something else than it should.
    Content(Malformed),
    Store(PutError),
}

/// The client has said that all has come. Gives the object that it is.
async fn end(put: Put) -> Result<ObjectId, Status> {
    if put.left() > 0 {
        let why = format!("{} bytes less came than were announced", put.left());
        put.forget().await;
        return Err(refused(&PutError::Content(why)));
    }
    put.received().await.map_err(|e| refused(&e))
}

fn too_long() -> Status {
    let why = "more content came than was announced";
    refused(&PutError::Content(why.to_owned()))
}

fn unfinished() -> Status {
    let reason = "the stream ended without it; go on where QueryWriteStatus says";
    Problem::invalid(Invalid::field("finish_write", reason)).into()
}

fn wrong_offset(found: u64, due: &str) -> Status {
    Problem::invalid(Invalid::field(
        "write_offset",
        format!("{found} where {due}"),
    ))
    .into()
}

/// The messages of one upload, each checked to belong where it stands.
struct Incoming {
    messages: Streaming<WriteRequest>,
    first: Option<WriteRequest>,
    name: String,
    /// Where the next message must begin.
    offset: u64,
    pace: Pace,
}

impl Incoming {
    async fn begin(messages: Streaming<WriteRequest>) -> Result<(String, Self), Status> {
        let mut this = Self {
            messages,
            first: None,
            name: String::new(),
            offset: 0,
            pace: Pace::new(PATIENCE),
        };
        let missing = || {
            let reason = "missing; the first message must name what is written";
            Problem::invalid(Invalid::field("resource_name", reason))
        };
        let first = this.message().await?.ok_or_else(missing)?;
        if first.resource_name.is_empty() {
            return Err(missing().into());
        }
        this.name.clone_from(&first.resource_name);
        this.offset = u64::try_from(first.write_offset).map_err(|_| {
            let reason = format!("{} is not a position", first.write_offset);
            Problem::invalid(Invalid::field("write_offset", reason))
        })?;
        this.first = Some(first);
        Ok((this.name.clone(), this))
    }

    /// The next content, and whether it is the last; none when the client has ended the stream.
    async fn next(&mut self) -> Result<Option<(Bytes, bool)>, Status> {
        let message = match self.first.take() {
            Some(first) => first,
            None => match self.message().await? {
                Some(message) => message,
                None => return Ok(None),
            },
        };
        if !message.resource_name.is_empty() && message.resource_name != self.name {
            let reason = "another one than in the first message";
            return Err(Problem::invalid(Invalid::field("resource_name", reason)).into());
        }
        if u64::try_from(message.write_offset) != Ok(self.offset) {
            let found = message.write_offset;
            let reason = format!("{found} where {} is due", self.offset);
            return Err(Problem::invalid(Invalid::field("write_offset", reason)).into());
        }
        self.offset = self.offset.saturating_add(message.data.len() as u64);
        self.pace.came(message.data.len() as u64);
        Ok(Some((message.data, message.finish_write)))
    }

    async fn message(&mut self) -> Result<Option<WriteRequest>, Status> {
        self.pace.keep(self.messages.message()).await?
    }
}

/// How fast a client must be: only the time counts that is spent waiting for it.
struct Pace {
    patience: Duration,
    left: Duration,
    bytes: u64,
}

impl Pace {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            left: patience,
            bytes: 0,
        }
    }

    /// Waits for the client, as long as it may need.
    async fn keep<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Status> {
        let since = Instant::now();
        let next = timeout(self.left, next).await;
        self.left = self.left.saturating_sub(since.elapsed());
        next.map_err(|_| {
            let why = format!(
                "less than {} bytes came in {} seconds; go on where QueryWriteStatus says",
                bounds::PACE_BYTES,
                self.patience.as_secs()
            );
            Problem::unavailable(why).into()
        })
    }

    fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= bounds::PACE_BYTES {
            self.bytes = 0;
            self.left = self.patience;
        }
    }
}

/// How much of an upload is there.
pub(super) async fn committed(
    objects: &Objects,
    caller: &Caller,
    name: &str,
) -> Result<(BlobName, Option<u64>), Status> {
    let (shelf, upload) = named(objects, caller, name)?;
    let blob = upload.blob;
    if shelf.contains(blob).await? {
        return Ok((blob, None));
    }
    let key = upload_key(caller.identity(), shelf.project(), &upload.uuid, blob);
    let committed = shelf.store().committed(key, blob).await;
    Ok((blob, Some(committed.map_err(|e| refused(&e))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_drips_is_as_slow_as_one_that_is_silent() {
        let mut pace = Pace::new(Duration::from_millis(200));
        let silent = pace.keep(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(silent.code(), tonic::Code::Unavailable);
        let mut pace = Pace::new(Duration::from_millis(200));
        let drip = || tokio::time::sleep(Duration::from_millis(30));
        let mut drops = 0;
        while pace.keep(drip()).await.is_ok() {
            pace.came(1);
            drops += 1;
        }
        assert!((1..=7).contains(&drops), "{drops}");
        // Whoever sends enough has its time again.
        let mut pace = Pace::new(Duration::from_millis(200));
        for _ in 0..20 {
            pace.keep(drip()).await.unwrap();
            pace.came(bounds::PACE_BYTES);
        }
    }
}
