use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_cas::Space;
use belljar_core::{Invalid, bounds};
use belljar_sys::seqpacket::Peer;
use serde::Deserialize;

/// The file as it is written (TOML).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Absolute path of the socket to listen at. Its directory must exist and belong to the store.
    socket: PathBuf,
    /// Absolute path of the directory that holds objects, images and logs. It must exist, belong to
    /// the store's user, be writable by nobody else, and not lie on overlayfs.
    root: PathBuf,
    /// User id of belljard, which may put objects in and nothing else.
    client_uid: u32,
    /// User id of the spawner, which may ask everything else: 0 but in tests.
    spawner_uid: u32,
    /// Bytes of the file system that are kept free for builds that run: callers' content is refused before. Left
    /// out: [`bounds::RESERVE_BYTES`], or a [`bounds::RESERVE_PART`]th of the file system if that is less.
    reserve_bytes: Option<u64>,
    /// How long an object stays at least after it was given, in seconds, whatever belljard says: 1 to
    /// [`bounds::GRACE_SECONDS_MOST`]. It must be longer than it takes to write down what a build left.
    #[serde(default = "grace_seconds")]
    grace_seconds: u64,
    /// How many bytes a second are read to find damaged objects.
    #[serde(default = "scrub_bytes_per_second")]
    scrub_bytes_per_second: u64,
    /// How many days after the end of one such reading the next begins; 0: only when it is asked for.
    #[serde(default = "scrub_days")]
    scrub_days: u64,
}

fn grace_seconds() -> u64 {
    bounds::GRACE_SECONDS
}

fn scrub_bytes_per_second() -> u64 {
    bounds::SCRUB_BYTES_PER_SECOND
}

fn scrub_days() -> u64 {
    bounds::SCRUB_DAYS
}

/// The configuration, validated.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) access: Access,
    reserve_bytes: Option<u64>,
    /// In seconds.
    pub(crate) grace: u64,
    /// In bytes a second.
    pub(crate) scrub_rate: u64,
    pub(crate) scrub_every: Option<Duration>,
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    client_uid: u32,
    spawner_uid: u32,
}

/// What a peer is, by its user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// belljard: may put objects in.
    Client,
    /// The spawner: may ask everything else.
    Spawner,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{} cannot be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {why}", .path.display())]
    Invalid { path: PathBuf, why: String },
}

impl Config {
    /// Reads and validates the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|why| ConfigError::Invalid {
            path: path.to_owned(),
            why: why.to_string(),
        })
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        let written: Written = toml::from_str(text).map_err(|e| Invalid::new(e.to_string()))?;
        for (field, path) in [("socket", &written.socket), ("root", &written.root)] {
            if !path.is_absolute() {
                return Err(Invalid::field(
                    field,
                    format!("`{}` is not an absolute path", path.display()),
                ));
            }
        }
        if written.client_uid == 0 {
            return Err(Invalid::field("client_uid", "belljard never runs as root"));
        }
        if written.client_uid == written.spawner_uid {
            let why = "is that of belljard too; only different users can be told apart";
            return Err(Invalid::field("spawner_uid", why));
        }
        let most = bounds::GRACE_SECONDS_MOST;
        if !(1..=most).contains(&written.grace_seconds) {
            let why = format!("{} is not between 1 and {most}", written.grace_seconds);
            return Err(Invalid::field("grace_seconds", why));
        }
        if written.scrub_bytes_per_second == 0 {
            let why = "must not be 0; `scrub_days = 0` reads only when asked";
            return Err(Invalid::field("scrub_bytes_per_second", why));
        }
        if written.scrub_days > 3650 {
            let why = format!("{} is not between 0 and 3650", written.scrub_days);
            return Err(Invalid::field("scrub_days", why));
        }
        let days = Duration::from_secs(written.scrub_days * 86_400);
        Ok(Self {
            reserve_bytes: written.reserve_bytes,
            grace: written.grace_seconds,
            scrub_rate: written.scrub_bytes_per_second,
            scrub_every: (!days.is_zero()).then_some(days),
            socket: written.socket,
            root: written.root,
            access: Access {
                client_uid: written.client_uid,
                spawner_uid: written.spawner_uid,
            },
        })
    }
}

impl Config {
    /// How many bytes of a file system are kept free.
    pub(crate) fn reserve(&self, space: Space) -> u64 {
        let due = bounds::RESERVE_BYTES.min(space.total / bounds::RESERVE_PART);
        self.reserve_bytes.unwrap_or(due)
    }
}

impl Access {
    /// What `peer` is; nothing if it may not ask anything.
    pub(crate) fn role(self, peer: Peer) -> Option<Role> {
        match peer.uid {
            uid if uid == self.client_uid => Some(Role::Client),
            uid if uid == self.spawner_uid => Some(Role::Spawner),
            _ => None,
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(bounds::CONFIG_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > bounds::CONFIG_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than any configuration",
        ));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "../../../fuzz/changes.rs"]
mod changes;

#[cfg(test)]
mod tests {
    use super::changes::changed;
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "socket = '/run/belljar/store/store.sock'\nroot = '/var/lib/belljar/store'\nclient_uid = 7\nspawner_uid = 0\n";

    #[test]
    fn a_good_file_tells_who_is_who() {
        let access = Config::parse(GOOD).unwrap().access;
        let peer = |uid| Peer {
            pid: 1,
            uid,
            gid: 7,
        };
        assert_eq!(access.role(peer(7)), Some(Role::Client));
        assert_eq!(access.role(peer(0)), Some(Role::Spawner));
        assert_eq!(access.role(peer(8)), None);
    }

    #[test]
    fn bad_files_are_refused_by_field() {
        let cases = [
            (
                GOOD.replace("client_uid = 7", "client_uid = 0"),
                "client_uid: ",
            ),
            (
                GOOD.replace("spawner_uid = 0", "spawner_uid = 7"),
                "spawner_uid: ",
            ),
            (GOOD.replace("'/run", "'run"), "socket: "),
            (GOOD.replace("'/var", "'var"), "root: "),
            (
                GOOD.replace("client_uid = 7", ""),
                "missing field `client_uid`",
            ),
            (format!("{GOOD}sockets = 1\n"), "unknown field `sockets`"),
            (GOOD.replace("= 7", "= -1"), "client_uid"),
            (format!("{GOOD}grace_seconds = 0\n"), "grace_seconds: 0"),
            (
                format!("{GOOD}grace_seconds = 99999999\n"),
                "grace_seconds: ",
            ),
            (
                format!("{GOOD}scrub_bytes_per_second = 0\n"),
                "scrub_bytes_per_second: ",
            ),
            (format!("{GOOD}scrub_days = 4000\n"), "scrub_days: "),
        ];
        for (text, expected) in cases {
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = Config::parse(GOOD).unwrap();
        let days = config.scrub_every.unwrap().as_secs() / 86_400;
        assert_eq!((config.grace, days), (3600, 30));
        let reserve = |total| {
            config.reserve(Space {
                total,
                available: 0,
            })
        };
        assert_eq!(
            (reserve(1 << 40), reserve(1 << 30)),
            (1 << 30, (1 << 30) / 20)
        );
        let text = format!("{GOOD}reserve_bytes = 7\nscrub_days = 0\n");
        let config = Config::parse(&text).unwrap();
        let space = Space {
            total: 1 << 40,
            available: 0,
        };
        assert_eq!((config.reserve(space), config.scrub_every), (7, None));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.toml");
        std::fs::write(&path, " ".repeat(bounds::CONFIG_BYTES + 1)).unwrap();
        assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
        assert!(matches!(
            Config::read(&directory.path().join("none")),
            Err(ConfigError::Read { .. })
        ));
    }

    /// With what else it may have.
    fn whole() -> String {
        format!(
            "{GOOD}reserve_bytes = 7\ngrace_seconds = 60\nscrub_bytes_per_second = 9\nscrub_days = 3\n"
        )
    }

    proptest! {
        /// A good file with bytes of it gone, put in or replaced: whatever is accepted keeps to the rules.
        #[test]
        fn a_changed_file_is_refused_or_as_good(text in changed(whole(), |text| Config::parse(text).is_ok())) {
            let Ok(config) = Config::parse(&text) else { return Ok(()) };
            prop_assert!(config.socket.is_absolute() && config.root.is_absolute());
            prop_assert!(config.access.client_uid != 0);
            prop_assert_ne!(config.access.client_uid, config.access.spawner_uid);
            prop_assert!((1..=bounds::GRACE_SECONDS_MOST).contains(&config.grace));
            prop_assert!(config.scrub_rate > 0);
            prop_assert!(config.scrub_every.is_none_or(|every| !every.is_zero()));
        }
    }
}
