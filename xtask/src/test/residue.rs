//! After the tests nothing of Belljar is left: no process, mount, cgroup, IPC object or file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The first host id that builds run under: whatever has one above it came out of a sandbox.
const BUILD_IDS: u64 = 1_879_048_192;

/// How long the last test's processes may take to be reaped.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// Where a daemon or a test may leave files.
const FOLDERS: &[&str] = &[
    "tmp", "var/tmp", "run", "dev/shm", "var/lib", "var/log", "etc",
];

/// Where spawners of one host lock their blocks of ids: files that stay until the machine is started
/// anew, since removing a lock that another may be about to take would give one block to two. They are empty once
/// nothing is left of the cgroups of whoever held them.
const LOCKS: &str = "run/belljar-ids";

/// What was found, each in words that name it.
pub(crate) type Traces = BTreeSet<String>;

/// Fail if there is anything that was not there before. `root` is `/` but in tests.
pub(crate) fn check(root: &Path, before: &Traces, grace: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let left: Vec<String> = look(root)?.difference(before).cloned().collect();
        if left.is_empty() {
            break;
        }
        if start.elapsed() > grace {
            bail!("left behind on this machine:\n  {}", left.join("\n  "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if before.is_empty() {
        println!("no process, mount, cgroup, IPC object or file is left");
    } else {
        // Somebody's own daemon may run here; the tests did not start it, so they are not asked to end it.
        println!("nothing is left but what was there before the tests:");
        before.iter().for_each(|trace| println!("  {trace}"));
    }
    Ok(())
}

/// Every trace of Belljar on this machine.
pub(crate) fn look(root: &Path) -> Result<Traces> {
    let mut traces = Traces::new();
    processes(root, &mut traces)?;
    mounts(root, &mut traces)?;
    let groups = root.join("sys/fs/cgroup");
    anyhow::ensure!(
        groups.is_dir(),
        "{} is not mounted: nobody can say what is left there",
        groups.display()
    );
    cgroups(&groups, &mut traces)?;
    ipc(root, &mut traces)?;
    files(root, &mut traces)?;
    Ok(traces)
}

fn processes(root: &Path, traces: &mut Traces) -> Result<()> {
    for entry in std::fs::read_dir(root.join("proc")).context("/proc")? {
        let entry = entry.context("/proc")?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // A process that ended since the folder was listed is none.
        let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let name = name.trim_end();
        if name.starts_with("belljar") {
            traces.insert(format!("process {pid} ({name})"));
        } else if let Some(uid) = build_id(&status) {
            traces.insert(format!(
                "process {pid} ({name}), which runs under the build id {uid}"
            ));
        }
    }
    Ok(())
}

fn build_id(status: &str) -> Option<u64> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .find(|&id| id >= BUILD_IDS)
}

fn mounts(root: &Path, traces: &mut Traces) -> Result<()> {
    let table = std::fs::read_to_string(root.join("proc/self/mountinfo"))
        .context("/proc/self/mountinfo")?;
    for line in table.lines().filter(|line| line.contains("belljar")) {
        let place = line.split(' ').nth(4).unwrap_or(line);
        traces.insert(format!("mount at {place} ({line})"));
    }
    Ok(())
}

fn cgroups(folder: &Path, traces: &mut Traces) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // Groups come and go while one looks.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains("belljar") {
            traces.insert(format!("cgroup {}", entry.path().display()));
        }
        cgroups(&entry.path(), traces)?;
    }
    Ok(())
}

/// System V objects of a build id. (POSIX ones are files in /dev/shm, or die with their mount.)
fn ipc(root: &Path, traces: &mut Traces) -> Result<()> {
    for kind in ["shm", "sem", "msg"] {
        let path = root.join("proc/sysvipc").join(kind);
        let table = match std::fs::read_to_string(&path) {
            Ok(table) => table,
            // A kernel without System V IPC has none to leave.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let mut lines = table.lines();
        let column = lines
            .next()
            .and_then(|head| head.split_whitespace().position(|name| name == "uid"));
        let column = column.with_context(|| format!("{}: no column uid", path.display()))?;
        for line in lines {
            let uid = line
                .split_whitespace()
                .nth(column)
                .and_then(|uid| uid.parse::<u64>().ok());
            if uid.is_some_and(|uid| uid >= BUILD_IDS) {
                traces.insert(format!("System V {kind} object: {}", line.trim()));
            }
        }
    }
    Ok(())
}

fn files(root: &Path, traces: &mut Traces) -> Result<()> {
    for folder in FOLDERS {
        let path = root.join(folder);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        for entry in entries {
            let entry = entry.with_context(|| path.display().to_string())?;
            let name = entry.file_name();
            if entry.path() == root.join(LOCKS) {
                locks(&entry.path(), traces)?;
            } else if name
                .to_string_lossy()
                .trim_start_matches('.')
                .starts_with("belljar")
            {
                traces.insert(format!("file {}", entry.path().display()));
            }
        }
    }
    Ok(())
}

/// Locks are fine if that is all they are: a process that holds one is found as such.
fn locks(folder: &Path, traces: &mut Traces) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let found = entry.metadata().context("a lock")?;
        if !found.is_file() || found.len() > 0 {
            traces.insert(format!("file {}", entry.path().display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small machine in a folder, on which nothing of Belljar is left.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            (
                "proc/self/mountinfo",
                "22 1 0:20 / /proc rw - proc proc rw\n",
            ),
            ("proc/7/comm", "sh\n"),
            ("proc/7/status", "Name:\tsh\nUid:\t0\t0\t0\t0\n"),
            (
                "proc/sysvipc/shm",
                "key shmid perms uid gid\n0 1 600 1000 1000\n",
            ),
            ("tmp/other", ""),
        ] {
            write(root.path(), path, text);
        }
        std::fs::create_dir_all(root.path().join("sys/fs/cgroup/memory/user.slice")).unwrap();
        root
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn locks_of_ids_stay_and_nothing_else_in_their_place() {
        let root = machine();
        write(root.path(), "run/belljar-ids/1879048192", "");
        assert_eq!(look(root.path()).unwrap(), Traces::new());
        write(root.path(), "run/belljar-ids/kept", "something");
        assert_eq!(look(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_clean_machine_passes() {
        let root = machine();
        assert_eq!(look(root.path()).unwrap(), Traces::new());
        check(root.path(), &Traces::new(), Duration::ZERO).unwrap();
    }

    #[test]
    fn each_kind_of_residue_is_named() {
        let cases = [
            (
                "proc/8/comm",
                "belljar-store\n",
                "process 8 (belljar-store)",
            ),
            (
                "proc/7/status",
                "Uid:\t1879048193\t1879048193\t1879048193\t1879048193\n",
                "the build id 1879048193",
            ),
            (
                "proc/self/mountinfo",
                "23 1 0:9 / /run/belljar/b1 rw - tmpfs tmpfs rw\n",
                "mount at /run/belljar/b1",
            ),
            (
                "sys/fs/cgroup/memory/a/belljar-b1/tasks",
                "",
                "memory/a/belljar-b1",
            ),
            (
                "proc/sysvipc/shm",
                "key shmid perms uid gid\n0 1 600 1879048192 0\n",
                "System V shm object",
            ),
            ("tmp/.belljar-x/f", "", "tmp/.belljar-x"),
        ];
        for (path, text, expected) in cases {
            let root = machine();
            write(root.path(), "proc/8/status", "Uid:\t0\t0\t0\t0\n");
            write(root.path(), path, text);
            let found = look(root.path()).unwrap();
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found.first().unwrap().contains(expected), "{found:?}");
        }
    }

    #[test]
    fn only_what_is_new_fails_the_check() {
        let root = machine();
        write(root.path(), "tmp/belljar-old", "");
        let before = look(root.path()).unwrap();
        check(root.path(), &before, Duration::ZERO).unwrap();
        write(root.path(), "tmp/belljar-new", "");
        let error = check(root.path(), &before, Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tmp/belljar-new") && !error.contains("belljar-old"),
            "{error}"
        );
    }
}
