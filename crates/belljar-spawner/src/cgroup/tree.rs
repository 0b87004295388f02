//! Where cgroups are made: the own place in each hierarchy.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use belljar_core::AttemptId;
use belljar_plan::{CgroupFloor, Plan};

use super::{Group, KILLED, inherit_cpuset, parse_list, remove};
use crate::ids::Block;

/// What the names of all spawners' trees begin with; the first of their ids follows.
const PREFIX: &str = "belljar-";

/// Controllers in v1 hierarchies that the hybrid floor needs.
const LEGACY: [&str; 5] = ["memory", "pids", "cpu", "cpuset", "cpuacct"];
/// Controllers that the v2 floor needs.
const UNIFIED: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

/// Where this spawner's cgroups lie, in each hierarchy that it needs.
#[derive(Clone, Debug)]
pub struct Tree {
    floor: CgroupFloor,
    /// Parent of the attempts' directories in the v2 tree.
    unified: PathBuf,
    /// The same in the v1 hierarchies: (controller, directory). Empty for the v2 floor.
    legacy: Vec<(&'static str, PathBuf)>,
}

impl Tree {
    /// Finds this process's place in each hierarchy and makes a parent directory there, named after its ids.
    /// What an earlier spawner with these ids has left is killed and removed, also where that one was started.
    ///
    /// # Errors
    /// Says which hierarchy or controller is missing.
    pub fn prepare(floor: CgroupFloor, ids: &Block) -> io::Result<Self> {
        let tree = Self::find(floor, &Self::name(ids.first()))?;
        clear(&left_by(ids)?)?;
        tree.clear()?;
        // Before anything is there.
        ids.note(&tree.directories())?;
        tree.make()
    }

    /// The same for a look at the host, under a name of this process's own.
    ///
    /// # Errors
    /// Says which hierarchy or controller is missing.
    pub fn prepare_probe(floor: CgroupFloor) -> io::Result<Self> {
        let tree = Self::find(floor, &format!("{PREFIX}probe-{}", std::process::id()))?;
        tree.clear()?;
        tree.make()
    }

    fn make(self) -> io::Result<Self> {
        if let (CgroupFloor::V2, Some(own)) = (self.floor, self.unified.parent()) {
            delegate(own)?;
        }
        fs::create_dir(&self.unified)?;
        if self.floor == CgroupFloor::V2 {
            enable_controllers(&self.unified)?;
        }
        for (controller, directory) in &self.legacy {
            fs::create_dir(directory)?;
            if *controller == "cpuset" {
                inherit_cpuset(directory)?;
            }
        }
        Ok(self)
    }

    /// Where a tree of that name would lie.
    fn find(floor: CgroupFloor, name: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let places = fs::read_to_string("/proc/self/cgroup")?;
        let mut tree = Self {
            floor,
            unified: own_v2(&mounts, &places)?.join(name),
            legacy: Vec::new(),
        };
        if floor == CgroupFloor::Hybrid {
            for controller in LEGACY {
                let own = own_v1(&mounts, &places, controller)?;
                tree.legacy.push((controller, own.join(name)));
            }
        }
        Ok(tree)
    }

    /// Kills and removes what spawners have left that were killed themselves, and whose ids nobody has taken
    /// since: beside this tree, and where they have noted that they make cgroups. To be called after
    /// [`Tree::prepare`].
    ///
    /// # Errors
    /// When something cannot be listed or stays busy.
    pub fn clear_abandoned(&self) -> io::Result<()> {
        let mut all = self.neighbours()?;
        all.extend(Block::noted()?);
        for first in all {
            // Held until its remains are gone: nobody begins to use the ids meanwhile.
            if let Some(ids) = Block::abandoned(first)? {
                let mut places = left_by(&ids)?;
                places.extend(self.beside(&Self::name(first)).directories());
                if places.iter().any(|place| place.exists()) {
                    tracing::warn!(
                        first_id = first,
                        "removing what a spawner has left that was killed"
                    );
                }
                clear(&places)?;
                ids.note(&[])?;
            }
        }
        Ok(())
    }

    /// The tree of another name in the same places. Not looked up anew: with the v2 floor this process has
    /// moved into a leaf since.
    fn beside(&self, name: &str) -> Self {
        let legacy = self.legacy.iter();
        Self {
            floor: self.floor,
            unified: self.unified.with_file_name(name),
            legacy: legacy
                .map(|(controller, tree)| (*controller, tree.with_file_name(name)))
                .collect(),
        }
    }

    /// Name of the tree of the spawner whose ids begin with `first`.
    pub fn name(first: u32) -> String {
        format!("{PREFIX}{first}")
    }

    /// First ids of all spawners that have, or have left, a tree beside this one.
    fn neighbours(&self) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        let trees = self.legacy.iter().map(|(_, tree)| tree);
        for parent in trees
            .chain([&self.unified])
            .filter_map(|tree| tree.parent())
        {
            for entry in fs::read_dir(parent)? {
                let name = entry?.file_name();
                let first = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
                found.extend(first.and_then(|first| first.parse::<u32>().ok()));
            }
        }
        Ok(found)
    }

    /// Kills and removes everything below, and the parent directories themselves.
    ///
    /// # Errors
    /// When something stays busy.
    pub fn clear(&self) -> io::Result<()> {
        clear(&self.directories())
    }

    /// The parent directories, first the one by which all are killed.
    fn directories(&self) -> Vec<PathBuf> {
        let legacy = self.legacy.iter().map(|(_, directory)| directory);
        std::iter::once(&self.unified)
            .chain(legacy)
            .cloned()
            .collect()
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

/// Where the last spawner with these ids had its cgroups, as far as it has noted it.
fn left_by(ids: &Block) -> io::Result<Vec<PathBuf>> {
    let mut places = ids.places()?;
    let due = Tree::name(ids.first());
    // What nobody makes cgroups as is none, whoever wrote it.
    places.retain(|place| place.is_absolute() && place.ends_with(&due));
    Ok(places)
}

/// Kills and removes everything below these directories, and them; those that are not there are fine.
fn clear(directories: &[PathBuf]) -> io::Result<()> {
    for directory in directories {
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
                remove(&path, KILLED)?;
            }
        }
        remove(directory, KILLED)?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
