//! The spawner's own, root-owned configuration. Nothing that belljard says can widen it.

use std::fmt;
use std::path::{Path, PathBuf};

use belljar_core::{Digest, Limits, PartialLimits, bounds};
use belljar_plan::CgroupFloor;
use serde::Deserialize;

use crate::images::AllowedImages;

/// `spawner.toml` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Where to listen for belljard.
    socket: PathBuf,
    /// Where the store listens.
    store_socket: PathBuf,
    /// Group id that may connect to the socket and read receipts.
    group: u32,
    /// belljard's user id: the only one that is served.
    client_uid: u32,
    /// The store's user id: owner of objects and images.
    store_uid: u32,
    /// Directory of the receipts.
    receipts: PathBuf,
    /// The store's root: below it lie objects and images.
    store: PathBuf,
    /// Directory of the spawner's own for mounts; root's.
    runtime: PathBuf,
    /// Host ids for builds: `"auto"` or the first of them.
    ids: Ids,
    /// Most sandboxes at once.
    slots: usize,
    /// Which cgroup hierarchies must be there: `"v2"`, or `"hybrid"` to lower the floor.
    cgroup_floor: CgroupFloor,
    /// Which root file systems builds may have: `"any"`, or a list of `"host"` and of trees by digest.
    allowed_images: AllowedImages,
    /// Host paths that builds on the host's root file system may read, beside the built-in list.
    #[serde(default)]
    host_paths: Vec<PathBuf>,
    /// Most that a plan may ask for; what is left out is as in `Limits::CEILING`.
    #[serde(default)]
    caps: PartialLimits,
}

/// Where the host ids of builds begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// At the first block that no other spawner on this host holds.
    Auto,
    /// Here.
    From(u32),
}

/// The configuration after it was looked at.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for belljard.
    pub socket: PathBuf,
    /// Where the store listens.
    pub store_socket: PathBuf,
    /// Group id that may connect to the socket and read receipts.
    pub group: u32,
    /// belljard's user id.
    pub client_uid: u32,
    /// The store's user id.
    pub store_uid: u32,
    /// Directory of the receipts.
    pub receipts: PathBuf,
    /// The store's root.
    pub store: PathBuf,
    /// Directory for mounts.
    pub runtime: PathBuf,
    /// Where the host ids of builds begin.
    pub ids: Ids,
    /// Most sandboxes at once.
    pub slots: usize,
    /// Which cgroup hierarchies must be there.
    pub cgroup_floor: CgroupFloor,
    /// Which root file systems builds may have.
    pub allowed_images: AllowedImages,
    /// Further host paths.
    pub host_paths: Vec<PathBuf>,
    /// Most that a plan may ask for.
    pub caps: Limits,
    /// Digest of the file.
    pub digest: Digest,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        why: String,
    },
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or the first host id")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ids, E> {
                if text == "auto" {
                    Ok(Ids::Auto)
                } else {
                    Err(E::custom("only \"auto\" or a number"))
                }
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Ids, E> {
                u32::try_from(number).map(Ids::From).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Names the field and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let invalid = |why: String| ConfigError::Invalid {
            path: path.to_owned(),
            why,
        };
        if bytes.len() > bounds::CONFIG_BYTES {
            return Err(invalid(format!("more than {} bytes", bounds::CONFIG_BYTES)));
        }
        let text = str::from_utf8(&bytes).map_err(|e| invalid(e.to_string()))?;
        let file: File = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        Self::check(file, Digest::of(&bytes)).map_err(invalid)
    }

    fn check(file: File, digest: Digest) -> Result<Self, String> {
        let paths = [
            ("socket", &file.socket),
            ("store_socket", &file.store_socket),
            ("receipts", &file.receipts),
            ("store", &file.store),
            ("runtime", &file.runtime),
        ];
        for (name, path) in paths
            .into_iter()
            .chain(file.host_paths.iter().map(|path| ("host_paths", path)))
        {
            if !path.is_absolute() || path.components().any(|c| c.as_os_str() == "..") {
                return Err(format!(
                    "{name}: {} is not an absolute path without `..`",
                    path.display()
                ));
            }
        }
        if file.slots == 0 || file.slots > bounds::CONCURRENT_SANDBOXES {
            return Err(format!(
                "slots: {} is not between 1 and {}",
                file.slots,
                bounds::CONCURRENT_SANDBOXES
            ));
        }
        if file.client_uid == 0 || file.store_uid == 0 {
            return Err(
                "client_uid, store_uid: must not be 0; each process has a user of its own"
                    .to_owned(),
            );
        }
        if file.client_uid == file.store_uid {
            return Err(
                "client_uid, store_uid: must differ; each process has a user of its own".to_owned(),
            );
        }
        let caps = file.caps.over(&Limits::CEILING);
        let caps = caps.map_err(|e| e.within("caps").to_string())?;
        Ok(Self {
            socket: file.socket,
            store_socket: file.store_socket,
            group: file.group,
            client_uid: file.client_uid,
            store_uid: file.store_uid,
            receipts: file.receipts,
            store: file.store,
            runtime: file.runtime,
            ids: file.ids,
            slots: file.slots,
            cgroup_floor: file.cgroup_floor,
            allowed_images: file.allowed_images,
            host_paths: file.host_paths,
            caps,
            digest,
        })
    }
}

#[cfg(test)]
#[path = "../../../fuzz/changes.rs"]
mod changes;

#[cfg(test)]
mod tests {
    use super::changes::changed;
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"
        socket = "/s/run/spawner.sock"
        store_socket = "/s/run/store.sock"
        group = 7
        client_uid = 7
        store_uid = 8
        receipts = "/s/receipts"
        store = "/s/store"
        runtime = "/s/run/spawner"
        ids = "auto"
        slots = 2
        cgroup_floor = "v2"
        allowed_images = ["host"]
    "#;

    fn check(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        Config::check(file, Digest::of(b""))
    }

    #[test]
    fn the_file_that_is_installed_admits_the_hosts_root_file_system_only() {
        let config = check(include_str!("../../../systemd/etc/spawner.toml")).unwrap();
        let host = AllowedImages::Listed {
            host: true,
            trees: [].into(),
        };
        assert_eq!(config.allowed_images, host);
    }

    #[test]
    fn good_and_bad_files() {
        assert_eq!(check(GOOD).unwrap().caps, Limits::CEILING);
        let capped = check(&format!("{GOOD}\n[caps]\npids = 64")).unwrap();
        assert_eq!(capped.caps.get().pids, 64);
        let cases = [
            ("slots = 2", "slots = 0", "slots"),
            ("slots = 2", "slots = 2\ncolour = 1", "colour"),
            ("\"/s/receipts\"", "\"receipts\"", "receipts"),
            ("store_uid = 8", "store_uid = 7", "store_uid"),
            ("client_uid = 7", "client_uid = 0", "client_uid"),
            ("ids = \"auto\"", "ids = \"any\"", "auto"),
            ("\"v2\"", "\"none\"", "cgroup_floor"),
            ("allowed_images", "host_paths", "allowed_images"),
            ("[\"host\"]", "[\"debian\"]", "allowed_images"),
            ("[\"host\"]", "[\"host\"]\n[caps]\npids = 0", "caps.pids"),
            ("[\"host\"]", "[\"host\"]\n[caps]\ncolour = 1", "colour"),
        ];
        for (from, to, named) in cases {
            let refused = check(&GOOD.replace(from, to)).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    /// With what else it may have.
    fn whole() -> String {
        format!("{GOOD}host_paths = [\"/opt\"]\n[caps]\npids = 7\n")
    }

    proptest! {
        /// A good file with bytes of it gone, put in or replaced: whatever is accepted keeps to the rules.
        #[test]
        fn a_changed_file_is_refused_or_as_good(text in changed(whole(), |text| check(text).is_ok())) {
            let Ok(config) = check(&text) else { return Ok(()) };
            prop_assert!((1..=bounds::CONCURRENT_SANDBOXES).contains(&config.slots));
            prop_assert!(config.client_uid != 0 && config.store_uid != 0);
            prop_assert_ne!(config.client_uid, config.store_uid);
            let paths = [&config.socket, &config.store_socket, &config.receipts, &config.store, &config.runtime];
            for path in paths.into_iter().chain(&config.host_paths) {
                prop_assert!(path.is_absolute() && !path.to_string_lossy().split('/').any(|part| part == ".."));
            }
            if let AllowedImages::Listed { host, trees } = &config.allowed_images {
                prop_assert!(*host || !trees.is_empty());
            }
            prop_assert!(config.caps.within(&Limits::CEILING).is_ok());
        }
    }
}
