use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use belljar_cas::{BlobSource, ReadError};
use belljar_core::{BuildId, Digest, ObjectId, bounds};
use belljar_engine::Engine;
use belljar_engine::life::Build;
use belljar_engine::queue::{Condition, Query, Record};
use belljar_policy::Right;
use belljar_wire::{BuildEvidence, Problem, parse_build_name, parse_evidence_name, v1};
use prost::Message as _;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use v1::evidence_service_server::EvidenceService;

use super::blobs::unreadable;
use super::{Caller, internal, page, readlog, view};
use crate::peers::{LogFile, Trails};

/// Builds on a page unless another number is asked for.
const PAGE: usize = 10;
/// What the last entry of a trail holds that will have no further one.
const FINISHED: &[u8] = br#""kind":"finished""#;
/// How often, and how long each time, to wait for that entry of a build that has just ended.
const WAIT: (u32, Duration) = (40, Duration::from_millis(25));
const WHAT: &str = "the audit trail could not be read";

/// `belljar.v1.EvidenceService`.
pub(crate) struct EvidenceRecords {
    pub(crate) engine: Engine,
    pub(crate) source: Arc<dyn BlobSource>,
    pub(crate) trails: Trails,
}

#[tonic::async_trait]
impl EvidenceService for EvidenceRecords {
    async fn get_evidence(
        &self,
        request: Request<v1::GetEvidenceRequest>,
    ) -> Result<Response<v1::BuildEvidence>, Status> {
        let caller = Caller::of(&request)?;
        let name = &request.get_ref().name;
        let id = parse_evidence_name(name).map_err(Problem::invalid)?;
        let record = self.record(&caller, name, &id).await?;
        let evidence = self.of(&record.build, bounds::INLINE_BUNDLE_BYTES).await?;
        Ok(Response::new((&evidence).into()))
    }

    async fn list_evidence(
        &self,
        request: Request<v1::ListEvidenceRequest>,
    ) -> Result<Response<v1::ListEvidenceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let what = &request.artifact_sha256;
        let digest =
            Digest::from_hex(what).map_err(|e| Problem::invalid(e.within("artifact_sha256")))?;
        let most =
            page::size(request.page_size, PAGE, bounds::EVIDENCE_PAGE).map_err(Problem::invalid)?;
        let list = page::list(caller.identity(), what);
        let before = page::position(&request.page_token, &list).map_err(Problem::invalid)?;
        let Some(seen) = caller.seen(|_| true) else {
            return Ok(Response::new(v1::ListEvidenceResponse::default()));
        };
        let query = Query {
            conditions: vec![Condition::Artifact(digest), seen],
            before,
            most,
        };
        let found = self.engine.list(query).await;
        let found = found.map_err(|e| internal("the builds could not be read", &e))?;
        let mut room = bounds::BATCH_BYTES;
        let mut evidence = Vec::with_capacity(found.builds.len());
        for listed in &found.builds {
            let most = bounds::INLINE_BUNDLE_BYTES.min(room);
            let one = v1::BuildEvidence::from(&self.of(&listed.build, most).await?);
            room = room.saturating_sub(one.encoded_len());
            evidence.push(one);
        }
        Ok(Response::new(v1::ListEvidenceResponse {
            evidence,
            next_page_token: found
                .next
                .map_or_else(String::new, |at| page::token(at, &list)),
        }))
    }

    async fn read_audit_trail(
        &self,
        request: Request<v1::ReadAuditTrailRequest>,
    ) -> Result<Response<v1::ReadAuditTrailResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (offset, most) =
            readlog::range(request.offset, request.limit).map_err(Problem::invalid)?;
        let id = parse_build_name(&request.name).map_err(Problem::invalid)?;
        let record = self.record(&caller, &request.name, &id).await?;
        let data = self.trail(&record.build, offset, most).await;
        Ok(Response::new(v1::ReadAuditTrailResponse {
            offset: request.offset,
            data: data.map_err(|e| internal(WHAT, &e))?,
        }))
    }
}

impl EvidenceRecords {
    async fn record(&self, caller: &Caller, name: &str, id: &BuildId) -> Result<Record, Status> {
        let found = self.engine.get(id).await;
        let found = found.map_err(|e| internal("the build could not be read", &e))?;
        Ok(caller.record(Right::Read, name, found)?)
    }

    /// What is on record about a build, with its bundle if that has at most `most` bytes.
    async fn of(&self, build: &Build, most: usize) -> Result<BuildEvidence, Status> {
        let evidence = view::evidence(build);
        let small = evidence.bundle.filter(|bundle| bundle.size <= most as u64);
        let bundle = match small {
            Some(object) => self.read(object).await?,
            None => Vec::new(),
        };
        Ok(BuildEvidence {
            build: build.id.clone(),
            attempt: view::attempt(build),
            outcome: build.outcome().cloned(),
            evidence,
            bundle,
        })
    }

    async fn read(&self, object: ObjectId) -> Result<Vec<u8>, Status> {
        let source = self.source.clone();
        let read = spawn_blocking(move || {
            let mut bytes = Vec::new();
            source
                .read_verified(object)?
                .read_to_end(&mut bytes)
                .map_err(|source| ReadError::Io { object, source })?;
            Ok(bytes)
        });
        let read = read.await;
        let read = read.map_err(|e| internal("the store could not be read", &e))?;
        read.map_err(|e| unreadable(e, object))
    }

    /// A piece of a build's trail: whole lines only, of what is there.
    async fn trail(&self, build: &Build, offset: u64, most: usize) -> std::io::Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            let Some(file) = self.trails.open(&build.id).await? else {
                return Ok(Vec::new());
            };
            let (whole, finished) = whole_lines(&file).await?;
            // The end is known a moment before it stands in the trail.
            if build.outcome().is_some() && !finished && tries < WAIT.0 {
                tries += 1;
                tokio::time::sleep(WAIT.1).await;
                continue;
            }
            let left = usize::try_from(whole.saturating_sub(offset)).unwrap_or(usize::MAX);
            return file.read(offset, most.min(left)).await;
        }
    }
}

/// How many bytes of whole lines a trail has, and whether nothing follows any more.
async fn whole_lines(file: &LogFile) -> std::io::Result<(u64, bool)> {
    let length = file.length().await?;
    let start = length.saturating_sub(2 * bounds::AUDIT_ENTRY_BYTES as u64);
    let tail = file.read(start, 2 * bounds::AUDIT_ENTRY_BYTES).await?;
    let end = tail.iter().rposition(|byte| *byte == b'\n');
    let end = end.map_or(0, |at| at + 1);
    let last = tail[..end.saturating_sub(1)]
        .rsplit(|byte| *byte == b'\n')
        .next();
    let finished = last.is_some_and(|line| {
        line.windows(FINISHED.len())
            .any(|window| window == FINISHED)
    });
    Ok((start + end as u64, finished))
}
