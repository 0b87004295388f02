use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use caps::CapSet;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::process::{DumpableBehavior, dumpable_behavior};

use super::Service;
use crate::{landlock, privilege, process, seccomp};

/// What mlock(2) says when the limit is the reason.
const HINT: &str =
    "hint: let it lock 8 MiB (LimitMEMLOCK= of its unit; `ulimit -l` before `belljar run`)";

pub(super) fn one_thread(_: &Service) -> io::Result<String> {
    if process::is_single_threaded()? {
        Ok("1".to_owned())
    } else {
        Err(io::Error::other("there are more threads"))
    }
}

pub(super) fn not_dumpable(_: &Service) -> io::Result<String> {
    process::not_dumpable()?;
    Ok("set".to_owned())
}

pub(super) fn no_new_privileges(_: &Service) -> io::Result<String> {
    privilege::no_new_privileges()?;
    Ok("set".to_owned())
}

/// Where there are none, nothing is asked of the kernel: a unit may refuse to have them changed at all.
pub(super) fn capabilities(_: &Service) -> io::Result<String> {
    if capability()?.is_some() {
        privilege::drop_capabilities()?;
    }
    Ok("none".to_owned())
}

/// The first set that is not empty.
fn capability() -> io::Result<Option<CapSet>> {
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        if !caps::read(None, set).map_err(io::Error::other)?.is_empty() {
            return Ok(Some(set));
        }
    }
    Ok(None)
}

/// Locks all memory that can be written by now: the secret lies in some of it, and only the library that has it
/// knows where.
pub(super) fn memory(service: &Service) -> io::Result<String> {
    if !service.holds_secret {
        return Ok("no secret".to_owned());
    }
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut locked = 0;
    for (start, length) in maps.lines().filter_map(private) {
        // WHY: no safe wrapper exists, since a range of addresses is not a reference.
        // SAFETY: mlock(2) reads and changes no memory; a range that is gone meanwhile is an error.
        if unsafe { libc::mlock(start as *const libc::c_void, length) } == -1 {
            let error = io::Error::last_os_error();
            return Err(io::Error::other(format!(
                "{length} bytes cannot be locked after {locked}: {error}. {HINT}"
            )));
        }
        locked += length;
    }
    if locked == 0 {
        return Err(io::Error::other("no memory was found in /proc/self/maps"));
    }
    Ok(format!("{} KiB locked", locked / 1024))
}

/// Beginning and length of a private mapping that can be written, by its line in `/proc/PID/maps`
/// (proc_pid_maps(5)).
fn private(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let modes = fields.next()?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (modes.starts_with("rw") && modes.ends_with('p')).then(|| (start, end - start))
}

pub(super) fn landlock(service: &Service) -> io::Result<String> {
    let mut places = Vec::new();
    for (path, allowed) in &service.places {
        let failed = |error: rustix::io::Errno| {
            io::Error::other(format!("{}: {}", path.display(), io::Error::from(error)))
        };
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let kind = FileType::from_raw_mode(fstat(&place).map_err(failed)?.st_mode);
        places.push((File::from(place), kind == FileType::Directory, *allowed));
    }
    let rules: Vec<_> = places
        .iter()
        .map(|(place, directory, allowed)| landlock::Rule {
            path: place.as_fd(),
            directory: *directory,
            allowed: *allowed,
        })
        .collect();
    landlock::restrict_with_tcp(&rules, service.port.as_slice(), &service.connect)?;
    let port = service.port.map(|port| format!(", TCP port {port}"));
    let connect = match service.connect.is_empty() {
        true => String::new(),
        false => format!(", to TCP ports {:?}", service.connect),
    };
    Ok(format!(
        "ABI {}, {} places{}{connect}",
        landlock::abi(),
        rules.len(),
        port.unwrap_or_default()
    ))
}

pub(super) fn seccomp(service: &Service) -> io::Result<String> {
    let filter = match service.port.is_none() && service.connect.is_empty() {
        true => &seccomp::SERVICE,
        false => &seccomp::SERVICE_WITH_TCP,
    };
    let program = seccomp::Program::compile(filter)?;
    program.install()?;
    Ok(format!("{} instructions", program.length()))
}

pub(super) fn read_back(_: &Service) -> io::Result<String> {
    let lacks = |what: &str| Err(io::Error::other(format!("the kernel says: {what}")));
    if dumpable_behavior()? != DumpableBehavior::NotDumpable {
        return lacks("it is dumpable");
    }
    if !rustix::thread::no_new_privs()? {
        return lacks("it may get new privileges");
    }
    if let Some(set) = capability()? {
        return lacks(&format!("it has capabilities ({set:?})"));
    }
    // WHY: rustix's wrapper is for the strict mode, too, where the question itself kills the process.
    // SAFETY: PR_GET_SECCOMP takes no memory.
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } != libc::SECCOMP_MODE_FILTER as i32
    {
        return lacks("it has no filter of system calls");
    }
    Ok("as due".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_nobody_elses_is_locked() {
        let lines = [
            "55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]",
            "7f0000000000-7f0000001000 rw-s 00000000 00:01 7                          /dev/zero",
            "7f0000001000-7f0000002000 r--p 00000000 08:01 7                          /lib/x.so",
            "7f0000002000-7f0000003000 ---p 00000000 00:00 0",
            "7f0000003000-7f0000005000 rw-p 00000000 00:00 0",
            "nonsense",
        ];
        let found: Vec<_> = lines.into_iter().filter_map(private).collect();
        let due = [(0x55d0_c0a0_0000, 0x21000), (0x7f00_0000_3000, 0x2000)];
        assert_eq!(found, due);
    }
}
