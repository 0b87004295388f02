//! Things that a sandbox must refuse, each as a function that really tries it. Outside a sandbox most
//! of them succeed for root; inside every one must fail.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;

/// A file that everybody may read and that no Landlock rule of a sandbox covers; the sandbox's root has
/// one here, so that trying to open it shows whether Landlock bites.
pub const UNCOVERED_FILE: &str = "/.uncovered";

/// One forbidden thing.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its short name, as receipts give it.
    pub name: &'static str,
    /// Tries it; an error is what is hoped for.
    pub run: fn() -> io::Result<()>,
}

/// All of them.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "mount a file system",
        run: mount,
    },
    Attempt {
        name: "make a user namespace",
        run: user_namespace,
    },
    Attempt {
        name: "become user 0",
        run: become_root,
    },
    Attempt {
        name: "join a keyring",
        run: keyring,
    },
    Attempt {
        name: "open a vsock socket",
        run: vsock,
    },
    Attempt {
        name: "set up io_uring",
        run: io_uring,
    },
    Attempt {
        name: "read a file without a Landlock rule",
        run: uncovered_file,
    },
    Attempt {
        name: "write core_pattern",
        run: core_pattern,
    },
    Attempt {
        name: "write below /usr",
        run: write_usr,
    },
    Attempt {
        name: "reach a network",
        run: network,
    },
];

pub(crate) fn mount() -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    match context {
        Ok(_) => Ok(()),
        // Both doors must be shut; the older one is tried on a place where it would do no harm.
        Err(_) => Ok(rustix::mount::mount(
            "none",
            "/tmp",
            "tmpfs",
            rustix::mount::MountFlags::NOSUID,
            c"size=4k",
        )?),
    }
}

pub(crate) fn user_namespace() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)
}

fn become_root() -> io::Result<()> {
    let root = rustix::thread::Uid::ROOT;
    Ok(rustix::thread::set_thread_res_uid(root, root, root)?)
}

pub(crate) fn keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // WHY: no safe wrapper exists; unlike `program::fresh_session_keyring` every error must show here.
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    answer(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
}

pub(crate) fn vsock() -> io::Result<()> {
    // WHY: rustix and nix do not make vsock sockets.
    // SAFETY: socket(2) takes numbers only.
    answer(unsafe { libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0) })
}

pub(crate) fn io_uring() -> io::Result<()> {
    // Larger than `struct io_uring_params` (120 bytes), all zero: a valid request for two entries.
    let mut parameters = [0u64; 32];
    // WHY: no safe wrapper exists in the crates used here.
    // SAFETY: the kernel writes at most `struct io_uring_params` bytes to memory that outlives the call.
    answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) })
}

fn uncovered_file() -> io::Result<()> {
    match OpenOptions::new().read(true).open(UNCOVERED_FILE) {
        // Not being there would prove nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

fn core_pattern() -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open("/proc/sys/kernel/core_pattern")
        .map(drop)
}

fn write_usr() -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open("/usr/.belljar-probe")
        .map(drop)
}

fn network() -> io::Result<()> {
    // RFC 5737: an address for documentation, which no route inside may lead to. Nothing is sent.
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect((Ipv4Addr::new(192, 0, 2, 1), 9))
}

fn answer(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
