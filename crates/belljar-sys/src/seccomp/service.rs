//! Filters of Belljar's own processes.

use super::Verdict::{Allow, Errno};
use super::table::{FORBIDDEN, PERMITTED};
use super::{Filter, Rule};

/// What Belljar's own confined processes may call: everything but the ways to a network, to another
/// program and into other processes.
pub const SERVICE: Filter = Filter {
    default: Allow,
    groups: &[&[
        (
            libc::SYS_socket,
            Rule::ByValue {
                argument: 0,
                values: &[libc::AF_UNIX as u32],
                listed: Allow,
                other: Errno(libc::EAFNOSUPPORT),
            },
        ),
        (libc::SYS_execve, FORBIDDEN),
        (libc::SYS_execveat, FORBIDDEN),
        (libc::SYS_ptrace, FORBIDDEN),
        (libc::SYS_process_vm_readv, FORBIDDEN),
        (libc::SYS_process_vm_writev, FORBIDDEN),
        (libc::SYS_io_uring_setup, Rule::Always(Errno(libc::ENOSYS))),
        (libc::SYS_unshare, FORBIDDEN),
        (libc::SYS_setns, FORBIDDEN),
        (libc::SYS_mount, FORBIDDEN),
        (libc::SYS_bpf, FORBIDDEN),
        (libc::SYS_keyctl, FORBIDDEN),
        (libc::SYS_userfaultfd, FORBIDDEN),
    ]],
};

/// What the collector may call, which reads what a hostile build has left: look up, read, and send over
/// the one socket that it has.
pub const COLLECTOR: Filter = Filter {
    default: Errno(libc::EPERM),
    groups: &[&[
        (libc::SYS_read, PERMITTED),
        (libc::SYS_write, PERMITTED),
        (libc::SYS_readv, PERMITTED),
        (libc::SYS_writev, PERMITTED),
        (libc::SYS_pread64, PERMITTED),
        (libc::SYS_lseek, PERMITTED),
        (libc::SYS_close, PERMITTED),
        (libc::SYS_fcntl, PERMITTED),
        (libc::SYS_fstat, PERMITTED),
        (libc::SYS_newfstatat, PERMITTED),
        (libc::SYS_statx, PERMITTED),
        (libc::SYS_openat, PERMITTED),
        (libc::SYS_openat2, PERMITTED),
        (libc::SYS_readlinkat, PERMITTED),
        (libc::SYS_getdents64, PERMITTED),
        (libc::SYS_sendmsg, PERMITTED),
        (libc::SYS_recvmsg, PERMITTED),
        (libc::SYS_ppoll, PERMITTED),
        (libc::SYS_mmap, PERMITTED),
        (libc::SYS_munmap, PERMITTED),
        (libc::SYS_mremap, PERMITTED),
        (libc::SYS_mprotect, PERMITTED),
        (libc::SYS_madvise, PERMITTED),
        (libc::SYS_brk, PERMITTED),
        (libc::SYS_futex, PERMITTED),
        (libc::SYS_getrandom, PERMITTED),
        (libc::SYS_clock_gettime, PERMITTED),
        (libc::SYS_rt_sigaction, PERMITTED),
        (libc::SYS_rt_sigprocmask, PERMITTED),
        (libc::SYS_rt_sigreturn, PERMITTED),
        (libc::SYS_sigaltstack, PERMITTED),
        (libc::SYS_restart_syscall, PERMITTED),
        (libc::SYS_getpid, PERMITTED),
        (libc::SYS_gettid, PERMITTED),
        (libc::SYS_exit, PERMITTED),
        (libc::SYS_exit_group, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, PERMITTED),
    ]],
};

/// What an unpacker may call, which reads hostile bytes from pipes: read, compute, and send and receive
/// over the one socket that it has. It can open nothing.
pub const UNPACKER: Filter = Filter {
    default: Errno(libc::EPERM),
    groups: &[&[
        (libc::SYS_read, PERMITTED),
        (libc::SYS_write, PERMITTED),
        (libc::SYS_close, PERMITTED),
        (libc::SYS_sendmsg, PERMITTED),
        (libc::SYS_recvmsg, PERMITTED),
        (libc::SYS_mmap, PERMITTED),
        (libc::SYS_munmap, PERMITTED),
        (libc::SYS_mremap, PERMITTED),
        (libc::SYS_mprotect, PERMITTED),
        (libc::SYS_madvise, PERMITTED),
        (libc::SYS_brk, PERMITTED),
        (libc::SYS_futex, PERMITTED),
        (libc::SYS_getrandom, PERMITTED),
        (libc::SYS_clock_gettime, PERMITTED),
        (libc::SYS_rt_sigaction, PERMITTED),
        (libc::SYS_rt_sigprocmask, PERMITTED),
        (libc::SYS_rt_sigreturn, PERMITTED),
        (libc::SYS_sigaltstack, PERMITTED),
        (libc::SYS_restart_syscall, PERMITTED),
        (libc::SYS_exit, PERMITTED),
        (libc::SYS_exit_group, PERMITTED),
    ]],
};
