use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_cas::ReadError;
use belljar_core::BlobName;
use belljar_policy::Right;
use belljar_wire::{Problem, Reason};
use reapi::content_addressable_storage_server::ContentAddressableStorage;
use tonic::{Request, Response, Status, Streaming};

use super::batch::{self, digest_of, names};
use super::objects::{Objects, Shelf};
use super::resource::{Function, instance};
use super::taker;
use super::tree::Walk;
use super::{Caller, internal};
use crate::tasks::Feed;

/// REAPI `ContentAddressableStorage`: many small blobs at once, and trees. Reads come straight from the
/// objects, writes go to the store. Each project has its own blobs: those of others are, for it, not there, and
/// what another has sent already must be sent all the same.
pub(crate) struct Blobs(Objects);

impl Blobs {
    pub(crate) fn new(objects: Objects) -> Self {
        Self(objects)
    }

    /// The blobs of the instance that a request names, if its caller has one of these rights to them; and by which
    /// function it names them.
    fn shelf<T>(
        &self,
        request: &Request<T>,
        about: (&str, i32),
        rights: &[Right],
    ) -> Result<(Shelf, Function), Status> {
        let (named, function) = instance(about.0, about.1).map_err(Problem::invalid)?;
        let caller = Caller::of(request)?;
        let project = caller.project("instance_name", named, rights)?;
        Ok((self.0.of(&caller, project), function))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Blobs {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let asked = request.get_ref();
        let about = (asked.instance_name.as_str(), asked.digest_function);
        let (shelf, function) = self.shelf(&request, about, &[Right::Submit, Right::Read])?;
        let asked = names("blob_digests", function, asked.blob_digests.iter())?;
        let missing = shelf.missing(asked).await?;
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests: missing.into_iter().filter_map(digest_of).collect(),
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let asked = request.get_ref();
        let about = (asked.instance_name.as_str(), asked.digest_function);
        let (shelf, function) = self.shelf(&request, about, &[Right::Submit])?;
        let responses = batch::update(&shelf, function, request.into_inner().requests).await?;
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let asked = request.get_ref();
        let about = (asked.instance_name.as_str(), asked.digest_function);
        let (shelf, function) = self.shelf(&request, about, &[Right::Read])?;
        let responses = batch::read(&shelf, function, request.into_inner()).await?;
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Feed<Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let asked = request.get_ref();
        let about = (asked.instance_name.as_str(), asked.digest_function);
        let (shelf, function) = self.shelf(&request, about, &[Right::Read])?;
        let walk = Walk::parse(asked, function)?;
        let permit = shelf.download().await?;
        let share = shelf.share();
        Ok(Response::new(taker::stream("tree", permit, move |taker| {
            walk.tell(&share, taker)
        })))
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(unsupported("SplitBlob"))
    }

    type GetChunkMappingStream = Feed<Result<reapi::GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(unsupported("GetChunkMapping"))
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(unsupported("SpliceBlob"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(unsupported("RegisterChunkMapping"))
    }
}

fn unsupported(what: &str) -> Status {
    Problem::unsupported(format!(
        "{what} is not supported, as the capabilities say; transfer each blob whole, by ByteStream"
    ))
    .into()
}

/// What a failed read looks like from outside, of what the client has named so. An object of another size is, by its id,
/// not there.
pub(super) fn unreadable(error: ReadError, blob: impl Into<BlobName>) -> Status {
    match error {
        ReadError::Missing(_) | ReadError::Size { .. } => absent(blob.into()),
        error @ ReadError::Io { .. } => internal("an object could not be read", &error),
    }
}

/// What the client has named so is, for it, not there.
pub(super) fn absent(blob: BlobName) -> Status {
    let text = format!(
        "{blob} is not in the store: nobody gave it, it was given up (`[store.retention]` in belljard.toml), or it was damaged (`belljar store status`)"
    );
    Problem::new(Reason::NotFound, text).into()
}
