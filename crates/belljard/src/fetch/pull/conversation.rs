use std::net::SocketAddr;
use std::time::Duration;

use belljar_core::{Digest, FetchUrl, ObjectId, ProjectId, Repository, bounds};
use belljar_policy::Way;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
    WWW_AUTHENTICATE,
};
use hyper::{Method, StatusCode};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::challenge::Challenge;
use super::credentials::{basic, secret};
use super::document::{self, Document, Wanted, excerpt};
use super::{Resolve, Trouble, place, token};
use crate::config::{FetchSettings, RegistrySettings};
use crate::fetch::download::{Download, is_redirect};
use crate::fetch::http::{self, Answer, Content, Wish};
use crate::peers::StoreClient;

/// What a registry says that a document's digest is (distribution-spec).
pub(super) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What is said to a registry about one repository, one thing after the other.
pub(crate) struct Conversation<'a> {
    pub(super) registry: &'a RegistrySettings,
    tls: &'a TlsConnector,
    resolver: &'a dyn Resolve,
    store: &'a StoreClient,
    project: &'a ProjectId,
    pub(super) repository: &'a Repository,
    /// What is done with the repository.
    way: Way,
    /// What has convinced it.
    pub(super) authorization: Option<HeaderValue>,
    /// Bytes of content that came, or were sent, and those of documents that came.
    pub(super) came: u64,
    documents: u64,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        registry: &'a RegistrySettings,
        tls: &'a TlsConnector,
        resolver: &'a dyn Resolve,
        store: &'a StoreClient,
        (project, repository, way): (&'a ProjectId, &'a Repository, Way),
    ) -> Self {
        Self {
            registry,
            tls,
            resolver,
            store,
            project,
            repository,
            way,
            authorization: None,
            came: 0,
            documents: 0,
        }
    }

    /// Bytes of content that came, or were sent, until now.
    pub(crate) fn came(&self) -> u64 {
        self.came
    }

    /// Most bytes of one thing.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.network().most_bytes
    }

    /// Brings a document and gives it to the store: it is there by its digest then. Gives its media type, too.
    pub(crate) async fn document(
        &mut self,
        wanted: Wanted<'_>,
    ) -> Result<(Document, String), Trouble> {
        let most = Duration::from_secs(self.network().seconds);
        let brought = timeout(most, self.bring_document(wanted)).await;
        brought.unwrap_or_else(|_| Err(self.late()))
    }

    /// Brings content of which digest and size are known, and gives it to the store.
    pub(crate) async fn blob(&mut self, object: ObjectId) -> Result<(), Trouble> {
        let most = Duration::from_secs(self.network().seconds);
        let brought = timeout(most, self.bring_blob(object)).await;
        let brought = brought.unwrap_or_else(|_| Err(self.late()));
        brought.map_err(|trouble| Trouble {
            why: format!("{}: {}", object.digest, trouble.why),
            ..trouble
        })
    }

    async fn bring_document(&mut self, wanted: Wanted<'_>) -> Result<(Document, String), Trouble> {
        let mut answer = self.get(&wanted.place(), &wanted.accepted()).await?;
        let media_type = answer.header(CONTENT_TYPE).unwrap_or_default().to_owned();
        let said = answer
            .header(DIGEST)
            .and_then(|text| text.parse::<Digest>().ok());
        let content = take(&mut answer, document::MOST).await?;
        let object = ObjectId::of(&content);
        self.came = self.came.saturating_add(object.size);
        self.documents = self.documents.saturating_add(object.size);
        if self.documents > bounds::PULL_DOCUMENT_BYTES {
            let most = bounds::PULL_DOCUMENT_BYTES;
            let why = format!("its documents have more than {most} bytes together");
            return Err(Trouble::refused(why));
        }
        for due in [wanted.digest(), said].into_iter().flatten() {
            if due != object.digest {
                return Err(Trouble::refused(format!(
                    "the registry gives {} where {due} is due",
                    object.digest
                )));
            }
        }
        let mut receiving = self.store.receive(Some(object.digest), object.size).await?;
        receiving.write(&content).await?;
        let object = receiving.finish().await?;
        Ok((Document { object, content }, media_type))
    }

    async fn bring_blob(&mut self, object: ObjectId) -> Result<(), Trouble> {
        let wrong = |has: &str| {
            let size = object.size;
            Trouble::refused(format!("it has {has} bytes where {size} are due"))
        };
        let mut answer = self.get(&format!("blobs/{}", object.digest), "*/*").await?;
        if let Some(length) = length(&answer).filter(|length| *length != object.size) {
            return Err(wrong(&length.to_string()));
        }
        let mut receiving = self.store.receive(Some(object.digest), object.size).await?;
        let mut left = object.size;
        while let Some(piece) = answer.piece().await? {
            let size = piece.len() as u64;
            left = left.checked_sub(size).ok_or_else(|| wrong("more"))?;
            self.came = self.came.saturating_add(size);
            receiving.write(&piece).await?;
        }
        if left > 0 {
            return Err(wrong(&(object.size - left).to_string()));
        }
        receiving.finish().await?;
        Ok(())
    }

    /// Asks the registry for something of the repository, and convinces it if it wants that.
    pub(super) async fn get(&mut self, what: &str, accept: &str) -> Result<Answer, Trouble> {
        let url = self.place(what)?;
        let answer = self.follow(&url, accept).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return there(answer);
        }
        self.authorization = Some(self.convince(&answer).await?);
        let answer = self.follow(&url, accept).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(self.not_convinced("it wants to be convinced")),
            _ => there(answer),
        }
    }

    /// Where the registry has something of the repository.
    pub(super) fn place(&self, what: &str) -> Result<FetchUrl, Trouble> {
        let (endpoint, name) = (&self.registry.places.endpoint, self.repository.name());
        let url = FetchUrl::new(&format!("{endpoint}v2/{name}/{what}"));
        url.map_err(|e| Trouble::refused(e.to_string()))
    }

    /// Asks, and goes where it is sent. What convinces the registry is shown to nobody else, and to itself no more once it
    /// has sent elsewhere: who is there can send back, and would say what it is asked for.
    async fn follow(&self, url: &FetchUrl, accept: &str) -> Result<Answer, Trouble> {
        let (mut at, mut own) = (url.clone(), true);
        for _ in 0..=self.network().redirects {
            let authorization = self.authorization.clone().filter(|_| own);
            let wish = Wish {
                method: Method::GET,
                accept,
                authorization,
                content: Content::None,
                header: None,
            };
            let answer = self.ask(&at, &wish).await?;
            if answer.status == StatusCode::UNAUTHORIZED && !own {
                let host = excerpt(at.host());
                return Err(Trouble::refused(format!(
                    "it sends to `{host}`, which wants credentials; they are for the registry alone, and for no place that others send to"
                )));
            }
            if !is_redirect(answer.status) {
                return Ok(answer);
            }
            at = self.sent(&at, &answer)?;
            own &= at.scheme() == url.scheme()
                && at.authority() == url.authority()
                && place::is_of(self.repository.name(), at.target());
        }
        let most = self.network().redirects;
        Err(Trouble::refused(format!(
            "it sends elsewhere more than {most} times"
        )))
    }

    /// Where an answer sends to.
    fn sent(&self, from: &FetchUrl, answer: &Answer) -> Result<FetchUrl, Trouble> {
        let location = answer
            .header(LOCATION)
            .ok_or_else(|| Trouble::lasting("it sends elsewhere, and does not say where to"))?;
        let at = from.redirected(location).map_err(|e| {
            Trouble::refused(format!("it sends to where nothing is pulled from: {e}"))
        })?;
        self.network().rules.allows(&at).map_err(|_| {
            let (host, port) = (at.host(), at.port());
            Trouble::refused(format!(
                "it sends to `{host}` (port {port}), which is not allowed: the host must be among `redirects` of its [[fetch.registry]], the port among `ports` of [fetch] in belljard.toml"
            ))
        })?;
        let name = self.repository.name();
        let here = at.authority() == self.registry.places.endpoint.authority();
        if here && place::is_any(at.target()) && !place::is_of(name, at.target()) {
            return Err(Trouble::refused(format!(
                "it sends to a place at the registry that is none of the repository `{name}`"
            )));
        }
        Ok(at)
    }

    /// Asks at an address that was looked at.
    pub(super) async fn ask(&self, url: &FetchUrl, wish: &Wish<'_>) -> Result<Answer, Trouble> {
        let looked_at = Download {
            project: self.project,
            settings: self.network(),
            tls: self.tls,
            resolver: self.resolver,
            store: self.store,
        };
        let mut last = None;
        for address in looked_at.addresses(url).await? {
            let address = SocketAddr::new(address, url.port());
            match http::ask_for(url, address, self.tls, wish).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.unwrap_or_else(|| Trouble::passing("its host has no address")))
    }

    /// What convinces a registry that has given this answer.
    pub(super) async fn convince(&self, answer: &Answer) -> Result<HeaderValue, Trouble> {
        let password = match &self.registry.places.credentials {
            Some(file) => Some(basic(file).await?),
            None => None,
        };
        match Challenge::read(answer.all(WWW_AUTHENTICATE), self.repository, self.way)? {
            Challenge::Basic => {
                password.ok_or_else(|| self.not_convinced("it wants user and password"))
            }
            Challenge::Token(url) => self.token(&url, password).await,
        }
    }

    async fn token(
        &self,
        url: &FetchUrl,
        authorization: Option<HeaderValue>,
    ) -> Result<HeaderValue, Trouble> {
        let places = &self.registry.places;
        let known = [Some(&places.endpoint), places.tokens.as_ref()];
        let mut known = known.into_iter().flatten();
        if !known.any(|place| place.authority() == url.authority()) {
            return Err(Trouble::refused(format!(
                "it sends for a token to `{}`, which is neither itself nor `tokens` of its [[fetch.registry]] in belljard.toml",
                url.authority()
            )));
        }
        let wish = Wish {
            method: Method::GET,
            accept: "application/json",
            authorization,
            content: Content::None,
            header: None,
        };
        let mut answer = self.ask(url, &wish).await?;
        match answer.status.as_u16() {
            200 => {}
            401 | 403 => return Err(self.not_convinced("no token is given for it")),
            _ => {
                return Err(there(answer)
                    .err()
                    .unwrap_or_else(|| Trouble::lasting("no token is given")));
            }
        }
        let content = take(&mut answer, bounds::TOKEN_ANSWER_BYTES as u64).await?;
        let none = || {
            Trouble::lasting(format!(
                "`{}` gives something else than a token",
                url.host()
            ))
        };
        let header =
            token::read(&content).and_then(|token| secret(&format!("Bearer {token}")).ok());
        header.ok_or_else(none)
    }

    pub(super) fn not_convinced(&self, what: &str) -> Trouble {
        Trouble::refused(match &self.registry.places.credentials {
            Some(_) => format!(
                "{what}, and the operator's `credentials` of its [[fetch.registry]] in belljard.toml are not good for this repository"
            ),
            None => format!(
                "{what}, and the operator has no `credentials` in its [[fetch.registry]] in belljard.toml; or there is no such repository"
            ),
        })
    }

    pub(super) fn network(&self) -> &'a FetchSettings {
        &self.registry.network
    }

    pub(super) fn late(&self) -> Trouble {
        let seconds = self.network().seconds;
        Trouble::passing(format!(
            "it took longer than the {seconds} s that one URL may"
        ))
    }
}

/// An answer that is what was asked for.
fn there(answer: Answer) -> Result<Answer, Trouble> {
    let status = answer.status;
    match status.as_u16() {
        200 => match answer.header(CONTENT_ENCODING) {
            Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
                let coding = excerpt(coding);
                Err(Trouble::lasting(format!(
                    "it answers in the content coding `{coding}`, which nobody has asked for and nothing is unpacked from"
                )))
            }
            _ => Ok(answer),
        },
        404 => Err(Trouble::lasting("the registry has none of this name")),
        408 | 429 | 500..=599 => Err(Trouble::passing(format!(
            "the registry answers with status {status}"
        ))),
        _ => Err(Trouble::lasting(format!(
            "the registry answers with status {status}"
        ))),
    }
}

fn length(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH)?.parse().ok()
}

/// All that comes, if it is not too much.
pub(super) async fn take(answer: &mut Answer, most: u64) -> Result<Vec<u8>, Trouble> {
    let too_much =
        || Trouble::refused(format!("more comes than the {most} bytes that it may have"));
    if length(answer).is_some_and(|length| length > most) {
        return Err(too_much());
    }
    let mut content = Vec::new();
    while let Some(piece) = answer.piece().await? {
        if (content.len() + piece.len()) as u64 > most {
            return Err(too_much());
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}
