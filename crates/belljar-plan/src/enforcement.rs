use std::fmt;

use belljar_core::{Digest, Limits};
use serde::{Deserialize, Serialize};

use crate::{BUILD_ID, Plan};

/// What the spawner read back from the kernel about a sandbox that stood at its barrier, before the
/// build's first instruction ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnforcementReport {
    /// Every namespace of the sandbox (namespaces(7)).
    pub namespaces: Vec<NamespaceReport>,
    /// The user namespace's complete user id map (user_namespaces(7)).
    pub uid_map: Vec<IdMapping>,
    /// Its complete group id map.
    pub gid_map: Vec<IdMapping>,
    /// Real, effective, saved and file system user id, as host ids.
    pub uids: [u32; 4],
    /// Real, effective, saved and file system group id, as host ids.
    pub gids: [u32; 4],
    /// Supplementary groups, as host ids.
    pub groups: Vec<u32>,
    /// Capability sets (capabilities(7)).
    pub capabilities: Capabilities,
    /// The no_new_privs bit (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// User namespaces that may be made inside: `user.max_user_namespaces` as read there.
    pub max_user_namespaces: u64,
    /// seccomp(2).
    pub seccomp: SeccompReport,
    /// landlock(7). The kernel tells nobody what a domain holds: the ruleset is named by digest, and that
    /// it bites is shown by the self-probes.
    pub landlock: LandlockReport,
    /// cgroups(7).
    pub cgroup: CgroupReport,
    /// Every mount of the sandbox, in the order of `/proc/PID/mountinfo`.
    pub mounts: Vec<MountReport>,
}

/// One namespace of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceReport {
    /// Which kind.
    pub kind: NamespaceKind,
    /// Inode number of the sandbox's namespace on nsfs.
    pub inode: u64,
    /// Inode number of the spawner's own namespace of that kind, which must differ.
    pub host_inode: u64,
    /// Whether the initial user namespace owns it (`NS_GET_USERNS`, ioctl_nsfs(2)). For the user
    /// namespace itself: whether the initial one is its parent.
    pub owned_by_initial: bool,
}

/// The kinds of namespaces that a sandbox has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Mounts.
    Mnt,
    /// Process ids.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Cgroup root.
    Cgroup,
    /// Network.
    Net,
    /// User and group ids.
    User,
    /// Offsets of clocks. Its file is one for the whole machine else, and carries locks and events.
    Time,
}

impl NamespaceKind {
    /// All of them: a sandbox that lacks one is not a sandbox.
    pub const ALL: [Self; 8] = [
        Self::Mnt,
        Self::Pid,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Net,
        Self::User,
        Self::Time,
    ];

    /// The name under `/proc/PID/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Net => "net",
            Self::User => "user",
            Self::Time => "time",
        }
    }
}

/// One line of an id map: `count` ids from `inside` are `outside` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Capability sets as masks, bit n for capability number n, in 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// CapInh.
    pub inheritable: String,
    /// CapPrm.
    pub permitted: String,
    /// CapEff.
    pub effective: String,
    /// CapBnd.
    pub bounding: String,
    /// CapAmb.
    pub ambient: String,
}

impl Capabilities {
    /// The mask without any capability.
    pub const NONE: &'static str = "0000000000000000";

    /// The five sets with their names in `/proc/PID/status`.
    pub fn sets(&self) -> [(&'static str, &str); 5] {
        [
            ("CapInh", &self.inheritable),
            ("CapPrm", &self.permitted),
            ("CapEff", &self.effective),
            ("CapBnd", &self.bounding),
            ("CapAmb", &self.ambient),
        ]
    }
}

/// seccomp as read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompReport {
    /// Mode; 2 is a filter.
    pub mode: u32,
    /// Filters installed.
    pub filters: u32,
    /// Digest of the program that was installed, as `struct sock_filter` in host byte order.
    pub program: Digest,
}

/// Landlock as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockReport {
    /// ABI version that the kernel offers.
    pub abi: u32,
    /// Digest of the textual description of the ruleset that was applied.
    pub ruleset: Digest,
}

/// Which cgroup hierarchy limits the build. The default is v2; hybrid is a lowered floor, and leads to
/// another `builder.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupFloor {
    /// The unified hierarchy, with the memory, pids, cpu and cpuset controllers.
    V2,
    /// Controllers in v1 hierarchies, life cycle in the v2 tree.
    Hybrid,
}

/// Cgroup limits as read back from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupReport {
    /// Where the limits live.
    pub floor: CgroupFloor,
    /// `memory.max` or `memory.limit_in_bytes`, in bytes.
    pub memory_bytes: u64,
    /// `pids.max`.
    pub pids: u64,
    /// `cpu.max` or `cpu.cfs_quota_us` by `cpu.cfs_period_us`, in thousandths of a CPU.
    pub cpu_millis: u64,
    /// How many CPUs `cpuset.cpus` names.
    pub cpus: u64,
}

/// One mount of the sandbox, a line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountReport {
    /// Where, as the sandbox sees it.
    pub target: String,
    /// File system type.
    pub fs: String,
    /// Per-mount options.
    pub options: String,
}

/// One way in which a sandbox was less than its plan demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The layer.
    pub layer: &'static str,
    /// What was found and what was due.
    pub found: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.found)
    }
}

impl EnforcementReport {
    /// Least Landlock ABI that a sandbox may have: 6 scopes signals and abstract unix sockets.
    pub const LANDLOCK_ABI: u32 = 6;

    /// Compares what was read back with what `plan` demands. Empty means: fully enforced. The spawner
    /// asks before it lets the build run, the signer asks again before it signs.
    pub fn shortfalls(&self, plan: &Plan) -> Vec<Shortfall> {
        let mut found = Vec::new();
        self.check_namespaces(&mut found);
        self.check_ids(&mut found);
        self.check_privileges(&mut found);
        self.check_cgroup(&plan.limits, &mut found);
        crate::mounts::check(&self.mounts, plan, &mut found);
        found
    }

    fn check_namespaces(&self, found: &mut Vec<Shortfall>) {
        for kind in NamespaceKind::ALL {
            let mut of_kind = self.namespaces.iter().filter(|ns| ns.kind == kind);
            let due = of_kind
                .next()
                .is_some_and(|ns| ns.inode != ns.host_inode && ns.owned_by_initial);
            expect(found, "namespaces", due && of_kind.next().is_none(), || {
                format!(
                    "{} is not an own one that the initial user namespace owns",
                    kind.proc_name()
                )
            });
        }
        expect(found, "namespaces", self.max_user_namespaces == 0, || {
            format!(
                "{} user namespaces may be made inside; 0 is due",
                self.max_user_namespaces
            )
        });
    }

    fn check_ids(&self, found: &mut Vec<Shortfall>) {
        for (name, map, ids) in [
            ("uid", &self.uid_map, self.uids),
            ("gid", &self.gid_map, self.gids),
        ] {
            let build = map
                .iter()
                .find(|line| line.inside == BUILD_ID)
                .map(|line| line.outside);
            let narrow =
                map.len() == 2 && map.iter().all(|line| line.count == 1 && line.outside != 0);
            expect(
                found,
                "ids",
                narrow && map.iter().any(|line| line.inside == 0),
                || {
                    format!(
                        "the {name} map is {map:?}; inside 0 and {BUILD_ID}, neither of them host 0, are due"
                    )
                },
            );
            expect(
                found,
                "ids",
                ids.iter().all(|id| Some(*id) == build),
                || format!("the {name}s are {ids:?}; all four are due to be the build's"),
            );
        }
        expect(found, "ids", self.groups.is_empty(), || {
            format!("supplementary groups {:?} are left", self.groups)
        });
    }

    fn check_privileges(&self, found: &mut Vec<Shortfall>) {
        for (name, mask) in self.capabilities.sets() {
            expect(found, "capabilities", mask == Capabilities::NONE, || {
                format!("{name} is {mask}")
            });
        }
        expect(found, "no_new_privs", self.no_new_privs, || {
            "not set".to_owned()
        });
        expect(
            found,
            "seccomp",
            self.seccomp.mode == 2 && self.seccomp.filters >= 1,
            || {
                format!(
                    "mode {} with {} filters",
                    self.seccomp.mode, self.seccomp.filters
                )
            },
        );
        expect(
            found,
            "landlock",
            self.landlock.abi >= Self::LANDLOCK_ABI,
            || {
                format!(
                    "ABI {}; at least {} is due",
                    self.landlock.abi,
                    Self::LANDLOCK_ABI
                )
            },
        );
    }

    fn check_cgroup(&self, limits: &Limits, found: &mut Vec<Shortfall>) {
        let (due, is) = (limits.get(), &self.cgroup);
        // The kernel rounds memory down to pages, and bandwidth is a quota in microseconds.
        let memory =
            is.memory_bytes <= due.memory_bytes && is.memory_bytes + 65_536 > due.memory_bytes;
        expect(found, "cgroup", memory, || {
            format!(
                "memory limit {}; {} is due",
                is.memory_bytes, due.memory_bytes
            )
        });
        expect(found, "cgroup", is.pids == due.pids, || {
            format!("pids limit {}; {} is due", is.pids, due.pids)
        });
        expect(
            found,
            "cgroup",
            is.cpu_millis <= due.cpu_millis && is.cpu_millis > 0,
            || {
                format!(
                    "cpu limit {} millis; {} is due",
                    is.cpu_millis, due.cpu_millis
                )
            },
        );
        expect(
            found,
            "cgroup",
            is.cpus >= 1 && is.cpus <= due.cpu_millis.div_ceil(1000),
            || format!("{} cpus for a limit of {} millis", is.cpus, due.cpu_millis),
        );
    }
}

pub(crate) fn expect(
    found: &mut Vec<Shortfall>,
    layer: &'static str,
    holds: bool,
    otherwise: impl FnOnce() -> String,
) {
    if !holds {
        found.push(Shortfall {
            layer,
            found: otherwise(),
        });
    }
}
