//! The older doors to the same rooms, which only x86-64 has.

use super::Rule;
#[cfg(target_arch = "x86_64")]
use super::table::{FORBIDDEN, PERMITTED};

#[cfg(target_arch = "x86_64")]
pub(super) const LEGACY: &[(libc::c_long, Rule)] = &[
    (libc::SYS_open, PERMITTED),
    (libc::SYS_creat, PERMITTED),
    (libc::SYS_stat, PERMITTED),
    (libc::SYS_lstat, PERMITTED),
    (libc::SYS_access, PERMITTED),
    (libc::SYS_readlink, PERMITTED),
    (libc::SYS_mkdir, PERMITTED),
    (libc::SYS_rmdir, PERMITTED),
    (libc::SYS_mknod, PERMITTED),
    (libc::SYS_unlink, PERMITTED),
    (libc::SYS_rename, PERMITTED),
    (libc::SYS_renameat, PERMITTED),
    (libc::SYS_link, PERMITTED),
    (libc::SYS_symlink, PERMITTED),
    (libc::SYS_chmod, PERMITTED),
    (libc::SYS_chown, PERMITTED),
    (libc::SYS_lchown, PERMITTED),
    (libc::SYS_utime, PERMITTED),
    (libc::SYS_utimes, PERMITTED),
    (libc::SYS_futimesat, PERMITTED),
    (libc::SYS_getdents, PERMITTED),
    (libc::SYS_dup2, PERMITTED),
    (libc::SYS_pipe, PERMITTED),
    (libc::SYS_poll, PERMITTED),
    (libc::SYS_select, PERMITTED),
    (libc::SYS_epoll_create, PERMITTED),
    (libc::SYS_epoll_wait, PERMITTED),
    (libc::SYS_eventfd, PERMITTED),
    (libc::SYS_signalfd, PERMITTED),
    (libc::SYS_inotify_init, PERMITTED),
    (libc::SYS_fork, PERMITTED),
    (libc::SYS_vfork, PERMITTED),
    (libc::SYS_getpgrp, PERMITTED),
    (libc::SYS_pause, PERMITTED),
    (libc::SYS_alarm, PERMITTED),
    (libc::SYS_time, PERMITTED),
    (libc::SYS_arch_prctl, PERMITTED),
    (libc::SYS_iopl, FORBIDDEN),
    (libc::SYS_ioperm, FORBIDDEN),
    (libc::SYS_modify_ldt, FORBIDDEN),
];

#[cfg(not(target_arch = "x86_64"))]
pub(super) const LEGACY: &[(libc::c_long, Rule)] = &[];
