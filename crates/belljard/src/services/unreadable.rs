//! What comes of a request that is no message of its type.

use belljar_core::Invalid;
use belljar_wire::Problem;
use tonic::codegen::http;
use tonic::{Code, Status};

/// How the codec begins its complaint about bytes that it cannot read (prost, `DecodeError`). It names the message and
/// the field, and repeats nothing of what came.
const BEGINNING: &str = "failed to decode Protobuf message";

/// The answer that is due in the place of one that complains of bytes which are no message; none for any other. The
/// codec answers `INTERNAL`, as gRPC's list of status codes has it, so that whoever watches takes it for the server's
/// fault.
pub(super) fn told_to_the_caller<B>(answer: &http::Response<B>) -> Option<Status> {
    let status = Status::from_header_map(answer.headers())?;
    // What is said here, and not by the codec, has details.
    let is_codecs = status.code() == Code::Internal && status.details().is_empty();
    (is_codecs && status.message().starts_with(BEGINNING)).then(|| {
        let why = format!("the request is no such message: {}", status.message());
        Problem::invalid(Invalid::new(why)).into()
    })
}
