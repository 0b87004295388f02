//! The pure decisions: who may do what with which project, and whether a build may be queued.
//! Specification, identity and the operator's policy in, decision with reasons out. No I/O, no clock.
//!
//! Whoever holds an [`Admitted`] knows that [`decide`] was asked about exactly this specification, this
//! identity and this project: there is no other way to make one, and the queue takes nothing else.

mod access;
mod decision;
mod fetch;
mod identity;
mod policy;
mod registry;
mod rights;

pub use access::{Access, AccessError, Below, Grants, Principals};
pub use decision::{Admitted, Class, Decision, NO_FETCHES, Reason, decide};
pub use fetch::{FetchRules, HostPattern, Network};
pub use identity::{Identity, SpiffeId, Subject};
pub use policy::{Policy, PolicyError};
pub use registry::{Registries, RegistryRule, RepositoryPattern, Way};
pub use rights::{Right, Rights};
