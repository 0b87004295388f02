//! What the chores and `belljar-bench` share: running other programs, and where the workspace is.

pub mod shell;
pub mod workspace;
