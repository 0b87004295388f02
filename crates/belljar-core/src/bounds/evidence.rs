//! What is signed and kept: receipts, bundles, audit trails.

/// How often the signer is asked for one statement, and the store to take one build's evidence, before
/// the build ends without: for a quarter of an hour, since what was built would be lost.
pub const EVIDENCE_TRIES: u32 = 200;
/// Largest receipt, in bytes: ten thousand outputs with all their names, and the records of derivations, fit.
pub const RECEIPT_BYTES: usize = 32 * 1024 * 1024;
/// Most receipts that the signer has not seen yet and goes through before it signs: their digests are in memory
/// meanwhile, 32 MiB of them.
pub const RECEIPTS_UNSEEN: usize = 1024 * 1024;
/// Most bytes of records of derivations in one receipt: with what a statement says of each package they fit a bundle.
pub const RECEIPT_DERIVATION_BYTES: usize = 10 * 1024 * 1024;
/// Largest Sigstore bundle, in bytes, that is read back for verification: the largest receipt fits, in base 64.
pub const BUNDLE_BYTES: usize = 48 * 1024 * 1024;
/// Most bytes that the bundles and envelopes beside all outputs of one build may take in a client's output directory.
/// Where they would take more, each is there once for all of them: every one of them names all files, so that their
/// size together grows with the square of the number of outputs.
pub const EVIDENCE_BESIDE_BYTES: usize = 64 * 1024 * 1024;
/// Most entries in one build's audit trail.
pub const AUDIT_ENTRIES: usize = 10_000;
/// Largest encoded audit entry, in bytes.
pub const AUDIT_ENTRY_BYTES: usize = 64 * 1024;
