use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::net::lookup_host;

/// Who knows the addresses of hosts.
pub(crate) trait Resolve: Send + Sync {
    /// The addresses of a host by its name.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// As this host resolves names (getaddrinfo(3)).
#[derive(Debug)]
pub(crate) struct System;

impl Resolve for System {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            let found = lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// What getaddrinfo(3) reads; those that are not there are not needed.
const READ: [&str; 6] = [
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];

/// The files of this host that names are resolved by.
pub(crate) fn files() -> Vec<PathBuf> {
    let all = READ.iter().map(Path::new);
    let there = all.filter(|path| path.is_file());
    there.map(Path::to_owned).collect()
}
