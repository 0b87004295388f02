//! The whole daemon over faked peers: real sockets, real messages, real gRPC.

mod blake3_names;
mod blobs;
mod crowds;
mod fakes;
mod foreign;
mod hostile;
mod projects;
mod remote;
mod stand;
mod tls;
mod whole;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream as stream;
use belljar_core::{BuildSpec, ImageKind, ObjectId, Recipe, bounds};
use belljar_engine::queue::OpenError;
use belljar_policy::{Access, Policy};
use belljar_sys::systemd::Manager;
use belljar_tree::{Directory, Name, SymlinkNode, SymlinkTarget};
use belljar_wire::{BuildRecord, BuildState, DerivedTree, Problem, Reason, v1};
use hyper_util::rt::TokioIo;
use reapi::capabilities_client::CapabilitiesClient;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use stream::byte_stream_client::ByteStreamClient;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tonic::service::Interceptor as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use v1::build_service_client::BuildServiceClient;
use v1::input_service_client::InputServiceClient;

use crate::compose::{self, RunError};
use crate::config::Config;
use crate::confinement::Own;
use crate::listen::Peer;
use crate::remote::Door;
use crate::rules::Rules;
use crate::services::Gate;
use crate::tasks::{self, Task};
use fakes::{APP, Site};
use stand::{Daemon, digest, field, site, spec, start, tree};
