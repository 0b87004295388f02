//! The pure admission decision: specification, identity and the operator's policy in, decision with
//! reasons out. No I/O, no clock.
//!
//! Whoever holds an [`Admitted`] knows that [`decide`] was asked about exactly this specification and
//! this identity: there is no other way to make one, and the queue takes nothing else.

mod decision;
mod identity;
mod policy;

pub use decision::{Admitted, Class, Decision, Reason, decide};
pub use identity::Identity;
pub use policy::{Policy, PolicyError};
