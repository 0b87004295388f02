//! Provenance: what a statement says, when one may be made, how it is signed, and how it is checked offline.
//!
//! * [`Statement::provenance`] is the one place that decides whether an attempt may be attested, a pure
//!   function of specification, receipt, configuration, and the [`Producers`] of what the build was given.
//!   [`Statement::receipt`] says of a receipt, whatever is in it, that it is the spawner's. Nothing else makes a [`Statement`].
//! * [`Key::attest`] signs one, and nothing but one: there is no way to have other bytes signed.
//! * [`verify_receipt`] does the same for a receipt.
//! * [`verify`] takes a bundle, a public key and an artifact's digest and gives a [`Verdict`].
//!
//! Formats: in-toto Statement v1, SLSA provenance v1, DSSE v1.0.2, Sigstore bundle v0.3; canonical JSON
//! (RFC 8785) wherever the format leaves the encoding open. Signatures are ECDSA P-256 with SHA-256 in DER,
//! the kind that every stock verifier accepts.
//!
//! # Build type `<base>/buildtypes/sandboxed-steps/v1`
//! A build runs the specification's steps, in order, each by `/bin/sh -eu -c`, in a fresh sandbox without a
//! network, with the source tree as its working directory; the declared outputs are taken after the sandbox
//! is dead. A verifier finds in a statement of this type:
//!
//! | where | what |
//! |---|---|
//! | `subject[]` | every regular file among the outputs: `name` is its path, with `sha256` and `sha512`; and `image.oci`, the manifest of the image that became of them |
//! | `externalParameters` | the complete specification; its canonical JSON has the digest of the byproduct `spec.json` |
//! | `internalParameters.asserted` | who submitted, how that was established, when it was accepted: known only to belljard |
//! | `internalParameters.limits`, `network`, `sourceDateEpoch`, `profile`, `attempt` | what the sandbox was given |
//! | `internalParameters.enforcement` | what was read back from the kernel before the first step, and probed from inside |
//! | `internalParameters.hermetic` | whether everything that the build could read is named by digest |
//! | `resolvedDependencies` | `source`: the input tree; `rootfs`: the root file system (for the host's: its listed paths, no digest); `deps/…`: further trees; and what these were made of, of earlier builds' artifacts with the attempt that left it; `image base`: the manifest of what the image lies on |
//! | `builderDependencies` | the enforcing program, its configuration, the seccomp program, the Landlock ruleset |
//! | `byproducts` | `build.log`, `receipt.json`, `plan.json`, `spec.json`, and `audit.jsonl` up to the request for attestation (asserted) |
//!
//! `invocationId` is `<base>/builds/<build id>/attempts/<number>`. The builder's id says how the sandbox was
//! made, see [`Mode`].

mod account;
mod artifacts;
mod builder;
mod bundle;
mod derivations;
mod dsse;
#[cfg(test)]
mod fixture;
mod git;
mod image;
mod key;
mod objections;
mod provenance;
mod public_key;
mod receipt;
mod statement;
mod verdict;
mod verify;

pub use account::{Account, Section};
pub use artifacts::Producers;
pub use builder::{BuilderConfig, Mode};
pub use bundle::{Bundle, MEDIA_TYPE};
pub use dsse::{PAYLOAD_TYPE, pae};
pub use key::{Key, KeyError};
pub use public_key::PublicKey;
pub use receipt::ReceiptVerdict;
pub use statement::{PREDICATE_TYPE, STATEMENT_TYPE, Statement};
pub use verdict::Verdict;
pub use verify::{
    ImageCopy, Proven, VerifyError, is_about_a_receipt, verify, verify_all, verify_image,
    verify_receipt, verify_receipt_of,
};
