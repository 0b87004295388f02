//! The gRPC services. Whatever comes in is parsed by `belljar-wire` or here, once; whoever calls is known
//! before any service sees the call.

mod batch;
mod blobs;
mod builds;
mod bytestream;
mod caller;
mod capabilities;
mod census;
mod evidence;
mod gate;
mod health;
mod host;
mod hung_up;
mod inputs;
mod list;
mod objects;
mod page;
mod processes;
mod pulling;
mod pushing;
mod readlog;
mod receive;
mod reception;
mod resource;
mod store;
mod taker;
mod tree;
mod trees;
mod unknown;
mod unpacker;
mod unreadable;
mod vault;
mod view;
mod watch;
mod zstd;

pub(crate) use blobs::Blobs;
pub(crate) use builds::Builds;
pub(crate) use bytestream::ByteStreams;
pub(crate) use caller::Caller;
pub(crate) use capabilities::ServerCapabilities;
pub(crate) use census::Census;
pub(crate) use evidence::EvidenceRecords;
pub(crate) use gate::Gate;
pub(crate) use health::health;
pub(crate) use host::Host;
pub(crate) use inputs::TreeMaker;
pub(crate) use objects::Objects;
pub(crate) use processes::Processes;
pub(crate) use pushing::Pusher;
pub(crate) use reception::{Counted, Reception};
pub(crate) use store::{Content, StoreKeeper};
pub(crate) use trees::Trees;
pub(crate) use unknown::no_service;
pub(crate) use vault::Vault;
pub(crate) use view::View;

use std::error::Error;

use belljar_wire::Problem;
use tonic::Status;

use crate::peers::PutError;
use crate::tasks;

/// A status for outsiders; the cause goes into the log.
fn internal(what: &str, error: &(dyn Error + 'static)) -> Status {
    tracing::error!(cause = tasks::chain(error), "{what}");
    Problem::internal(format!("{what}; the daemon's log says more")).into()
}

/// What a refused upload looks like from outside.
fn refused(error: &PutError) -> Status {
    match error {
        PutError::Content(why) => {
            Problem::new(belljar_wire::Reason::DigestMismatch, why.as_str()).into()
        }
        PutError::Busy(why) => Problem::unavailable(why.as_str()).into(),
        PutError::Full(why) => Problem::exhausted(why.as_str(), None).into(),
        PutError::Unreachable(_) => {
            tracing::warn!(%error, "an upload failed");
            Problem::unavailable("the store does not answer; try again").into()
        }
        PutError::Store(_) => internal("the store did not take an object", error),
    }
}
