use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::semver::SemVer;
use belljar_core::bounds;
use belljar_policy::Right;
use belljar_wire::Problem;
use reapi::capabilities_server::Capabilities;
use tonic::{Request, Response, Status};

use super::Caller;
use super::resource::instance;

/// REAPI `Capabilities`: what is there, and nothing else.
#[derive(Debug)]
pub(crate) struct ServerCapabilities;

#[tonic::async_trait]
impl Capabilities for ServerCapabilities {
    async fn get_capabilities(
        &self,
        request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let (named, _) = instance(&request.get_ref().instance_name, 0).map_err(Problem::invalid)?;
        if named.is_some() {
            Caller::of(&request)?.project("instance_name", named, &Right::ALL)?;
        }
        let version = |major, minor| {
            Some(SemVer {
                major,
                minor,
                ..SemVer::default()
            })
        };
        let cache = reapi::CacheCapabilities {
            // In this order: who knows none of them by itself takes the first.
            digest_functions: vec![
                reapi::digest_function::Value::Sha256.into(),
                reapi::digest_function::Value::Blake3.into(),
            ],
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                update_enabled: false,
            }),
            max_batch_total_size_bytes: i64::try_from(bounds::BATCH_BYTES).unwrap_or(i64::MAX),
            // Links of inputs are kept whatever they name, and mean what they mean inside the sandbox. Outputs may have
            // no such links.
            symlink_absolute_path_strategy: reapi::symlink_absolute_path_strategy::Value::Allowed
                .into(),
            supported_compressors: vec![reapi::compressor::Value::Zstd.into()],
            supported_batch_update_compressors: vec![reapi::compressor::Value::Zstd.into()],
            max_cas_blob_size_bytes: i64::try_from(bounds::BLOB_BYTES).unwrap_or(i64::MAX),
            ..reapi::CacheCapabilities::default()
        };
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(cache),
            // No `Execution`, no `ActionCache` yet.
            execution_capabilities: None,
            deprecated_api_version: None,
            low_api_version: version(2, 0),
            high_api_version: version(2, 3),
        }))
    }
}
