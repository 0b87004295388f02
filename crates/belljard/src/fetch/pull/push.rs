//! What is given to registries (distribution-spec v1.1, "push"). What they have already is not sent again, and a manifest comes
//! after all that it names, so that it can be done once more at any time.

use std::sync::Arc;
use std::time::Duration;

use belljar_cas::BlobSource;
use belljar_core::{Digest, FetchUrl, ObjectId, bounds, oci};
use belljar_oci::{EMPTY, fallback_tag, referrer, with_referrer};
use hyper::header::{HeaderName, LOCATION};
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use super::conversation::{DIGEST, take};
use super::document::excerpt;
use super::{Conversation, Trouble, place};
use crate::fetch::http::{Answer, Content, Wish};

/// What a registry says that the manifest it was given refers to, if it lists that itself.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl Conversation<'_> {
    /// Gives the registry the content of an object, if it does not have it.
    pub(crate) async fn push_blob(
        &mut self,
        object: ObjectId,
        source: Arc<dyn BlobSource>,
    ) -> Result<(), Trouble> {
        let most = self.network().most_bytes;
        if object.size > most {
            let why = format!("{object} is larger than the {most} bytes that are sent at once");
            return Err(Trouble::refused(why));
        }
        let named = |trouble: Trouble| Trouble {
            why: format!("{}: {}", object.digest, trouble.why),
            ..trouble
        };
        self.send_blob(object.digest, Content::Object(object, source))
            .await
            .map_err(named)
            .map(|sent| self.came += if sent { object.size } else { 0 })
    }

    /// The same of a few bytes.
    async fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let content = Content::Bytes(bytes, "application/octet-stream");
        let sent = self.send_blob(Digest::of(bytes), content).await?;
        self.came += if sent { bytes.len() as u64 } else { 0 };
        Ok(())
    }

    /// Tells whether it had to be sent.
    async fn send_blob(&mut self, digest: Digest, content: Content<'_>) -> Result<bool, Trouble> {
        let place = self.place(&format!("blobs/{digest}"))?;
        let there = self.send(Method::HEAD, &place, Content::None).await?;
        match there.status {
            StatusCode::OK => return Ok(false),
            // Where it lies: so it is there.
            status if status.is_redirection() => return Ok(false),
            StatusCode::NOT_FOUND => {}
            _ => return Err(self.not_taken(there).await),
        }
        let uploads = self.place("blobs/uploads/")?;
        let nothing = Content::Bytes(b"", "application/octet-stream");
        let begun = self.send(Method::POST, &uploads, nothing).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(self.not_taken(begun).await);
        }
        let location = begun
            .header(LOCATION)
            .ok_or_else(|| Trouble::lasting("it does not say where content is sent to"))?;
        // Any query of the registry's own stays; the digest comes behind it.
        let and = if location.contains('?') { '&' } else { '?' };
        let location = format!("{location}{and}digest={digest}");
        let place = uploads.redirected(&location).map_err(|e| {
            Trouble::refused(format!(
                "it wants content to be sent to where nothing is: {e}"
            ))
        })?;
        let name = self.repository.name();
        if !place::takes_for(name, place.target()) {
            let why = format!(
                "it wants content to be sent to a place that is none of the repository `{name}`"
            );
            return Err(Trouble::refused(why));
        }
        let put = self.send(Method::PUT, &place, content).await?;
        match put.status {
            StatusCode::CREATED => Ok(true),
            _ => Err(self.not_taken(put).await),
        }
    }

    /// Sends something to the registry itself, and convinces it if it wants that. Nothing is sent to where it may send for
    /// that.
    async fn send(
        &mut self,
        method: Method,
        url: &FetchUrl,
        content: Content<'_>,
    ) -> Result<Answer, Trouble> {
        let authorization = None;
        let wish = Wish {
            method,
            accept: "*/*",
            authorization,
            content,
            header: None,
        };
        self.wish(url, wish).await
    }

    /// Asks the registry itself for something of this media type, which may not be there.
    async fn send_for(&mut self, url: &FetchUrl, accept: &str) -> Result<Answer, Trouble> {
        let wish = Wish {
            method: Method::GET,
            accept,
            authorization: None,
            content: Content::None,
            header: None,
        };
        self.wish(url, wish).await
    }

    async fn wish(&mut self, url: &FetchUrl, mut wish: Wish<'_>) -> Result<Answer, Trouble> {
        let endpoint = &self.registry.places.endpoint;
        if url.scheme() != endpoint.scheme() || url.authority() != endpoint.authority() {
            let host = excerpt(url.authority());
            let why = format!(
                "it wants content to be sent to `{host}`; it is sent to the registry alone"
            );
            return Err(Trouble::refused(why));
        }
        wish.authorization.clone_from(&self.authorization);
        let most = Duration::from_secs(self.network().seconds);
        let sent = timeout(most, self.ask(url, &wish)).await;
        let answer = sent.map_err(|_| self.late())??;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let convincing = timeout(most, self.convince(&answer)).await;
        self.authorization = Some(convincing.map_err(|_| self.late())??);
        wish.authorization.clone_from(&self.authorization);
        let sent = timeout(most, self.ask(url, &wish)).await;
        let answer = sent.map_err(|_| self.late())??;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(self.not_convinced("it wants to be convinced")),
            _ => Ok(answer),
        }
    }

    /// Gives the registry a manifest under its digest, or under a tag.
    pub(crate) async fn push_manifest(
        &mut self,
        manifest: &[u8],
        tag: Option<&str>,
    ) -> Result<(), Trouble> {
        self.put_manifest(manifest, oci::MANIFEST, tag)
            .await
            .map(drop)
    }

    async fn put_manifest(
        &mut self,
        manifest: &[u8],
        media_type: &str,
        tag: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let digest = Digest::of(manifest);
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let place = self.place(&format!("manifests/{name}"))?;
        let content = Content::Bytes(manifest, media_type);
        let put = self.send(Method::PUT, &place, content).await?;
        if put.status != StatusCode::CREATED {
            return Err(self.not_taken(put).await);
        }
        let said = put
            .header(DIGEST)
            .and_then(|text| text.parse::<Digest>().ok());
        if let Some(said) = said.filter(|said| *said != digest) {
            return Err(Trouble::refused(format!(
                "the registry keeps {said} where it was given {digest}"
            )));
        }
        self.came += manifest.len() as u64;
        Ok(put)
    }

    /// Gives the registry a bundle as an artifact that refers to the image of this manifest, and lists it where the registry does
    /// not. Gives the artifact's manifest, and whether the registry lists it.
    pub(crate) async fn push_referrer(
        &mut self,
        subject: ObjectId,
        bundle: ObjectId,
        source: Arc<dyn BlobSource>,
    ) -> Result<(ObjectId, bool), Trouble> {
        self.push_bytes(EMPTY).await?;
        self.push_blob(bundle, source).await?;
        let manifest = referrer(subject, bundle).map_err(|e| Trouble::refused(e.to_string()))?;
        let put = self.put_manifest(&manifest, oci::MANIFEST, None).await?;
        let attestation = ObjectId::of(&manifest);
        let listed = put
            .header(SUBJECT)
            .and_then(|text| text.parse::<Digest>().ok());
        if listed == Some(subject.digest) {
            return Ok((attestation, true));
        }
        let tag = fallback_tag(subject.digest);
        let before = self.listed(&tag).await?;
        let unusable = |e| {
            Trouble::refused(format!(
                "what stands under its tag `{tag}` is no list of referrers: {e}"
            ))
        };
        let list = with_referrer(before.as_deref(), attestation).map_err(unusable)?;
        if let Some(list) = list {
            self.put_manifest(&list, oci::INDEX, Some(&tag)).await?;
        }
        Ok((attestation, false))
    }

    /// The list of referrers under a tag, if there is one.
    async fn listed(&mut self, tag: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let place = self.place(&format!("manifests/{tag}"))?;
        let mut answer = self.send_for(&place, oci::INDEX).await?;
        match answer.status {
            StatusCode::OK => {
                let content = self.take_in_time(&mut answer, bounds::OCI_DOCUMENT_BYTES);
                content.await.map(Some)
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.not_taken(answer).await),
        }
    }

    /// What a registry answers, in the time that one URL may take.
    async fn take_in_time(&self, answer: &mut Answer, most: u64) -> Result<Vec<u8>, Trouble> {
        let seconds = Duration::from_secs(self.network().seconds);
        let taken = timeout(seconds, take(answer, most)).await;
        taken.unwrap_or_else(|_| Err(self.late()))
    }

    /// Why a registry has not taken something, with a word of its own (distribution-spec, "error codes").
    async fn not_taken(&self, mut answer: Answer) -> Trouble {
        let status = answer.status;
        let said = self
            .take_in_time(&mut answer, bounds::TOKEN_ANSWER_BYTES as u64)
            .await;
        let said = said.unwrap_or_default();
        let told: Option<serde_json::Value> = serde_json::from_slice(&said).ok();
        let first = told.as_ref().and_then(|told| told.get("errors")?.get(0));
        let word = |name: &str| first.and_then(|first| first.get(name)?.as_str());
        let said: Vec<String> = ["code", "message"]
            .into_iter()
            .filter_map(word)
            .map(excerpt)
            .collect();
        let why = match said.is_empty() {
            true => format!("the registry answers with status {status}"),
            false => format!(
                "the registry answers with status {status}: {}",
                said.join(", ")
            ),
        };
        match status.as_u16() {
            401 | 403 => Trouble::refused(format!(
                "{why}; the operator's `credentials` of its [[fetch.registry]] in belljard.toml may not be good for pushing there"
            )),
            408 | 429 | 500..=599 => Trouble::passing(why),
            _ => Trouble::lasting(why),
        }
    }
}
