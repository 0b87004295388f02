//! Filters of Belljar's own processes.

use super::Verdict::{Allow, Errno};
use super::legacy::LEGACY;
use super::table::{COMMON, FORBIDDEN, PERMITTED};
use super::{Filter, Rule};

/// What Belljar's own confined processes may call: of what a build may, whatever is no way to another program, to
/// new code, into another process or to a network.
pub const SERVICE: Filter = Filter {
    default: Errno(libc::ENOSYS),
    groups: &[UNIX_ONLY, NARROWER, COMMON, LEGACY],
};

/// The same for one that serves over TCP: which ports, Landlock decides.
pub const SERVICE_WITH_TCP: Filter = Filter {
    default: Errno(libc::ENOSYS),
    groups: &[UNIX_AND_IP, NARROWER, COMMON, LEGACY],
};

const UNIX_ONLY: &[(libc::c_long, Rule)] = &[(
    libc::SYS_socket,
    Rule::ByValue {
        argument: 0,
        values: &[libc::AF_UNIX as u32],
        listed: Allow,
        other: Errno(libc::EAFNOSUPPORT),
    },
)];

const UNIX_AND_IP: &[(libc::c_long, Rule)] = &[(
    libc::SYS_socket,
    Rule::ByValue {
        argument: 0,
        values: &[
            libc::AF_UNIX as u32,
            libc::AF_INET as u32,
            libc::AF_INET6 as u32,
        ],
        listed: Allow,
        other: Errno(libc::EAFNOSUPPORT),
    },
)];

/// Memory that holds no code can get none.
const NO_NEW_CODE: Rule = Rule::RefuseFlags {
    argument: 2,
    mask: libc::PROT_EXEC as u32,
    errno: libc::EPERM,
};

/// What a build may call and a service has no need of; and what confines its children further.
const NARROWER: &[(libc::c_long, Rule)] = &[
    (libc::SYS_landlock_create_ruleset, PERMITTED),
    (libc::SYS_landlock_add_rule, PERMITTED),
    (libc::SYS_landlock_restrict_self, PERMITTED),
    (libc::SYS_seccomp, PERMITTED),
    (libc::SYS_execve, FORBIDDEN),
    (libc::SYS_execveat, FORBIDDEN),
    (libc::SYS_mmap, NO_NEW_CODE),
    (libc::SYS_mprotect, NO_NEW_CODE),
    (libc::SYS_pkey_mprotect, NO_NEW_CODE),
    (libc::SYS_memfd_create, FORBIDDEN),
    (libc::SYS_personality, FORBIDDEN),
    (libc::SYS_ptrace, FORBIDDEN),
    (libc::SYS_process_vm_readv, FORBIDDEN),
    (libc::SYS_process_vm_writev, FORBIDDEN),
    (libc::SYS_process_madvise, FORBIDDEN),
    (libc::SYS_unshare, FORBIDDEN),
    (libc::SYS_mknodat, FORBIDDEN),
    (libc::SYS_symlinkat, FORBIDDEN),
    (libc::SYS_shmget, FORBIDDEN),
    (libc::SYS_shmat, FORBIDDEN),
    (libc::SYS_semget, FORBIDDEN),
    (libc::SYS_msgget, FORBIDDEN),
    (libc::SYS_mq_open, FORBIDDEN),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, FORBIDDEN),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, FORBIDDEN),
];

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
