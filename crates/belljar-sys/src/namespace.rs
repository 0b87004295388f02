//! Namespaces (namespaces(7)) as descriptors.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

use crate::connections::Connections;
use crate::privilege;
use crate::process::{Bond, NewNamespaces, clone_child};

/// Makes a user namespace with these complete id maps (user_namespaces(7)), in which no further user
/// namespace can be made, and gives a descriptor of it. It lives as long as the descriptor.
///
/// The host user `owner` owns it, which nobody may be: what is counted by user (inotify instances and watches,
/// pending signals, locked memory, message queues) the kernel counts for the users inside and for the owner of
/// their namespace, too, and so root, or two builds, must not be the same owner.
///
/// # Errors
/// What the clone, the change of user, or the writes to the maps say.
pub fn user(owner: u32, uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (result, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (mut wait, mut go) = (File::from(wait), File::from(go));
    let (mut result, mut report) = (File::from(result), File::from(report));
    let bond = Bond::to_this_process()?;
    let child = clone_child(NewNamespaces::default(), None, || {
        let mut tell = |done: io::Result<()>| {
            let errno = done
                .err()
                .map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
            report.write_all(&errno.to_ne_bytes()).is_ok() && errno == 0
        };
        // The change of user has undone what bound it to this process, which it could wait for for ever.
        if tell(own_user_namespace(owner).and_then(|()| bond.renew()))
            && wait.read_exact(&mut [0]).is_ok()
            && tell(forbid_user_namespaces())
        {
            // Stay until the parent has opened the namespace; it ends the wait by killing.
            loop {
                std::thread::park();
            }
        }
        1
    })?;
    let mut told = || -> io::Result<()> {
        let mut errno = [0; 4];
        result.read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    };
    let made = (|| {
        told()?;
        std::fs::write(format!("/proc/{}/uid_map", child.pid), uid_map)?;
        std::fs::write(format!("/proc/{}/gid_map", child.pid), gid_map)?;
        go.write_all(&[0])?;
        told()?;
        Ok(File::open(format!("/proc/{}/ns/user", child.pid))?.into())
    })();
    child.kill()?;
    child.wait()?;
    made
}

/// Leaves for a user namespace that `owner` owns. The capabilities of the host are kept until then: there are
/// hosts where only who has some may make a user namespace.
fn own_user_namespace(owner: u32) -> io::Result<()> {
    privilege::lock_secure_bits()?;
    let owner = rustix::process::Uid::from_raw(owner);
    rustix::thread::set_thread_res_uid(owner, owner, owner)?;
    Ok(unshare(CloneFlags::CLONE_NEWUSER)?)
}

/// The limit on nested user namespaces belongs to the namespace of whoever opens the file, so only a process
/// inside can set it.
fn forbid_user_namespaces() -> io::Result<()> {
    let limit = "/proc/sys/user/max_user_namespaces";
    std::fs::write(limit, "0\n")?;
    match std::fs::read_to_string(limit)?.trim() {
        "0" => Ok(()),
        other => Err(io::Error::other(format!("{limit} is {other}"))),
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Network {
    /// To enter it by.
    pub namespace: OwnedFd,
    /// What is connected in it.
    pub connections: Connections,
}

/// Makes a network namespace with nothing but a loopback device that is up. Whoever owns the caller's
/// user namespace owns it. The caller, which must have one thread, is back in its own afterwards.
///
/// # Errors
/// What unshare(2), setns(2) or the socket calls say.
pub fn network() -> io::Result<Network> {
    let own = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = loopback_up().and_then(|()| {
        Ok(Network {
            namespace: File::open("/proc/self/ns/net")?.into(),
            connections: Connections::open()?,
        })
    });
    setns(&own, CloneFlags::CLONE_NEWNET)?;
    made
}

fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // WHY: `struct ifreq` is plain data whose all-zero state is the empty request.
    // SAFETY: every field, the union included, is valid when zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // WHY: no safe wrapper for SIOCSIFFLAGS (netdevice(7)) exists in the crates used here.
    // SAFETY: the request is an `ifreq` as this ioctl demands, and outlives the call.
    match unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Enters a network namespace.
///
/// # Errors
/// What setns(2) says.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Enters a user namespace. All capability sets are full in it afterwards, the bounding set too.
///
/// # Errors
/// What setns(2) says.
pub fn enter_user(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWUSER)?)
}

/// Leaves the mount namespace for a copy of it.
///
/// # Errors
/// What unshare(2) says.
pub fn unshare_mounts() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNS)?)
}

/// Makes the present cgroup the root of what this process sees (cgroup_namespaces(7)).
///
/// # Errors
/// What unshare(2) says.
pub fn unshare_cgroup() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWCGROUP)?)
}

/// Whether the kernel has time namespaces (time_namespaces(7)).
///
/// # Errors
/// When it was built without them, or `/proc` is not there.
pub fn has_time() -> io::Result<()> {
    let own = "/proc/self/ns/time";
    File::open(own)
        .map(drop)
        .map_err(|error| io::Error::new(error.kind(), format!("{own}: {error}")))
}

/// Inode number of a namespace on nsfs: two descriptors with one number are one namespace.
///
/// # Errors
/// What fstat(2) says.
pub fn inode(namespace: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

/// The user namespace that owns a namespace; for a user namespace its parent (NS_GET_USERNS,
/// ioctl_nsfs(2)).
///
/// # Errors
/// What ioctl(2) says; EPERM when the owner is outside the caller's own user namespace.
pub fn owner(namespace: impl AsFd) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let descriptor = namespace.as_fd().as_raw_fd();
    // WHY: no safe wrapper for this ioctl exists in the crates used here.
    // SAFETY: it takes no argument and touches no memory of this process.
    match unsafe { libc::ioctl(descriptor, NS_GET_USERNS) } {
        -1 => Err(io::Error::last_os_error()),
        // WHY: the kernel gives the descriptor as a number.
        // SAFETY: the ioctl succeeded, so this is a new descriptor that nobody else owns.
        owner => Ok(unsafe { OwnedFd::from_raw_fd(owner) }),
    }
}

/// Sets the host name of this process's UTS namespace.
///
/// # Errors
/// What sethostname(2) says.
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}
