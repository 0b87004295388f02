//! Rules against what the limits of a cgroup do not hold: memory that it does not count, and stocks of the whole
//! machine.

use super::Rule;
use super::Verdict::{Allow, Errno};

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

/// As [`MMAP`]: without a privilege, too, as far as memory may be locked.
pub(super) const SHMGET: Rule = Rule::RefuseFlags {
    argument: 2,
    mask: SHM_HUGETLB,
    errno: libc::ENOMEM,
};
/// `linux/shm.h`.
const SHM_HUGETLB: u32 = 0o4000;

/// No policies for single mappings, as on a kernel without NUMA: 288 bytes for each, which no cgroup counts.
pub(super) const MBIND: Rule = Rule::Always(Errno(libc::ENOSYS));

/// No further filters, as on a kernel without them. They are compiled into memory that is bounded for the whole
/// machine together (net.core.bpf_jit_limit): a build that takes all of it lets nobody make a sandbox any more. And no
/// names of mappings, as on a kernel without CONFIG_ANON_VMA_NAME: up to 88 bytes for each, which no cgroup counts. No
/// merging of equal pages (below), and no cookies for core scheduling, by which a build has the other threads of a core
/// to itself: others would wait, beyond what its share of CPU time says.
pub(super) const PRCTL: Rule = Rule::ByValue {
    argument: 0,
    values: &[
        libc::PR_SET_SECCOMP.cast_unsigned(),
        libc::PR_SET_VMA.cast_unsigned(),
        PR_SCHED_CORE,
        PR_SET_MEMORY_MERGE,
    ],
    listed: Errno(libc::EINVAL),
    other: Allow,
};

/// `linux/prctl.h`.
const PR_SCHED_CORE: u32 = 62;
/// As well.
const PR_SET_MEMORY_MERGE: u32 = 67;

/// No merging of equal pages, as on a kernel without CONFIG_KSM: it goes across builds and the host, so that the time
/// that a write takes tells what others have in memory; and what the kernel notes of each page no cgroup counts.
pub(super) const MADVISE: Rule = Rule::ByValue {
    argument: 2,
    values: &[libc::MADV_MERGEABLE.cast_unsigned()],
    listed: Errno(libc::EINVAL),
    other: Allow,
};

/// As for [`PRCTL`].
pub(super) const SECCOMP: Rule = Rule::ByValue {
    argument: 0,
    values: &[libc::SECCOMP_SET_MODE_FILTER],
    listed: Errno(libc::EINVAL),
    other: Allow,
};
