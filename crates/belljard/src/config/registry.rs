use std::path::PathBuf;

use belljar_core::{FetchUrl, Invalid, ProjectId};
use belljar_policy::{HostPattern, RegistryRule};
use serde::Deserialize;

use super::fetch::{PROBED, each};

/// `[[fetch.registry]]`: a registry that images may be pulled from and pushed to, over https.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registry {
    /// Its host, as images are named by it; with a port if it is not 443.
    host: String,
    /// Where it is asked, if that is another host than they are named by; with a port if it is not 443.
    endpoint: Option<String>,
    /// Its repositories: names without the host, `name/*` for all below one, or `*`.
    #[serde(default = "all")]
    repositories: Vec<String>,
    /// Those that images of builds may be pushed to, named likewise; none if it is left out.
    #[serde(default)]
    push: Vec<String>,
    /// Projects that may pull and push; all of them if it is left out.
    projects: Option<Vec<String>>,
    /// The host that gives tokens for it, if that is another one; with a port if it is not 443.
    tokens: Option<String>,
    /// Hosts that it may send to for content: names, `*.` and a name for all below it, addresses, or `any`. They get no
    /// credentials.
    #[serde(default)]
    redirects: Vec<String>,
    /// A file with user and password, `user:password` in one line, closed to others; or a credential of the service
    /// manager's, `$CREDENTIALS_DIRECTORY/NAME`. It is read for each pull and push.
    credentials: Option<PathBuf>,
}

/// `[[fetch.registry]]`, looked at.
#[derive(Clone, Debug)]
pub(crate) struct RegistryPlaces {
    /// Where it is asked.
    pub(crate) endpoint: FetchUrl,
    /// Who gives tokens for it, beside itself.
    pub(crate) tokens: Option<FetchUrl>,
    pub(crate) credentials: Option<PathBuf>,
    /// All hosts that are asked on its behalf.
    pub(super) hosts: Vec<HostPattern>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Registry {
    pub(super) fn checked(self) -> Result<(RegistryRule, RegistryPlaces), Invalid> {
        let endpoint = place("endpoint", self.endpoint.as_ref().unwrap_or(&self.host))?;
        let tokens = self.tokens.as_ref().map(|host| place("tokens", host));
        let tokens = tokens.transpose()?;
        let projects = self.projects.map(|names| {
            let all = names.into_iter().enumerate();
            all.map(|(index, name)| {
                ProjectId::new(name).map_err(|e| e.within(format!("projects[{index}]")))
            })
            .collect::<Result<Vec<_>, _>>()
        });
        let repositories = each("repositories", &self.repositories)?;
        let rule = RegistryRule::new(&self.host, repositories, projects.transpose()?)?;
        let rule = rule.with_push(each("push", &self.push)?)?;
        let mut hosts: Vec<HostPattern> = each("redirects", &self.redirects)?;
        for place in [Some(&endpoint), tokens.as_ref()].into_iter().flatten() {
            hosts.push(HostPattern::Host(place.host().to_owned()));
        }
        let credentials = self
            .credentials
            .map(|path| super::file("credentials", path));
        let places = RegistryPlaces {
            endpoint,
            tokens,
            credentials: credentials.transpose()?,
            hosts,
        };
        Ok((rule, places))
    }
}

impl RegistryPlaces {
    /// The ports that are connected to whatever others are allowed.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        let all = [Some(&self.endpoint), self.tokens.as_ref()];
        all.into_iter().flatten().map(FetchUrl::port)
    }
}

/// The place of a host, with or without a port.
fn place(field: &str, host: &str) -> Result<FetchUrl, Invalid> {
    let url = FetchUrl::new(&format!("https://{host}/"));
    let url = url.ok().filter(|url| url.authority() == host);
    let url = url.ok_or_else(|| {
        let why = format!(
            "`{}` is no host; write a name in lower case or an address, and a port if it is not 443",
            host.escape_debug()
        );
        Invalid::field(field, why)
    })?;
    match url.port() == PROBED {
        true => {
            let why = "port 9 must stay closed: belljard sees by it that it is confined";
            Err(Invalid::field(field, why))
        }
        false => Ok(url),
    }
}
