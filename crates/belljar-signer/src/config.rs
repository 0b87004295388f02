use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use belljar_attest::BuilderConfig;
use belljar_core::{Invalid, bounds};
use belljar_sys::systemd;
use serde::Deserialize;

/// `signer.toml` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Where to listen for belljard.
    socket: PathBuf,
    /// The private key, PKCS#8 in DER: a file of the signer's, mode 0600 or 0400; or `$CREDENTIALS_DIRECTORY/NAME`, a
    /// credential that the service manager gives.
    key: PathBuf,
    /// Directory of the spawner's receipts; root's.
    receipts: PathBuf,
    /// Directory for bundles and the public key; the signer's.
    evidence: PathBuf,
    /// belljard's user id: the only one that is served.
    client_uid: u32,
    /// Base of every URI in a statement, such as `https://builds.acme.example`.
    builder_id: String,
    /// Whether to make a key when there is none. Left out: no.
    #[serde(default)]
    generate_key: bool,
}

/// The configuration after it was looked at.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where to listen for belljard.
    pub(crate) socket: PathBuf,
    /// The private key.
    pub(crate) key: KeyPlace,
    /// Directory of the spawner's receipts.
    pub(crate) receipts: PathBuf,
    /// Directory for bundles and the public key.
    pub(crate) evidence: PathBuf,
    /// belljard's user id.
    pub(crate) client_uid: u32,
    /// The URIs of this builder.
    pub(crate) builder: BuilderConfig,
    /// Whether to make a key when there is none.
    pub(crate) generate_key: bool,
}

/// Where the key is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    /// In a file of the signer's.
    File(PathBuf),
    /// In a credential of the service manager's.
    Credential(PathBuf),
}

impl KeyPlace {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(String),
    /// Somebody else than `owner` could have written it.
    #[error(
        "must belong to uid {owner} and be writable by nobody else: it says what statements claim"
    )]
    Unsafe {
        /// Who it must belong to.
        owner: u32,
    },
    /// It is larger than [`bounds::CONFIG_BYTES`].
    #[error("has more than {limit} bytes", limit = bounds::CONFIG_BYTES)]
    TooLarge,
    /// It is not the TOML that is due.
    #[error("{0}")]
    Syntax(String),
    /// A field has a bad value.
    #[error("{0}")]
    Value(Invalid),
}

impl Config {
    /// Reads the file at `path`, which must belong to `owner`.
    pub(crate) fn load(path: &Path, owner: u32) -> Result<Self, ConfigError> {
        let unreadable = |e: std::io::Error| ConfigError::Read(e.to_string());
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let status = file.metadata().map_err(unreadable)?;
        if !status.is_file() || status.uid() != owner || status.mode() & 0o022 != 0 {
            return Err(ConfigError::Unsafe { owner });
        }
        let mut text = String::new();
        file.take(bounds::CONFIG_BYTES as u64 + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if text.len() > bounds::CONFIG_BYTES {
            return Err(ConfigError::TooLarge);
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        let builder = BuilderConfig::new(&file.builder_id)
            .map_err(|e| ConfigError::Value(e.within("builder_id")))?;
        let credential = systemd::credential(&file.key);
        let credential =
            credential.map_err(|e| ConfigError::Value(Invalid::field("key", e.to_string())))?;
        let key = match credential {
            Some(_) if file.generate_key => {
                let why = "a credential is given, never made: leave it out, or set it to false";
                return Err(ConfigError::Value(Invalid::field("generate_key", why)));
            }
            Some(path) => KeyPlace::Credential(path),
            None => KeyPlace::File(file.key),
        };
        for (field, path) in [
            ("socket", file.socket.as_path()),
            ("key", key.path()),
            ("receipts", file.receipts.as_path()),
            ("evidence", file.evidence.as_path()),
        ] {
            if !path.is_absolute() || path.file_name().is_none() {
                return Err(ConfigError::Value(Invalid::field(
                    field,
                    "an absolute path is due",
                )));
            }
        }
        Ok(Self {
            socket: file.socket,
            key,
            receipts: file.receipts,
            evidence: file.evidence,
            client_uid: file.client_uid,
            builder,
            generate_key: file.generate_key,
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
    use std::os::unix::fs::PermissionsExt as _;

    const GOOD: &str = r#"
        socket = "/run/belljar/signer/signer.sock"
        key = "/var/lib/belljar/signer/key.pk8"
        receipts = "/var/lib/belljar/receipts"
        evidence = "/var/lib/belljar/evidence"
        client_uid = 1879047937
        builder_id = "urn:belljar:embedded"
    "#;

    #[test]
    fn values() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(
            (config.client_uid, config.generate_key),
            (1_879_047_937, false)
        );
        let refused = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            Config::parse(&GOOD.replace(from, to))
                .unwrap_err()
                .to_string()
        };
        assert!(refused("urn:belljar:embedded", "belljar").starts_with("builder_id: "));
        assert!(refused("/var/lib/belljar/receipts", "receipts").starts_with("receipts: "));
        let credential = "$CREDENTIALS_DIRECTORY/signer-key";
        let none = refused("/var/lib/belljar/signer/key.pk8", credential);
        assert!(none.starts_with("key: no credentials"), "{none}");
        assert!(refused("client_uid = 1879047937", "").contains("client_uid"));
        assert!(refused("client_uid", "extra = 1\nclient_uid").contains("extra"));
    }

    #[test]
    fn nobody_else_may_write_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signer.toml");
        std::fs::write(&path, GOOD).unwrap();
        let own = belljar_sys::process::effective_uid();
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(Config::load(&path, own).is_ok());
        assert!(matches!(
            Config::load(&path, own + 1),
            Err(ConfigError::Unsafe { .. })
        ));
        mode(0o664);
        assert!(matches!(
            Config::load(&path, own),
            Err(ConfigError::Unsafe { .. })
        ));
        mode(0o644);
        std::fs::write(&path, "#".repeat(bounds::CONFIG_BYTES + 1)).unwrap();
        assert!(matches!(
            Config::load(&path, own),
            Err(ConfigError::TooLarge)
        ));
        assert!(matches!(
            Config::load(directory.path(), own),
            Err(ConfigError::Unsafe { .. })
        ));
    }

    /// With what else it may have.
    fn whole() -> String {
        format!("{GOOD}generate_key = true\n")
    }

    proptest! {
        /// A good file with bytes of it gone, put in or replaced: whatever is accepted keeps to the rules.
        #[test]
        fn a_changed_file_is_refused_or_as_good(text in changed(whole(), |text| Config::parse(text).is_ok())) {
            let Ok(config) = Config::parse(&text) else { return Ok(()) };
            for path in [&config.socket, &config.receipts, &config.evidence] {
                prop_assert!(path.is_absolute());
            }
            prop_assert!(config.key.path().is_absolute());
            prop_assert!(BuilderConfig::new(config.builder.base()).is_ok());
        }
    }
}
