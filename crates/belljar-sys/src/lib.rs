//! Every unsafe line and raw system call of Belljar, behind safe interfaces that take and give file
//! descriptors. What to mount, limit or observe is decided by the callers; the one policy that lives
//! here is the table of system calls ([`seccomp::SANDBOX`]), because it is written in their numbers.

pub mod confine;
pub mod connections;
pub mod durable;
pub mod files;
pub mod forbidden;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod poll;
pub mod privilege;
pub mod process;
pub mod program;
pub mod seccomp;
pub mod seqpacket;
pub mod systemd;

/// Error numbers (errno(3)) that callers tell apart.
pub use rustix::io::Errno;
