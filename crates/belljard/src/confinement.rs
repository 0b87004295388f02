//! What this process takes from itself before it has threads, listens or reads what belongs to others.

use std::io;
use std::path::Path;

use belljar_plan::ConfinedStep;
use belljar_sys::confine::{self, Service};
use belljar_sys::landlock::Allowed;
use belljar_sys::systemd::Manager;

use crate::config::Config;
use crate::fetch;

/// Where names are asked for whose answers are long (RFC 7766); short ones come by UDP.
const DNS: u16 = 53;
/// What SQLite takes its randomness from.
const RANDOM: &str = "/dev/urandom";

/// What this process is, as far as others may want to know it.
pub(crate) struct Own {
    /// What it has taken from itself: what `GetServerInfo` tells.
    pub(crate) confined: Vec<ConfinedStep>,
    /// Who wants to hear that it lives.
    pub(crate) manager: Manager,
}

/// Confines this process to what `config` names.
///
/// # Errors
/// When a step of the list fails, or the service manager cannot be reached: then this process must end.
pub(crate) fn confine(config: &Config) -> io::Result<Own> {
    let manager = Manager::connect()?;
    let confined = confine::confine(&service(config))?;
    let mut told = Vec::new();
    for (step, found) in confined.steps() {
        tracing::info!(step, found, "confined");
        let (name, found) = ((*step).to_owned(), found.clone());
        told.push(ConfinedStep { name, found });
    }
    Ok(Own {
        confined: told,
        manager,
    })
}

fn service(config: &Config) -> Service {
    let above = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut places = vec![
        (config.state.clone(), Allowed::ReadWrite),
        (config.store_root.clone(), Allowed::Read),
        (config.receipts.clone(), Allowed::Read),
        (config.evidence.clone(), Allowed::Read),
        (above(&config.socket), Allowed::Listen),
        // Its directory: a new file comes under the same name, and is read on SIGHUP.
        (above(&config.file), Allowed::Read),
        (RANDOM.into(), Allowed::Read),
    ];
    if let Some(tls) = &config.tls {
        // Their directories: new ones come under the same names.
        let files = [&tls.certificate, &tls.key, &tls.client_ca];
        places.extend(files.map(|file| (above(file), Allowed::Read)));
    }
    let mut connect = Vec::new();
    let registries = config.registries.iter().map(|(_, known)| &known.network);
    for asked in config.fetch.iter().chain(registries) {
        let files = fetch::files().into_iter().chain([asked.ca.clone()]);
        places.extend(files.map(|file| (file, Allowed::Read)));
        connect.extend_from_slice(asked.rules.ports());
        connect.push(DNS);
    }
    for (_, known) in config.registries.iter() {
        // As for [tls]: they are read for each pull.
        let credentials = known.places.credentials.iter();
        places.extend(credentials.map(|file| (above(file), Allowed::Read)));
    }
    connect.sort_unstable();
    connect.dedup();
    Service {
        places,
        connect,
        port: config.tls.as_ref().map(|tls| tls.listen.port()),
        holds_secret: false,
    }
}
