//! How belljard, store and signer confine themselves before they listen, under systemd and without it: a list of
//! steps, each fatal. SECURITY.md has the same list; `cargo xtask tidy` compares them.
//!
//! The steps are for a process of its own user with one thread: threads and children come later and inherit
//! everything.

mod steps;
mod tried;

use std::io;
use std::path::PathBuf;

pub use tried::TRIED;

use crate::landlock::Allowed;

/// What one of the processes is, as far as it matters to what it keeps for itself.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Files and directories, which must be there, and what may be done below each. Everything else of the file
    /// system is closed.
    pub places: Vec<(PathBuf, Allowed)>,
    /// The one TCP port to listen at.
    pub port: Option<u16>,
    /// The TCP ports that may be connected to. With none of both there is no TCP, and no socket but of AF_UNIX.
    pub connect: Vec<u16>,
    /// Whether there is a secret in its memory by now, which must not get to a disk by swapping.
    pub holds_secret: bool,
}

/// One step.
#[derive(Clone, Copy)]
pub struct Step {
    /// Its name, as errors and SECURITY.md give it.
    pub name: &'static str,
    /// Why it is there.
    pub why: &'static str,
    /// What does it. Gives what came of it, in a few words.
    pub run: fn(&Service) -> io::Result<String>,
}

/// The list.
pub const STEPS: &[Step] = &[
    Step {
        name: "one thread",
        why: "what a thread takes from itself, others would keep that run already",
        run: steps::one_thread,
    },
    Step {
        name: "not dumpable",
        why: "memory, descriptors and /proc entries are closed to others of the same user, and no core is written",
        run: steps::not_dumpable,
    },
    Step {
        name: "no new privileges",
        why: "no set-user-id program or file capability can give anything",
        run: steps::no_new_privileges,
    },
    Step {
        name: "capabilities",
        why: "every set is empty, but the bounding set, which nobody can use without new privileges",
        run: steps::capabilities,
    },
    Step {
        name: "memory",
        why: "the signer's key does not get into swap space",
        run: steps::memory,
    },
    Step {
        name: "Landlock",
        why: "only its own directories, each for what it is for, nothing executable; no TCP but the one port to listen at and the ports to fetch from; no signal and no abstract socket to anyone outside",
        run: steps::landlock,
    },
    Step {
        name: "seccomp",
        why: "system calls by allow-list: no program, no new code, no tracing, namespaces, mounts or keys; no socket but AF_UNIX, of belljard with [tls] or [fetch] also IP",
        run: steps::seccomp,
    },
    Step {
        name: "self-probe",
        why: "forbidden things are really tried and must fail; what cannot be read back is shown this way",
        run: tried::probe,
    },
    Step {
        name: "read-back",
        why: "the kernel is asked what this process has become",
        run: steps::read_back,
    },
];

/// That a process is confined, and by what: there is no other way to get one.
#[derive(Clone, Debug)]
pub struct Confined(Vec<(&'static str, String)>);

impl Confined {
    /// Each step with what came of it, in order.
    pub fn steps(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

/// Carries the list out.
///
/// # Errors
/// The first step that fails, by name. What was done until then stays.
pub fn confine(service: &Service) -> io::Result<Confined> {
    confine_by(STEPS, service)
}

/// The same by another list: for tests, which leave steps out to see that others notice.
///
/// # Errors
/// As [`confine`].
pub fn confine_by(steps: &[Step], service: &Service) -> io::Result<Confined> {
    let mut done = Vec::with_capacity(steps.len());
    for step in steps {
        let found = (step.run)(service).map_err(|error| {
            let (name, why) = (step.name, step.why);
            io::Error::other(format!(
                "step `{name}` failed: {error} (it is there because: {why})"
            ))
        })?;
        done.push((step.name, found));
    }
    Ok(Confined(done))
}
