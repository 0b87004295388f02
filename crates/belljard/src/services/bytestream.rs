use std::io;

use belljar_core::{BlobName, Invalid};
use belljar_policy::Right;
use belljar_wire::Problem;
use belljar_wire::bytestream::byte_stream_server::ByteStream;
use belljar_wire::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest,
    WriteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::Caller;
use super::objects::Objects;
use super::receive::{committed, length, receive};
use super::resource::{Form, of_instance, to_read};
use super::taker::{self, Outlet, Part};
use super::zstd;
use crate::tasks::Feed;

/// `google.bytestream.ByteStream`: blobs of any size, in constant memory, as they are or packed by zstd. An
/// upload that broke off can be gone on with for a while; a download from any position.
pub(crate) struct ByteStreams(Objects);

impl ByteStreams {
    pub(crate) fn new(objects: Objects) -> Self {
        Self(objects)
    }
}

#[tonic::async_trait]
impl ByteStream for ByteStreams {
    type ReadStream = Feed<Result<ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (named, name) = of_instance(&request.resource_name).map_err(Problem::invalid)?;
        let project = caller.project("resource_name", named, &[Right::Read])?;
        let shelf = self.0.of(&caller, project);
        let download = to_read(name).map_err(Problem::invalid)?;
        let blob = download.blob;
        let (skip, take) = part(&request, blob, download.form)?;
        let permit = shelf.download().await?;
        let packing = match download.form {
            Form::Identity => None,
            Form::Zstd => Some(shelf.zstd().await?),
        };
        let (object, content) = shelf.open(blob).await?;
        Ok(Response::new(taker::stream(
            "read",
            (permit, packing),
            move |taker| {
                let mut part = Part::new(content, skip, take);
                let mut outlet =
                    Outlet::new(taker, |data: Vec<u8>| ReadResponse { data: data.into() });
                let copied = match download.form {
                    Form::Identity => io::copy(&mut part, &mut outlet).map(drop),
                    Form::Zstd => zstd::pack(&mut part, &mut outlet),
                };
                outlet.finish(copied, object)
            },
        )))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = Caller::of(&request)?;
        let committed_size = receive(&self.0, &caller, request.into_inner()).await?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = &request.get_ref().resource_name;
        let (blob, committed) = committed(&self.0, &caller, name).await?;
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: length(committed.unwrap_or(blob.size)),
            complete: committed.is_none(),
        }))
    }
}

/// How many bytes to skip and how many to take then, as `ByteStream` has it.
fn part(request: &ReadRequest, blob: BlobName, form: Form) -> Result<(u64, u64), Problem> {
    let skip = u64::try_from(request.read_offset).ok();
    let skip = skip.filter(|skip| *skip <= blob.size).ok_or_else(|| {
        let reason = format!("{}; the blob has {} bytes", request.read_offset, blob.size);
        Problem::out_of_range(Invalid::field("read_offset", reason))
    })?;
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| Invalid::field("read_limit", "a negative number"))?;
    if limit > 0 && form == Form::Zstd {
        let reason = "packed content has no limit (REAPI); read it to its end";
        return Err(Invalid::field("read_limit", reason).into());
    }
    let left = blob.size - skip;
    let take = if limit == 0 { left } else { left.min(limit) };
    Ok((skip, take))
}
