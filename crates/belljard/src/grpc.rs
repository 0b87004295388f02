//! How gRPC is served: what connections may do, and what stands before each service.

use std::time::Duration;

use belljar_core::bounds;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use crate::services::{Counted, Gate, Reception};

/// How often a connection is asked whether it is alive, and how long it has for an answer.
const ALIVE: Duration = Duration::from_secs(30);
/// Calls that a connection may have begun; those beyond what is served at once wait.
const CALLS: u32 = 128;

/// What reflection tells about.
pub(crate) fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(belljar_wire::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// How connections are held.
pub(crate) fn server() -> Server {
    Server::builder()
        .concurrency_limit_per_connection(bounds::CALLS_PER_CONNECTION)
        .initial_stream_window_size(bounds::GRPC_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(bounds::GRPC_CONNECTION_WINDOW_BYTES)
        .max_frame_size(bounds::GRPC_FRAME_BYTES)
        .max_concurrent_streams(CALLS)
        // Who does not answer a ping is gone, or holds a call open by a byte now and then.
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ALIVE))
        .http2_max_header_list_size(bounds::HEADER_BYTES)
}

/// Puts services behind reception and gate: none goes without.
pub(crate) struct Gated(pub(crate) Gate, pub(crate) Reception);

impl Gated {
    pub(crate) fn behind<S>(&self, service: S) -> Counted<InterceptedService<S, Gate>> {
        let gated = InterceptedService::new(service, self.0.clone());
        self.1.before(gated)
    }
}
