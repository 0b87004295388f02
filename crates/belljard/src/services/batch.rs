//! Many small blobs in one call. Each has a verdict of its own.

use std::io::Read as _;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use belljar_cas::{BlobSource, ReadError, VerifyingRead};
use belljar_core::{Invalid, ObjectId, bounds};
use belljar_plan::store::Failure;
use belljar_wire::Problem;
use reapi::batch_read_blobs_response::Response as Read;
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::batch_update_blobs_response::Response as Updated;
use reapi::compressor::Value as Compressor;
use tonic::{Code, Status};

use super::blobs::unreadable;
use super::objects::Shelf;
use super::resource::object;
use super::{refused, zstd};

/// The digests of a request, with their place in it if one is bad.
pub(super) fn objects<'a>(
    field: &str,
    digests: impl Iterator<Item = &'a reapi::Digest>,
) -> Result<Vec<ObjectId>, Problem> {
    let parsed = (0_usize..)
        .zip(digests)
        .map(|(index, digest)| object(digest).map_err(|e| e.within(format!("{field}[{index}]"))));
    let parsed: Vec<ObjectId> = parsed.collect::<Result<_, _>>()?;
    if parsed.len() > bounds::BATCH_BLOBS {
        let reason = format!(
            "{} blobs; {} are allowed at once",
            parsed.len(),
            bounds::BATCH_BLOBS
        );
        return Err(Invalid::field(field, reason).into());
    }
    Ok(parsed)
}

/// All sizes together, which must fit one message.
fn check_total(field: &str, objects: &[ObjectId]) -> Result<(), Problem> {
    let sizes = objects.iter().map(|object| object.size);
    let total = sizes.fold(0_u64, u64::saturating_add);
    if total > bounds::BATCH_BYTES as u64 {
        let reason = format!(
            "{total} bytes; {} are allowed at once. Use ByteStream",
            bounds::BATCH_BYTES
        );
        return Err(Invalid::field(field, reason).into());
    }
    Ok(())
}

pub(super) fn digest_of(object: ObjectId) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).unwrap_or(i64::MAX),
    })
}

/// Whether one blob went well, or why not.
type Verdict = Result<(), (Code, String)>;

fn told(verdict: Verdict) -> Option<rpc::Status> {
    let (code, message) = verdict.err().unwrap_or((Code::Ok, String::new()));
    Some(rpc::Status {
        code: code.into(),
        message,
        details: Vec::new(),
    })
}

/// Takes blobs, and makes those durable together that are what they should be.
pub(super) async fn update(there: &Shelf, requests: Vec<Blob>) -> Result<Vec<Updated>, Status> {
    let digests: Vec<reapi::Digest> = requests
        .iter()
        .map(|one| one.digest.clone().unwrap_or_default())
        .collect();
    let asked = objects("requests", digests.iter())?;
    check_total("requests", &asked)?;
    let _permit = match requests.iter().any(|one| one.compressor != 0) {
        true => Some(there.zstd().await?),
        false => None,
    };
    let read = there.with(move |_| {
        let each = asked.into_iter().zip(requests);
        let read = each.map(|(object, one)| (object, content(object, one)));
        read.collect::<Vec<_>>()
    });
    let mut verdicts: Vec<(ObjectId, Verdict)> = Vec::new();
    let (mut good, mut places) = (Vec::new(), Vec::new());
    for (at, (object, content)) in read.await?.into_iter().enumerate() {
        verdicts.push((object, content.as_ref().map(drop).map_err(Clone::clone)));
        if let Ok(content) = content {
            good.push((object, content));
            places.push(at);
        }
    }
    let _turn = there.upload().await?;
    let put = there.store().put_many(&good).await;
    for one in put.map_err(|e| refused(&e))? {
        let place = places.get(one.index).and_then(|at| verdicts.get_mut(*at));
        if let Some((object, verdict)) = place {
            *verdict = Err(not_kept(*object, one.class));
        }
    }
    // Before it is answered: who has sent it all has it.
    let kept = verdicts.iter().filter(|(_, verdict)| verdict.is_ok());
    let kept: Vec<ObjectId> = kept.map(|(object, _)| *object).collect();
    there.take(&kept).await?;
    let responses = verdicts.into_iter().map(|(object, verdict)| Updated {
        digest: digest_of(object),
        status: told(verdict),
    });
    Ok(responses.collect())
}

/// The content of one blob, as long as it should be.
fn content(object: ObjectId, one: Blob) -> Result<Vec<u8>, (Code, String)> {
    let bad = |why: String| (Code::InvalidArgument, why);
    let content = match Compressor::try_from(one.compressor) {
        Ok(Compressor::Identity) => one.data,
        Ok(Compressor::Zstd) => zstd::unpack_all(&one.data, object.size)
            .map_err(|e| bad(format!("{object} was not taken: {e}")))?,
        _ => return Err(bad("the only compressor is ZSTD".to_owned())),
    };
    match content.len() as u64 == object.size {
        true => Ok(content),
        false => Err(bad(format!("{} bytes came for {object}", content.len()))),
    }
}

/// What a blob that the store did not keep looks like from outside.
fn not_kept(object: ObjectId, class: Failure) -> (Code, String) {
    match class {
        Failure::Content => (
            Code::InvalidArgument,
            format!("the content is not {object}"),
        ),
        Failure::Full => (
            Code::ResourceExhausted,
            "the store's disk is full, or nearly: `belljar store status` says what takes the room, `belljar store gc` removes \
             what nobody needs"
                .to_owned(),
        ),
        Failure::Missing | Failure::Refused | Failure::Busy | Failure::Internal => (
            Code::Internal,
            "the store did not take it; the store's log says more".to_owned(),
        ),
    }
}

/// Reads blobs. They are packed where the client takes that and it saves something.
pub(super) async fn read(
    there: &Shelf,
    request: reapi::BatchReadBlobsRequest,
) -> Result<Vec<Read>, Status> {
    let asked = objects("digests", request.digests.iter())?;
    check_total("digests", &asked)?;
    let pack = request
        .acceptable_compressors
        .contains(&Compressor::Zstd.into());
    let _permit = match pack {
        true => Some(there.zstd().await?),
        false => None,
    };
    let read = there.with(move |source| {
        let each = asked.into_iter();
        each.map(|object| read_one(source, object, pack)).collect()
    });
    read.await
}

/// One blob, verified, or why not.
fn read_one(source: &dyn BlobSource, object: ObjectId, pack: bool) -> Read {
    let mut data = Vec::new();
    let read = source.read(object).and_then(|content| {
        let read = VerifyingRead::new(content, object).read_to_end(&mut data);
        read.map_err(|source| ReadError::Io { object, source })
    });
    let verdict = read.map(drop).map_err(|error| {
        data.clear();
        let status = unreadable(error);
        (status.code(), status.message().to_owned())
    });
    let mut compressor = Compressor::Identity;
    if pack && !data.is_empty() {
        let packed = zstd::pack_all(&data);
        if packed.len() < data.len() {
            (data, compressor) = (packed, Compressor::Zstd);
        }
    }
    Read {
        digest: digest_of(object),
        data,
        compressor: compressor.into(),
        status: told(verdict),
    }
}
