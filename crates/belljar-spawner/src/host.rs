//! What this host offers, layer by layer: before the first build, and for `belljar doctor`.

use std::fs;
use std::io;
use std::path::Path;

use belljar_core::bounds;
use belljar_plan::{CgroupFloor, EnforcementReport, HostReport, LayerReport, Verdict};
use belljar_sys::mount::Attributes;
use belljar_sys::seccomp::{Program, SANDBOX};
use belljar_sys::{files, landlock, mount, namespace};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use crate::cgroup::Tree;
use crate::held::FileShare;

/// Least kernel release.
const KERNEL: (u32, u32) = (6, 12);
/// statfs(2) magic of overlayfs.
const OVERLAYFS: i64 = 0x794c_7630;

/// Looks at every layer, for so many builds at once. `state` is a directory on the file system where Belljar's state lies. Cgroups are
/// `prepared` by who will use them; `doctor` only asks whether they could be.
pub fn probe(
    floor: CgroupFloor,
    state: &Path,
    slots: usize,
    cgroups: &io::Result<Tree>,
) -> HostReport {
    HostReport {
        layers: vec![
            kernel(),
            privileges(),
            namespaces(),
            state_directory(state),
            images(state),
            id_mapping(),
            cgroup_layer(floor, cgroups),
            landlock_layer(),
            seccomp_layer(),
            core_pattern(),
            open_files(slots),
        ],
    }
}

fn layer(name: &str, found: impl Into<String>, suffices: bool, hint: &str) -> LayerReport {
    LayerReport {
        name: name.to_owned(),
        found: found.into(),
        verdict: if suffices {
            Verdict::Enforced
        } else {
            Verdict::Missing
        },
        hint: if suffices {
            String::new()
        } else {
            hint.to_owned()
        },
    }
}

fn kernel() -> LayerReport {
    let release = release();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    layer(
        "kernel",
        release,
        version >= KERNEL,
        "Linux 6.12 or later is needed (Debian 13, Ubuntu 26.04, RHEL 10)",
    )
}

/// The kernel's release (uname(2)).
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn privileges() -> LayerReport {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or("")
        .trim();
    let mask = u64::from_str_radix(effective, 16).unwrap_or(0);
    // CAP_SYS_ADMIN, and those for ids, ownership and other processes (capabilities(7)).
    let needed = [
        ("SYS_ADMIN", 21),
        ("SETUID", 7),
        ("SETGID", 6),
        ("CHOWN", 0),
        ("DAC_OVERRIDE", 1),
        ("SYS_PTRACE", 19),
        ("KILL", 5),
        ("SETPCAP", 8),
        ("NET_ADMIN", 12),
    ];
    let missing: Vec<_> = needed
        .iter()
        .filter(|(_, bit)| mask >> bit & 1 == 0)
        .map(|(name, _)| *name)
        .collect();
    let initial = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let found = match (missing.is_empty(), initial) {
        (true, true) => "all, in the initial user namespace".to_owned(),
        (true, false) => "in a user namespace".to_owned(),
        (false, _) => format!("without {}", missing.join(", ")),
    };
    let hint = "run as root on the host itself; a container with a user namespace of its own cannot host sandboxes";
    layer("privileges", found, missing.is_empty() && initial, hint)
}

fn namespaces() -> LayerReport {
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let made = namespace::user(1_879_048_192, "0 1879048192 1\n", "0 1879048192 1\n")
        .and_then(|_| namespace::network()?.connections.try_out())
        .and_then(|_| namespace::has_time());
    let found = match &made {
        Ok(_) => format!(
            "user and network namespaces can be made (at most {}), there are time namespaces, and connections can be destroyed",
            most.trim()
        ),
        Err(error) => format!("cannot be made: {error}"),
    };
    layer(
        "namespaces",
        found,
        made.is_ok(),
        "set user.max_user_namespaces, user.max_net_namespaces and user.max_time_namespaces above 1000 by sysctl; the kernel needs CONFIG_TIME_NS, CONFIG_INET_TCP_DIAG (a module it may load) and CONFIG_INET_DIAG_DESTROY",
    )
}

fn state_directory(state: &Path) -> LayerReport {
    let magic = mount::file_system_magic(state);
    let found = match &magic {
        Ok(OVERLAYFS) => format!("{} is on overlayfs", state.display()),
        Ok(magic) => format!("{} is on file system {magic:#x}", state.display()),
        Err(error) => format!("{}: {error}", state.display()),
    };
    let fine = magic.is_ok_and(|magic| magic != OVERLAYFS);
    layer(
        "state",
        found,
        fine,
        "put the state on a file system that is not an overlay, such as ext4, xfs or btrfs",
    )
}

fn images(state: &Path) -> LayerReport {
    let mounted = (|| {
        let mut file = files::unnamed(state)?;
        file.write_all(&smallest_image())?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount::make("erofs", &[("source", Some(&source))], Attributes::default())
    })();
    let found = match &mounted {
        Ok(_) => "an EROFS image on the state's file system can be mounted".to_owned(),
        Err(error) => format!("no EROFS image on the state's file system can be mounted: {error}"),
    };
    layer(
        "images",
        found,
        mounted.is_ok(),
        "the kernel needs CONFIG_EROFS_FS_BACKED_BY_FILE (Linux 6.12), and the state must be on ext4, xfs, btrfs or the like, not on tmpfs",
    )
}

/// One block: a superblock (at 1024), and the inode of an empty directory with `.` and `..` beside it (at
/// 1152, which is the number 36), as `fs/erofs/erofs_fs.h` has them.
fn smallest_image() -> [u8; 4096] {
    let mut image = [0; 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(1024, &0xe0f5_e1e2_u32.to_le_bytes());
    put(1036, &[12, 0, 36]);
    put(1040, &[1]);
    put(1060, &[1]);
    put(1152, &[2 << 1]);
    put(1156, &0o040_755_u16.to_le_bytes());
    put(1158, &[2]);
    put(1160, &[27]);
    put(1172, &[1]);
    for (at, name_at) in [(1184, 24), (1196, 25)] {
        put(at, &[36]);
        put(at + 8, &[name_at, 0, 2]);
    }
    put(1208, b"...");
    image
}

fn id_mapping() -> LayerReport {
    let mapped = (|| {
        let clone = mount::clone_tree(Path::new("/usr"), false)?;
        let namespace = namespace::user(1_879_048_192, "0 1879048192 1\n", "0 1879048192 1\n")?;
        mount::set_attributes(
            clone.as_fd(),
            Attributes::default(),
            Some(namespace.as_fd()),
            false,
        )
    })();
    let found = match &mapped {
        Ok(()) => "/usr can be id-mapped".to_owned(),
        Err(error) => format!("/usr cannot be id-mapped: {error}"),
    };
    layer(
        "id-mapped mounts",
        found,
        mapped.is_ok(),
        "the host's root must be on a file system that can be id-mapped (ext4, xfs, btrfs)",
    )
}

fn cgroup_layer(floor: CgroupFloor, cgroups: &io::Result<Tree>) -> LayerReport {
    match (cgroups, floor) {
        (Ok(_), CgroupFloor::V2) => layer("cgroup", "v2 with memory, pids, cpu, cpuset", true, ""),
        (Ok(_), CgroupFloor::Hybrid) => LayerReport {
            name: "cgroup".to_owned(),
            found: "hybrid: controllers on v1, life cycle on v2".to_owned(),
            verdict: Verdict::Lowered,
            hint: "the configuration names the floor `hybrid`; provenance says builder `dev`"
                .to_owned(),
        },
        (Err(error), CgroupFloor::V2) => layer(
            "cgroup",
            error.to_string(),
            false,
            "boot with systemd.unified_cgroup_hierarchy=1 and run the spawner as a unit with Delegate=yes; on a development machine the configuration may name the floor `hybrid`",
        ),
        (Err(error), CgroupFloor::Hybrid) => layer(
            "cgroup",
            error.to_string(),
            false,
            "mount the v1 controllers memory, pids, cpu, cpuacct and cpuset, and a cgroup2 hierarchy",
        ),
    }
}

fn landlock_layer() -> LayerReport {
    let abi = landlock::abi();
    let hint = "boot with landlock in the lsm= list, on a kernel of 6.12 or later";
    layer(
        "landlock",
        format!("ABI {abi}"),
        abi >= EnforcementReport::LANDLOCK_ABI,
        hint,
    )
}

fn seccomp_layer() -> LayerReport {
    let filters = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let fine = filters.split_whitespace().any(|action| action == "errno");
    let program = Program::compile(&SANDBOX);
    let found = match &program {
        Ok(program) if fine => format!(
            "filters; the sandbox's has {} instructions",
            program.length()
        ),
        Ok(_) => "no filters".to_owned(),
        Err(error) => error.to_string(),
    };
    layer(
        "seccomp",
        found,
        fine && program.is_ok(),
        "the kernel must be built with CONFIG_SECCOMP_FILTER",
    )
}

/// What no cgroup limits, builds share with the host: there must be enough for each.
fn open_files(slots: usize) -> LayerReport {
    let share = FileShare::of(slots);
    let found = match &share {
        Ok(share) => format!("{} for each of {slots} builds at once", share.each),
        Err(error) => format!("fs.file-max: {error}"),
    };
    layer(
        "open files",
        found,
        share.is_ok_and(|share| share.each >= bounds::OPEN_FILES_LEAST),
        "raise fs.file-max by sysctl (systemd sets it to 9223372036854775807), or lower `slots`",
    )
}

fn core_pattern() -> LayerReport {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hint = core_hint(pattern.trim(), &limits);
    let found = format!("core_pattern is `{}`", pattern.trim());
    layer("core dumps", found, hint.is_none(), hint.unwrap_or(""))
}

/// Why a build's core dumps would go somewhere, if they would (core(5)). A piped pattern respects a limit
/// of exactly one byte, which a hard limit of zero does not allow; a socket pattern (Linux 6.16) none.
fn core_hint(pattern: &str, limits: &str) -> Option<&'static str> {
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .and_then(|line| line.split_whitespace().nth(1));
    match pattern.as_bytes().first() {
        Some(b'@') => {
            Some("a socket core_pattern would receive builds' memory; use a pipe or a file")
        }
        Some(b'|') if hard == Some("0") => Some(
            "a piped core_pattern would receive builds' memory, because the hard limit on core files is 0; \
             start the spawner with a limit of 1 or more (LimitCORE=1)",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_that_would_leave_a_sandbox_are_found() {
        let limits = |hard: &str| {
            format!("Max cpu time 1 1 s\nMax core file size        0    {hard}    bytes\n")
        };
        assert!(core_hint("|/usr/lib/handler %P", &limits("0")).is_some());
        assert!(core_hint("|/usr/lib/handler %P", &limits("unlimited")).is_none());
        assert!(core_hint("core", &limits("0")).is_none());
        assert!(core_hint("@/run/core.socket", &limits("1")).is_some());
    }
}
