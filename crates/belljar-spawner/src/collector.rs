//! The collector: a child that reads what a hostile build has left, and sends it to the store. It is
//! confined before it looks at the first name: in the build's user namespace as inside 0, with no
//! capability but reading past mode bits there, under Landlock and a filter of a few calls, with one
//! socket. The store believes nothing that it says; the worst that it can do is to lose the outputs.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use belljar_core::{OutputPattern, Outputs, RelPath, Way, bounds};
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

/// Address space of a collector, in bytes: its buffers, and the names in a directory and in those above it, which
/// [`bounds::LISTED_BYTES`] bounds far below.
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
                listed: Cell::new(0),
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

/// What is shared by the looks for all patterns.
struct Walk<'a> {
    outputs: &'a Outputs,
    taken: BTreeSet<RelPath>,
    looked_at: usize,
    /// How many bytes of names were compared with patterns.
    compared: usize,
}

impl Walk<'_> {
    /// Counts an entry that is looked at for `pattern`, with a name of so many bytes that is compared with so many patterns.
    fn count(&mut self, pattern: &OutputPattern, name: usize, patterns: usize) -> Result<(), Stop> {
        self.looked_at += 1;
        self.compared += name * patterns;
        let (most, what) = if self.looked_at > bounds::OUTPUT_WALK {
            (bounds::OUTPUT_WALK, "entries looked at")
        } else if self.compared > bounds::OUTPUT_WALK_BYTES {
            (
                bounds::OUTPUT_WALK_BYTES,
                "bytes of names compared with patterns",
            )
        } else {
            return Ok(());
        };
        Err(Stop::Refused(format!(
            "output `{pattern}` would have more than {most} {what}; let it begin with the directory that is meant"
        )))
    }
}

/// A pattern on its way through the tree.
struct Searched<'a> {
    pattern: &'a OutputPattern,
    /// Which of the ways is its.
    index: usize,
}

struct Collector<'a> {
    root: OwnedFd,
    store: &'a Connection,
    /// How many bytes the names have that are in memory.
    listed: Cell<usize>,
}

/// Names of a directory that are in memory, as long as it is there.
struct Listed<'a> {
    of_all: &'a Cell<usize>,
    bytes: usize,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.of_all.set(self.of_all.get() - self.bytes);
    }
}

impl Collector<'_> {
    fn all(&self, outputs: &Outputs) -> Result<(), Stop> {
        for output in outputs.iter().filter_map(OutputPattern::literal) {
            let found = files::open_beneath(self.root.as_fd(), output.as_str());
            let opened = found.map_err(|e| refused(&output, &explain(&e)))?;
            self.taken(&output, &opened)?;
        }
        let mut walk = Walk {
            outputs,
            // What plain paths name is there already.
            taken: outputs.iter().filter_map(OutputPattern::literal).collect(),
            looked_at: 0,
            compared: 0,
        };
        let patterns = outputs.iter().filter(|pattern| !pattern.is_literal());
        for (index, pattern) in patterns.enumerate() {
            self.matching(&Searched { pattern, index }, &mut walk)?;
        }
        // That each pattern has matched something is for the store to say.
        self.tell(&Collected::End)
    }

    /// Takes what a declared path or a pattern names.
    fn taken(&self, output: &RelPath, opened: &OwnedFd) -> Result<(), Stop> {
        match files::kind(opened.as_fd())? {
            Kind::File => self.file(output, opened),
            Kind::Directory => self.directory(output, opened),
            other => Err(refused(
                output,
                &format!("is {other}; only files and directories can be outputs"),
            )),
        }
    }

    /// Takes what a pattern matches, below the directory that it begins with.
    fn matching(&self, searched: &Searched<'_>, walk: &mut Walk<'_>) -> Result<(), Stop> {
        let ways: Vec<_> = walk.outputs.iter().filter_map(OutputPattern::way).collect();
        let Some(top) = searched.pattern.fixed_directory() else {
            return self.walk(None, &self.root, searched, &ways, walk);
        };
        let to_top = |way| top.components().fold(way, Way::to);
        let ways: Vec<_> = ways.into_iter().map(to_top).collect();
        if walk.outputs.root_of(&top).is_some() {
            // All of it belongs to another output.
            return Ok(());
        }
        let opened = match files::open_beneath(self.root.as_fd(), top.as_str()) {
            Ok(opened) => opened,
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                _ => return Err(refused(&top, &explain(&error))),
            },
        };
        match files::kind(opened.as_fd())? {
            Kind::Directory => self.walk(Some(&top), &opened, searched, &ways, walk),
            _ => Ok(()),
        }
    }

    /// `ways` are how far all patterns have come here.
    fn walk(
        &self,
        path: Option<&RelPath>,
        directory: &OwnedFd,
        searched: &Searched<'_>,
        ways: &[Way<'_>],
        walk: &mut Walk<'_>,
    ) -> Result<(), Stop> {
        for entry in self.entries(path, directory)? {
            let (below, opened) = entry?;
            let name = below.components().next_back().unwrap_or_default();
            walk.count(searched.pattern, name.len(), ways.len())?;
            let ways: Vec<_> = ways.iter().map(|way| way.to(name)).collect();
            if ways.iter().any(|way| way.matches()) {
                if walk.taken.insert(below.clone()) {
                    self.taken(&below, &opened)?;
                }
            } else if !walk.taken.contains(&below)
                && ways[searched.index].leads_on()
                && files::kind(opened.as_fd())? == Kind::Directory
            {
                self.walk(Some(&below), &opened, searched, &ways, walk)?;
            }
        }
        Ok(())
    }

    /// What is in a directory, found without being opened. None stands for the root.
    fn entries<'a>(
        &'a self,
        path: Option<&'a RelPath>,
        directory: &'a OwnedFd,
    ) -> Result<impl Iterator<Item = Result<(RelPath, OwnedFd), Stop>> + use<'a>, Stop> {
        let at = move |why: String| match path {
            Some(path) => refused(path, &why),
            None => Stop::Refused(format!("the root of the source tree {why}")),
        };
        let room = bounds::LISTED_BYTES - self.listed.get();
        let (names, bytes) = files::names(directory.as_fd(), NAMES, room).map_err(|e| {
            let long = e.kind() == io::ErrorKind::OutOfMemory && e.raw_os_error().is_none();
            at(match long {
                true => format!(
                    "cannot be listed: its entries and those of the directories that it lies in have names of more than \
                     {} bytes together",
                    bounds::LISTED_BYTES
                ),
                false => format!("cannot be listed: {e}"),
            })
        })?;
        self.listed.set(self.listed.get() + bytes);
        let listed = Listed {
            of_all: &self.listed,
            bytes,
        };
        Ok(names.into_iter().map(move |name| {
            let _kept = &listed;
            let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
            let text = String::from_utf8(name)
                .map_err(|_| at(format!("has an entry `{shown}`, not UTF-8")))?;
            let below = match path {
                Some(path) => path.join(&text),
                None => RelPath::new(text.as_str()),
            };
            let below = below.map_err(|e| at(format!("has an entry that cannot be taken: {e}")))?;
            let opened = files::open_beneath_nofollow(directory.as_fd(), &text)
                .map_err(|e| refused(&below, &explain(&e)))?;
            Ok((below, opened))
        }))
    }

    fn directory(&self, path: &RelPath, directory: &OwnedFd) -> Result<(), Stop> {
        self.tell(&Collected::Directory { path: path.clone() })?;
        for entry in self.entries(Some(path), directory)? {
            let (below, opened) = entry?;
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
            size: files::size(found.as_fd())?,
        })?;
        let mut content = File::from(files::reopen_for_reading(found.as_fd())?);
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                length => {
                    let piece = frame::data(&buffer[..length]).map_err(io::Error::other)?;
                    self.store.send_parts(&piece)?;
                }
            }
        }
        self.tell(&Collected::FileEnd)
    }

    fn tell(&self, message: &Collected) -> Result<(), Stop> {
        let message = frame::encode(message).map_err(io::Error::other)?;
        Ok(self.store.send(&message)?)
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
