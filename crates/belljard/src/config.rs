//! `belljard.toml`: read once, looked at once.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use belljar_core::{ImageKind, Invalid, Limits, PartialLimits, bounds};
use belljar_policy::{Policy, PolicyError};
use serde::Deserialize;

/// Root's user id.
const ROOT: u32 = 0;
/// What TCP needs, and does not have yet.
const NO_TCP: &str = "belljard listens on a unix socket only; TCP comes with mutual TLS";

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The unix socket to listen on: an absolute path in an existing directory.
    socket: PathBuf,
    /// The store's socket.
    store_socket: PathBuf,
    /// The spawner's socket.
    spawner_socket: PathBuf,
    /// The signer's socket.
    signer_socket: PathBuf,
    /// The store's root: objects and logs are read there, by group.
    store_root: PathBuf,
    /// Where the spawner leaves receipts; read by group.
    receipts: PathBuf,
    /// Where the signer leaves bundles; read by group.
    evidence: PathBuf,
    /// The daemon's own directory, for the queue and the audit trails.
    state: PathBuf,
    /// How many builds run at once: 0 to 64. The spawner has a limit of its own. With 0 none begins: they wait.
    slots: usize,
    /// User ids that may use the socket, beside root, who may anyway.
    allowed_uids: Vec<u32>,
    /// The most that a build may ask for; what is left out may go up to Belljar's own ceiling.
    #[serde(default)]
    caps: PartialLimits,
    /// What a build gets that asks for no limits; what is left out is Belljar's own default, or the cap if that
    /// is less.
    #[serde(default)]
    defaults: PartialLimits,
    /// The `builder.id`s that the signer is configured for, to be told by `GetServerInfo`.
    #[serde(default)]
    builder_ids: Vec<String>,
}

/// The configuration, looked at.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) store_socket: PathBuf,
    pub(crate) spawner_socket: PathBuf,
    pub(crate) signer_socket: PathBuf,
    pub(crate) store_root: PathBuf,
    pub(crate) receipts: PathBuf,
    pub(crate) evidence: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) slots: usize,
    pub(crate) policy: Policy,
    /// What a build gets that asks for no limits.
    pub(crate) defaults: Limits,
    pub(crate) builder_ids: Vec<String>,
}

/// Why there is no configuration. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{}: the configuration cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: the configuration has more than {} bytes", path.display(), bounds::CONFIG_BYTES)]
    TooLarge { path: PathBuf },
    #[error("{}: the configuration cannot be understood", path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("{}: {field}: {why}", path.display())]
    Field {
        path: PathBuf,
        field: String,
        why: String,
    },
    #[error("{}", path.display())]
    Policy {
        path: PathBuf,
        #[source]
        source: PolicyError,
    },
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(bounds::CONFIG_BYTES as u64 + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        if text.len() > bounds::CONFIG_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
            });
        }
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let refused = |field: &str, why: String| ConfigError::Field {
            path: path.to_owned(),
            field: field.to_owned(),
            why,
        };
        let syntax = |source| ConfigError::Syntax {
            path: path.to_owned(),
            source,
        };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(field) = ["listen", "address", "tcp", "port"]
            .into_iter()
            .find(|field| table.contains_key(*field))
        {
            return Err(refused(field, format!("{NO_TCP}; remove this field")));
        }
        let file: Written = toml::from_str(text).map_err(syntax)?;
        if let Some((field, why)) = file.bad_path() {
            return Err(refused(field, why));
        }
        if file.slots > bounds::CONCURRENT_SANDBOXES {
            let why = format!(
                "{} is not between 0 and {}",
                file.slots,
                bounds::CONCURRENT_SANDBOXES
            );
            return Err(refused("slots", why));
        }
        let within = |table: &str, e: Invalid| refused(&format!("{table}.{}", e.field), e.reason);
        let caps = file.caps.over(&Limits::CEILING);
        let caps = caps.map_err(|e| within("caps", e))?;
        let defaults = file.defaults.over(&Limits::DEFAULT.lowered_to(&caps));
        let defaults = defaults
            .and_then(|defaults| defaults.within(&caps))
            .map_err(|e| within("defaults", e))?;
        let allowed = file.allowed_uids.into_iter().chain([ROOT]);
        let policy =
            Policy::new(allowed, [ImageKind::Host, ImageKind::Tree], caps).map_err(|source| {
                ConfigError::Policy {
                    path: path.to_owned(),
                    source,
                }
            })?;
        Ok(Self {
            socket: file.socket,
            store_socket: file.store_socket,
            spawner_socket: file.spawner_socket,
            signer_socket: file.signer_socket,
            store_root: file.store_root,
            receipts: file.receipts,
            evidence: file.evidence,
            state: file.state,
            slots: file.slots,
            policy,
            defaults,
            builder_ids: file.builder_ids,
        })
    }
}

impl Written {
    /// The first path that is none, and why.
    fn bad_path(&self) -> Option<(&'static str, String)> {
        if let Some(why) = network_address(&self.socket) {
            return Some(("socket", why));
        }
        let paths = [
            ("socket", &self.socket),
            ("store_socket", &self.store_socket),
            ("spawner_socket", &self.spawner_socket),
            ("signer_socket", &self.signer_socket),
            ("store_root", &self.store_root),
            ("receipts", &self.receipts),
            ("evidence", &self.evidence),
            ("state", &self.state),
        ];
        let relative = paths.into_iter().find(|(_, path)| !path.is_absolute());
        relative.map(|(field, _)| {
            (
                field,
                "the path is not absolute; write it from `/`".to_owned(),
            )
        })
    }
}

/// Says so if a socket's path is an address of the network.
fn network_address(socket: &Path) -> Option<String> {
    let text = socket.to_str()?;
    let host_and_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| !text.starts_with('/') && port.parse::<u16>().is_ok());
    let address = text.parse::<SocketAddr>().is_ok() || text.contains("://") || host_and_port;
    address.then(|| {
        format!("`{text}` is a network address; {NO_TCP}. Write the path of a unix socket")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        socket = "/s/run/belljard/belljard.sock"
        store_socket = "/s/run/store/store.sock"
        spawner_socket = "/s/run/spawner/spawner.sock"
        signer_socket = "/s/run/signer/signer.sock"
        store_root = "/s/store"
        receipts = "/s/receipts"
        evidence = "/s/evidence"
        state = "/s/daemon"
        slots = 2
        allowed_uids = [0]
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("b.toml"), text).map_err(|e| crate::tasks::chain(&e))
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.policy.caps(), &Limits::CEILING);
        let config = parse(&format!("{GOOD}\n[caps]\npids = 64")).unwrap();
        assert_eq!(config.policy.caps().get().pids, 64);
        assert_eq!(config.defaults.get().pids, 64, "no default beyond its cap");
        let more = "[caps]\npids = 64\n[defaults]\npids = 32\ngrace_seconds = 1";
        let config = parse(&format!("{GOOD}\n{more}")).unwrap();
        let defaults = config.defaults.get();
        assert_eq!((defaults.pids, defaults.grace_seconds), (32, 1));
        assert_eq!(defaults.wall_seconds, Limits::DEFAULT.get().wall_seconds);
        let config = parse(&GOOD.replace("[0]", "[1000]")).unwrap();
        assert_eq!(
            [0, 1000, 7].map(|uid| config.policy.allows_uid(uid)),
            [true, true, false]
        );
    }

    #[test]
    fn every_refusal_names_file_and_field() {
        let with = |from: &str, to: &str| parse(&GOOD.replace(from, to)).unwrap_err();
        for (error, due) in [
            (
                with("/s/run/belljard/belljard.sock", "127.0.0.1:8080"),
                "TCP comes with mutual TLS",
            ),
            (
                with("/s/run/belljard/belljard.sock", "tcp://0.0.0.0:1"),
                "TCP comes with mutual TLS",
            ),
            (
                with("/s/run/belljard/belljard.sock", "localhost:1"),
                "TCP comes with mutual TLS",
            ),
            (with("slots", "listen = \"0.0.0.0:1\"\nslots"), "listen"),
            (with("/s/daemon", "daemon"), "state"),
            (with("slots = 2", "slots = 65"), "slots"),
            (with("slots", "slot"), "slot"),
            (
                with("allowed_uids = [0]", "allowed_uids = [0]\n[caps]\npids = 0"),
                "caps.pids",
            ),
            (
                with("allowed_uids = [0]", "allowed_uids = [0]\n[caps]\nfoo = 0"),
                "foo",
            ),
            (
                with(
                    "allowed_uids = [0]",
                    "allowed_uids = [0]\n[caps]\npids = 9\n[defaults]\npids = 10",
                ),
                "defaults.pids: 10 is beyond the cap of 9",
            ),
        ] {
            assert!(error.starts_with("b.toml"), "{error}");
            assert!(error.contains(due), "{error}");
        }
    }
}
