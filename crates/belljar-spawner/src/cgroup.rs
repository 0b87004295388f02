//! Cgroups (cgroups(7)): limits before the first process exists, life and death by the v2 tree.
//!
//! Each attempt has directories of its own that are never used again: a v2 cgroup that was killed once
//! kills every process that is later cloned into it (seen on Linux 6.18).

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use belljar_core::{AttemptId, LimitFigures};
use belljar_plan::{CgroupFloor, CgroupReport, Plan, Usage};

/// Bandwidth is given per period of this length, in microseconds (the kernel's default).
const PERIOD: u64 = 100_000;

/// Where this spawner's cgroups lie, in each hierarchy that it needs.
#[derive(Clone, Debug)]
pub struct Tree {
    floor: CgroupFloor,
    /// Parent of the attempts' directories in the v2 tree.
    unified: PathBuf,
    /// The same in the v1 hierarchies: (controller, directory). Empty for the v2 floor.
    legacy: Vec<(&'static str, PathBuf)>,
}

/// The cgroup of one attempt.
#[derive(Debug)]
pub struct Group {
    floor: CgroupFloor,
    unified: PathBuf,
    legacy: Vec<(&'static str, PathBuf)>,
    /// `cgroup.events`, to be polled for exceptional conditions.
    pub events: File,
}

/// Controllers in v1 hierarchies that the hybrid floor needs.
const LEGACY: [&str; 5] = ["memory", "pids", "cpu", "cpuset", "cpuacct"];
/// Controllers that the v2 floor needs.
const UNIFIED: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

impl Tree {
    /// Finds this process's place in each hierarchy and makes a parent directory named `name` there.
    /// What an earlier spawner of that name has left is killed and removed.
    ///
    /// # Errors
    /// Says which hierarchy or controller is missing.
    pub fn prepare(floor: CgroupFloor, name: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let places = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_v2(&mounts, &places)?;
        let mut tree = Self {
            floor,
            unified: own.join(name),
            legacy: Vec::new(),
        };
        match floor {
            CgroupFloor::V2 => delegate(&own)?,
            CgroupFloor::Hybrid => {
                for controller in LEGACY {
                    tree.legacy
                        .push((controller, own_v1(&mounts, &places, controller)?.join(name)));
                }
            }
        }
        tree.clear()?;
        fs::create_dir(&tree.unified)?;
        if floor == CgroupFloor::V2 {
            enable_controllers(&tree.unified)?;
        }
        for (controller, directory) in &tree.legacy {
            fs::create_dir(directory)?;
            if *controller == "cpuset" {
                inherit_cpuset(directory)?;
            }
        }
        Ok(tree)
    }

    /// Kills and removes everything below, and the parent directories themselves.
    ///
    /// # Errors
    /// When something stays busy.
    pub fn clear(&self) -> io::Result<()> {
        for directory in
            std::iter::once(&self.unified).chain(self.legacy.iter().map(|(_, directory)| directory))
        {
            if !directory.exists() {
                continue;
            }
            let kill = directory.join("cgroup.kill");
            if kill.exists() {
                fs::write(kill, "1")?;
            }
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    remove(&path)?;
                }
            }
            remove(directory)?;
        }
        Ok(())
    }

    /// Makes the cgroup of one attempt with all its limits.
    ///
    /// # Errors
    /// Says which limit could not be set.
    pub fn create(&self, attempt: &AttemptId, plan: &Plan, slot: usize) -> io::Result<Group> {
        let name = attempt.to_string();
        let unified = self.unified.join(&name);
        fs::create_dir(&unified)?;
        let legacy: Vec<_> = self
            .legacy
            .iter()
            .map(|(controller, at)| (*controller, at.join(&name)))
            .collect();
        let events = File::open(unified.join("cgroup.events"))?;
        let group = Group {
            floor: self.floor,
            unified,
            legacy,
            events,
        };
        if let Err(error) = group.limit(plan, &self.cpus(plan, slot)?) {
            // Nothing ran in it, so it can go at once; the first error is the one to tell.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// The CPUs of one attempt, as a cpuset list: neighbours of a start that moves on with the slot.
    fn cpus(&self, plan: &Plan, slot: usize) -> io::Result<String> {
        let available = match self.floor {
            CgroupFloor::V2 => fs::read_to_string(self.unified.join("cpuset.cpus.effective"))?,
            CgroupFloor::Hybrid => {
                fs::read_to_string(self.directory("cpuset").join("cpuset.cpus"))?
            }
        };
        let available = parse_list(&available)?;
        let count = usize::try_from(plan.cpus(available.len() as u64)).unwrap_or(1);
        let chosen =
            (0..count).map(|n| available[(slot * count + n) % available.len()].to_string());
        Ok(chosen.collect::<Vec<_>>().join(","))
    }

    fn directory(&self, controller: &str) -> &Path {
        let found = self.legacy.iter().find(|(name, _)| *name == controller);
        found.map_or(&self.unified, |(_, directory)| directory)
    }
}

impl Group {
    fn limit(&self, plan: &Plan, cpus: &str) -> io::Result<()> {
        for (_, directory) in &self.legacy {
            fs::create_dir(directory)?;
        }
        let figures = plan.limits.get();
        match self.floor {
            CgroupFloor::V2 => self.limit_v2(figures, cpus),
            CgroupFloor::Hybrid => self.limit_v1(figures, cpus),
        }
    }

    fn limit_v2(&self, figures: &LimitFigures, cpus: &str) -> io::Result<()> {
        let quota = figures.cpu_millis * PERIOD / 1000;
        self.set("memory", "memory.max", &figures.memory_bytes.to_string())?;
        self.set_if_there("memory", "memory.swap.max", "0")?;
        self.set("memory", "memory.oom.group", "1")?;
        self.set("pids", "pids.max", &figures.pids.to_string())?;
        self.set("cpu", "cpu.max", &format!("{quota} {PERIOD}"))?;
        self.set("cpuset", "cpuset.cpus", cpus)
    }

    fn limit_v1(&self, figures: &LimitFigures, cpus: &str) -> io::Result<()> {
        let quota = figures.cpu_millis * PERIOD / 1000;
        self.set(
            "memory",
            "memory.limit_in_bytes",
            &figures.memory_bytes.to_string(),
        )?;
        self.set_if_there(
            "memory",
            "memory.memsw.limit_in_bytes",
            &figures.memory_bytes.to_string(),
        )?;
        self.set("pids", "pids.max", &figures.pids.to_string())?;
        self.set("cpu", "cpu.cfs_period_us", &PERIOD.to_string())?;
        self.set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        inherit_cpuset(self.directory("cpuset"))?;
        self.set("cpuset", "cpuset.cpus", cpus)
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.unified)?.into())
    }

    /// Puts a process, which waits, into the v1 groups, and checks that it is in every group that limits.
    ///
    /// # Errors
    /// When it cannot be put there or is somewhere else.
    pub fn adopt(&self, pid: u32) -> io::Result<()> {
        for (_, directory) in &self.legacy {
            fs::write(directory.join("cgroup.procs"), pid.to_string())?;
        }
        let own = std::iter::once(&self.unified)
            .chain(self.legacy.iter().map(|(_, directory)| directory));
        for directory in own {
            let inside = fs::read_to_string(directory.join("cgroup.procs"))?;
            if !inside.lines().any(|line| line == pid.to_string()) {
                return Err(io::Error::other(format!(
                    "the sandbox is not in {}",
                    directory.display()
                )));
            }
        }
        Ok(())
    }

    /// Kills every process in it, at once and without a race (cgroup.kill).
    ///
    /// # Errors
    /// What write(2) says.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.unified.join("cgroup.kill"), "1")
    }

    /// Whether no process is left in it.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.unified.join("cgroup.events"))?
            .lines()
            .any(|line| line == "populated 0"))
    }

    /// Removes it. Fails while a process is in it.
    ///
    /// # Errors
    /// What rmdir(2) says.
    pub fn remove(&self) -> io::Result<()> {
        for (_, directory) in &self.legacy {
            remove(directory)?;
        }
        remove(&self.unified)
    }

    /// What was used so far.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub fn usage(&self) -> io::Result<Usage> {
        let (cpu_micros, memory_peak_bytes, oom_kills) = match self.floor {
            CgroupFloor::V2 => (
                keyed(&self.get("cpu", "cpu.stat")?, "usage_usec")?,
                self.number("memory", "memory.peak")?,
                keyed(&self.get("memory", "memory.events")?, "oom_kill")?,
            ),
            CgroupFloor::Hybrid => (
                self.number("cpuacct", "cpuacct.usage")? / 1000,
                self.number("memory", "memory.max_usage_in_bytes")?,
                keyed(&self.get("memory", "memory.oom_control")?, "oom_kill")?,
            ),
        };
        Ok(Usage {
            cpu_micros,
            memory_peak_bytes,
            oom_kills,
            wall_micros: 0,
        })
    }

    /// The limits as the kernel has them now.
    ///
    /// # Errors
    /// When a file of them cannot be read.
    pub fn report(&self) -> io::Result<CgroupReport> {
        let cpus = parse_list(&self.get("cpuset", "cpuset.cpus")?)?.len() as u64;
        let (memory_bytes, quota, period) = match self.floor {
            CgroupFloor::V2 => {
                let max = self.get("cpu", "cpu.max")?;
                let (quota, period) = max.trim().split_once(' ').unwrap_or(("", ""));
                (
                    self.number("memory", "memory.max")?,
                    parse(quota)?,
                    parse(period)?,
                )
            }
            CgroupFloor::Hybrid => (
                self.number("memory", "memory.limit_in_bytes")?,
                self.number("cpu", "cpu.cfs_quota_us")?,
                self.number("cpu", "cpu.cfs_period_us")?,
            ),
        };
        Ok(CgroupReport {
            floor: self.floor,
            memory_bytes,
            pids: self.number("pids", "pids.max")?,
            cpu_millis: quota * 1000 / period.max(1),
            cpus,
        })
    }

    fn directory(&self, controller: &str) -> &Path {
        let found = self.legacy.iter().find(|(name, _)| *name == controller);
        found.map_or(&self.unified, |(_, directory)| directory)
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.directory(controller).join(file), value)
            .map_err(|e| io::Error::new(e.kind(), format!("{file} cannot be set to {value}: {e}")))
    }

    fn set_if_there(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        if self.directory(controller).join(file).exists() {
            self.set(controller, file, value)
        } else {
            Ok(())
        }
    }

    fn get(&self, controller: &str, file: &str) -> io::Result<String> {
        fs::read_to_string(self.directory(controller).join(file))
            .map_err(|e| io::Error::new(e.kind(), format!("{file} cannot be read: {e}")))
    }

    fn number(&self, controller: &str, file: &str) -> io::Result<u64> {
        parse(&self.get(controller, file)?)
    }
}

/// Removes a cgroup directory; one that is not there is fine. The kernel may need a moment after the last
/// process was reaped.
fn remove(directory: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e)
                if e.raw_os_error() == Some(belljar_sys::Errno::BUSY.raw_os_error())
                    && tries < 50 =>
            {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// The directory of this process's v2 cgroup.
fn own_v2(mounts: &str, places: &str) -> io::Result<PathBuf> {
    let mount = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, at, "cgroup2", ..] => Some(at.to_owned()),
            _ => None,
        });
    let mount = mount.ok_or_else(|| io::Error::other("no cgroup v2 hierarchy is mounted"))?;
    let place = places.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(below(&mount, place.unwrap_or("/")))
}

/// The directory of this process's cgroup in the v1 hierarchy of one controller.
fn own_v1(mounts: &str, places: &str, controller: &str) -> io::Result<PathBuf> {
    let missing = || {
        io::Error::other(format!(
            "the cgroup v1 controller `{controller}` is not mounted"
        ))
    };
    let mount = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, at, "cgroup", options, ..] if options.split(',').any(|o| o == controller) => {
                Some(at.to_owned())
            }
            _ => None,
        });
    let place = places
        .lines()
        .find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            [_, controllers, place] if controllers.split(',').any(|c| c == controller) => {
                Some(place)
            }
            _ => None,
        });
    Ok(below(
        &mount.ok_or_else(missing)?,
        place.ok_or_else(missing)?,
    ))
}

fn below(mount: &str, place: &str) -> PathBuf {
    Path::new(mount).join(place.trim_start_matches('/'))
}

/// Makes the own v2 cgroup, which must be delegated and hold nobody else, hand its controllers down: the
/// spawner itself moves into a leaf of it, because only leaves may hold processes.
fn delegate(own: &Path) -> io::Result<()> {
    let available = fs::read_to_string(own.join("cgroup.controllers"))?;
    let missing: Vec<_> = UNIFIED
        .iter()
        .filter(|c| !available.split_whitespace().any(|a| a == **c))
        .collect();
    if !missing.is_empty() {
        return Err(io::Error::other(format!(
            "the cgroup {} lacks the controllers {missing:?}; run the spawner as a unit with Delegate=yes",
            own.display()
        )));
    }
    let leaf = own.join("supervisor");
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())?;
    enable_controllers(own)
}

fn enable_controllers(directory: &Path) -> io::Result<()> {
    let wanted = UNIFIED.map(|c| format!("+{c}")).join(" ");
    fs::write(directory.join("cgroup.subtree_control"), wanted).map_err(|e| {
        let hint = "the spawner needs a cgroup of its own; run it as a unit with Delegate=yes";
        io::Error::new(
            e.kind(),
            format!(
                "cannot hand controllers down from {}: {e}; {hint}",
                directory.display()
            ),
        )
    })
}

/// A v1 cpuset is empty at first and takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    for file in ["cpuset.mems", "cpuset.cpus"] {
        let parent = directory.parent().unwrap_or(directory);
        fs::write(
            directory.join(file),
            fs::read_to_string(parent.join(file))?.trim(),
        )?;
    }
    Ok(())
}

/// `0-2,5` as numbers.
fn parse_list(text: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(parse(first)?..=parse(last)?);
    }
    if numbers.is_empty() {
        Err(io::Error::other("the cpuset names no CPU"))
    } else {
        Ok(numbers)
    }
}

fn keyed(text: &str, key: &str) -> io::Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    parse(value.ok_or_else(|| io::Error::other(format!("no `{key}` in a cgroup file")))?)
}

fn parse(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| {
        io::Error::other(format!(
            "`{}` is not a number in a cgroup file",
            text.trim()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_list("0-2,5\n").unwrap(), [0, 1, 2, 5]);
        assert!(parse_list("\n").is_err());
        assert!(parse_list("a").is_err());
    }

    #[test]
    fn places_are_found_by_controller() {
        let mounts = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let places = "4:memory:/a/b\n0::/\n";
        assert_eq!(
            own_v1(mounts, places, "memory").unwrap(),
            Path::new("/sys/fs/cgroup/memory/a/b")
        );
        assert!(own_v1(mounts, places, "pids").is_err());
        assert_eq!(
            own_v2(mounts, places).unwrap(),
            Path::new("/sys/fs/cgroup/unified/")
        );
        assert!(own_v2("", places).is_err());
    }
}
