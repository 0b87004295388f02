//! What a build leaves for others to believe, and who can be made to say it.
//!
//! * [`verifiers`]: one bundle before four verifiers, only one of which is ours; and before the same with a byte
//!   flipped somewhere.
//! * [`foreign`]: good and forged bundles before five verifiers.
//! * [`statement`]: the statement says what was submitted, done and recorded.
//! * [`signer`]: what the signer does not sign.
//! * [`doors`]: who may ask which process what.
//! * [`lies`]: a belljard that was taken over, against the real other three.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod bundle;
mod doors;
mod foreign;
mod lies;
mod signer;
mod statement;
mod verifiers;
