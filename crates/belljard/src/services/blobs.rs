use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_cas::ReadError;
use belljar_wire::{Problem, Reason};
use reapi::content_addressable_storage_server::ContentAddressableStorage;
use tonic::{Request, Response, Status, Streaming};

use super::batch::{self, digest_of, objects};
use super::internal;
use super::objects::Objects;
use super::resource::check_instance;
use super::taker;
use super::tree::Walk;
use crate::tasks::Feed;

/// REAPI `ContentAddressableStorage`: many small blobs at once, and trees. Reads come straight from the
/// objects, writes go to the store.
pub(crate) struct Blobs(Objects);

impl Blobs {
    pub(crate) fn new(objects: Objects) -> Self {
        Self(objects)
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Blobs {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        check_instance(&request.instance_name, request.digest_function)
            .map_err(Problem::invalid)?;
        let asked = objects("blob_digests", request.blob_digests.iter())?;
        let missing = self.0.missing(asked).await?;
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests: missing.into_iter().filter_map(digest_of).collect(),
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        check_instance(&request.instance_name, request.digest_function)
            .map_err(Problem::invalid)?;
        let responses = batch::update(&self.0, request.requests).await?;
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        check_instance(&request.instance_name, request.digest_function)
            .map_err(Problem::invalid)?;
        let responses = batch::read(&self.0, request).await?;
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Feed<Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let walk = Walk::parse(request.get_ref())?;
        let permit = self.0.download().await?;
        let source = self.0.source();
        Ok(Response::new(taker::stream("tree", permit, move |taker| {
            walk.tell(&*source, taker)
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

/// What a failed read looks like from outside. An object of another size is, by its id, not there.
pub(super) fn unreadable(error: ReadError) -> Status {
    match error {
        ReadError::Missing(object) | ReadError::Size { object, .. } => {
            Problem::new(Reason::NotFound, format!("{object} is not in the store")).into()
        }
        error @ ReadError::Io { .. } => internal("an object could not be read", &error),
    }
}
