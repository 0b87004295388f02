//! Cgroups (cgroups(7)): limits before the first process exists, life and death by the v2 tree.
//!
//! Each attempt has directories of its own that are never used again: a v2 cgroup that was killed once
//! kills every process that is later cloned into it (seen on Linux 6.18).

mod tree;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use belljar_core::LimitFigures;
use belljar_plan::{CgroupFloor, CgroupReport, Plan, Usage};

pub use tree::Tree;

/// Bandwidth is given per period of this length, in microseconds (the kernel's default).
const PERIOD: u64 = 100_000;
/// How often it is looked whether a cgroup is frozen, and how many times.
const FREEZING_LOOK: Duration = Duration::from_millis(1);
const FREEZING_LOOKS: u32 = 20;

/// The cgroup of one attempt.
#[derive(Debug)]
pub struct Group {
    floor: CgroupFloor,
    unified: PathBuf,
    legacy: Vec<(&'static str, PathBuf)>,
    /// `cgroup.events`, to be polled for exceptional conditions.
    pub events: File,
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
        // Of TCP and UDP, which v1 counts apart.
        self.set_if_there(
            "memory",
            "memory.kmem.tcp.limit_in_bytes",
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
        fs::write(self.unified.join("cgroup.kill"), "1")?;
        // Who has used up the quota would wait for the next period to die. Should it stay: that takes longer.
        let (file, none) = match self.floor {
            CgroupFloor::V2 => ("cpu.max", "max"),
            CgroupFloor::Hybrid => ("cpu.cfs_quota_us", "-1"),
        };
        let _ = self.set("cpu", file, none);
        Ok(())
    }

    /// Whether no process is left in it.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.tells(b"populated 0")
    }

    /// Whether `cgroup.events` has this line.
    fn tells(&self, due: &[u8]) -> io::Result<bool> {
        // By the descriptor that is polled: only reading it takes the news from it.
        let mut buffer = [0; 256];
        let length = self.events.read_at(&mut buffer, 0)?;
        Ok(buffer[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == due))
    }

    /// Stops every process in it where it is, or lets them go on (cgroup.freeze). Who is in the kernel gets there
    /// first, which is waited for, but not for long: nobody gets out of it meanwhile.
    ///
    /// # Errors
    /// What write(2) and read(2) say.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        let value = if frozen { "1" } else { "0" };
        fs::write(self.unified.join("cgroup.freeze"), value)
            .map_err(|e| io::Error::new(e.kind(), format!("cgroup.freeze: {e}")))?;
        let mut looks = 0;
        while frozen && looks < FREEZING_LOOKS && !self.tells(b"frozen 1")? {
            looks += 1;
            std::thread::sleep(FREEZING_LOOK);
        }
        Ok(())
    }

    /// The ids of all threads in it.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn threads(&self) -> io::Result<Vec<u32>> {
        let text = fs::read_to_string(self.unified.join("cgroup.threads"))?;
        let ids = text.lines().map(parse);
        ids.map(|id| u32::try_from(id?).map_err(io::Error::other))
            .collect()
    }

    /// Removes it. Fails while a process is in it.
    ///
    /// # Errors
    /// What rmdir(2) says.
    pub fn remove(&self) -> io::Result<()> {
        for (_, directory) in &self.legacy {
            remove(directory, REAPED)?;
        }
        remove(&self.unified, REAPED)
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
        // Later than the v2 floor's kernel in both hierarchies, but not in every one below it.
        let pids_peak = match self.directory("pids").join("pids.peak").exists() {
            true => self.number("pids", "pids.peak")?,
            false => 0,
        };
        Ok(Usage {
            cpu_micros,
            memory_peak_bytes,
            oom_kills,
            pids_peak,
            pids_refused: keyed(&self.get("pids", "pids.events")?, "max")?,
            ..Usage::default()
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

/// How long a cgroup may stay busy after its last process was reaped: the kernel needs a moment.
const REAPED: Duration = Duration::from_millis(100);
/// How long one may whose processes were only just killed: they give back memory, mounts and namespaces first.
const KILLED: Duration = Duration::from_secs(10);

/// Removes a cgroup directory; one that is not there is fine.
fn remove(directory: &Path, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match fs::remove_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e)
                if e.raw_os_error() == Some(belljar_sys::Errno::BUSY.raw_os_error())
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => {
                let text = format!("removing the cgroup {}: {e}", directory.display());
                return Err(io::Error::new(e.kind(), text));
            }
            Ok(()) => return Ok(()),
        }
    }
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

    /// Where a throttled process does not wait for its quota to die (Linux 6.18), only the file shows it.
    #[test]
    fn killing_lifts_the_quota_and_failing_to_kill_does_not() {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        for (floor, file, before, after) in [
            (CgroupFloor::V2, "cpu.max", "10000 100000", "max"),
            (CgroupFloor::Hybrid, "cpu.cfs_quota_us", "10000", "-1"),
        ] {
            let place = tempfile::tempdir().unwrap();
            let (unified, cpu) = (place.path().join("v2"), place.path().join("v1"));
            let (at, legacy) = match floor {
                CgroupFloor::V2 => (&unified, Vec::new()),
                CgroupFloor::Hybrid => (&cpu, vec![("cpu", cpu.clone())]),
            };
            fs::create_dir(&cpu).unwrap();
            fs::create_dir(&unified).unwrap();
            fs::write(at.join(file), before).unwrap();
            let group = Group {
                floor,
                unified: unified.clone(),
                legacy,
                events: File::open("/dev/null").unwrap(),
            };
            // As of one that is gone.
            fs::create_dir(unified.join("cgroup.kill")).unwrap();
            assert!(group.kill().is_err());
            assert_eq!(read(&at.join(file)), before, "{floor:?}");
            fs::remove_dir(unified.join("cgroup.kill")).unwrap();
            group.kill().unwrap();
            assert_eq!(read(&unified.join("cgroup.kill")), "1");
            assert_eq!(read(&at.join(file)), after, "{floor:?}");
            // Who is dying is waited for; that the quota cannot be lifted is no reason not to.
            fs::remove_file(at.join(file)).unwrap();
            fs::create_dir(at.join(file)).unwrap();
            group.kill().unwrap();
        }
    }
}
