//! Steps of init that take something away from init itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use belljar_core::Digest;
use belljar_plan::{BUILD_ID, HOME, HOSTNAME, INPUTS_DIR, Plan, WORKDIR};
use belljar_sys::landlock::{self, Allowed, Rule};
use belljar_sys::program::{Limited, StandardStream};
use belljar_sys::{forbidden, mount, namespace, privilege, process, program};

use crate::init::Init;
use crate::record::Record;
use crate::rootfs::{HostPath, RootFs};

pub(super) fn die_with_parent(_: &mut Init<'_>) -> io::Result<()> {
    process::die_with_parent()
}

pub(super) fn close_descriptors(init: &mut Init<'_>) -> io::Result<()> {
    // Numbers 0 to 2 stay taken: what is opened later must not become a standard stream of the build.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for stream in [
        StandardStream::Input,
        StandardStream::Output,
        StandardStream::Error,
    ] {
        program::set_standard_stream(null.as_fd(), stream)?;
    }
    drop(null);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    program::close_others(&[
        input.as_fd(),
        output.as_fd(),
        error.as_fd(),
        init.socket.as_fd(),
        init.log.as_fd(),
        init.network.as_fd(),
        init.user_namespace.as_fd(),
        init.host_owners.as_fd(),
    ])
}

pub(super) fn enter_network(init: &mut Init<'_>) -> io::Result<()> {
    namespace::enter_network(init.network.as_fd())
}

pub(super) fn unshare_cgroup(_: &mut Init<'_>) -> io::Result<()> {
    namespace::unshare_cgroup()
}

pub(super) fn set_host_name(_: &mut Init<'_>) -> io::Result<()> {
    namespace::set_host_name(HOSTNAME)
}

pub(super) fn new_session(_: &mut Init<'_>) -> io::Result<()> {
    program::new_session()?;
    program::fresh_session_keyring()
}

pub(super) fn reset_signals(_: &mut Init<'_>) -> io::Result<()> {
    program::reset_signals()
}

pub(super) fn lower_limits(_: &mut Init<'_>) -> io::Result<()> {
    for (resource, most) in [
        // 0 would not stop a piped core_pattern, 1 does (core(5)).
        (Limited::Core, 1),
        (Limited::OpenFiles, 65_536),
        (Limited::LockedMemory, 8 << 20),
        (Limited::MessageQueues, 819_200),
        (Limited::PendingSignals, 16_384),
        (Limited::RealTimePriority, 0),
        (Limited::Niceness, 0),
    ] {
        program::lower_limit(resource, most)?;
    }
    // The limit above keeps the build from a better value than it has, not from the one that it inherits.
    program::not_before_others()
}

pub(super) fn enter_user_namespace(init: &mut Init<'_>) -> io::Result<()> {
    namespace::enter_user(init.user_namespace.as_fd())
}

pub(super) fn take_ids(_: &mut Init<'_>) -> io::Result<()> {
    privilege::become_ids(BUILD_ID, BUILD_ID)?;
    // The change of ids has set it to what fs.suid_dumpable says (proc_sys_fs(5)).
    process::not_dumpable()
}

pub(super) fn drop_capabilities(_: &mut Init<'_>) -> io::Result<()> {
    privilege::lock_secure_bits()?;
    privilege::empty_bounding_set()?;
    privilege::drop_capabilities()
}

pub(super) fn no_new_privileges(_: &mut Init<'_>) -> io::Result<()> {
    privilege::no_new_privileges()
}

/// What Landlock allows where. `/` itself, `/.uncovered` and `/.masked` are under no rule.
fn rules(rootfs: RootFs<'_>, plan: &Plan) -> Vec<(PathBuf, Allowed)> {
    let mut rules = Vec::new();
    match rootfs {
        RootFs::Host(host) => {
            for path in host.paths() {
                match path {
                    HostPath::Directory(path) | HostPath::File(path)
                        if !path.starts_with("/etc") =>
                    {
                        rules.push((path.clone(), Allowed::ReadExecute));
                    }
                    // `/etc` has a rule as a whole; a link leads to a path that has its own.
                    _ => {}
                }
            }
        }
        RootFs::Tree(tree) => {
            let top = tree.top().iter().cloned();
            rules.extend(top.map(|path| (path, Allowed::ReadExecute)));
        }
    }
    if !plan.inputs.is_empty() {
        rules.push((PathBuf::from(INPUTS_DIR), Allowed::ReadExecute));
    }
    let fixed = [
        ("/etc", Allowed::Read),
        ("/proc", Allowed::Read),
        ("/dev", Allowed::Device),
        ("/dev/shm", Allowed::ReadWriteExecute),
        ("/tmp", Allowed::ReadWriteExecute),
        (HOME, Allowed::ReadWriteExecute),
        (WORKDIR, Allowed::ReadWriteExecute),
    ];
    rules.extend(fixed.map(|(path, allowed)| (PathBuf::from(path), allowed)));
    rules
}

/// Digest of the ruleset, written one rule a line: `<allowed> <path>`.
pub(super) fn ruleset_digest(rootfs: RootFs<'_>, plan: &Plan) -> Digest {
    let lines = rules(rootfs, plan)
        .into_iter()
        .map(|(path, allowed)| format!("{} {}\n", allowed.name(), path.display()));
    Digest::of(lines.collect::<String>().as_bytes())
}

pub(super) fn landlock(init: &mut Init<'_>) -> io::Result<()> {
    let mut opened: Vec<(OwnedFd, bool, Allowed)> = Vec::new();
    for (path, allowed) in rules(init.rootfs, init.plan) {
        opened.push(open_for_rule(&path, allowed)?);
    }
    let rules: Vec<_> = opened
        .iter()
        .map(|(path, directory, allowed)| Rule {
            path: path.as_fd(),
            directory: *directory,
            allowed: *allowed,
        })
        .collect();
    landlock::restrict(&rules)
}

fn open_for_rule(path: &Path, allowed: Allowed) -> io::Result<(OwnedFd, bool, Allowed)> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let opened = mount::location(path).map_err(at)?;
    let directory = File::from(opened.try_clone()?)
        .metadata()
        .map_err(at)?
        .is_dir();
    Ok((opened, directory, allowed))
}

pub(super) fn seccomp(init: &mut Init<'_>) -> io::Result<()> {
    init.filter.install()
}

/// Tries everything forbidden, and tells the spawner how each was answered.
pub(super) fn self_probe(init: &mut Init<'_>) -> io::Result<()> {
    let mut possible = None;
    for (attempt, number) in forbidden::ATTEMPTS.iter().zip(0..) {
        let errno = match (attempt.run)() {
            Ok(()) => 0,
            // An error without a number would have come from us, not from the kernel.
            Err(error) => error.raw_os_error().unwrap_or(0),
        };
        if errno == 0 {
            possible = Some(attempt.name);
        }
        Record::Probed {
            attempt: number,
            errno,
        }
        .send(&init.socket)?;
    }
    match possible {
        Some(name) => Err(io::Error::other(format!("it was possible to {name}"))),
        None => Ok(()),
    }
}
