use std::path::{Path, PathBuf};

use belljar_core::{Invalid, bounds};
use belljar_policy::{FetchRules, HostPattern, Network, Registries};
use serde::Deserialize;

use super::ConfigError;
use super::registry::{Registry, RegistryPlaces};

/// Where distributions keep certificates of the authorities that everybody trusts.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// The port that a process tries at its start which must be refused to it (RFC 863).
pub(super) const PROBED: u16 = 9;

/// `[fetch]`: from where builds may have something fetched by its digest, and images may be pulled. Without this table
/// belljard reaches no network, and all that is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetch {
    /// Hosts: names, `*.` and a name for all below it, addresses, or `any`. Redirects are followed to these only.
    #[serde(default)]
    allow: Vec<String>,
    /// Registries that images may be pulled from. What a build declares by URL is not fetched from them by that.
    #[serde(default)]
    registry: Vec<Registry>,
    /// TCP ports.
    #[serde(default = "usual_ports")]
    ports: Vec<u16>,
    /// Networks of addresses that only some can reach, such as `10.1.0.0/16`, where mirrors are. Without them every
    /// loopback, private, link-local and reserved address is refused.
    #[serde(default)]
    allow_private: Vec<String>,
    /// Networks that nothing is fetched from, whatever else allows them: such as machines inside with addresses that the
    /// whole Internet can reach, and the prefix of a NAT64.
    #[serde(default)]
    deny: Vec<String>,
    /// Certificates of the authorities that vouch for `https` servers, PEM. What the distribution keeps, if left out.
    ca: Option<PathBuf>,
    /// Most bytes of one thing.
    #[serde(default = "most_bytes")]
    max_bytes: u64,
    /// Longest that one URL may take, with all redirects, in seconds.
    #[serde(default = "most_seconds")]
    timeout_seconds: u64,
    /// Longest that all fetches of one attempt may take together, waiting included, in seconds.
    #[serde(default = "most_all_seconds")]
    total_seconds: u64,
    /// Most redirects from one URL.
    #[serde(default = "most_redirects")]
    max_redirects: usize,
}

/// `[fetch]`, looked at: what builds declare, and images.
pub(super) type Settings = (Option<FetchSettings>, Registries<RegistrySettings>);

/// How a registry is asked.
#[derive(Clone, Debug)]
pub(crate) struct RegistrySettings {
    pub(crate) places: RegistryPlaces,
    /// By which rules for it, and for whoever it sends to.
    pub(crate) network: FetchSettings,
}

/// By which rules something is fetched.
#[derive(Clone, Debug)]
pub(crate) struct FetchSettings {
    pub(crate) rules: FetchRules,
    pub(crate) ca: PathBuf,
    pub(crate) most_bytes: u64,
    pub(crate) seconds: u64,
    pub(crate) all_seconds: u64,
    pub(crate) redirects: usize,
}

fn usual_ports() -> Vec<u16> {
    vec![443, 80]
}

fn most_bytes() -> u64 {
    bounds::FETCH_BYTES
}

fn most_seconds() -> u64 {
    bounds::FETCH_SECONDS
}

fn most_all_seconds() -> u64 {
    bounds::FETCHING_SECONDS
}

fn most_redirects() -> usize {
    bounds::FETCH_REDIRECTS
}

/// Sees whether the table can be understood, if `fetch_file` says that it is written in another file.
pub(super) fn look_elsewhere(file: &toml::Table) -> Result<(), ConfigError> {
    let path = file.get("fetch_file").and_then(toml::Value::as_str);
    let (Some(path), Some(written)) = (path, file.get("fetch")) else {
        return Ok(());
    };
    // Not out of the text: its lines are not those of that file, and the keys are.
    let understood = written.clone().try_into::<Fetch>();
    let wrong = |source| ConfigError::Syntax {
        path: path.into(),
        source,
    };
    understood.map(drop).map_err(wrong)
}

/// What is wrong with the table, which is that of `file`, or all of what is written in another one.
pub(super) fn wrong(file: &Path, elsewhere: Option<PathBuf>, wrong: Invalid) -> ConfigError {
    let (path, field) = match elsewhere {
        Some(path) => (path, wrong.field),
        None => (file.to_owned(), format!("fetch.{}", wrong.field)),
    };
    ConfigError::Field {
        path,
        field,
        why: wrong.reason,
    }
}

/// What the table says; nothing where there is none.
pub(super) fn settings(written: Option<Fetch>) -> Result<Settings, Invalid> {
    let settings = written.map(Fetch::settings).transpose()?;
    Ok(settings.unwrap_or_default())
}

impl Fetch {
    fn settings(self) -> Result<Settings, Invalid> {
        let hosts = each("allow", &self.allow)?;
        let private: Vec<Network> = each("allow_private", &self.allow_private)?;
        let denied: Vec<Network> = each("deny", &self.deny)?;
        if self.ports.contains(&PROBED) {
            let why = "port 9 must stay closed: belljard sees by it that it is confined";
            return Err(Invalid::field("ports", why));
        }
        let figures = [
            ("max_bytes", self.max_bytes, 1, bounds::FETCH_BYTES),
            (
                "timeout_seconds",
                self.timeout_seconds,
                1,
                bounds::FETCH_SECONDS,
            ),
            (
                "total_seconds",
                self.total_seconds,
                1,
                bounds::FETCHING_SECONDS,
            ),
            (
                "max_redirects",
                self.max_redirects as u64,
                0,
                bounds::FETCH_REDIRECTS as u64,
            ),
        ];
        for (field, figure, least, most) in figures {
            if !(least..=most).contains(&figure) {
                let why = format!("{figure} is not between {least} and {most}");
                return Err(Invalid::field(field, why));
            }
        }
        let ca = authorities(self.ca)?;
        let with = |hosts: Vec<HostPattern>, ports: Vec<u16>| {
            Ok::<_, Invalid>(FetchSettings {
                rules: FetchRules::new(hosts, ports, private.clone(), denied.clone())?,
                ca: ca.clone(),
                most_bytes: self.max_bytes,
                seconds: self.timeout_seconds,
                all_seconds: self.total_seconds,
                redirects: self.max_redirects,
            })
        };
        let mut registries = Vec::new();
        for (index, registry) in self.registry.into_iter().enumerate() {
            let within = |e: Invalid| e.within(format!("registry[{index}]"));
            let (rule, places) = registry.checked().map_err(within)?;
            let ports = self.ports.iter().copied().chain(places.ports()).collect();
            let network = with(places.hosts.clone(), ports).map_err(within)?;
            registries.push((rule, RegistrySettings { places, network }));
        }
        // Where only images are pulled nothing is fetched by URL.
        let asked = !hosts.is_empty() || registries.is_empty();
        let fetch = asked.then(|| with(hosts, self.ports)).transpose()?;
        Ok((fetch, Registries::new(registries)?))
    }
}

pub(super) fn each<T: std::str::FromStr<Err = Invalid>>(
    field: &str,
    texts: &[String],
) -> Result<Vec<T>, Invalid> {
    let all = texts.iter().enumerate();
    all.map(|(index, text)| {
        text.parse()
            .map_err(|e: Invalid| e.within(format!("{field}[{index}]")))
    })
    .collect()
}

fn authorities(named: Option<PathBuf>) -> Result<PathBuf, Invalid> {
    let why = match named {
        Some(path) if !path.is_absolute() => "the path is not absolute; write it from `/`",
        Some(path) => return Ok(path),
        None => {
            let mut usual = AUTHORITIES.iter().map(Path::new);
            match usual.find(|path| path.is_file()) {
                Some(path) => return Ok(path.to_owned()),
                None => {
                    "missing, and certificates are not where distributions keep them; install ca-certificates, or name a file"
                }
            }
        }
    };
    Err(Invalid::field("ca", why))
}
