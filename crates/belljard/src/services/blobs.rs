use std::io::Read as _;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use belljar_cas::{BlobSource, ReadError, VerifyingRead};
use belljar_core::{Invalid, ObjectId, bounds};
use belljar_wire::{Problem, Reason};
use reapi::content_addressable_storage_server::ContentAddressableStorage;
use tokio::task::spawn_blocking;
use tonic::{Code, Request, Response, Status, Streaming};

use super::resource::{check_instance, object};
use super::{internal, refused};
use crate::peers::StoreClient;
use crate::tasks::Feed;

/// REAPI `ContentAddressableStorage`: many small blobs at once. Reads come straight from the objects,
/// writes go to the store.
pub(crate) struct Blobs {
    source: Arc<dyn BlobSource>,
    store: StoreClient,
}

impl Blobs {
    pub(crate) fn new(source: Arc<dyn BlobSource>, store: StoreClient) -> Self {
        Self { source, store }
    }
}

/// The digests of a request, with their place in it if one is bad.
fn objects<'a>(
    field: &str,
    digests: impl Iterator<Item = &'a reapi::Digest>,
) -> Result<Vec<ObjectId>, Problem> {
    let parsed = (0_usize..)
        .zip(digests)
        .map(|(index, digest)| object(digest).map_err(|e| e.within(format!("{field}[{index}]"))));
    let parsed: Vec<ObjectId> = parsed.collect::<Result<_, _>>()?;
    if parsed.len() > bounds::BATCH_BLOBS {
        let reason = format!(
            "{} blobs; {} are allowed at once",
            parsed.len(),
            bounds::BATCH_BLOBS
        );
        return Err(Invalid::field(field, reason).into());
    }
    Ok(parsed)
}

/// All sizes together, which must fit one message.
fn check_total(field: &str, sizes: impl Iterator<Item = u64>) -> Result<(), Problem> {
    let total = sizes.fold(0_u64, u64::saturating_add);
    if total > bounds::BATCH_BYTES as u64 {
        let reason = format!(
            "{total} bytes; {} are allowed at once. Use ByteStream",
            bounds::BATCH_BYTES
        );
        return Err(Invalid::field(field, reason).into());
    }
    Ok(())
}

fn digest_of(object: ObjectId) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).unwrap_or(i64::MAX),
    })
}

fn verdict(code: Code, message: impl Into<String>) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: code.into(),
        message: message.into(),
        details: Vec::new(),
    })
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
        let source = self.source.clone();
        let missing = spawn_blocking(move || {
            let mut missing = Vec::new();
            for object in asked {
                if !source.contains(object)? {
                    missing.extend(digest_of(object));
                }
            }
            Ok::<_, ReadError>(missing)
        });
        let missing = missing
            .await
            .map_err(|e| internal("the store could not be read", &e))?;
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests: missing
                .map_err(|e| internal("the store could not be read", &e))?,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        check_instance(&request.instance_name, request.digest_function)
            .map_err(Problem::invalid)?;
        let digests: Vec<reapi::Digest> = request
            .requests
            .iter()
            .map(|one| one.digest.clone().unwrap_or_default())
            .collect();
        let asked = objects("requests", digests.iter())?;
        check_total(
            "requests",
            request.requests.iter().map(|one| one.data.len() as u64),
        )?;
        let mut responses = Vec::with_capacity(asked.len());
        for (object, one) in asked.into_iter().zip(request.requests) {
            let status = if one.compressor != i32::from(reapi::compressor::Value::Identity) {
                verdict(Code::InvalidArgument, "compressed blobs are not supported")
            } else if one.data.len() as u64 != object.size {
                verdict(
                    Code::InvalidArgument,
                    format!("{} bytes came for {object}", one.data.len()),
                )
            } else {
                match self.store.put_bytes(object, &one.data).await {
                    Ok(()) => verdict(Code::Ok, ""),
                    Err(error) => {
                        let status = refused(&error);
                        verdict(status.code(), status.message())
                    }
                }
            };
            responses.push(reapi::batch_update_blobs_response::Response {
                digest: digest_of(object),
                status,
            });
        }
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        check_instance(&request.instance_name, request.digest_function)
            .map_err(Problem::invalid)?;
        let asked = objects("digests", request.digests.iter())?;
        check_total("digests", asked.iter().map(|object| object.size))?;
        let source = self.source.clone();
        let read = spawn_blocking(move || {
            asked
                .into_iter()
                .map(|object| read_whole(&*source, object))
                .collect()
        });
        let responses = read
            .await
            .map_err(|e| internal("the store could not be read", &e))?;
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Feed<Result<reapi::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        _: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(unsupported("GetTree"))
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
        "{what} is not supported yet; read each blob by its digest"
    ))
    .into()
}

/// One blob, verified, or why not.
fn read_whole(
    source: &dyn BlobSource,
    object: ObjectId,
) -> reapi::batch_read_blobs_response::Response {
    let mut data = Vec::new();
    let read = source.read(object).and_then(|content| {
        let read = VerifyingRead::new(content, object).read_to_end(&mut data);
        read.map_err(|source| ReadError::Io { object, source })
    });
    let status = match read {
        Ok(_) => verdict(Code::Ok, ""),
        Err(error) => {
            data.clear();
            let status = unreadable(error);
            verdict(status.code(), status.message())
        }
    };
    reapi::batch_read_blobs_response::Response {
        digest: digest_of(object),
        data,
        compressor: reapi::compressor::Value::Identity.into(),
        status,
    }
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
