//! What an instance has left behind on this machine.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::patience;

/// How long the kernel and init may take to clear away what was killed.
const GRACE: Duration = Duration::from_secs(5);
/// Where spawners hold their blocks of ids.
const LOCKS: &str = "/run/belljar-ids";
/// Directories of the state in which there is something only while a build runs.
const PASSING: [&str; 1] = ["store/tmp"];

/// Looks until nothing is left or the time is over. Gives one sentence for each thing.
pub(crate) fn of(state: &Path, blocks: &BTreeSet<u32>) -> Vec<String> {
    let start = Instant::now();
    loop {
        let mut left = processes(state);
        left.extend(cgroups(state, blocks));
        left.extend(PASSING.iter().flat_map(|name| files(&state.join(name))));
        if left.is_empty() || start.elapsed() > patience(GRACE) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same about the builds of a daemon that goes on.
pub(crate) fn of_builds(state: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        let builds = builds(state);
        let mut left = cgroups(state, &BTreeSet::new());
        left.extend(PASSING.iter().flat_map(|name| files(&state.join(name))));
        // Most processes tell the same, of the same mounts and cgroups.
        let (mut mounts, mut told) = (Mounts::default(), HashMap::new());
        let mut has_to_do = |text: Rc<str>| {
            let about = |text: &Rc<str>| builds.iter().any(|build| text.contains(build));
            *told.entry(text).or_insert_with_key(about)
        };
        for directory in entries(Path::new("/proc")) {
            if number(&directory).is_none() {
                continue;
            }
            let groups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
            if has_to_do(mounts.of(&directory)) || has_to_do(groups.into()) {
                left.push(format!("{} has to do with a build", directory.display()));
            }
        }
        if left.is_empty() || start.elapsed() > patience(GRACE) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many user ids a spawner has for its builds.
const BLOCK: u32 = 128;

/// What is left of the processes of a daemon that goes on, and that were killed before: those with user ids of builds,
/// from `first` on, and those that nobody is the parent of any more.
pub(crate) fn of_killed(state: &Path, first: u32) -> Vec<String> {
    let start = Instant::now();
    loop {
        let mut left = of_users(first);
        left.extend(orphans(state));
        if left.is_empty() || start.elapsed() > GRACE {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn of_users(first: u32) -> Vec<String> {
    let with_id = |directory: &PathBuf| {
        number(directory)?;
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let id: u32 = line.split_whitespace().next()?.parse().ok()?;
        let is_builds = (first..first + BLOCK).contains(&id);
        is_builds.then(|| format!("{} runs as uid {id} of a build", directory.display()))
    };
    let processes = entries(Path::new("/proc"));
    processes.iter().filter_map(with_id).collect()
}

/// Processes that were started on the state directory, and that this process is no ancestor of.
fn orphans(state: &Path) -> Vec<String> {
    let state = state.to_str().expect("a path in UTF-8");
    let is_orphan = |directory: &PathBuf| {
        let pid = number(directory)?;
        let line = fs::read_to_string(directory.join("cmdline")).ok()?;
        let own = line.contains(state) && !is_below(pid, std::process::id())?;
        own.then(|| {
            format!(
                "process {pid} has lost its parent: {}",
                line.replace('\0', " ")
            )
        })
    };
    let processes = entries(Path::new("/proc"));
    processes.iter().filter_map(is_orphan).collect()
}

/// Whether a process is another one's descendant; none if it has ended.
fn is_below(mut pid: u32, ancestor: u32) -> Option<bool> {
    while pid > 1 && pid != ancestor {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        pid = parent.trim().parse().ok()?;
    }
    Some(pid == ancestor)
}

/// Processes that were started on the state directory, that have mounts of it, or that are in a cgroup of one
/// of its builds.
fn processes(state: &Path) -> Vec<String> {
    let builds = builds(state);
    let state = state.to_str().expect("a path in UTF-8");
    let (mut left, mut mounts) = (Vec::new(), Mounts::default());
    for directory in entries(Path::new("/proc")) {
        let Some(pid) = number(&directory) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        // A process that has ended meanwhile has nothing to read, and is not left.
        let read = |name: &str| {
            let bytes = fs::read(directory.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (line, groups) = (read("cmdline"), read("cgroup"));
        if line.contains(state) {
            left.push(format!("process {pid}: {line}"));
        }
        // A zombie is its parent's business, which is pid 1 where the spawner was killed.
        let is_zombie = read("stat").contains(") Z ");
        if !is_zombie && builds.iter().any(|build| groups.contains(build)) {
            left.push(format!("process {pid} ({line}) in a cgroup of a build"));
        }
        if mounts.of(&directory).contains(state) {
            left.push(format!("a mount that process {pid} ({line}) sees"));
        }
    }
    left
}

/// Cgroups of its builds, and those of its spawners unless another spawner has got their ids by now.
pub(crate) fn cgroups(state: &Path, blocks: &BTreeSet<u32>) -> Vec<String> {
    let builds = builds(state);
    let mut left = Vec::new();
    let mut to_see = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut all = Vec::new();
    while let Some(directory) = to_see.pop() {
        let below = directories(&directory);
        to_see.extend(below.iter().cloned());
        all.extend(below);
    }
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    for path in &all {
        let of_build = name(path).is_some_and(|name| builds.iter().any(|b| name.contains(b)));
        if of_build {
            left.push(format!("cgroup {}", path.display()));
        }
    }
    for block in blocks {
        let Ok(lock) = File::open(Path::new(LOCKS).join(block.to_string())) else {
            continue;
        };
        // Held while we look: so whatever has this name is not another spawner's, which would have
        // removed what it found. A spawner that looks for ids meanwhile takes the next block.
        if lock.try_lock().is_err() {
            continue;
        }
        let due = format!("belljar-{block}");
        let of_spawner = all.iter().filter(|path| {
            name(path).as_deref() == Some(&due) && path.is_dir() && is_later(path, state)
        });
        left.extend(of_spawner.map(|path| format!("cgroup {}", path.display())));
    }
    left
}

/// Whether something was changed after the state directory was made, or nobody can tell. What was not may be what a
/// spawner of somebody else has left that was killed, and that nobody has cleared away yet.
fn is_later(path: &Path, state: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|found| found.modified());
    let made = fs::metadata(state).and_then(|found| found.created());
    !matches!((changed, made), (Ok(changed), Ok(made)) if changed < made)
}

/// The kernel's own memory that is counted by the cgroups below that of a spawner, in bytes.
pub(crate) fn kernel_memory(first: u32) -> u64 {
    let due = format!("belljar-{first}");
    let mut to_see = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut all = 0;
    while let Some(directory) = to_see.pop() {
        for entry in directories(&directory) {
            if entry.file_name().is_some_and(|name| *name == *due) {
                // Of cgroup v1, and of v2.
                let read = |name| fs::read_to_string(entry.join(name)).unwrap_or_default();
                let legacy = read("memory.kmem.usage_in_bytes");
                let stat = read("memory.stat");
                let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
                let figures = [Some(legacy.as_str()), kernel];
                let figures = figures.into_iter().flatten();
                all += figures
                    .filter_map(|figure| figure.trim().parse::<u64>().ok())
                    .sum::<u64>();
            } else {
                to_see.push(entry);
            }
        }
    }
    all
}

/// Ids of the builds that belljard has known.
fn builds(state: &Path) -> BTreeSet<String> {
    let trails = entries(&state.join("daemon/audit"));
    let stems = trails.iter().filter_map(|path| path.file_stem());
    stems
        .map(|stem| stem.to_string_lossy().into_owned())
        .collect()
}

fn files(directory: &Path) -> Vec<String> {
    let left = entries(directory);
    left.iter()
        .map(|path| format!("file {}", path.display()))
        .collect()
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The directories in a directory. What they are is read with their names: there are thousands of files in `/sys`.
fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// The mounts that each process sees: read once for all that see the same ones.
#[derive(Default)]
struct Mounts(HashMap<(PathBuf, PathBuf), Rc<str>>);

impl Mounts {
    /// Those of a process, by its directory in `/proc`; none if it has ended.
    fn of(&mut self, process: &Path) -> Rc<str> {
        let link = |name| fs::read_link(process.join(name)).ok();
        let seen = link("ns/mnt").zip(link("root"));
        if let Some(known) = seen.as_ref().and_then(|seen| self.0.get(seen)) {
            return Rc::clone(known);
        }
        let bytes = fs::read(process.join("mountinfo")).unwrap_or_default();
        let read: Rc<str> = String::from_utf8_lossy(&bytes).into();
        // What has ended meanwhile has nothing to read; others may see the same mounts as it did.
        if let Some(seen) = seen.filter(|_| !read.is_empty()) {
            self.0.insert(seen, Rc::clone(&read));
        }
        read
    }
}

/// What is in a directory; nothing if it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}
