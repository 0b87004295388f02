//! The life of a build as a sans-I/O state machine, its durable queue, and recovery

pub mod life;
pub mod queue;
