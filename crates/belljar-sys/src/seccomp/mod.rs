//! System call filters (seccomp(2)): a table of rules, compiled to a binary tree of classic BPF.
//!
//! A tree takes about eight comparisons for any call, where a list takes up to one per rule.

mod compile;
mod devices;
mod legacy;
mod service;
mod sockets;
mod table;
mod uncounted;

use std::io;

pub use compile::Program;
pub use service::{COLLECTOR, SERVICE, SERVICE_WITH_TCP, UNPACKER};
pub use table::SANDBOX;

/// What a filter does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Lets it through.
    Allow,
    /// Answers it with this error number, without carrying it out.
    Errno(i32),
}

/// What decides about one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always the same verdict.
    Always(Verdict),
    /// By the low 32 bits of an argument, which is all that the kernel looks at for these calls: one
    /// verdict for the listed values, another for all the rest.
    ByValue {
        /// Which argument, from 0.
        argument: u32,
        /// The values.
        values: &'static [u32],
        /// Verdict for a listed value.
        listed: Verdict,
        /// Verdict for any other.
        other: Verdict,
    },
    /// By the low 32 bits of an argument as flags: refused when any of `mask` is set, else allowed.
    RefuseFlags {
        /// Which argument, from 0.
        argument: u32,
        /// The flags.
        mask: u32,
        /// Error number for them.
        errno: i32,
    },
    /// By the low 32 bits of an argument: one rule when they are `value`, another when not.
    When {
        /// Which argument, from 0.
        argument: u32,
        /// The value.
        value: u32,
        /// What decides about it.
        then: &'static Rule,
        /// What decides about any other.
        otherwise: &'static Rule,
    },
    /// Succeeds without being carried out when the argument `argument` is `value` and the 64-bit argument
    /// `given` is not zero; else allowed.
    IgnoreWhen {
        /// Which argument is compared, from 0.
        argument: u32,
        /// With what.
        value: u32,
        /// Which argument must not be zero.
        given: u32,
    },
}

/// A filter: rules by system call number, and the verdict for every number without one.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// The rules in groups, each number once in a group; where several have one, the first group's counts.
    pub groups: &'static [&'static [(libc::c_long, Rule)]],
    /// The verdict for calls that are not in `groups`, also for those that no kernel knows yet.
    pub default: Verdict,
}

impl Program {
    /// Installs the filter for this thread and its future children. no_new_privs must be set.
    ///
    /// # Errors
    /// What seccomp(2) says.
    pub fn install(&self) -> io::Result<()> {
        let instructions = self.instructions();
        let program = libc::sock_fprog {
            len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
            filter: instructions.as_ptr().cast_mut(),
        };
        // WHY: no safe wrapper for a filter of one's own exists in the crates used here.
        // SAFETY: `program` points at `len` instructions that outlive the call; the kernel only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if result == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
