//! The collector: a child that reads what a hostile build has left, and sends it to the store. It is
//! confined before it looks at the first name: in the build's user namespace as inside 0, with no
//! capability but reading past mode bits there, under Landlock and a filter of a few calls, with one
//! socket. The store believes nothing that it says; the worst that it can do is to lose the outputs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use belljar_core::{Outputs, RelPath, bounds};
use belljar_plan::frame;
use belljar_plan::store::Collected;
use belljar_sys::Errno;
use belljar_sys::files::{self, Kind};
use belljar_sys::landlock::{self, Allowed, Rule};
use belljar_sys::process::{self, Child, NewNamespaces};
use belljar_sys::program::{self, Limited};
use belljar_sys::seccomp::{COLLECTOR, Program};
use belljar_sys::seqpacket::Connection;
use belljar_sys::{mount, namespace, privilege};

/// Address space of a collector, in bytes: its buffers and one directory's names.
const ADDRESS_SPACE: u64 = 512 << 20;
/// Most names in one directory.
const NAMES: usize = 100_000;

/// Starts a collector for the merged mount at `merged`.
///
/// # Errors
/// What clone3(2) says.
pub fn start(
    user_namespace: BorrowedFd<'_>,
    merged: &Path,
    store: &Connection,
    outputs: &Outputs,
) -> io::Result<Child> {
    let root = mount::directory(merged)?;
    let store = store.try_clone()?;
    process::clone_child(NewNamespaces::default(), None, || {
        let collect = || -> Result<(), Stop> {
            confine(user_namespace, root.as_fd(), &store)?;
            let collector = Collector {
                root,
                store: &store,
            };
            match collector.all(outputs) {
                Err(Stop::Refused(why)) => collector.tell(&Collected::Refused { why }),
                other => other,
            }
        };
        match collect() {
            Err(Stop::Failed(error)) => {
                tracing::warn!(%error, "a collector failed");
                1
            }
            Ok(()) | Err(Stop::Refused(_)) => 0,
        }
    })
}

fn confine(
    user_namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    store: &Connection,
) -> io::Result<()> {
    process::die_with_parent()?;
    let error = io::stderr();
    program::close_others(&[error.as_fd(), user_namespace, root, store.as_fd()])?;
    program::reset_signals()?;
    program::lower_limit(Limited::Core, 1)?;
    program::lower_limit(Limited::AddressSpace, ADDRESS_SPACE)?;
    namespace::enter_user(user_namespace)?;
    privilege::become_ids(0, 0)?;
    privilege::lock_secure_bits()?;
    privilege::empty_bounding_set()?;
    privilege::no_new_privileges()?;
    privilege::keep_only_read_search()?;
    process::not_dumpable()?;
    process::die_with_parent()?;
    landlock::restrict(&[Rule {
        path: root,
        directory: true,
        allowed: Allowed::Read,
    }])?;
    Program::compile(&COLLECTOR)?.install()
}

/// Why a collector stops early.
enum Stop {
    /// An output cannot be taken.
    Refused(String),
    /// Something else failed, or the store has hung up.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Collector<'a> {
    root: OwnedFd,
    store: &'a Connection,
}

impl Collector<'_> {
    fn all(&self, outputs: &Outputs) -> Result<(), Stop> {
        for output in outputs.iter() {
            let found = files::open_beneath(self.root.as_fd(), output.as_str());
            let opened = found.map_err(|e| refused(output, &explain(&e)))?;
            match files::kind(opened.as_fd())? {
                Kind::File => self.file(output, &opened)?,
                Kind::Directory => self.directory(output, &opened)?,
                other => {
                    return Err(refused(
                        output,
                        &format!("is {other}; only files and directories can be outputs"),
                    ));
                }
            }
        }
        self.tell(&Collected::End)
    }

    fn directory(&self, path: &RelPath, directory: &OwnedFd) -> Result<(), Stop> {
        self.tell(&Collected::Directory { path: path.clone() })?;
        let names = files::names(directory.as_fd(), NAMES)
            .map_err(|e| refused(path, &format!("cannot be listed: {e}")))?;
        for name in names {
            let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
            let text = String::from_utf8(name)
                .map_err(|_| refused(path, &format!("has an entry `{shown}`, not UTF-8")))?;
            let below = path
                .join(&text)
                .map_err(|e| refused(path, &format!("has an entry that cannot be taken: {e}")))?;
            let opened = files::open_beneath_nofollow(directory.as_fd(), &text)
                .map_err(|e| refused(&below, &explain(&e)))?;
            match files::kind(opened.as_fd())? {
                Kind::File => self.file(&below, &opened)?,
                Kind::Directory => self.directory(&below, &opened)?,
                Kind::Symlink => self.symlink(&below, &opened)?,
                other => {
                    return Err(refused(
                        &below,
                        &format!("is {other}; special files cannot be outputs"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn symlink(&self, path: &RelPath, link: &OwnedFd) -> Result<(), Stop> {
        let target = files::link_target(link.as_fd())?;
        let target = String::from_utf8(target)
            .map_err(|_| refused(path, "has a target that is not UTF-8"))?;
        self.tell(&Collected::Symlink {
            path: path.clone(),
            target,
        })
    }

    fn file(&self, path: &RelPath, found: &OwnedFd) -> Result<(), Stop> {
        let mode = files::mode(found.as_fd())?;
        if mode & 0o6000 != 0 {
            return Err(refused(path, "has a set-user-id or set-group-id bit"));
        }
        self.tell(&Collected::File {
            path: path.clone(),
            executable: mode & 0o100 != 0,
        })?;
        let mut content = File::from(files::reopen_for_reading(found.as_fd())?);
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                length => self.send(&frame::data(&buffer[..length]).map_err(io::Error::other)?)?,
            }
        }
        self.tell(&Collected::FileEnd)
    }

    fn tell(&self, message: &Collected) -> Result<(), Stop> {
        self.send(&frame::encode(message).map_err(io::Error::other)?)
    }

    fn send(&self, message: &[u8]) -> Result<(), Stop> {
        Ok(self.store.send(message)?)
    }
}

fn refused(path: &RelPath, why: &str) -> Stop {
    Stop::Refused(format!("output `{}` {why}", path.as_str().escape_debug()))
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "does not exist: no step has made it".to_owned(),
        Some(Errno::LOOP) => "leads through a symbolic link; declare the file itself".to_owned(),
        Some(Errno::XDEV) => "leaves the working directory".to_owned(),
        Some(Errno::NOTDIR) => "has a parent that is not a directory".to_owned(),
        _ => format!("cannot be opened: {error}"),
    }
}
