//! Rules against what the limits of a cgroup do not hold: memory that it does not count, and stocks of the whole
//! machine.

use super::Rule;
use super::Verdict::{Allow, Errno};
use super::table::{PERMITTED, WITHOUT_EFFECT};

/// No pages of the host's stock of huge ones.
pub(super) const MMAP: Rule = Rule::RefuseFlags {
    argument: 3,
    mask: libc::MAP_HUGETLB.cast_unsigned(),
    errno: libc::ENOMEM,
};

/// No locks that belong to nobody's descriptor table (as before Linux 3.15), nor leases: record locks are memory that
/// no cgroup counts, and are counted where they are seen, in the tables of a build's processes. A lock of an open
/// file description lives on in a descriptor that is on its way through a socket, where nobody sees it.
pub(super) const FCNTL: Rule = Rule::ByValue {
    argument: 1,
    values: &[
        libc::F_OFD_GETLK.cast_unsigned(),
        libc::F_OFD_SETLK.cast_unsigned(),
        libc::F_OFD_SETLKW.cast_unsigned(),
        libc::F_SETLEASE.cast_unsigned(),
    ],
    listed: Errno(libc::EINVAL),
    other: Allow,
};

/// As [`MMAP`].
pub(super) const MEMFD_CREATE: Rule = Rule::RefuseFlags {
    argument: 1,
    mask: libc::MFD_HUGETLB,
    errno: libc::ENOSYS,
};

/// No further filters, as on a kernel without them. They are compiled into memory that is bounded for the whole
/// machine together (net.core.bpf_jit_limit): a build that takes all of it lets nobody make a sandbox any more.
pub(super) const PRCTL: Rule = Rule::ByValue {
    argument: 0,
    values: &[libc::PR_SET_SECCOMP.cast_unsigned()],
    listed: Errno(libc::EINVAL),
    other: Allow,
};

/// As [`PRCTL`].
pub(super) const SECCOMP: Rule = Rule::ByValue {
    argument: 0,
    values: &[libc::SECCOMP_SET_MODE_FILTER],
    listed: Errno(libc::EINVAL),
    other: Allow,
};

/// No program at a socket, as [`PRCTL`]; and no more waits in one than by default, since much of it is counted
/// nowhere. For the kernel any size is a wish, too, which it cuts without a word.
pub(super) const SETSOCKOPT: Rule = Rule::When {
    argument: 1,
    value: libc::SOL_SOCKET.cast_unsigned(),
    then: &Rule::When {
        argument: 2,
        value: libc::SO_RCVBUF.cast_unsigned(),
        then: &WITHOUT_EFFECT,
        otherwise: &Rule::ByValue {
            argument: 2,
            values: &[
                libc::SO_ATTACH_FILTER.cast_unsigned(),
                libc::SO_ATTACH_BPF.cast_unsigned(),
                libc::SO_ATTACH_REUSEPORT_CBPF.cast_unsigned(),
                libc::SO_ATTACH_REUSEPORT_EBPF.cast_unsigned(),
            ],
            listed: Errno(libc::EPERM),
            other: Allow,
        },
    },
    otherwise: &PERMITTED,
};
