use std::io::{self, Read};
use std::sync::Arc;

use bazel_remote_apis::google::bytestream::byte_stream_server::ByteStream;
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest,
    WriteResponse,
};
use belljar_cas::{BlobSource, ReadError, VerifyingRead};
use belljar_core::{Invalid, ObjectId, bounds};
use belljar_wire::Problem;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};

use super::blobs::unreadable;
use super::resource::{to_read, to_write};
use super::{internal, refused};
use crate::peers::StoreClient;
use crate::tasks::{self, Feed};

/// `google.bytestream.ByteStream`: blobs of any size, in constant memory. Nothing can be resumed in the
/// middle yet; whoever is interrupted begins again.
pub(crate) struct ByteStreams {
    source: Arc<dyn BlobSource>,
    store: StoreClient,
}

/// An object being read and verified.
type Content = VerifyingRead<Box<dyn Read + Send>>;

impl ByteStreams {
    pub(crate) fn new(source: Arc<dyn BlobSource>, store: StoreClient) -> Self {
        Self { source, store }
    }

    async fn contains(&self, object: ObjectId) -> Result<bool, Status> {
        let source = self.source.clone();
        let found = spawn_blocking(move || source.contains(object));
        let found = found
            .await
            .map_err(|e| internal("the store could not be read", &e))?;
        found.map_err(|e| internal("the store could not be read", &e))
    }
}

#[tonic::async_trait]
impl ByteStream for ByteStreams {
    type ReadStream = Feed<Result<ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let object = to_read(&request.resource_name).map_err(Problem::invalid)?;
        if request.read_offset != 0 {
            return Err(Problem::unsupported(
                "read_offset: reading from the middle is not supported yet",
            )
            .into());
        }
        let whole =
            u64::try_from(request.read_limit).is_ok_and(|limit| limit == 0 || limit >= object.size);
        if !whole {
            return Err(
                Problem::unsupported("read_limit: reading a part is not supported yet").into(),
            );
        }
        let source = self.source.clone();
        let content = spawn_blocking(move || source.read(object));
        let content = content
            .await
            .map_err(|e| internal("the store could not be read", &e))?
            .map_err(unreadable)?;
        let mut content = VerifyingRead::new(content, object);
        Ok(Response::new(tasks::feed(
            "read",
            2,
            move |sender| async move {
                // One piece stays behind until the next was read: whoever has received all of them has
                // received the object, since only a verified one is read to its end.
                let mut held: Option<Vec<u8>> = None;
                loop {
                    let read = next_piece(content, object).await;
                    let (rest, piece) = match read {
                        Ok(read) => read,
                        Err(status) => {
                            // Who no longer listens needs no reason.
                            let _ = sender.send(Err(status)).await;
                            return;
                        }
                    };
                    content = rest;
                    let end = piece.is_empty();
                    if let Some(data) = held.replace(piece)
                        && sender.send(Ok(ReadResponse { data })).await.is_err()
                    {
                        return;
                    }
                    if end {
                        return;
                    }
                }
            },
        )))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let missing = || {
            Invalid::field(
                "resource_name",
                "missing; the first message must name what is written",
            )
        };
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Problem::invalid(missing()))?;
        let object = to_write(&first.resource_name).map_err(Problem::invalid)?;
        if object.size > bounds::BLOB_BYTES {
            let reason = format!(
                "{} bytes; a blob may have {}",
                object.size,
                bounds::BLOB_BYTES
            );
            return Err(Problem::invalid(Invalid::field("resource_name", reason)).into());
        }
        let committed = i64::try_from(object.size).unwrap_or(i64::MAX);
        if self.contains(object).await? {
            // REAPI: what is there already is answered at once.
            return Ok(Response::new(WriteResponse {
                committed_size: committed,
            }));
        }
        let name = first.resource_name.clone();
        let mut put = self.store.begin(object).await.map_err(|e| refused(&e))?;
        let (mut next, mut offset) = (Some(first), 0_u64);
        while let Some(message) = next {
            if !message.resource_name.is_empty() && message.resource_name != name {
                let reason = "another one than in the first message";
                return Err(Problem::invalid(Invalid::field("resource_name", reason)).into());
            }
            if u64::try_from(message.write_offset) != Ok(offset) {
                let reason = format!(
                    "{} where {offset} is due; begin again at 0",
                    message.write_offset
                );
                return Err(Problem::invalid(Invalid::field("write_offset", reason)).into());
            }
            offset += message.data.len() as u64;
            put.write(&message.data).await.map_err(|e| refused(&e))?;
            if message.finish_write {
                put.finish().await.map_err(|e| refused(&e))?;
                return Ok(Response::new(WriteResponse {
                    committed_size: committed,
                }));
            }
            next = messages.message().await?;
        }
        let reason = "the stream ended without it; nothing was kept";
        Err(Problem::invalid(Invalid::field("finish_write", reason)).into())
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let object = to_write(&request.get_ref().resource_name).map_err(Problem::invalid)?;
        let complete = self.contains(object).await?;
        // What was interrupted leaves nothing: all of it, or none.
        let committed_size = if complete {
            i64::try_from(object.size).unwrap_or(i64::MAX)
        } else {
            0
        };
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size,
            complete,
        }))
    }
}

/// Reads on, on a thread that may block; an empty piece is the verified end.
async fn next_piece(mut content: Content, object: ObjectId) -> Result<(Content, Vec<u8>), Status> {
    let read = spawn_blocking(move || {
        let mut piece = vec![0; bounds::READ_CHUNK_BYTES];
        let mut length = 0;
        while length < piece.len() {
            match content.read(&mut piece[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { object, source }),
            }
        }
        piece.truncate(length);
        Ok((content, piece))
    });
    read.await
        .map_err(|e| internal("an object could not be read", &e))?
        .map_err(unreadable)
}
