//! The containment list: everything that makes a sandbox, in order, each step fatal. SECURITY.md has
//! the same list; `cargo xtask tidy` compares them.
//!
//! Two processes carry it out. The spawner makes the cgroup and clones init; init, in its new namespaces,
//! takes one thing after another away from itself; the spawner reads back what became of it. Only then
//! does init fork the build.

mod confine;
mod filesystem;
mod launch;
mod readback;

use std::io;

pub use launch::{Given, Launch, Launched};

use crate::init::Init;

/// One step.
#[derive(Clone, Copy)]
pub struct Step {
    /// Its name, as errors and SECURITY.md give it.
    pub name: &'static str,
    /// Why it is there.
    pub why: &'static str,
    /// What does it.
    pub run: Run,
}

/// Who carries a step out.
#[derive(Clone, Copy)]
pub enum Run {
    /// The spawner, before init begins.
    Before(fn(&mut Launch<'_>) -> io::Result<()>),
    /// Init.
    Inside(fn(&mut Init<'_>) -> io::Result<()>),
    /// The spawner, while init waits at the barrier.
    Barrier(fn(&mut Launched) -> io::Result<()>),
}

impl Step {
    /// What to tell when it failed: that the sandbox would have been without it, and why that matters.
    pub fn failed(&self, error: &dyn std::fmt::Display) -> String {
        format!(
            "containment step `{}` failed: {error} (it is there because: {})",
            self.name, self.why
        )
    }
}

use Run::{Barrier, Before, Inside};

/// The list.
pub const STEPS: &[Step] = &[
    Step {
        name: "cgroup",
        why: "limits on memory, processes and CPUs are in force before the first process exists, and one write kills all of it",
        run: Before(launch::make_cgroup),
    },
    Step {
        name: "namespaces",
        why: "mounts, processes, IPC, host name, cgroups, network and offsets of clocks of its own, so that no file of a namespace is another's, owned by the initial user namespace, so that no capability inside can ever act on them",
        run: Before(launch::clone_init),
    },
    Step {
        name: "placement",
        why: "init is seen in its cgroups before it does anything",
        run: Before(launch::place_init),
    },
    Step {
        name: "descriptors",
        why: "nothing that the spawner has open may be reachable from inside",
        run: Inside(confine::close_descriptors),
    },
    Step {
        name: "network",
        why: "an empty network namespace with loopback: no neighbour, no host service, no abstract socket of either",
        run: Inside(confine::enter_network),
    },
    Step {
        name: "cgroup root",
        why: "names and neighbours in the cgroup tree stay hidden",
        run: Inside(confine::unshare_cgroup),
    },
    Step {
        name: "host name",
        why: "the same in every build, so that it neither tells where it runs nor differs in outputs",
        run: Inside(confine::set_host_name),
    },
    Step {
        name: "root file system",
        why: "a fresh root with only listed paths or one tree in it, read-only, nosuid, nodev, owned by inside 0, which never runs",
        run: Inside(filesystem::root),
    },
    Step {
        name: "devices",
        why: "null, zero, full, random, urandom and own pseudo-terminals; no other device node exists",
        run: Inside(filesystem::devices),
    },
    Step {
        name: "work space",
        why: "the only writable places: sources under an own overlay, and sized scratch space; further inputs under read-only overlays of their own",
        run: Inside(filesystem::work_space),
    },
    Step {
        name: "proc",
        why: "a /proc of the own process ids, read-only, with the kernel's settings, keys and symbols masked",
        run: Inside(filesystem::proc),
    },
    Step {
        name: "pivot",
        why: "the host's root is not hidden but gone",
        run: Inside(filesystem::pivot),
    },
    Step {
        name: "session",
        why: "no controlling terminal to type into, and an empty session keyring",
        run: Inside(confine::new_session),
    },
    Step {
        name: "signals",
        why: "an ignored or blocked signal would be inherited by the build",
        run: Inside(confine::reset_signals),
    },
    Step {
        name: "limits",
        why: "no core dumps (a limit of one byte also stops a piped core_pattern), bounded descriptors, locked memory and queues, no real-time priority, no better nice value than others",
        run: Inside(confine::lower_limits),
    },
    Step {
        name: "user namespace",
        why: "entered last, so that it owns nothing; its ids are nobody's on the host, and no further one can be made in it",
        run: Inside(confine::enter_user_namespace),
    },
    Step {
        name: "ids",
        why: "no supplementary groups, the build's own user and group in every slot, and not dumpable: init's memory and descriptors stay closed to the build, which has the same user",
        run: Inside(confine::take_ids),
    },
    Step {
        name: "bound to the spawner",
        why: "a sandbox must not outlive what watches it; a change of ids would undo this",
        run: Inside(confine::die_with_parent),
    },
    Step {
        name: "capabilities",
        why: "every set empty, bounding and permitted too, which a mere change of user id leaves full",
        run: Inside(confine::drop_capabilities),
    },
    Step {
        name: "no new privileges",
        why: "no set-user-id program or file capability can give anything back",
        run: Inside(confine::no_new_privileges),
    },
    Step {
        name: "Landlock",
        why: "a second judge over every path, and no signal or abstract socket to anyone outside",
        run: Inside(confine::landlock),
    },
    Step {
        name: "seccomp",
        why: "system calls by allow-list: no mounts, namespaces, keys, tracing of the kernel, or odd socket families",
        run: Inside(confine::seccomp),
    },
    Step {
        name: "self-probe",
        why: "forbidden things are really tried and must fail; what cannot be read back is shown this way",
        run: Inside(confine::self_probe),
    },
    Step {
        name: "read-back",
        why: "the spawner believes the kernel, not init: namespaces, ids, capabilities, filters, cgroup and mounts are read before the build may start",
        run: Barrier(readback::read_back),
    },
];
