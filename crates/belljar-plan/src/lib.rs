//! What a sandbox shall be, and what came of it: the plan, the receipt, and the frames that Belljar's
//! processes exchange. Pure: no I/O, no clock.
//!
//! * [`Plan`] is a pure function of the specification ([`Plan::compile`]). The spawner runs a plan, the
//!   signer compiles the specification again and compares digests.
//! * [`Receipt`] is what the spawner observed of one attempt. [`Receipt::fully_enforced`] is the one place
//!   that decides whether what was read back is what the plan demands.
//! * [`spawner`], [`store`] and [`signer`] hold the messages of each process, [`unpack`] those between the
//!   store and its disposable unpackers; [`frame`] their encoding. [`Refusals`] bounds what is recorded of
//!   what was refused.

mod enforcement;
pub mod frame;
mod image;
mod link;
mod mounts;
mod plan;
mod probe;
mod receipt;
mod refusals;
pub mod signer;
pub mod spawner;
pub mod store;
pub mod unpack;

pub use enforcement::{
    Capabilities, CgroupFloor, CgroupReport, EnforcementReport, IdMapping, LandlockReport,
    MountReport, NamespaceKind, NamespaceReport, SeccompReport, Shortfall,
};
pub use image::{ImageBase, ImageLayer, ImageRecord};
pub use link::Link;
pub use plan::{BUILD_ID, HOME, HOSTNAME, INPUTS_DIR, INPUTS_EPOCH, Plan, Profile, USER, WORKDIR};
pub use probe::{ConfinedStep, HostReport, LayerReport, Verdict};
pub use receipt::{
    Binaries, CleanRoom, ImageRule, InputRecord, LogRecord, OutputEntry, OutputKind, Receipt,
    RootFsRecord, SelfProbe, StepRecord, Usage,
};
pub use refusals::Refusals;
