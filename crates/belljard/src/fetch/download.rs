//! From a list of URLs to content in the store that has the digest, or the reasons why not.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use belljar_audit::FetchTry;
use belljar_core::{Digest, FetchUrl, ObjectId, ProjectId, bounds};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, LOCATION};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::flight::{Tries, Wanted};
use super::http::{self, Answer, PATIENCE, Wish};
use super::resolve::is_own;
use super::{Resolve, Trouble};
use crate::config::FetchSettings;
use crate::peers::StoreClient;

/// What is needed to bring something.
pub(super) struct Download<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) settings: &'a FetchSettings,
    pub(super) tls: &'a TlsConnector,
    pub(super) resolver: &'a dyn Resolve,
    pub(super) store: &'a StoreClient,
}

impl Download<'_> {
    /// Tries the mirrors in their order, until one gives what is wanted. What is tried is told in `tries`.
    pub(super) async fn bring(&self, wanted: &Wanted, tries: &Tries) -> Result<ObjectId, Trouble> {
        let mut troubles: Vec<(String, Trouble)> = Vec::new();
        for url in wanted.urls() {
            let mut told = FetchTry {
                url: url.to_string(),
                ..FetchTry::default()
            };
            tries.begin(&told);
            let begun = Instant::now();
            let most = Duration::from_secs(self.settings.seconds);
            let content = timeout(most, self.bring_one(url, wanted, &mut told)).await;
            let content = content.unwrap_or_else(|_| {
                let seconds = self.settings.seconds;
                let why = format!("it took longer than the {seconds} s that one URL may");
                Err(Trouble::passing(why))
            });
            told.millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            told.refused = content.as_ref().err().map(|trouble| trouble.why.clone());
            tries.end(told);
            match content {
                Ok(object) => return Ok(object),
                Err(trouble) => troubles.push((url.to_string(), trouble)),
            }
        }
        let why = match wanted {
            Wanted::Url(..) => Trouble::all(troubles),
            // Who wants it knows where from.
            Wanted::Commit(..) => troubles.pop().map(|(_, trouble)| trouble),
        };
        Err(why.unwrap_or_else(|| Trouble::refused("no URL is given")))
    }

    /// Takes what is wanted from one of the mirrors.
    async fn bring_one(
        &self,
        url: &FetchUrl,
        wanted: &Wanted,
        told: &mut FetchTry,
    ) -> Result<ObjectId, Trouble> {
        match wanted {
            Wanted::Url(_, digest) => {
                let (_, answer) = self.follow(url, &Wish::plain(), told).await?;
                self.take(answer, *digest, told).await
            }
            Wanted::Commit(_, commit) => self.pack(url, *commit, told).await,
        }
    }

    /// Asks, and goes where it is sent, until there is an answer; gives where that came from.
    pub(super) async fn follow(
        &self,
        url: &FetchUrl,
        wish: &Wish<'_>,
        told: &mut FetchTry,
    ) -> Result<(FetchUrl, Answer), Trouble> {
        let mut at = url.clone();
        for _ in 0..=self.settings.redirects {
            self.settings.rules.allows(&at).map_err(Trouble::refused)?;
            let answer = self.ask(&at, wish, told).await?;
            told.status = Some(answer.status.as_u16());
            match answer.status {
                StatusCode::OK => return Ok((at, plain(answer)?)),
                status if is_redirect(status) => {
                    let location = answer.header(LOCATION).ok_or_else(|| {
                        Trouble::lasting("it sends elsewhere, and does not say where to")
                    })?;
                    at = at.redirected(location).map_err(|e| {
                        Trouble::refused(format!("it sends to where nothing is fetched: {e}"))
                    })?;
                    told.final_url = Some(shown(&at));
                }
                status => return Err(not_there(status)),
            }
        }
        Err(Trouble::refused(format!(
            "it sends elsewhere more than {} times",
            self.settings.redirects
        )))
    }

    /// Asks at an address that was looked at: that one is connected to, whatever the name means a moment later.
    pub(super) async fn ask(
        &self,
        url: &FetchUrl,
        wish: &Wish<'_>,
        told: &mut FetchTry,
    ) -> Result<Answer, Trouble> {
        let mut last = None;
        for address in self.addresses(url).await? {
            told.address = Some(address.to_string());
            told.status = None;
            let address = SocketAddr::new(address, url.port());
            match http::ask_for(url, address, self.tls, wish).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => last = Some(trouble),
            }
        }
        Err(last.unwrap_or_else(|| Trouble::passing("its host has no address")))
    }

    /// The addresses of a URL's host, if all of them may be connected to: a name that means an inner address beside
    /// others is nobody's mistake. What listens at an address of this machine may trust who comes from there, whatever
    /// sort of address it is.
    pub(super) async fn addresses(&self, url: &FetchUrl) -> Result<Vec<IpAddr>, Trouble> {
        let host = url.host();
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let asked = self.resolver.resolve(self.project, host);
                let found = timeout(PATIENCE, asked).await;
                let found = found.map_err(|_| {
                    Trouble::passing(format!("the name `{host}` was not resolved in time"))
                })?;
                found.map_err(|e| {
                    Trouble::passing(format!("the name `{host}` cannot be resolved: {e}"))
                })?
            }
        };
        let refused =
            |why: String| Trouble::refused(format!("`{host}` must not be connected to: {why}"));
        let rules = &self.settings.rules;
        for address in &addresses {
            rules.admits(*address).map_err(refused)?;
        }
        let (mut reached, mut unknown) = (Vec::new(), None);
        for address in addresses.into_iter().take(bounds::FETCH_ADDRESSES) {
            let address = address.to_canonical();
            if rules.opens(address) {
                reached.push(address);
                continue;
            }
            match is_own(SocketAddr::new(address, url.port())).await {
                Ok(true) => {
                    return Err(refused(format!(
                        "{address} is an address of this machine itself, which is in none of the networks of \
                         `allow_private` of [fetch] in belljard.toml"
                    )));
                }
                Ok(false) => reached.push(address),
                Err(error) => unknown = Some(error),
            }
        }
        match unknown {
            Some(error) if reached.is_empty() => Err(Trouble::passing(format!(
                "`{host}` cannot be connected to: {error}"
            ))),
            _ => Ok(reached),
        }
    }

    /// Gives what comes to the store.
    async fn take(
        &self,
        mut answer: Answer,
        digest: Digest,
        told: &mut FetchTry,
    ) -> Result<ObjectId, Trouble> {
        let most = self.settings.most_bytes;
        let too_much = |length: &str| {
            Trouble::refused(format!("it has {length} bytes; {most} may be fetched"))
        };
        let announced = answer
            .header(CONTENT_LENGTH)
            .and_then(|n| n.parse::<u64>().ok());
        if let Some(length) = announced.filter(|length| *length > most) {
            return Err(too_much(&length.to_string()));
        }
        let mut receiving = self.store.receive(Some(digest), most).await?;
        let mut pace = Pace::default();
        while let Some(piece) = pace.piece(&mut answer).await? {
            told.bytes = told.bytes.saturating_add(piece.len() as u64);
            if told.bytes > most {
                return Err(too_much("more"));
            }
            receiving.write(&piece).await?;
        }
        Ok(receiving.finish().await?)
    }
}

impl Wanted {
    /// Where it can be had.
    fn urls(&self) -> Vec<&FetchUrl> {
        match self {
            Self::Url(mirrors, _) => mirrors.iter().collect(),
            Self::Commit(repository, _) => vec![repository],
        }
    }
}

/// An answer whose content is sent as it is.
pub(super) fn plain(answer: Answer) -> Result<Answer, Trouble> {
    if let Some(coding) = answer.header(CONTENT_ENCODING)
        && !coding.eq_ignore_ascii_case("identity")
    {
        return Err(Trouble::lasting(format!(
            "it answers in the content coding `{}`, which nobody has asked for and nothing is unpacked from",
            coding.chars().take(64).collect::<String>().escape_debug()
        )));
    }
    Ok(answer)
}

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn not_there(status: StatusCode) -> Trouble {
    let why = format!("it answers with status {status}");
    match status.as_u16() {
        408 | 429 | 500..=599 => Trouble::passing(why),
        _ => Trouble::lasting(why),
    }
}

/// Where a redirect has led, without the query: servers put signatures into it that stand for a permission.
fn shown(url: &FetchUrl) -> String {
    match url.as_str().split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => url.to_string(),
    }
}

/// How fast a server is, in what it lets wait: how fast the store takes what comes is none of its doing.
#[derive(Default)]
pub(super) struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// The next piece of content, from who does not dribble.
    pub(super) async fn piece(&mut self, answer: &mut Answer) -> Result<Option<Bytes>, Trouble> {
        let begun = Instant::now();
        let piece = answer.piece().await?;
        if let Some(piece) = &piece {
            self.took(begun.elapsed(), piece.len() as u64)?;
        }
        Ok(piece)
    }

    /// So long was waited for so much.
    pub(super) fn took(&mut self, waited: Duration, came: u64) -> Result<(), Trouble> {
        self.waited += waited;
        self.came += came;
        if self.came >= bounds::PACE_BYTES {
            *self = Self::default();
        } else if self.waited >= PATIENCE {
            return Err(Trouble::passing(format!(
                "it dribbles: {} bytes came in {} s; {} have to",
                self.came,
                self.waited.as_secs(),
                bounds::PACE_BYTES
            )));
        }
        Ok(())
    }
}
