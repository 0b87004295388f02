//! Steps of the spawner: the cgroup, the clone, and what the barrier needs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use belljar_core::{AttemptId, Digest};
use belljar_plan::{EnforcementReport, Plan, SelfProbe};
use belljar_sys::process::{self, Child, NewNamespaces};
use belljar_sys::seccomp::Program;
use belljar_sys::seqpacket::Connection;
use belljar_sys::{forbidden, namespace};

use super::{Run, Step, confine};
use crate::cgroup::{Group, Tree};
use crate::ids::Pair;
use crate::init::{self, Init};
use crate::record::Record;
use crate::rootfs::RootFs;
use crate::sockets::Sockets;
use crate::staging::Places;

/// What the first steps need and make.
pub struct Launch<'a> {
    given: Given<'a>,
    group: Option<Group>,
    child: Option<(Child, Connection, OwnedFd)>,
}

/// A sandbox whose init has been cloned.
pub struct Launched {
    /// Its cgroup.
    pub group: Group,
    /// Its init.
    pub init: Child,
    /// The socket to init.
    pub socket: Connection,
    /// Its user namespace: the collector enters it later.
    pub user_namespace: OwnedFd,
    /// What init has tried so far.
    pub self_probes: Vec<SelfProbe>,
    /// What was read back; none before the barrier.
    pub enforcement: Option<EnforcementReport>,
    /// Its sockets; none before the barrier.
    pub sockets: Option<Sockets>,
    /// The list by which it is made.
    pub steps: &'static [Step],
    pub(super) plan: Plan,
    pub(super) filter: Digest,
    pub(super) ruleset: Digest,
}

/// What a launch is given.
pub struct Given<'a> {
    /// The containment list.
    pub steps: &'static [Step],
    /// The attempt.
    pub attempt: &'a AttemptId,
    /// What to run.
    pub plan: &'a Plan,
    /// The slot it runs in.
    pub slot: usize,
    /// Its host ids.
    pub ids: Pair,
    /// Where cgroups are made.
    pub cgroups: &'a Tree,
    /// Where its mounts lie.
    pub places: &'a Places,
    /// The root file system.
    pub rootfs: RootFs<'a>,
    /// The user namespace by which files of owner 0 are inside 0's.
    pub image_owner: BorrowedFd<'a>,
    /// The system call filter.
    pub filter: &'a Program,
    /// A network namespace that nobody else has.
    pub network: OwnedFd,
    /// Writing end of the log.
    pub log: OwnedFd,
}

impl<'a> Launch<'a> {
    /// A launch of which no step has run.
    pub fn new(given: Given<'a>) -> Self {
        Self {
            given,
            group: None,
            child: None,
        }
    }

    /// Runs the steps before init, and lets init begin with its own.
    ///
    /// # Errors
    /// Names the step; nothing of the sandbox is left then.
    pub fn start(mut self) -> io::Result<Launched> {
        for step in self.given.steps {
            if let Run::Before(run) = step.run
                && let Err(error) = run(&mut self)
            {
                self.undo();
                return Err(io::Error::new(error.kind(), step.failed(&error)));
            }
        }
        let (Some(group), Some((init, socket, user_namespace))) =
            (self.group.take(), self.child.take())
        else {
            return Err(io::Error::other(
                "the containment list has no step that makes a cgroup and a sandbox",
            ));
        };
        Ok(Launched {
            group,
            init,
            socket,
            user_namespace,
            self_probes: Vec::new(),
            enforcement: None,
            sockets: None,
            steps: self.given.steps,
            plan: self.given.plan.clone(),
            filter: Digest::of(&self.given.filter.bytes()),
            ruleset: confine::ruleset_digest(self.given.rootfs, self.given.plan),
        })
    }

    /// Takes back what the steps so far have made. The first error is the one that is told.
    fn undo(&mut self) {
        if let Some((child, ..)) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(group) = self.group.take() {
            let _ = group.kill();
            let _ = group.remove();
        }
    }
}

pub(super) fn make_cgroup(launch: &mut Launch<'_>) -> io::Result<()> {
    launch.group = Some(launch.given.cgroups.create(
        launch.given.attempt,
        launch.given.plan,
        launch.given.slot,
    )?);
    Ok(())
}

pub(super) fn clone_init(launch: &mut Launch<'_>) -> io::Result<()> {
    let map = format!(
        "0 {} 1\n1000 {} 1\n",
        launch.given.ids.image, launch.given.ids.build
    );
    let user_namespace = namespace::user(launch.given.ids.image, &map, &map)?;
    let host_owners = launch.given.image_owner.try_clone_to_owned()?;
    let (socket, inner) = Connection::pair()?;
    let cgroup = match &launch.group {
        Some(group) => group.open()?,
        None => return Err(io::Error::other("there is no cgroup to begin in")),
    };
    let namespaces = NewNamespaces { sandbox: true };
    let (log, network) = (
        launch.given.log.try_clone()?,
        launch.given.network.try_clone()?,
    );
    let child = process::clone_child(namespaces, Some(cgroup.as_fd()), || {
        let inner_namespace = user_namespace.try_clone();
        match inner_namespace {
            Ok(user_namespace) => init::run(Init {
                steps: launch.given.steps,
                host_owners,
                socket: inner,
                log,
                network,
                user_namespace,
                places: launch.given.places,
                ids: launch.given.ids,
                rootfs: launch.given.rootfs,
                filter: launch.given.filter,
                plan: launch.given.plan,
            }),
            Err(_) => 1,
        }
    })?;
    launch.child = Some((child, socket, user_namespace));
    Ok(())
}

pub(super) fn place_init(launch: &mut Launch<'_>) -> io::Result<()> {
    let (Some(group), Some((child, socket, _))) = (&launch.group, &launch.child) else {
        return Err(io::Error::other("there is no sandbox to place"));
    };
    group.adopt(child.pid)?;
    Record::Placed.send(socket)
}

impl Launched {
    /// Notes that init has tried something.
    pub fn note_probe(&mut self, attempt: u32, errno: i32) {
        let known = usize::try_from(attempt)
            .ok()
            .and_then(|index| forbidden::ATTEMPTS.get(index));
        if let Some(known) = known {
            self.self_probes.push(SelfProbe {
                name: known.name.to_owned(),
                refused: errno != 0,
                errno,
            });
        }
    }

    /// Runs the steps of the barrier, and lets the build begin.
    ///
    /// # Errors
    /// Names the step; the sandbox has to be killed then.
    pub fn pass_barrier(&mut self) -> io::Result<()> {
        for step in self.steps {
            if let Run::Barrier(run) = step.run {
                run(self).map_err(|e| io::Error::new(e.kind(), step.failed(&e)))?;
            }
        }
        self.sockets = Some(Sockets::of(self.init.pid)?);
        Record::Go.send(&self.socket)
    }
}
