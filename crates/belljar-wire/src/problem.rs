use std::fmt;
use std::time::Duration;

use belljar_core::{Invalid, ObjectId, RequestId, bounds};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of `google.rpc.ErrorInfo` in every error from Belljar.
const DOMAIN: &str = "belljar";

/// Why a call failed: what the server says and the client reads back, by way of a [`Status`] with
/// details (`google.rpc.ErrorInfo`, `BadRequest`, `PreconditionFailure`, `RetryInfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The class.
    pub reason: Reason,
    /// One sentence for people.
    pub message: String,
    /// Fields at fault.
    pub fields: Vec<Invalid>,
    /// Conditions that do not hold.
    pub unmet: Vec<Unmet>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// A condition that does not hold (`google.rpc.PreconditionFailure.Violation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// `MISSING` for an object that is not in the store (as REAPI has it), `LAYER` for a layer of the
    /// sandbox.
    pub kind: String,
    /// Which: `blobs/<hash>/<size>`, or the layer's name.
    pub subject: String,
    /// What to do about it.
    pub description: String,
}

/// Classes of problems, each with a gRPC code and a stable word (`ErrorInfo.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field holds a bad value.
    InvalidField,
    /// A field holds a position that the resource does not have.
    OutOfRange,
    /// What was named does not exist.
    NotFound,
    /// The request id was used before, with another body.
    RequestIdReused,
    /// A bound was reached: the queue, the disk, the watchers.
    Exhausted,
    /// The host lacks a layer of the sandbox.
    HostLacksLayer,
    /// An input is not in the store.
    InputMissing,
    /// The caller, or what it asks for, is not allowed.
    Denied,
    /// Content does not have the digest or size it was announced with.
    DigestMismatch,
    /// Nothing can be made of an archive or image.
    DerivationRefused,
    /// A registry does not give an image, or gives something else.
    ImageRefused,
    /// Known, but not there yet.
    Unsupported,
    /// Another process of Belljar does not answer; may pass.
    Unavailable,
    /// A defect, or a host in trouble; the log of the daemon says more.
    Internal,
    /// Not from Belljar: the transport or something between, with its own code.
    Foreign(Code),
}

impl Reason {
    /// Every class of Belljar's own, with the gRPC code and the word it goes out with.
    pub const TABLE: [(Self, Code, &'static str); 14] = [
        (Self::InvalidField, Code::InvalidArgument, "INVALID_FIELD"),
        (Self::OutOfRange, Code::OutOfRange, "OUT_OF_RANGE"),
        (Self::NotFound, Code::NotFound, "NOT_FOUND"),
        (
            Self::RequestIdReused,
            Code::AlreadyExists,
            "REQUEST_ID_REUSED",
        ),
        (Self::Exhausted, Code::ResourceExhausted, "EXHAUSTED"),
        (
            Self::HostLacksLayer,
            Code::FailedPrecondition,
            "HOST_LACKS_LAYER",
        ),
        (
            Self::InputMissing,
            Code::FailedPrecondition,
            "INPUT_MISSING",
        ),
        (Self::Denied, Code::PermissionDenied, "DENIED"),
        (
            Self::DigestMismatch,
            Code::InvalidArgument,
            "DIGEST_MISMATCH",
        ),
        (
            Self::DerivationRefused,
            Code::InvalidArgument,
            "DERIVATION_REFUSED",
        ),
        (Self::ImageRefused, Code::InvalidArgument, "IMAGE_REFUSED"),
        (Self::Unsupported, Code::Unimplemented, "UNSUPPORTED"),
        (Self::Unavailable, Code::Unavailable, "UNAVAILABLE"),
        (Self::Internal, Code::Internal, "INTERNAL"),
    ];

    /// The gRPC code.
    pub fn code(self) -> Code {
        match self {
            Self::Foreign(code) => code,
            own => own.row().0,
        }
    }

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Foreign(_) => "FOREIGN",
            own => own.row().1,
        }
    }

    fn row(self) -> (Code, &'static str) {
        let found = Self::TABLE.into_iter().find(|(reason, ..)| *reason == self);
        found.map_or((Code::Unknown, "FOREIGN"), |(_, code, word)| (code, word))
    }
}

impl Problem {
    /// A problem of class `reason` without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            fields: Vec::new(),
            unmet: Vec::new(),
            retry_after: None,
        }
    }

    /// `INVALID_ARGUMENT`: a field holds a bad value.
    pub fn invalid(invalid: Invalid) -> Self {
        let mut problem = Self::new(Reason::InvalidField, invalid.to_string());
        problem.fields.push(invalid);
        problem
    }

    /// `OUT_OF_RANGE`: a field holds a position that the resource does not have.
    pub fn out_of_range(invalid: Invalid) -> Self {
        Self {
            reason: Reason::OutOfRange,
            ..Self::invalid(invalid)
        }
    }

    /// `NOT_FOUND`: nothing has the resource name `name`.
    pub fn not_found(name: &str) -> Self {
        Self::new(
            Reason::NotFound,
            format!("`{}` does not exist", name.escape_debug()),
        )
    }

    /// `ALREADY_EXISTS`: `request_id` was used before, with another body.
    pub fn request_id_reused(request_id: &RequestId) -> Self {
        Self::new(
            Reason::RequestIdReused,
            format!(
                "request_id `{request_id}` was used before for another build; choose a new one"
            ),
        )
    }

    /// `RESOURCE_EXHAUSTED`: `what` is used up, and a later try may succeed.
    pub fn exhausted(what: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..Self::new(Reason::Exhausted, what)
        }
    }

    /// `FAILED_PRECONDITION`: the host lacks these layers, each with its name and a hint.
    pub fn host_lacks<N: Into<String>, H: Into<String>>(
        layers: impl IntoIterator<Item = (N, H)>,
    ) -> Self {
        let unmet: Vec<Unmet> = layers
            .into_iter()
            .map(|(name, hint)| Unmet {
                kind: "LAYER".to_owned(),
                subject: name.into(),
                description: hint.into(),
            })
            .collect();
        let names: Vec<&str> = unmet.iter().map(|layer| layer.subject.as_str()).collect();
        let message = format!("the host lacks what a sandbox needs: {}", names.join(", "));
        Self {
            unmet,
            ..Self::new(Reason::HostLacksLayer, message)
        }
    }

    /// `FAILED_PRECONDITION`: an object is not in the store.
    pub fn input_missing(field: &str, object: ObjectId) -> Self {
        let mut problem = Self::new(
            Reason::InputMissing,
            format!(
                "{field}: {object} is not in the store; upload it first. A build names all that it needs by SHA-256"
            ),
        );
        problem.unmet.push(Unmet {
            kind: "MISSING".to_owned(),
            subject: format!("blobs/{}/{}", object.digest.to_hex(), object.size),
            description: "upload it first".to_owned(),
        });
        problem
    }

    /// `PERMISSION_DENIED`: for these reasons, a sentence each.
    pub fn denied<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Self {
        let reasons: Vec<&str> = reasons.into_iter().collect();
        Self::new(Reason::Denied, reasons.join("; "))
    }

    /// `UNIMPLEMENTED`: `what` is not there yet.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(Reason::Unsupported, what)
    }

    /// `UNAVAILABLE`: `what` does not answer; may pass.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Reason::Unavailable, what)
    }

    /// `INTERNAL`: what outsiders may know of it. The cause belongs into the daemon's own log.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Reason::Internal, what)
    }

    /// What a call's [`Status`] says.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == DOMAIN)
            .and_then(|info| {
                let found = Reason::TABLE
                    .into_iter()
                    .find(|(_, _, word)| *word == info.reason);
                found.map(|(reason, ..)| reason)
            });
        let mut problem = Self::new(
            reason.unwrap_or(Reason::Foreign(status.code())),
            status.message(),
        );
        if let Some(bad) = details.bad_request() {
            let fields = bad.field_violations.iter().take(bounds::STATUS_DETAILS);
            problem.fields = fields
                .map(|v| Invalid::field(v.field.clone(), v.description.clone()))
                .collect();
        }
        if let Some(failure) = details.precondition_failure() {
            let unmet = failure
                .violations
                .iter()
                .take(bounds::STATUS_DETAILS)
                .map(|v| Unmet {
                    kind: v.r#type.clone(),
                    subject: v.subject.clone(),
                    description: v.description.clone(),
                });
            problem.unmet = unmet.collect();
        }
        problem.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        problem
    }
}

impl From<Problem> for Status {
    /// The status that says so. Texts and lists are cut to [`bounds::STATUS_TEXT_BYTES`] and
    /// [`bounds::STATUS_DETAILS`], since they travel in HTTP headers.
    fn from(problem: Problem) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            problem.reason.word(),
            DOMAIN,
            std::collections::HashMap::<String, String>::new(),
        );
        for Invalid { field, reason } in problem.fields.iter().take(bounds::STATUS_DETAILS) {
            details.add_bad_request_violation(cut(field), cut(reason));
        }
        for unmet in problem.unmet.iter().take(bounds::STATUS_DETAILS) {
            details.add_precondition_failure_violation(
                &unmet.kind,
                cut(&unmet.subject),
                cut(&unmet.description),
            );
        }
        if problem.retry_after.is_some() {
            details.set_retry_info(problem.retry_after);
        }
        Self::with_error_details(problem.reason.code(), cut(&problem.message), details)
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// The beginning of `text`, cut at a character's end.
fn cut(text: &str) -> String {
    if text.len() <= bounds::STATUS_TEXT_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bounds::STATUS_TEXT_BYTES.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}
