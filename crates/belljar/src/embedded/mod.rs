//! Embedded mode: every process of Belljar as a child of this one, with the same separation as under
//! systemd: other user ids, their own directories, the same sockets. Only root can do that.
//!
//! What is started, in order: store, signer, spawner, belljard. They end in the reverse order when this
//! process is done, and die with it when it dies.

mod child;
mod configuration;
mod layout;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use belljar_core::bounds;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

pub(crate) use child::spawner_command;
use child::{Daemon, Program};
pub(crate) use configuration::{Floor, host_floor};
use layout::State;

/// Where embedded mode keeps its state unless told otherwise.
pub(crate) const DEFAULT_STATE: &str = "/var/lib/belljar-embedded";
/// How long a process may take until it listens. The first start on a loaded machine is slow.
const START: Duration = Duration::from_secs(30);
/// Between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(5);

/// belljard's user id. No entry in a user database is needed; the range is far from any that is assigned.
const BELLJARD: u32 = 1_879_047_937;
/// The store's user id.
const STORE: u32 = 1_879_047_938;
/// The signer's user id.
const SIGNER: u32 = 1_879_047_939;
/// The group that belljard, store and signer share: who is in it may connect to their sockets.
const GROUP: u32 = 1_879_047_937;
/// The spawner's user id.
const ROOT: u32 = 0;

/// The running processes. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Embedded {
    socket: PathBuf,
    floor: Floor,
    /// In the order of their start.
    daemons: Vec<Daemon>,
    users: PathBuf,
    /// Keeps others from joining processes that build nothing.
    alone: Option<File>,
    /// Released last: by then nobody uses the state directory any more.
    _lock: File,
}

/// What processes are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To build: whatever waits in the queue begins.
    Build,
    /// To tell or change what is known of builds: none begins, since none could be waited for. Others wait
    /// meanwhile rather than join.
    Ask,
}

/// What a state directory offers.
#[derive(Debug)]
pub(crate) enum Started {
    /// Processes of our own.
    Here(Embedded),
    /// Another `belljar run` holds the directory, and its daemon answers.
    Elsewhere(Borrowed),
}

/// The daemon of another `belljar run`, which does not end while this is held.
#[derive(Debug)]
pub(crate) struct Borrowed {
    socket: PathBuf,
    _use: File,
}

impl Borrowed {
    /// belljard's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Why the processes could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not root.
    #[error(
        "starting Belljar's processes needs root: one of them makes namespaces, mounts and cgroups, and the others \
         run under user ids of their own"
    )]
    NeedsRoot,
    /// The state directory is not one that the processes could use safely.
    #[error("the state directory cannot be used: {path} {why}")]
    State {
        /// The directory in question.
        path: String,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file or directory of the state could not be made.
    #[error("cannot set up {}", path.display())]
    SetUp {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the state directory, and no daemon answers there.
    #[error("another process uses {}, and its daemon does not answer", .0.display())]
    Locked(PathBuf),
    /// A program is not there.
    #[error("{} is not there", .0.display())]
    NoProgram(PathBuf),
    /// A program could not be started.
    #[error("cannot start {name}")]
    Start {
        /// Which.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A process ended before it listened.
    #[error("{name} ended before it was ready ({status}); its log ends with:\n{tail}")]
    Died {
        /// Which.
        name: &'static str,
        /// How.
        status: std::process::ExitStatus,
        /// The end of what it said.
        tail: String,
    },
    /// A process does not listen.
    #[error("{name} was not ready after {} s; its log ends with:\n{tail}", START.as_secs())]
    Late {
        /// Which.
        name: &'static str,
        /// The end of what it said.
        tail: String,
    },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NeedsRoot => {
                Some("run it by sudo, or have the daemon installed and name its socket by --socket")
            }
            Self::State { hint, .. } => Some(hint),
            Self::Locked(_) => {
                Some("wait for the other `belljar run`, or choose another directory by --state")
            }
            Self::NoProgram(_) => Some(
                "Belljar's programs are looked for beside `belljar` itself: build or install all of them together",
            ),
            Self::Died { .. } | Self::Late { .. } => {
                Some("`belljar doctor` tells what the host lacks")
            }
            Self::SetUp { .. } | Self::Start { .. } => None,
        }
    }
}

/// belljard's socket in a state directory.
pub(crate) fn socket(state: &Path) -> PathBuf {
    state.join("run/belljard/belljard.sock")
}

/// The spawner's configuration in a state directory.
pub(crate) fn spawner_config(state: &Path) -> PathBuf {
    state.join("config/spawner.toml")
}

/// Where the signer publishes its public key in a state directory.
pub(crate) fn public_key(state: &Path) -> PathBuf {
    state.join("evidence/builder.pub")
}

/// A program of Belljar's, beside this one.
///
/// # Errors
/// When it is not there.
pub(crate) fn program(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|_| Error::NoProgram(name.into()))?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        Ok(beside)
    } else {
        Err(Error::NoProgram(beside))
    }
}

/// Whether somebody listens at a socket.
pub(crate) fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

impl Embedded {
    /// Starts everything under `state`, or finds who has done so already. To be called from the main thread
    /// before there are others: a process that dies with its parent dies with the *thread* that started it
    /// (PR_SET_PDEATHSIG(2const)).
    ///
    /// # Errors
    /// See [`Error`]. Nothing is left running.
    pub(crate) fn start(state: &Path, purpose: Purpose) -> Result<Started, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NeedsRoot);
        }
        let state = State::prepare(state)?;
        let (lock, alone) = match claim(state.path(), purpose)? {
            Claim::Owner(lock, alone) => (lock, alone),
            Claim::Guest(borrowed) => return Ok(Started::Elsewhere(borrowed)),
        };
        let floor = host_floor();
        state.lay_out()?;
        configuration::write(&state, floor, purpose)?;
        let mut embedded = Self {
            socket: socket(state.path()),
            floor,
            daemons: Vec::new(),
            users: state.path().join(USERS),
            alone,
            _lock: lock,
        };
        for program in PROGRAMS {
            let daemon = Daemon::start(program, state.path())?;
            // Owned before it is waited for: if it fails, all that were started end.
            embedded.daemons.push(daemon);
            if let Some(daemon) = embedded.daemons.last_mut() {
                daemon.wait_until_ready(Instant::now() + START)?;
            }
        }
        Ok(Started::Here(embedded))
    }

    /// belljard's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether no other `belljar run` uses these processes. From then on, and as long as the file is kept, none
    /// can begin to.
    ///
    /// # Errors
    /// When the lock cannot be tried.
    pub(crate) fn is_alone(&self) -> Result<Option<File>, Error> {
        if let Some(alone) = &self.alone {
            return Ok(alone.try_clone().ok());
        }
        lock(&self.users, FlockOperation::NonBlockingLockExclusive)
    }

    /// Which cgroup floor the spawner was told to demand.
    pub(crate) fn floor(&self) -> Floor {
        self.floor
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        while let Some(daemon) = self.daemons.pop() {
            daemon.end();
        }
    }
}

/// What is started, in order.
const PROGRAMS: [Program; 4] = [
    Program {
        name: "belljar-store",
        short: "store",
        uid: STORE,
        gid: GROUP,
    },
    Program {
        name: "belljar-signer",
        short: "signer",
        uid: SIGNER,
        gid: GROUP,
    },
    Program {
        name: "belljar-spawner",
        short: "spawner",
        uid: ROOT,
        gid: ROOT,
    },
    Program {
        name: "belljard",
        short: "belljard",
        uid: BELLJARD,
        gid: GROUP,
    },
];

/// Held by whoever runs the processes of a state directory.
const OWNER: &str = "lock";
/// Held, shared, by whoever else uses them.
const USERS: &str = "users";

/// What a state directory is to us.
enum Claim {
    /// Ours; with what keeps others from joining, if none may.
    Owner(File, Option<File>),
    /// Somebody else's, whose daemon answers.
    Guest(Borrowed),
}

/// Takes a state directory, or joins whoever has it; waits while that one is just starting or ending.
fn claim(state: &Path, purpose: Purpose) -> Result<Claim, Error> {
    let deadline = Instant::now() + START;
    loop {
        let owner = lock(&state.join(OWNER), FlockOperation::NonBlockingLockExclusive)?;
        if let Some(owner) = owner {
            let users = state.join(USERS);
            let alone = match purpose {
                Purpose::Build => return Ok(Claim::Owner(owner, None)),
                Purpose::Ask => lock(&users, FlockOperation::NonBlockingLockExclusive)?,
            };
            // Else somebody has not noticed yet that the last owner is gone.
            if alone.is_some() {
                return Ok(Claim::Owner(owner, alone));
            }
        }
        let socket = socket(state);
        // Shared first, then the look: once it is held, the owner does not end its processes.
        let used = lock(&state.join(USERS), FlockOperation::NonBlockingLockShared)?;
        if let Some(held) = used.filter(|_| answers(&socket)) {
            return Ok(Claim::Guest(Borrowed { socket, _use: held }));
        }
        if Instant::now() > deadline {
            return Err(Error::Locked(state.to_owned()));
        }
        std::thread::sleep(LOOK);
    }
}

/// A lock on a file; none if somebody else has one that excludes it.
fn lock(path: &Path, operation: FlockOperation) -> Result<Option<File>, Error> {
    let set_up = |e: rustix::io::Errno| Error::SetUp {
        path: path.to_owned(),
        source: e.into(),
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map_err(set_up)?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(set_up(e)),
    }
}

/// How many builds run at once: one for each CPU.
fn slots() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(bounds::CONCURRENT_SANDBOXES)
}
