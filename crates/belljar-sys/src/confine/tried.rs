use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::Service;
use crate::forbidden::{self, Attempt};

/// What a confined service must be refused, each really tried. What the file modes alone would refuse to its user
/// proves nothing, so these are things that they allow.
pub const TRIED: &[Attempt] = &[
    Attempt {
        name: "start a program",
        run: start_program,
    },
    Attempt {
        name: "make memory executable",
        run: executable_memory,
    },
    Attempt {
        name: "trace a process",
        run: trace,
    },
    Attempt {
        name: "signal a process outside",
        run: signal_outside,
    },
    Attempt {
        name: "look into a directory of others",
        run: look_around,
    },
    Attempt {
        name: "write in a directory of everybody",
        run: write_elsewhere,
    },
    Attempt {
        name: "reach a network",
        run: network,
    },
    Attempt {
        name: "ask the kernel for routes",
        run: netlink,
    },
    Attempt {
        name: "open a vsock socket",
        run: forbidden::vsock,
    },
    Attempt {
        name: "set up io_uring",
        run: forbidden::io_uring,
    },
    Attempt {
        name: "make a user namespace",
        run: forbidden::user_namespace,
    },
    Attempt {
        name: "mount a file system",
        run: forbidden::mount,
    },
    Attempt {
        name: "join a keyring",
        run: forbidden::keyring,
    },
];

/// Tries everything. One thing that works is an error.
pub(super) fn probe(_: &Service) -> io::Result<String> {
    for attempt in TRIED {
        if (attempt.run)().is_ok() {
            return Err(io::Error::other(format!(
                "it was possible to {}",
                attempt.name
            )));
        }
    }
    Ok(format!("{} things refused", TRIED.len()))
}

/// Of a program that is not there the kernel would say so.
fn start_program() -> io::Result<()> {
    let arguments: [&CStr; 0] = [];
    match nix::unistd::execve(c"/nonexistent/program", &arguments, &arguments) {
        Ok(never) => match never {},
        Err(error) => unless_missing(error.into()),
    }
}

/// That something is not there is what one hears who may ask.
fn unless_missing(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Ok(()),
        _ => Err(error),
    }
}

fn executable_memory() -> io::Result<()> {
    // WHY: no safe wrapper exists for memory that nobody refers to.
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory that exists; nothing
    // is ever run there.
    let got = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if got == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// There is no process 0: who may trace hears that.
fn trace() -> io::Result<()> {
    let nobody = nix::unistd::Pid::from_raw(0);
    match nix::sys::ptrace::seize(nobody, nix::sys::ptrace::Options::empty()) {
        Ok(()) => Ok(()),
        Err(error) => unless_missing(error.into()),
    }
}

/// Signal 0 does nothing but ask whether another one could be sent.
fn signal_outside() -> io::Result<()> {
    let parent = nix::unistd::getppid();
    if parent.as_raw() == 0 {
        // In another pid namespace: nobody outside can be named.
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(nix::sys::signal::kill(parent, None)?)
}

fn look_around() -> io::Result<()> {
    std::fs::read_dir("/").map(drop)
}

/// A file without a name, which is gone at once.
fn write_elsewhere() -> io::Result<()> {
    let mut open = OpenOptions::new();
    open.write(true).custom_flags(libc::O_TMPFILE);
    open.open("/tmp").map(drop)
}

/// RFC 5737: an address for documentation. It is not waited for; without a route the kernel would say so.
fn network() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);
    match connect(&socket, &nowhere) {
        Err(error @ (rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn netlink() -> io::Result<()> {
    let made = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    );
    Ok(made.map(drop)?)
}
