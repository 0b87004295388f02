//! The spawner reads from the kernel what init has become, while init waits at the barrier.

use std::fs::{self, File};
use std::io;
use std::str::FromStr;

use belljar_plan::{
    Capabilities, EnforcementReport, IdMapping, LandlockReport, MountReport, NamespaceKind,
    NamespaceReport, Receipt, SeccompReport,
};
use belljar_sys::{forbidden, landlock, namespace};

use super::Launched;

pub(super) fn read_back(launched: &mut Launched) -> io::Result<()> {
    let report = report(launched)?;
    let shortfalls = report.shortfalls(&launched.plan);
    launched.enforcement = Some(report);
    let nice = nice(&fs::read_to_string(format!(
        "/proc/{}/stat",
        launched.init.pid
    ))?)?;
    if nice < 0 {
        return Err(io::Error::other(format!(
            "init's nice value is {nice}; 0 or more is due"
        )));
    }
    if !shortfalls.is_empty() {
        let all: Vec<_> = shortfalls.iter().map(ToString::to_string).collect();
        return Err(io::Error::other(all.join("; ")));
    }
    let probed = launched.self_probes.len();
    if probed < Receipt::SELF_PROBES || probed != forbidden::ATTEMPTS.len() {
        return Err(io::Error::other(format!(
            "only {probed} self-probes were told"
        )));
    }
    Ok(())
}

fn report(launched: &Launched) -> io::Result<EnforcementReport> {
    let pid = launched.init.pid;
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let status = read("status")?;
    Ok(EnforcementReport {
        namespaces: NamespaceKind::ALL
            .iter()
            .map(|kind| look(*kind, launched))
            .collect::<io::Result<_>>()?,
        uid_map: id_map(&read("uid_map")?)?,
        gid_map: id_map(&read("gid_map")?)?,
        uids: four(&status, "Uid")?,
        gids: four(&status, "Gid")?,
        groups: numbers(field(&status, "Groups")?)?,
        capabilities: Capabilities {
            inheritable: field(&status, "CapInh")?.to_owned(),
            permitted: field(&status, "CapPrm")?.to_owned(),
            effective: field(&status, "CapEff")?.to_owned(),
            bounding: field(&status, "CapBnd")?.to_owned(),
            ambient: field(&status, "CapAmb")?.to_owned(),
        },
        no_new_privs: field(&status, "NoNewPrivs")? == "1",
        // Read there by the process that wrote it when the namespace was made: `namespace::user` fails else.
        max_user_namespaces: 0,
        seccomp: SeccompReport {
            mode: parse(field(&status, "Seccomp")?)?,
            filters: parse(field(&status, "Seccomp_filters")?)?,
            program: launched.filter,
        },
        landlock: LandlockReport {
            abi: landlock::abi(),
            ruleset: launched.ruleset,
        },
        cgroup: launched.group.report()?,
        mounts: mounts(&read("mountinfo")?)?,
    })
}

fn look(kind: NamespaceKind, launched: &Launched) -> io::Result<NamespaceReport> {
    let name = kind.proc_name();
    let initial = namespace::inode(File::open("/proc/self/ns/user")?)?;
    let theirs = File::open(format!("/proc/{}/ns/{name}", launched.init.pid))?;
    let inode = namespace::inode(&theirs)?;
    if kind == NamespaceKind::User && inode != namespace::inode(&launched.user_namespace)? {
        return Err(io::Error::other(
            "init is in another user namespace than the one that was made for it",
        ));
    }
    Ok(NamespaceReport {
        kind,
        inode,
        host_inode: namespace::inode(File::open(format!("/proc/self/ns/{name}"))?)?,
        owned_by_initial: namespace::inode(namespace::owner(&theirs)?)? == initial,
    })
}

fn id_map(text: &str) -> io::Result<Vec<IdMapping>> {
    let line = |line: &str| match numbers(line)?[..] {
        [inside, outside, count] => Ok(IdMapping {
            inside,
            outside,
            count,
        }),
        _ => Err(unreadable(line)),
    };
    text.lines().map(line).collect()
}

fn mounts(text: &str) -> io::Result<Vec<MountReport>> {
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").ok_or_else(|| unreadable(line))?;
        let mut fields = mount.split(' ').skip(4);
        let (Some(target), Some(options), Some(fs)) =
            (fields.next(), fields.next(), file_system.split(' ').next())
        else {
            return Err(unreadable(line));
        };
        Ok(MountReport {
            target: target.to_owned(),
            fs: fs.to_owned(),
            options: options.to_owned(),
        })
    };
    text.lines().map(mount).collect()
}

/// The nice value in a `/proc/PID/stat` (proc_pid_stat(5), field 19). The name before it may hold anything.
fn nice(stat: &str) -> io::Result<i32> {
    let after = stat.rsplit_once(')').map(|(_, after)| after);
    let field = after.and_then(|after| after.split_whitespace().nth(16));
    parse(field.ok_or_else(|| unreadable("stat"))?)
}

fn field<'a>(status: &'a str, name: &str) -> io::Result<&'a str> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .map(str::trim)
        .ok_or_else(|| io::Error::other(format!("/proc/PID/status has no {name}")))
}

fn four(status: &str, name: &str) -> io::Result<[u32; 4]> {
    let all = numbers(field(status, name)?)?;
    all.try_into().map_err(|_| unreadable(name))
}

fn numbers(text: &str) -> io::Result<Vec<u32>> {
    text.split_whitespace().map(parse).collect()
}

fn parse<T: FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unreadable(text))
}

fn unreadable(text: &str) -> io::Error {
    io::Error::other(format!("`{text}` in /proc cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines() {
        let text = "36 35 98:0 /m /a ro,nosuid shared:1 - ext4 /dev/x rw\n37 36 0:5 / /dev/pts rw - devpts d rw\n";
        let read = mounts(text).unwrap();
        assert_eq!(
            (
                read[0].target.as_str(),
                read[0].fs.as_str(),
                read[0].options.as_str()
            ),
            ("/a", "ext4", "ro,nosuid")
        );
        assert_eq!(read[1].target, "/dev/pts");
        assert!(mounts("garbage").is_err());
    }

    #[test]
    fn nice_values() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 25 -5 1 0 9 1";
        assert_eq!(nice(stat).unwrap(), -5);
        assert!(nice("7 (a) S").is_err() && nice("7").is_err());
    }

    #[test]
    fn status_fields() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGroups:\t \nCapBnd:\t0000000000000000\n";
        assert_eq!(four(status, "Uid").unwrap(), [1, 2, 3, 4]);
        assert!(
            numbers(field(status, "Groups").unwrap())
                .unwrap()
                .is_empty()
        );
        assert!(field(status, "Cap").is_err());
        assert!(id_map("0 1 1\n1000 2 1\n").is_ok());
        assert!(id_map("0 1\n").is_err());
    }
}
