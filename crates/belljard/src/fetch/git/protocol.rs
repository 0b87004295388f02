//! Version 2 of git's protocol over HTTP (gitprotocol-v2(5), gitprotocol-http(5)): what a server can, and one commit of it.

use belljar_audit::FetchTry;
use belljar_core::{FetchUrl, GitId, ObjectId, bounds};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::Trouble;
use super::lines::Lines;
use super::reply::{Advertisement, Packed, Part};
use crate::fetch::download::{Download, is_redirect, not_there, plain};
use crate::fetch::http::{Answer, Content, Wish};

/// Says which version is spoken.
const PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
const VERSION: HeaderValue = HeaderValue::from_static("version=2");
/// What stands behind the URL of a repository.
const REFS: &str = "/info/refs?service=git-upload-pack";
const SERVICE: &str = "/git-upload-pack";
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";

/// What a server says of itself.
struct Server {
    /// Where commits are asked for.
    service: FetchUrl,
    /// Whether it says by which digest it names objects.
    says_format: bool,
}

impl Download<'_> {
    /// Brings a pack with a commit, without its history, and gives it to the store. What is in it nobody has looked at.
    pub(in crate::fetch) async fn pack(
        &self,
        repository: &FetchUrl,
        commit: GitId,
        told: &mut FetchTry,
    ) -> Result<ObjectId, Trouble> {
        let server = self.server(repository, told).await?;
        let request = request(commit, server.says_format);
        let wish = Wish {
            method: Method::POST,
            accept: RESULT,
            content: Content::Bytes(&request, REQUEST),
            ..greeting()
        };
        self.settings
            .rules
            .allows(&server.service)
            .map_err(Trouble::refused)?;
        let answer = self.ask(&server.service, &wish, told).await?;
        told.status = Some(answer.status.as_u16());
        match answer.status {
            StatusCode::OK => self.take_pack(plain(answer)?, told).await,
            status if is_redirect(status) => Err(Trouble::refused(
                "it sends elsewhere what it is asked for, which only its first answer may",
            )),
            status => Err(not_there(status)),
        }
    }

    /// Asks what the server can.
    async fn server(&self, repository: &FetchUrl, told: &mut FetchTry) -> Result<Server, Trouble> {
        let url = repository.as_str().trim_end_matches('/');
        let refs = at(url, REFS)?;
        let (from, answer) = self.follow(&refs, &greeting(), told).await?;
        due(&answer, ADVERTISEMENT)?;
        let base = from.as_str().strip_suffix(REFS).ok_or_else(|| {
            Trouble::refused(
                "it sends to where no repository can be: what was asked for is not behind that URL",
            )
        })?;
        let service = at(base, SERVICE)?;
        let most = told.bytes.saturating_add(bounds::GIT_ADVERTISEMENT_BYTES);
        let mut lines = Lines::new(answer, most, told);
        let mut can = Advertisement::default();
        while !can.take(&lines.next().await?)? {}
        Ok(Server {
            service,
            says_format: can.says_format()?,
        })
    }

    /// Gives the pack in an answer to the store.
    async fn take_pack(&self, answer: Answer, told: &mut FetchTry) -> Result<ObjectId, Trouble> {
        due(&answer, RESULT)?;
        let most = self.settings.most_bytes.min(bounds::GIT_PACK_BYTES);
        let mut lines = Lines::new(answer, told.bytes.saturating_add(most), told);
        let mut pack = Packed::default();
        while pack.take(&lines.next().await?)? != Part::Begin {}
        let mut receiving = self.store.receive(None, most).await?;
        // Lines may be as short as a server likes, messages to the store should not be.
        let mut waiting = Vec::with_capacity(2 * bounds::CHUNK_BYTES);
        loop {
            match pack.take(&lines.next().await?)? {
                Part::Piece(piece) => {
                    waiting.extend_from_slice(piece);
                    if waiting.len() >= bounds::CHUNK_BYTES {
                        receiving.write(&waiting).await?;
                        waiting.clear();
                    }
                }
                Part::Nothing | Part::Begin => {}
                Part::End => break,
            }
        }
        receiving.write(&waiting).await?;
        Ok(receiving.finish().await?)
    }
}

/// A request by version 2, without anything in it.
fn greeting() -> Wish<'static> {
    Wish {
        header: Some((PROTOCOL, VERSION)),
        ..Wish::plain()
    }
}

fn at(base: &str, behind: &str) -> Result<FetchUrl, Trouble> {
    let url = FetchUrl::new(&format!("{base}{behind}"));
    url.map_err(|e| Trouble::refused(e.to_string()))
}

/// Refuses an answer of another media type: git itself does, since anything can answer with status 200.
fn due(answer: &Answer, media_type: &str) -> Result<(), Trouble> {
    let found = answer.header(CONTENT_TYPE).unwrap_or_default();
    match found.split(';').next().unwrap_or_default().trim() == media_type {
        true => Ok(()),
        false => Err(Trouble::lasting(format!(
            "it answers with `{}`, so there is no repository that speaks git's protocol over HTTP",
            found.chars().take(64).collect::<String>().escape_debug()
        ))),
    }
}

/// Asks for one commit without those that came before it, in one pack of whole objects.
fn request(commit: GitId, says_format: bool) -> Vec<u8> {
    let line = |text: &str| format!("{:04x}{text}\n", text.len() + 5);
    let format = if says_format {
        line("object-format=sha1")
    } else {
        String::new()
    };
    let parts = [
        line("command=fetch"),
        line(concat!("agent=belljar/", env!("CARGO_PKG_VERSION"))),
        format,
        "0001".to_owned(),
        line("no-progress"),
        line("ofs-delta"),
        line("deepen 1"),
        line(&format!("want {commit}")),
        line("done"),
        "0000".to_owned(),
    ];
    parts.concat().into_bytes()
}
