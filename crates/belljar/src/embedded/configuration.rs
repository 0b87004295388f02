use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use belljar_attest::{BuilderConfig, Mode as BuilderMode};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Serialize;

use super::layout::State;
use super::{BELLJARD, Error, GROUP, Purpose, ROOT, STORE, slots};

/// Base of the URIs in provenance from embedded mode.
const BUILDER_ID: &str = "urn:belljar:embedded";

/// Which cgroup hierarchies the spawner demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Floor {
    /// The unified hierarchy with its controllers.
    V2,
    /// Controllers in v1 hierarchies, life cycle in the v2 tree: a lowered floor, told in the provenance by
    /// another `builder.id`.
    Hybrid,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// What this host can give: v2, unless its v2 tree has no memory controller.
pub(crate) fn host_floor() -> Floor {
    floor_of(
        std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .ok()
            .as_deref(),
    )
}

/// What a list of v2 controllers suffices for; none where v2 is not mounted at the usual place.
pub(super) fn floor_of(controllers: Option<&str>) -> Floor {
    let memory =
        controllers.is_some_and(|list| list.split_whitespace().any(|name| name == "memory"));
    if memory { Floor::V2 } else { Floor::Hybrid }
}

#[derive(Serialize)]
struct StoreConfig<'a> {
    socket: &'a Path,
    root: &'a Path,
    client_uid: u32,
    spawner_uid: u32,
}

#[derive(Serialize)]
struct SignerConfig<'a> {
    socket: &'a Path,
    key: &'a Path,
    receipts: &'a Path,
    evidence: &'a Path,
    client_uid: u32,
    builder_id: &'a str,
    generate_key: bool,
}

#[derive(Serialize)]
struct SpawnerConfig<'a> {
    socket: &'a Path,
    store_socket: &'a Path,
    group: u32,
    client_uid: u32,
    store_uid: u32,
    receipts: &'a Path,
    store: &'a Path,
    runtime: &'a Path,
    ids: &'a str,
    slots: usize,
    cgroup_floor: Floor,
    allowed_images: &'a str,
}

#[derive(Serialize)]
struct BelljardConfig<'a> {
    socket: &'a Path,
    store_socket: &'a Path,
    spawner_socket: &'a Path,
    signer_socket: &'a Path,
    store_root: &'a Path,
    receipts: &'a Path,
    evidence: &'a Path,
    state: &'a Path,
    slots: usize,
    allowed_uids: &'a [u32],
    builder_ids: &'a [String],
    /// Where `fetch` was read: what is wrong with it is said of that file.
    fetch_file: Option<PathBuf>,
    /// A table comes last.
    fetch: Option<toml::Table>,
}

/// The operator's own `[fetch]` of belljard.toml, in the state directory.
const FETCH: &str = "fetch.toml";

/// Writes the configuration of every process.
pub(super) fn write(state: &State, floor: Floor, purpose: Purpose) -> Result<(), Error> {
    let paths = Paths::below(state.path());
    let builder = BuilderConfig::new(BUILDER_ID).map_err(|e| Error::SetUp {
        path: state.path().join("config"),
        source: std::io::Error::other(e),
    })?;
    let modes: &[BuilderMode] = match floor {
        Floor::V2 => &[BuilderMode::Hermetic, BuilderMode::HostRootfs],
        Floor::Hybrid => &[BuilderMode::Dev],
    };
    let builder_ids: Vec<_> = modes.iter().map(|mode| builder.id(*mode)).collect();
    file(state.path(), "store", &paths.store_config())?;
    file(state.path(), "signer", &paths.signer_config())?;
    file(state.path(), "spawner", &paths.spawner_config(floor))?;
    file(
        state.path(),
        "belljard",
        &paths.belljard_config(&builder_ids, purpose, fetch(state.path())?),
    )
}

/// From where builds may have something fetched, if the operator says so. belljard looks at it.
fn fetch(root: &Path) -> Result<Option<toml::Table>, Error> {
    let path = root.join(FETCH);
    let set_up = |source: std::io::Error| Error::SetUp {
        path: path.clone(),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let table = toml::from_str(&text);
            table
                .map(Some)
                .map_err(|e| set_up(std::io::Error::other(e)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(set_up(error)),
    }
}

/// What the configurations name.
struct Paths {
    store_socket: PathBuf,
    signer_socket: PathBuf,
    spawner_socket: PathBuf,
    belljard_socket: PathBuf,
    store_root: PathBuf,
    receipts: PathBuf,
    evidence: PathBuf,
    key: PathBuf,
    runtime: PathBuf,
    daemon: PathBuf,
    fetch: PathBuf,
}

impl Paths {
    fn below(root: &Path) -> Self {
        Self {
            store_socket: root.join("run/store/store.sock"),
            signer_socket: root.join("run/signer/signer.sock"),
            spawner_socket: root.join("run/spawner/spawner.sock"),
            belljard_socket: super::socket(root),
            store_root: root.join("store"),
            receipts: root.join("receipts"),
            evidence: root.join("evidence"),
            key: root.join("signer/key.pk8"),
            runtime: root.join("run/spawner"),
            daemon: root.join("daemon"),
            fetch: root.join(FETCH),
        }
    }

    fn store_config(&self) -> StoreConfig<'_> {
        StoreConfig {
            socket: &self.store_socket,
            root: &self.store_root,
            client_uid: BELLJARD,
            spawner_uid: ROOT,
        }
    }

    fn signer_config(&self) -> SignerConfig<'_> {
        SignerConfig {
            socket: &self.signer_socket,
            key: &self.key,
            receipts: &self.receipts,
            evidence: &self.evidence,
            client_uid: BELLJARD,
            builder_id: BUILDER_ID,
            generate_key: true,
        }
    }

    fn spawner_config(&self, floor: Floor) -> SpawnerConfig<'_> {
        SpawnerConfig {
            socket: &self.spawner_socket,
            store_socket: &self.store_socket,
            group: GROUP,
            client_uid: BELLJARD,
            store_uid: STORE,
            receipts: &self.receipts,
            store: &self.store_root,
            runtime: &self.runtime,
            ids: "auto",
            slots: slots(),
            cgroup_floor: floor,
            // Whoever may run builds here is root, which could as well change the list.
            allowed_images: "any",
        }
    }

    fn belljard_config<'a>(
        &'a self,
        builder_ids: &'a [String],
        purpose: Purpose,
        fetch: Option<toml::Table>,
    ) -> BelljardConfig<'a> {
        BelljardConfig {
            socket: &self.belljard_socket,
            store_socket: &self.store_socket,
            spawner_socket: &self.spawner_socket,
            signer_socket: &self.signer_socket,
            store_root: &self.store_root,
            receipts: &self.receipts,
            evidence: &self.evidence,
            state: &self.daemon,
            slots: match purpose {
                Purpose::Build => slots(),
                Purpose::Ask => 0,
            },
            // Nobody else uses an embedded daemon.
            allowed_uids: &[ROOT],
            builder_ids,
            fetch_file: fetch.is_some().then(|| self.fetch.clone()),
            fetch,
        }
    }
}

fn file(root: &Path, name: &str, config: &impl Serialize) -> Result<(), Error> {
    let path = root.join(format!("config/{name}.toml"));
    let set_up = |source: std::io::Error| Error::SetUp {
        path: path.clone(),
        source,
    };
    let text = toml::to_string(config).map_err(|e| set_up(std::io::Error::other(e)))?;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened =
        openat(CWD, &path, flags, Mode::from_raw_mode(0o644)).map_err(|e| set_up(e.into()))?;
    // Whatever the umask says: the processes read it under their own user ids.
    rustix::fs::fchmod(&opened, Mode::from_raw_mode(0o644)).map_err(|e| set_up(e.into()))?;
    File::from(opened)
        .write_all(text.as_bytes())
        .map_err(set_up)
}
