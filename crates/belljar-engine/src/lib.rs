//! The life of a build as a sans-I/O state machine, its durable queue, and recovery.
//!
//! * [`life`] says what happens to a build, without any I/O.
//! * [`queue`] keeps builds across crashes.
//! * [`ownership`] knows which project may use which object.
//! * [`garbage`] removes what nobody needs.
//! * [`ports`] is what the engine needs of the other processes.
//! * [`engine()`] puts them together: an [`Engine`] for services, a [`Driver`] that runs the builds. Every
//!   transition is durable before its effects, and every effect stands in the audit trail before it begins.

mod driver;
mod engine;
pub mod garbage;
mod index;
pub mod life;
mod outputs;
pub mod ownership;
mod perform;
pub mod ports;
mod publish;
pub mod queue;
mod report;
#[cfg(test)]
mod tests;
mod trail;
mod work;
mod writer;

pub use driver::{Driver, Settings, engine};
pub use engine::{CancelError, Engine, Follow};
pub use outputs::directories;
