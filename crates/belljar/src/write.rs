//! One blob into the daemon's store, by `ByteStream.Write`: after a broken connection it goes on where it broke.

use std::sync::Arc;

use bazel_remote_apis::google::bytestream::{QueryWriteStatusRequest, WriteRequest};
use belljar_core::{Invalid, ObjectId};
use belljar_wire::Problem;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::client::{self, Client, call};
use crate::patience::{Patience, answered};

/// Pieces that wait to be sent.
const PIECES: usize = 4;

/// What goes up. It may be read more than once.
pub(crate) trait Content: Send + Sync + 'static {
    /// Why it cannot be read, or not be sent.
    type Error: From<client::Error> + Send + 'static;

    /// Its pieces from `offset` on.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was announced.
    fn pieces(&self, offset: u64) -> Result<impl Pieces<Error = Self::Error>, Self::Error>;

    /// The thread that read it was lost.
    fn lost(error: JoinError) -> Self::Error;
}

/// Content that is being read.
pub(crate) trait Pieces {
    /// As [`Content::Error`].
    type Error;

    /// The next piece; empty at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    fn next(&mut self) -> Result<Vec<u8>, Self::Error>;

    /// Looks, before the last piece goes, whether what was read is what was announced. `whole` says whether it has
    /// that length.
    ///
    /// # Errors
    /// When it is not.
    fn check(&mut self, whole: bool) -> Result<(), Self::Error>;
}

/// Sends `object`.
///
/// # Errors
/// When it cannot be read, or the daemon does not take it, or is lost for too long without progress.
pub(crate) async fn write<C: Content>(
    client: &Client,
    doing: &'static str,
    object: ObjectId,
    content: C,
) -> Result<(), C::Error> {
    let content = Arc::new(content);
    let name = client.resource(&format!(
        "uploads/{}/blobs/{}/{}",
        crate::random::uuid(),
        object.digest.to_hex(),
        object.size
    ));
    let mut patience = Patience::new();
    let mut offset = 0;
    loop {
        let status = match once(client, object, &content, &name, offset).await? {
            Ok(size) if u64::try_from(size) == Ok(object.size) => return Ok(()),
            Ok(size) => return Err(taken(doing, object, size).into()),
            Err(status) => status,
        };
        let waited = if offset > 0 && is_elsewhere(&status) {
            patience.spend(status).await
        } else {
            patience.wait(status).await
        };
        waited.map_err(|status| client::Error::call(doing, &status))?;
        let before = std::mem::replace(&mut offset, committed(client, doing, &name).await?);
        if offset > object.size {
            return Err(taken(doing, object, i64::try_from(offset).unwrap_or(i64::MAX)).into());
        }
        if offset > before {
            patience.renew();
        }
    }
}

/// One try, from `offset` on. Gives how much of it the daemon has then, or how the call failed.
async fn once<C: Content>(
    client: &Client,
    object: ObjectId,
    content: &Arc<C>,
    name: &str,
    offset: u64,
) -> Result<Result<i64, Status>, C::Error> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (content, name) = (Arc::clone(content), name.to_owned());
    let reading = spawn_blocking(move || feed(&*content, object, &name, offset, &sender));
    let requests = ReceiverStream::new(receiver);
    let answer = client.streams.clone().write(requests).await;
    // A file that changed is the better explanation of a stream that the daemon refused.
    reading.await.map_err(C::lost)??;
    Ok(answer.map(|answer| answer.into_inner().committed_size))
}

/// How much of an upload the daemon has.
async fn committed(client: &Client, doing: &'static str, name: &str) -> Result<u64, client::Error> {
    let status = answered(&client.heard, doing, || {
        let request = QueryWriteStatusRequest {
            resource_name: name.to_owned(),
        };
        let mut client = client.streams.clone();
        let request = call(request);
        async move { client.query_write_status(request).await }
    });
    let committed = status.await?.committed_size;
    u64::try_from(committed).map_err(|_| {
        let negative = Invalid::field("committed_size", "negative");
        client::Error::answer(doing, negative)
    })
}

/// Whether a write was refused because it began at another place than where the upload stands: what came before
/// the break was still on its way when that was asked.
fn is_elsewhere(status: &Status) -> bool {
    let fields = Problem::from_status(status).fields;
    fields.iter().any(|invalid| invalid.field == "write_offset")
}

fn taken(doing: &'static str, object: ObjectId, size: i64) -> client::Error {
    let reason = format!("{size} bytes of {object} were taken");
    client::Error::answer(doing, Invalid::new(reason))
}

/// Sends piece by piece; stops without an error when the daemon does not want more.
fn feed<C: Content>(
    content: &C,
    object: ObjectId,
    name: &str,
    begin: u64,
    sender: &mpsc::Sender<WriteRequest>,
) -> Result<(), C::Error> {
    let mut pieces = content.pieces(begin)?;
    let mut offset = begin;
    loop {
        let data = pieces.next()?;
        let end = offset + data.len() as u64;
        let last = end >= object.size;
        if last || data.is_empty() {
            // Before the last piece, so that what changed meanwhile is never committed.
            pieces.check(end == object.size)?;
        }
        let request = WriteRequest {
            resource_name: if offset == begin {
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
