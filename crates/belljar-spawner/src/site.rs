//! What all attempts of one spawner share.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use belljar_core::{Digest, Hasher};
use belljar_plan::Binaries;
use belljar_sys::namespace::{self, Network};
use belljar_sys::seccomp::{Program, SANDBOX};

use crate::cgroup::Tree;
use crate::config::Config;
use crate::containment::Step;
use crate::held::FileShare;
use crate::host;
use crate::ids::{Block, Pair};
use crate::receipts::Chain;
use crate::rootfs::HostRootFs;
use crate::staging;
use crate::trees::Trees;

/// Network namespaces that are kept ready.
const NETWORKS: usize = 4;

/// The host as this spawner uses it.
pub struct Site {
    /// The configuration.
    pub config: Config,
    /// Host ids.
    pub ids: Block,
    /// Cgroups.
    pub cgroups: Tree,
    /// The root file system `host`.
    pub rootfs: HostRootFs,
    /// The builds' system call filter.
    pub filter: Program,
    /// What builds may have of the machine's open files.
    pub files: FileShare,
    /// The containment list.
    pub steps: &'static [Step],
    /// Where mounts of attempts lie.
    pub mounts: PathBuf,
    /// Trees that are mounted.
    pub trees: Trees,
    /// What enforces.
    pub binaries: Binaries,
    /// Drawn at start.
    pub run_nonce: String,
    /// The kernel's.
    pub boot_id: String,
    /// Receipts.
    pub receipts: Chain,
    networks: Vec<Network>,
    /// By slot; never more than there are slots.
    owners: BTreeMap<usize, Rc<Owners>>,
}

/// User namespaces that nobody enters: their maps say whose a file of owner 0 is in the sandboxes of one slot.
#[derive(Debug)]
pub struct Owners {
    /// Inside 0's: root file system and further inputs.
    pub image: OwnedFd,
    /// The build's: sources.
    pub build: OwnedFd,
}

impl Owners {
    fn of(ids: Pair) -> io::Result<Self> {
        let one = |id: u32| {
            let map = format!("0 {id} 1\n");
            namespace::user(id, &map, &map)
        };
        Ok(Self {
            image: one(ids.image)?,
            build: one(ids.build)?,
        })
    }
}

impl Site {
    /// Puts everything in place. From here on this process has a mount namespace of its own.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn prepare(
        config: Config,
        ids: Block,
        cgroups: Tree,
        steps: &'static [Step],
    ) -> io::Result<Self> {
        let mounts = staging::prepare(&config.runtime)?;
        Ok(Self {
            trees: Trees::new(&mounts, &config.store, config.store_uid),
            owners: BTreeMap::new(),
            rootfs: HostRootFs::look(&config.host_paths)?,
            filter: Program::compile(&SANDBOX)?,
            files: FileShare::of(config.slots)?,
            binaries: Binaries {
                spawner: digest_of(Path::new("/proc/self/exe"))?,
                spawner_config: config.digest,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                kernel: host::release(),
            },
            run_nonce: nonce()?,
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            receipts: Chain::open(&config.receipts, config.group)?,
            config,
            ids,
            cgroups,
            mounts,
            steps,
            networks: Vec::new(),
        })
    }

    /// The id maps of a slot, which are always the same.
    ///
    /// # Errors
    /// What making their user namespaces says.
    pub fn owners(&mut self, slot: usize, ids: Pair) -> io::Result<Rc<Owners>> {
        if let Some(owners) = self.owners.get(&slot) {
            return Ok(Rc::clone(owners));
        }
        let owners = Rc::new(Owners::of(ids)?);
        self.owners.insert(slot, Rc::clone(&owners));
        Ok(owners)
    }

    /// A network namespace that nobody else has or will have.
    ///
    /// # Errors
    /// What making one says.
    pub fn take_network(&mut self) -> io::Result<Network> {
        match self.networks.pop() {
            Some(ready) => Ok(ready),
            None => namespace::network(),
        }
    }

    /// Makes one more network namespace in advance, if fewer than wanted are ready: to be called when there
    /// is nothing else to do. Tells whether another one is wanted.
    ///
    /// # Errors
    /// What making one says.
    pub fn stock_network(&mut self) -> io::Result<bool> {
        if self.networks.len() < NETWORKS {
            self.networks.push(namespace::network()?);
        }
        Ok(self.networks.len() < NETWORKS)
    }
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// 32 hexadecimal digits from the kernel's random numbers (random(4)).
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
