//! `belljard.toml`: read once, looked at once.

mod access;
mod fetch;
mod keeping;
mod registry;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use belljar_core::{ImageKind, Invalid, Limits, PartialLimits, bounds};
use belljar_policy::{Policy, PolicyError, Registries};
use belljar_sys::systemd;
use serde::Deserialize;

use crate::remote::TlsFiles;

pub(crate) use fetch::{FetchSettings, RegistrySettings};
pub(crate) use keeping::StoreKeeping;

/// What TCP needs.
const NO_TCP: &str =
    "belljard listens on a unix socket; TCP comes with mutual TLS: `listen` in the table [tls]";

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
    /// User ids that may do everything with the project `default` over the socket, beside root, who may anyway.
    #[serde(default)]
    allowed_uids: Vec<u32>,
    /// Projects, and who may do what with each.
    #[serde(default)]
    project: Vec<access::Project>,
    /// What the store keeps.
    #[serde(default)]
    store: keeping::Store,
    /// Where and with what to listen to callers from elsewhere; without it nowhere.
    tls: Option<Tls>,
    /// From where builds may have something fetched by its digest, and images may be pulled; without it from nowhere.
    fetch: Option<fetch::Fetch>,
    /// The file that [fetch] was taken from, in embedded mode: what is wrong with it is said of that file.
    fetch_file: Option<PathBuf>,
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

/// `[tls]`: TCP with TLS 1.3, and a client certificate required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    /// Address and port, such as `0.0.0.0:8980`.
    listen: String,
    /// The server's certificate and the chain above it, PEM. This and the next two may be credentials of the service
    /// manager's, `$CREDENTIALS_DIRECTORY/NAME`.
    certificate: PathBuf,
    /// Its private key, PEM, unencrypted, closed to others.
    key: PathBuf,
    /// Certificates of the authorities that vouch for clients, PEM.
    client_ca: PathBuf,
}

/// The configuration, looked at.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where it was read.
    pub(crate) file: PathBuf,
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
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) fetch: Option<FetchSettings>,
    /// Registries that images may be pulled from.
    pub(crate) registries: Registries<RegistrySettings>,
    pub(crate) store: StoreKeeping,
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
        let mut of_tcp = ["listen", "address", "tcp", "port"].into_iter();
        if let Some(field) = of_tcp.find(|field| table.contains_key(*field)) {
            return Err(refused(field, format!("{NO_TCP}; remove this field")));
        }
        fetch::look_elsewhere(&table)?;
        let file: Written = toml::from_str(text).map_err(syntax)?;
        if let Some((field, why)) = file.bad_field() {
            return Err(refused(field, why));
        }
        let within = |table: &str, e: Invalid| refused(&format!("{table}.{}", e.field), e.reason);
        let caps = file.caps.over(&Limits::CEILING);
        let caps = caps.map_err(|e| within("caps", e))?;
        let defaults = file.defaults.over(&Limits::DEFAULT.lowered_to(&caps));
        let defaults = defaults
            .and_then(|defaults| defaults.within(&caps))
            .map_err(|e| within("defaults", e))?;
        let access = access::access(&file.allowed_uids, &file.project)
            .map_err(|e| refused(&e.field, e.reason))?;
        let store = file.store.keeping().map_err(|e| within("store", e))?;
        let tls = file.tls.map(Tls::files).transpose();
        let tls = tls.map_err(|e| refused(&format!("tls.{}", e.field), e.reason))?;
        let fetch = fetch::settings(file.fetch);
        let elsewhere = |e| fetch::wrong(path, file.fetch_file, e);
        let (fetch, registries) = fetch.map_err(elsewhere)?;
        let policy = Policy::new(access, [ImageKind::Host, ImageKind::Tree], caps);
        let policy = policy.map_err(|source| ConfigError::Policy {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file: path.to_owned(),
            socket: file.socket,
            store_socket: file.store_socket,
            spawner_socket: file.spawner_socket,
            signer_socket: file.signer_socket,
            store_root: file.store_root,
            receipts: file.receipts,
            evidence: file.evidence,
            state: file.state,
            slots: file.slots,
            policy: policy.with_fetches(fetch.as_ref().map(|fetch| fetch.rules.clone())),
            defaults,
            builder_ids: file.builder_ids,
            tls,
            fetch,
            registries,
            store,
        })
    }
}

impl Written {
    /// The first path that is none, or too many slots, and why.
    fn bad_field(&self) -> Option<(&'static str, String)> {
        if let Some(why) = network_address(&self.socket) {
            return Some(("socket", why));
        }
        if self.slots > bounds::CONCURRENT_SANDBOXES {
            let most = bounds::CONCURRENT_SANDBOXES;
            let why = format!("{} is not between 0 and {most}", self.slots);
            return Some(("slots", why));
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

impl Tls {
    fn files(self) -> Result<TlsFiles, Invalid> {
        let listen = self.listen.parse::<SocketAddr>().map_err(|_| {
            let why =
                "not an address and a port in figures, such as `0.0.0.0:8980` or `[::1]:8980`";
            Invalid::field("listen", why)
        })?;
        Ok(TlsFiles {
            listen,
            certificate: file("certificate", self.certificate)?,
            key: file("key", self.key)?,
            client_ca: file("client_ca", self.client_ca)?,
        })
    }
}

/// A file that may be a credential of the service manager's.
fn file(field: &str, path: PathBuf) -> Result<PathBuf, Invalid> {
    let credential = systemd::credential(&path);
    let credential = credential.map_err(|e| Invalid::field(field, e.to_string()))?;
    match credential {
        Some(path) => Ok(path),
        None if path.is_absolute() => Ok(path),
        None => {
            let why = "the path is not absolute; write it from `/`";
            Err(Invalid::field(field, why))
        }
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
