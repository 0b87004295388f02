//! What is told of a build: entries of its audit trail, and lines of the log.

use std::error::Error;

use belljar_audit::AuditEvent;

use crate::life::{Fact, FetchReport, Progress};
use crate::queue::Submission;

/// How a fact stands in the audit trail.
pub(crate) fn audit_event(fact: Fact, submission: &Submission) -> AuditEvent {
    match fact {
        Fact::AttemptStarted(attempt) => AuditEvent::AttemptStarted { attempt },
        Fact::Fetched(attempt, report) => {
            let FetchReport {
                name,
                submodule,
                digest,
                found,
                refused,
                tries,
            } = report;
            AuditEvent::Fetched {
                attempt,
                name,
                submodule,
                digest,
                found,
                refused,
                tries,
            }
        }
        Fact::Staged(attempt) => AuditEvent::Staged {
            attempt,
            tree: submission.spec.source,
        },
        Fact::Launched(attempt) => AuditEvent::Launched { attempt },
        Fact::Exited(attempt, outcome) => AuditEvent::Ended { attempt, outcome },
        Fact::Collected {
            attempt,
            receipt,
            outcome,
            outputs,
        } => AuditEvent::Collected {
            attempt,
            receipt,
            outputs,
            outcome,
        },
        Fact::Signed { attempt, bundle } => AuditEvent::Signed {
            attempt,
            bundle: bundle.object.digest,
            key_id: bundle.key_id,
        },
        Fact::SigningRefused { attempt, reasons } => {
            AuditEvent::SigningRefused { attempt, reasons }
        }
        Fact::Destroyed(attempt) => AuditEvent::Destroyed { attempt },
        Fact::Recovered { attempt, stage } => AuditEvent::Recovered {
            attempt,
            state: stage.to_owned(),
        },
        Fact::CancelRequested { by, reason } => AuditEvent::CancelRequested { by, reason },
        Fact::Finished(outcome) => AuditEvent::Finished { outcome },
    }
}

/// Logs what went wrong with an effect, whatever comes of that.
pub(crate) fn trouble(what: &Progress) {
    match what {
        Progress::SpawnerLost { why } => tracing::warn!(why, "the spawner was lost"),
        Progress::Fetched(fetched) => {
            if let Err(outcome) = &fetched.result {
                tracing::warn!(%outcome, "not fetched");
            }
        }
        Progress::Failed { outcome } => tracing::warn!(%outcome, "the spawner has failed"),
        Progress::AttestRefused {
            retryable, reasons, ..
        } => tracing::warn!(retryable, ?reasons, "not attested"),
        Progress::PublishFailed { why, .. } => tracing::warn!(why, "not published"),
        _ => {}
    }
}

/// Logs an error with all its causes, once, where it is handled.
pub(crate) fn log(what: &str, error: &(dyn Error + 'static)) {
    tracing::error!(cause = chain(error), "{what}");
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
