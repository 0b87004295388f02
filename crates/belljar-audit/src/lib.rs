//! The audit trail of one build: canonical JSON (RFC 8785), one entry a line, each naming the digest of
//! the line before. Pure: no I/O, no clock; belljard appends the lines to a file, anyone can check them.
//!
//! * [`Trail`] makes the lines ([`Trail::append`]) and goes on after a restart ([`Trail::resume`]).
//! * [`verify`] reads a whole trail back, [`verify_prefix`] one whose digest is known from elsewhere.
//!
//! # What the chain shows, and what it does not
//! Every line but the last is named by the one after it: a changed, dropped, added, doubled or moved line
//! before the end is found by [`verify`] alone. The *end* is held by nothing inside the file: a trail whose
//! last lines are missing, or whose last line was rewritten, is a well-formed trail. That is found only
//! against a digest kept elsewhere: the provenance statement names the trail up to the request for
//! attestation (digest and number of entries), which is what [`verify_prefix`] checks.
//!
//! belljard writes the trail, so a compromised belljard can write another one. What it alone can know is
//! named in each entry's `asserted` list; the rest can be checked against receipt, bundle and specification.

mod event;
#[cfg(test)]
mod tests;
mod trail;
mod verify;

pub use event::{AuditEvent, FetchTry, Found};
pub use trail::{AppendError, Entry, Trail};
pub use verify::{VerifyError, verify, verify_prefix};
