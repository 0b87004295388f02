use super::Verdict::{Allow, Errno};
use super::{Filter, Rule};

const PERMITTED: Rule = Rule::Always(Allow);
/// For calls that a program may well try, and handles when they fail.
const FORBIDDEN: Rule = Rule::Always(Errno(libc::EPERM as u16));

/// Every flag that asks for a new namespace. 0x80 is CLONE_NEWTIME, which only unshare(2) takes so.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const NEW_NAMESPACES_OR_TIME: u32 = NEW_NAMESPACES | 0x80;

/// What a build may call. Anything that is not here, also what kernels will learn yet, is answered with
/// ENOSYS, as an older kernel would: programs fall back. What is refused by name is answered with EPERM.
pub const SANDBOX: Filter = Filter {
    default: Errno(libc::ENOSYS as u16),
    rules: &[
        // Files by descriptor.
        (libc::SYS_read, PERMITTED),
        (libc::SYS_write, PERMITTED),
        (libc::SYS_readv, PERMITTED),
        (libc::SYS_writev, PERMITTED),
        (libc::SYS_pread64, PERMITTED),
        (libc::SYS_pwrite64, PERMITTED),
        (libc::SYS_preadv, PERMITTED),
        (libc::SYS_pwritev, PERMITTED),
        (libc::SYS_preadv2, PERMITTED),
        (libc::SYS_pwritev2, PERMITTED),
        (libc::SYS_lseek, PERMITTED),
        (libc::SYS_close, PERMITTED),
        (libc::SYS_close_range, PERMITTED),
        (libc::SYS_dup, PERMITTED),
        (libc::SYS_dup3, PERMITTED),
        (libc::SYS_fcntl, PERMITTED),
        (libc::SYS_flock, PERMITTED),
        (libc::SYS_fsync, PERMITTED),
        (libc::SYS_fdatasync, PERMITTED),
        (libc::SYS_sync_file_range, PERMITTED),
        (libc::SYS_sync, PERMITTED),
        (libc::SYS_syncfs, PERMITTED),
        (libc::SYS_ftruncate, PERMITTED),
        (libc::SYS_fallocate, PERMITTED),
        (libc::SYS_fadvise64, PERMITTED),
        (libc::SYS_readahead, PERMITTED),
        (libc::SYS_sendfile, PERMITTED),
        (libc::SYS_splice, PERMITTED),
        (libc::SYS_tee, PERMITTED),
        (libc::SYS_vmsplice, PERMITTED),
        (libc::SYS_copy_file_range, PERMITTED),
        (libc::SYS_fstat, PERMITTED),
        (libc::SYS_fstatfs, PERMITTED),
        (libc::SYS_fchmod, PERMITTED),
        (libc::SYS_fchown, PERMITTED),
        (libc::SYS_fchdir, PERMITTED),
        (libc::SYS_getdents64, PERMITTED),
        (libc::SYS_memfd_create, PERMITTED),
        // Files by path. Landlock and the mounts decide what a path may be.
        (libc::SYS_openat, PERMITTED),
        (libc::SYS_openat2, PERMITTED),
        (libc::SYS_newfstatat, PERMITTED),
        (libc::SYS_statx, PERMITTED),
        (libc::SYS_statfs, PERMITTED),
        (libc::SYS_faccessat, PERMITTED),
        (libc::SYS_faccessat2, PERMITTED),
        (libc::SYS_readlinkat, PERMITTED),
        (libc::SYS_mkdirat, PERMITTED),
        (libc::SYS_mknodat, PERMITTED), // FIFOs and plain files; devices need a capability
        (libc::SYS_unlinkat, PERMITTED),
        (libc::SYS_renameat2, PERMITTED),
        (libc::SYS_linkat, PERMITTED),
        (libc::SYS_symlinkat, PERMITTED),
        (libc::SYS_fchmodat, PERMITTED),
        (libc::SYS_fchmodat2, PERMITTED),
        (libc::SYS_fchownat, PERMITTED),
        (libc::SYS_truncate, PERMITTED),
        (libc::SYS_utimensat, PERMITTED),
        (libc::SYS_chdir, PERMITTED),
        (libc::SYS_getcwd, PERMITTED),
        (libc::SYS_umask, PERMITTED),
        (libc::SYS_getxattr, PERMITTED),
        (libc::SYS_lgetxattr, PERMITTED),
        (libc::SYS_fgetxattr, PERMITTED),
        (libc::SYS_setxattr, PERMITTED),
        (libc::SYS_lsetxattr, PERMITTED),
        (libc::SYS_fsetxattr, PERMITTED),
        (libc::SYS_listxattr, PERMITTED),
        (libc::SYS_llistxattr, PERMITTED),
        (libc::SYS_flistxattr, PERMITTED),
        (libc::SYS_removexattr, PERMITTED),
        (libc::SYS_lremovexattr, PERMITTED),
        (libc::SYS_fremovexattr, PERMITTED),
        (libc::SYS_inotify_init1, PERMITTED),
        (libc::SYS_inotify_add_watch, PERMITTED),
        (libc::SYS_inotify_rm_watch, PERMITTED),
        // Waiting for events.
        (libc::SYS_ppoll, PERMITTED),
        (libc::SYS_pselect6, PERMITTED),
        (libc::SYS_epoll_create1, PERMITTED),
        (libc::SYS_epoll_ctl, PERMITTED),
        (libc::SYS_epoll_pwait, PERMITTED),
        (libc::SYS_epoll_pwait2, PERMITTED),
        (libc::SYS_eventfd2, PERMITTED),
        (libc::SYS_signalfd4, PERMITTED),
        (libc::SYS_timerfd_create, PERMITTED),
        (libc::SYS_timerfd_settime, PERMITTED),
        (libc::SYS_timerfd_gettime, PERMITTED),
        (libc::SYS_pipe2, PERMITTED),
        (libc::SYS_io_setup, PERMITTED),
        (libc::SYS_io_submit, PERMITTED),
        (libc::SYS_io_getevents, PERMITTED),
        (libc::SYS_io_cancel, PERMITTED),
        (libc::SYS_io_destroy, PERMITTED),
        // Memory.
        (libc::SYS_mmap, PERMITTED),
        (libc::SYS_munmap, PERMITTED),
        (libc::SYS_mremap, PERMITTED),
        (libc::SYS_mprotect, PERMITTED),
        (libc::SYS_pkey_alloc, PERMITTED),
        (libc::SYS_pkey_free, PERMITTED),
        (libc::SYS_pkey_mprotect, PERMITTED),
        (libc::SYS_madvise, PERMITTED),
        (libc::SYS_process_madvise, PERMITTED),
        (libc::SYS_brk, PERMITTED),
        (libc::SYS_msync, PERMITTED),
        (libc::SYS_mincore, PERMITTED),
        (libc::SYS_mlock, PERMITTED), // bounded by RLIMIT_MEMLOCK
        (libc::SYS_mlock2, PERMITTED),
        (libc::SYS_munlock, PERMITTED),
        (libc::SYS_mlockall, PERMITTED),
        (libc::SYS_munlockall, PERMITTED),
        (libc::SYS_membarrier, PERMITTED),
        (libc::SYS_get_mempolicy, PERMITTED),
        (libc::SYS_set_mempolicy, PERMITTED),
        (libc::SYS_mbind, PERMITTED),
        // Processes and threads.
        (
            libc::SYS_clone,
            Rule::RefuseFlags {
                argument: 0,
                mask: NEW_NAMESPACES,
                errno: libc::EPERM as u16,
            },
        ),
        // Its flags lie in memory, where a filter cannot look: ENOSYS makes every libc fall back to clone.
        (libc::SYS_clone3, Rule::Always(Errno(libc::ENOSYS as u16))),
        (
            libc::SYS_unshare,
            Rule::RefuseFlags {
                argument: 0,
                mask: NEW_NAMESPACES_OR_TIME,
                errno: libc::EPERM as u16,
            },
        ),
        (libc::SYS_setns, FORBIDDEN),
        (libc::SYS_execve, PERMITTED),
        (libc::SYS_execveat, PERMITTED),
        (libc::SYS_exit, PERMITTED),
        (libc::SYS_exit_group, PERMITTED),
        (libc::SYS_wait4, PERMITTED),
        (libc::SYS_waitid, PERMITTED),
        (libc::SYS_kill, PERMITTED),
        (libc::SYS_tkill, PERMITTED),
        (libc::SYS_tgkill, PERMITTED),
        (libc::SYS_pidfd_open, PERMITTED),
        (libc::SYS_pidfd_send_signal, PERMITTED),
        (libc::SYS_pidfd_getfd, FORBIDDEN),
        (libc::SYS_getpid, PERMITTED),
        (libc::SYS_getppid, PERMITTED),
        (libc::SYS_gettid, PERMITTED),
        (libc::SYS_getpgid, PERMITTED),
        (libc::SYS_setpgid, PERMITTED),
        (libc::SYS_getsid, PERMITTED),
        (libc::SYS_setsid, PERMITTED),
        (libc::SYS_set_tid_address, PERMITTED),
        (libc::SYS_set_robust_list, PERMITTED),
        (libc::SYS_get_robust_list, PERMITTED),
        (libc::SYS_rseq, PERMITTED),
        (libc::SYS_futex, PERMITTED),
        (libc::SYS_futex_waitv, PERMITTED),
        (libc::SYS_restart_syscall, PERMITTED),
        (libc::SYS_prctl, PERMITTED),
        (libc::SYS_seccomp, PERMITTED), // a further filter only narrows
        (libc::SYS_capget, PERMITTED),
        (libc::SYS_capset, PERMITTED), // there are none to set
        // Confined by the pid namespace and by init not being dumpable; sanitizers and debuggers need it.
        (libc::SYS_ptrace, PERMITTED),
        (libc::SYS_process_vm_readv, PERMITTED),
        (libc::SYS_process_vm_writev, PERMITTED),
        (libc::SYS_kcmp, FORBIDDEN),
        (
            libc::SYS_personality,
            Rule::ByValue {
                argument: 0,
                // PER_LINUX, PER_LINUX32, UNAME26, ADDR_NO_RANDOMIZE, and the query.
                values: &[0, 8, 0x2_0000, 0x4_0000, u32::MAX],
                listed: Allow,
                other: Errno(libc::EPERM as u16),
            },
        ),
        // Signals and timers.
        (libc::SYS_rt_sigaction, PERMITTED),
        (libc::SYS_rt_sigprocmask, PERMITTED),
        (libc::SYS_rt_sigreturn, PERMITTED),
        (libc::SYS_rt_sigsuspend, PERMITTED),
        (libc::SYS_rt_sigpending, PERMITTED),
        (libc::SYS_rt_sigtimedwait, PERMITTED),
        (libc::SYS_rt_sigqueueinfo, PERMITTED),
        (libc::SYS_rt_tgsigqueueinfo, PERMITTED),
        (libc::SYS_sigaltstack, PERMITTED),
        (libc::SYS_setitimer, PERMITTED),
        (libc::SYS_getitimer, PERMITTED),
        (libc::SYS_timer_create, PERMITTED),
        (libc::SYS_timer_settime, PERMITTED),
        (libc::SYS_timer_gettime, PERMITTED),
        (libc::SYS_timer_getoverrun, PERMITTED),
        (libc::SYS_timer_delete, PERMITTED),
        (libc::SYS_nanosleep, PERMITTED),
        (libc::SYS_clock_nanosleep, PERMITTED),
        (libc::SYS_clock_gettime, PERMITTED),
        (libc::SYS_clock_getres, PERMITTED),
        (libc::SYS_gettimeofday, PERMITTED),
        (libc::SYS_times, PERMITTED),
        // Scheduling: without privileges it can only be lowered, and affinity stays inside the cpuset.
        (libc::SYS_sched_yield, PERMITTED),
        (libc::SYS_sched_getaffinity, PERMITTED),
        (libc::SYS_sched_setaffinity, PERMITTED),
        (libc::SYS_sched_getparam, PERMITTED),
        (libc::SYS_sched_setparam, PERMITTED),
        (libc::SYS_sched_getscheduler, PERMITTED),
        (libc::SYS_sched_setscheduler, PERMITTED),
        (libc::SYS_sched_getattr, PERMITTED),
        (libc::SYS_sched_setattr, PERMITTED),
        (libc::SYS_sched_get_priority_max, PERMITTED),
        (libc::SYS_sched_get_priority_min, PERMITTED),
        (libc::SYS_sched_rr_get_interval, PERMITTED),
        (libc::SYS_getpriority, PERMITTED),
        (libc::SYS_setpriority, PERMITTED),
        (libc::SYS_ioprio_get, PERMITTED),
        (libc::SYS_ioprio_set, PERMITTED),
        (libc::SYS_getcpu, PERMITTED),
        // Limits and identity. Setting ids fails without capabilities, as programs expect.
        (
            libc::SYS_prlimit64,
            Rule::IgnoreWhen {
                argument: 1,
                value: libc::RLIMIT_CORE,
                given: 2,
            },
        ),
        (libc::SYS_getrlimit, PERMITTED),
        (
            libc::SYS_setrlimit,
            Rule::IgnoreWhen {
                argument: 0,
                value: libc::RLIMIT_CORE,
                given: 1,
            },
        ),
        (libc::SYS_getrusage, PERMITTED),
        (libc::SYS_getuid, PERMITTED),
        (libc::SYS_geteuid, PERMITTED),
        (libc::SYS_getgid, PERMITTED),
        (libc::SYS_getegid, PERMITTED),
        (libc::SYS_getgroups, PERMITTED),
        (libc::SYS_getresuid, PERMITTED),
        (libc::SYS_getresgid, PERMITTED),
        (libc::SYS_setuid, PERMITTED),
        (libc::SYS_setgid, PERMITTED),
        (libc::SYS_setreuid, PERMITTED),
        (libc::SYS_setregid, PERMITTED),
        (libc::SYS_setresuid, PERMITTED),
        (libc::SYS_setresgid, PERMITTED),
        (libc::SYS_setfsuid, PERMITTED),
        (libc::SYS_setfsgid, PERMITTED),
        (libc::SYS_setgroups, PERMITTED),
        (libc::SYS_uname, PERMITTED),
        (libc::SYS_sysinfo, PERMITTED),
        (libc::SYS_getrandom, PERMITTED),
        // Sockets, in a network namespace of their own.
        (
            libc::SYS_socket,
            Rule::Families(&[
                libc::AF_UNIX as u32,
                libc::AF_INET as u32,
                libc::AF_INET6 as u32,
            ]),
        ),
        (
            libc::SYS_socketpair,
            Rule::ByValue {
                argument: 0,
                values: &[libc::AF_UNIX as u32],
                listed: Allow,
                other: Errno(libc::EAFNOSUPPORT as u16),
            },
        ),
        (libc::SYS_bind, PERMITTED),
        (libc::SYS_listen, PERMITTED),
        (libc::SYS_accept, PERMITTED),
        (libc::SYS_accept4, PERMITTED),
        (libc::SYS_connect, PERMITTED),
        (libc::SYS_getsockname, PERMITTED),
        (libc::SYS_getpeername, PERMITTED),
        (libc::SYS_getsockopt, PERMITTED),
        (libc::SYS_setsockopt, PERMITTED),
        (libc::SYS_shutdown, PERMITTED),
        (libc::SYS_sendto, PERMITTED),
        (libc::SYS_recvfrom, PERMITTED),
        (libc::SYS_sendmsg, PERMITTED),
        (libc::SYS_recvmsg, PERMITTED),
        (libc::SYS_sendmmsg, PERMITTED),
        (libc::SYS_recvmmsg, PERMITTED),
        // IPC, in an IPC namespace of its own.
        (libc::SYS_shmget, PERMITTED),
        (libc::SYS_shmat, PERMITTED),
        (libc::SYS_shmdt, PERMITTED),
        (libc::SYS_shmctl, PERMITTED),
        (libc::SYS_semget, PERMITTED),
        (libc::SYS_semop, PERMITTED),
        (libc::SYS_semtimedop, PERMITTED),
        (libc::SYS_semctl, PERMITTED),
        (libc::SYS_msgget, PERMITTED),
        (libc::SYS_msgsnd, PERMITTED),
        (libc::SYS_msgrcv, PERMITTED),
        (libc::SYS_msgctl, PERMITTED),
        (libc::SYS_mq_open, PERMITTED),
        (libc::SYS_mq_unlink, PERMITTED),
        (libc::SYS_mq_timedsend, PERMITTED),
        (libc::SYS_mq_timedreceive, PERMITTED),
        (libc::SYS_mq_notify, PERMITTED),
        (libc::SYS_mq_getsetattr, PERMITTED),
        // Devices: no request that types into a terminal or drives a console.
        (
            libc::SYS_ioctl,
            Rule::ByValue {
                argument: 1,
                values: &[TIOCSTI, TIOCLINUX, TIOCCONS],
                listed: Errno(libc::EPERM as u16),
                other: Allow,
            },
        ),
        // Refused by name, so that a program hears "not permitted" rather than "not there".
        (libc::SYS_mount, FORBIDDEN),
        (libc::SYS_umount2, FORBIDDEN),
        (libc::SYS_pivot_root, FORBIDDEN),
        (libc::SYS_chroot, FORBIDDEN),
        (libc::SYS_fsopen, FORBIDDEN),
        (libc::SYS_fsconfig, FORBIDDEN),
        (libc::SYS_fsmount, FORBIDDEN),
        (libc::SYS_fspick, FORBIDDEN),
        (libc::SYS_open_tree, FORBIDDEN),
        (libc::SYS_move_mount, FORBIDDEN),
        (libc::SYS_mount_setattr, FORBIDDEN),
        (libc::SYS_swapon, FORBIDDEN),
        (libc::SYS_swapoff, FORBIDDEN),
        (libc::SYS_quotactl, FORBIDDEN),
        (libc::SYS_quotactl_fd, FORBIDDEN),
        (libc::SYS_name_to_handle_at, FORBIDDEN),
        (libc::SYS_open_by_handle_at, FORBIDDEN),
        (libc::SYS_fanotify_init, FORBIDDEN),
        (libc::SYS_fanotify_mark, FORBIDDEN),
        (libc::SYS_add_key, FORBIDDEN),
        (libc::SYS_request_key, FORBIDDEN),
        (libc::SYS_keyctl, FORBIDDEN),
        (libc::SYS_bpf, FORBIDDEN),
        (libc::SYS_perf_event_open, FORBIDDEN),
        (libc::SYS_userfaultfd, FORBIDDEN),
        (libc::SYS_init_module, FORBIDDEN),
        (libc::SYS_finit_module, FORBIDDEN),
        (libc::SYS_delete_module, FORBIDDEN),
        (libc::SYS_kexec_load, FORBIDDEN),
        (libc::SYS_kexec_file_load, FORBIDDEN),
        (libc::SYS_reboot, FORBIDDEN),
        (libc::SYS_syslog, FORBIDDEN),
        (libc::SYS_acct, FORBIDDEN),
        (libc::SYS_vhangup, FORBIDDEN),
        (libc::SYS_settimeofday, FORBIDDEN),
        (libc::SYS_clock_settime, FORBIDDEN),
        (libc::SYS_clock_adjtime, FORBIDDEN),
        (libc::SYS_adjtimex, FORBIDDEN),
        (libc::SYS_sethostname, FORBIDDEN),
        (libc::SYS_setdomainname, FORBIDDEN),
        (libc::SYS_migrate_pages, FORBIDDEN),
        (libc::SYS_move_pages, FORBIDDEN),
        // The older doors to the same rooms, which only x86-64 has.
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_creat, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_stat, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_lstat, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_access, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_readlink, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mkdir, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_rmdir, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_unlink, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_rename, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_renameat, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_link, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_symlink, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chown, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_lchown, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_utime, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_utimes, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_futimesat, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_getdents, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_dup2, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_pipe, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_select, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_create, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_eventfd, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_signalfd, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_inotify_init, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_fork, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_vfork, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_getpgrp, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_pause, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_alarm, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_time, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_arch_prctl, PERMITTED),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_iopl, FORBIDDEN),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_ioperm, FORBIDDEN),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_modify_ldt, FORBIDDEN),
    ],
};

/// ioctl_tty(2) and ioctl_console(2).
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCCONS: u32 = 0x541d;

/// What Belljar's own confined processes may call: everything but the ways to a network, to another
/// program and into other processes.
pub const SERVICE: Filter = Filter {
    default: Allow,
    rules: &[
        (
            libc::SYS_socket,
            Rule::ByValue {
                argument: 0,
                values: &[libc::AF_UNIX as u32],
                listed: Allow,
                other: Errno(libc::EAFNOSUPPORT as u16),
            },
        ),
        (libc::SYS_execve, FORBIDDEN),
        (libc::SYS_execveat, FORBIDDEN),
        (libc::SYS_ptrace, FORBIDDEN),
        (libc::SYS_process_vm_readv, FORBIDDEN),
        (libc::SYS_process_vm_writev, FORBIDDEN),
        (
            libc::SYS_io_uring_setup,
            Rule::Always(Errno(libc::ENOSYS as u16)),
        ),
        (libc::SYS_unshare, FORBIDDEN),
        (libc::SYS_setns, FORBIDDEN),
        (libc::SYS_mount, FORBIDDEN),
        (libc::SYS_bpf, FORBIDDEN),
        (libc::SYS_keyctl, FORBIDDEN),
        (libc::SYS_userfaultfd, FORBIDDEN),
    ],
};
