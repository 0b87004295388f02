//! What registries are asked for (OCI distribution-spec v1.1): an image by its tag or digest, and the content that it names;
//! and what they are given: images that became of builds, and their provenance.
//! By this process alone, over https, only where the operator says so, and by the rules for fetches: each name is resolved
//! here, each address is looked at before it is connected to, also after a redirect. Credentials are told to the registry
//! itself, and to the one host that the operator has named beside it.

mod challenge;
mod conversation;
mod credentials;
mod document;
mod kept;
mod place;
mod push;
mod token;

use std::io;

use belljar_core::{ProjectId, Repository};
use belljar_policy::{Registries, Way};
use tokio_rustls::TlsConnector;

use super::{Resolve, System};
use crate::config::RegistrySettings;
use crate::peers::StoreClient;

pub(crate) use super::trouble::{Sort, Trouble};
pub(crate) use conversation::Conversation;
pub(crate) use document::{Configuration, Descriptor, Document, Manifest, Wanted};

/// Who asks registries.
pub(crate) struct Puller {
    registries: Registries<(RegistrySettings, TlsConnector)>,
    resolver: Box<dyn Resolve>,
    store: StoreClient,
}

impl Puller {
    /// Reads the certificates of those who vouch for registries.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn new(
        registries: &Registries<RegistrySettings>,
        store: StoreClient,
    ) -> io::Result<Self> {
        let with_tls = |settings: &RegistrySettings| {
            let tls = super::connector(&settings.network.ca)?;
            Ok::<_, io::Error>((settings.clone(), tls))
        };
        Ok(Self {
            registries: registries.try_map(with_tls)?,
            resolver: Box::new(System::new()),
            store,
        })
    }

    /// A conversation about one repository, if this project may pull from it, or push to it.
    ///
    /// # Errors
    /// Says what is not allowed.
    pub(crate) fn converse<'a>(
        &'a self,
        project: &'a ProjectId,
        repository: &'a Repository,
        way: Way,
    ) -> Result<Conversation<'a>, String> {
        let (settings, tls) = self.registries.decide(project, repository, way)?;
        let resolver = &*self.resolver;
        Ok(Conversation::new(
            settings,
            tls,
            resolver,
            &self.store,
            (project, repository, way),
        ))
    }
}
