//! Many small blobs in one call. Each has a verdict of its own.

use std::io::Read as _;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::rpc;
use belljar_cas::{BlobSource as _, ReadError};
use belljar_core::{BlobName, Invalid, ObjectId, bounds};
use belljar_plan::store::Failure;
use belljar_wire::Problem;
use reapi::batch_read_blobs_response::Response as Read;
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::batch_update_blobs_response::Response as Updated;
use reapi::compressor::Value as Compressor;
use tonic::{Code, Status};

use super::blobs::{absent, unreadable};
use super::objects::Shelf;
use super::resource::{Function, blob};
use super::vault::Share;
use super::{internal, refused, zstd};

/// The digests of a request, with their place in it if one is bad.
pub(super) fn names<'a>(
    field: &str,
    function: Function,
    digests: impl Iterator<Item = &'a reapi::Digest>,
) -> Result<Vec<BlobName>, Problem> {
    let parsed = (0_usize..).zip(digests).map(|(index, digest)| {
        blob(digest, function).map_err(|e| e.within(format!("{field}[{index}]")))
    });
    let parsed: Vec<BlobName> = parsed.collect::<Result<_, _>>()?;
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
fn check_total(field: &str, blobs: &[BlobName]) -> Result<(), Problem> {
    let sizes = blobs.iter().map(|blob| blob.size);
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

pub(super) fn digest_of(blob: BlobName) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: blob.digest.to_hex(),
        size_bytes: i64::try_from(blob.size).unwrap_or(i64::MAX),
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
pub(super) async fn update(
    there: &Shelf,
    function: Function,
    requests: Vec<Blob>,
) -> Result<Vec<Updated>, Status> {
    let digests: Vec<reapi::Digest> = requests
        .iter()
        .map(|one| one.digest.clone().unwrap_or_default())
        .collect();
    let asked = names("requests", function, digests.iter())?;
    check_total("requests", &asked)?;
    let _permit = match requests.iter().any(|one| one.compressor != 0) {
        true => Some(there.zstd().await?),
        false => None,
    };
    let read = there.with(move |_| {
        let each = asked.into_iter().zip(requests);
        let read = each.map(|(blob, one)| (blob, content(blob, one)));
        read.collect::<Vec<_>>()
    });
    let mut verdicts: Vec<(BlobName, Verdict)> = Vec::new();
    let (mut good, mut places) = (Vec::new(), Vec::new());
    for (at, (blob, content)) in read.await?.into_iter().enumerate() {
        verdicts.push((blob, content.as_ref().map(drop).map_err(Clone::clone)));
        if let Ok(content) = content {
            good.push((blob, content));
            places.push(at);
        }
    }
    let _turn = there.upload().await?;
    let put = there.store().put_many(&good).await;
    let mut kept = Vec::new();
    for (at, put) in places.into_iter().zip(put.map_err(|e| refused(&e))?) {
        let Some((blob, verdict)) = verdicts.get_mut(at) else {
            continue;
        };
        match put {
            Ok(object) => kept.push((*blob, object)),
            Err(class) => *verdict = Err(not_kept(*blob, class)),
        }
    }
    // Before it is answered: who has sent it all has it.
    there.take(&kept).await?;
    let responses = verdicts.into_iter().map(|(blob, verdict)| Updated {
        digest: digest_of(blob),
        status: told(verdict),
    });
    Ok(responses.collect())
}

/// The content of one blob, as long as it should be.
fn content(blob: BlobName, one: Blob) -> Result<Vec<u8>, (Code, String)> {
    let bad = |why: String| (Code::InvalidArgument, why);
    let content = match Compressor::try_from(one.compressor) {
        Ok(Compressor::Identity) => one.data,
        Ok(Compressor::Zstd) => zstd::unpack_all(&one.data, blob.size)
            .map_err(|e| bad(format!("{blob} was not taken: {e}")))?,
        _ => return Err(bad("the only compressor is ZSTD".to_owned())),
    };
    match content.len() as u64 == blob.size {
        true => Ok(content),
        false => Err(bad(format!("{} bytes came for {blob}", content.len()))),
    }
}

/// What a blob that the store did not keep looks like from outside.
fn not_kept(blob: BlobName, class: Failure) -> (Code, String) {
    match class {
        Failure::Content => (
            Code::InvalidArgument,
            format!("the content is not {blob}"),
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
    function: Function,
    request: reapi::BatchReadBlobsRequest,
) -> Result<Vec<Read>, Status> {
    let asked = names("digests", function, request.digests.iter())?;
    check_total("digests", &asked)?;
    let pack = request
        .acceptable_compressors
        .contains(&Compressor::Zstd.into());
    let _permit = match pack {
        true => Some(there.zstd().await?),
        false => None,
    };
    let read = there.with(move |share| {
        let meant = share.meant(&asked)?;
        let each = asked.into_iter().zip(meant);
        let read = each.map(|(blob, meant)| read_one(share, blob, meant, pack));
        Ok(read.collect::<Vec<_>>())
    });
    let read: Result<_, ReadError> = read.await?;
    read.map_err(|e| internal("the store could not be read", &e))
}

/// One blob, verified, or why not; `meant` is the object that it is, if the project knows one.
fn read_one(share: &Share, blob: BlobName, meant: Option<ObjectId>, pack: bool) -> Read {
    let mut data = Vec::new();
    let read = meant.ok_or_else(|| absent(blob)).and_then(|object| {
        let read = share.read_verified(object).and_then(|mut content| {
            let read = content.read_to_end(&mut data);
            read.map_err(|source| ReadError::Io { object, source })
        });
        read.map_err(|error| unreadable(error, blob))
    });
    let verdict = read.map(drop).map_err(|status| {
        data.clear();
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
        digest: digest_of(blob),
        data,
        compressor: compressor.into(),
        status: told(verdict),
    }
}
