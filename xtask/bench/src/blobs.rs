//! The hidden part `blobs`: plays a client that uploads, and measures beside it what the machine
//! can do at all. A process of its own, so that it is compiled as Belljar's programs are. It answers with
//! its times as one line of JSON.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::{WriteRequest, WriteResponse};
use belljar_core::{Hasher, ObjectId, bounds};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

/// How many small blobs.
pub(super) const SMALL: usize = 10_000;
/// Bytes of each.
pub(super) const SMALL_BYTES: usize = 200;
/// Bytes of the large one.
pub(super) const LARGE: usize = 1 << 30;
/// Bytes in one message of its upload.
const MESSAGE: usize = 1 << 20;
/// Bytes before a message of gRPC: whether it is packed, and its length.
const PREFIX: usize = 5;
/// The field `WriteRequest.data`.
const DATA: u32 = 10;
/// Small blobs in one call, and calls under way at once, as the command line has it.
const BATCH: usize = 1000;
const CALLS: usize = 4;

/// Where to connect to, and where to measure the disk.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// belljard's socket.
    #[arg(long)]
    socket: PathBuf,
    /// A folder on the file system of the store.
    #[arg(long)]
    folder: PathBuf,
    /// Makes the content differ from that of another run.
    #[arg(long)]
    seed: u64,
    /// Only upload one blob of so many mebibytes, by `ByteStream.Write`.
    #[arg(long, value_name = "MIB")]
    stream: Option<usize>,
}

/// How long everything took, once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Lap {
    /// [`SMALL`] files written, each made durable by fsync(2) before the next.
    pub(super) fsync_each: Duration,
    /// As many blobs by `BatchUpdateBlobs`, all durable.
    pub(super) batches: Duration,
    /// SHA-256 of [`LARGE`] bytes on one core.
    pub(super) hash: Duration,
    /// [`LARGE`] bytes written and made durable.
    pub(super) disk: Duration,
    /// One blob of [`LARGE`] bytes by `ByteStream.Write`, verified and durable.
    pub(super) stream: Duration,
}

/// Measure once, and tell.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("an event loop")?;
    let large = noise(args.seed, MESSAGE);
    if let Some(messages) = args.stream {
        let object = repeated(&large, messages);
        return runtime.block_on(stream(&args.socket, object, large));
    }
    let small: Vec<Vec<u8>> = (0..SMALL as u64)
        .map(|n| noise(args.seed ^ (n << 20), SMALL_BYTES))
        .collect();
    let fsync_each = clocked(|| fsync_each(&args.folder, &small))?;
    let batches = clocked(|| runtime.block_on(batches(&args.socket, &small)))?;
    let mut object = None;
    let hash = clocked(|| {
        object = Some(repeated(&large, LARGE / MESSAGE));
        Ok(())
    })?;
    let object = object.context("a digest")?;
    // Memory that the machine has not used for a while may cost more at first: that is nobody's.
    disk(&args.folder, &large)?;
    let disk = clocked(|| disk(&args.folder, &large))?;
    let stream = clocked(|| runtime.block_on(stream(&args.socket, object, large)))?;
    let lap = Lap {
        fsync_each,
        batches,
        hash,
        disk,
        stream,
    };
    println!("{}", serde_json::to_string(&lap)?);
    Ok(())
}

fn clocked(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// Bytes that differ by their seed (SplitMix64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The object of a block that is there so many times.
fn repeated(block: &[u8], times: usize) -> ObjectId {
    let mut hasher = Hasher::new();
    (0..times).for_each(|_| hasher.update(block));
    ObjectId {
        digest: hasher.finish(),
        size: (times * block.len()) as u64,
    }
}

fn fsync_each(folder: &Path, small: &[Vec<u8>]) -> Result<()> {
    let folder = tempfile::tempdir_in(folder).context("a folder")?;
    for (n, content) in small.iter().enumerate() {
        let mut file = File::create(folder.path().join(n.to_string())).context("a file")?;
        file.write_all(content).context("writing")?;
        file.sync_all().context("fsync")?;
    }
    Ok(())
}

fn disk(folder: &Path, block: &[u8]) -> Result<()> {
    let mut file = tempfile::tempfile_in(folder).context("a file")?;
    for _ in 0..LARGE / MESSAGE {
        file.write_all(block).context("writing")?;
    }
    file.sync_all().context("fsync")
}

async fn connect(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await;
    channel.context("connecting to the daemon")
}

/// Uploads small blobs by `BatchUpdateBlobs`.
pub(super) async fn batches(socket: &Path, small: &[Vec<u8>]) -> Result<()> {
    let client = ContentAddressableStorageClient::new(connect(socket).await?);
    let mut calls = tokio::task::JoinSet::new();
    for portion in small.chunks(BATCH) {
        let requests = portion.iter().map(|content| Blob {
            digest: Some(digest(ObjectId::of(content))),
            data: content.clone(),
            ..Default::default()
        });
        let request = reapi::BatchUpdateBlobsRequest {
            requests: requests.collect(),
            ..Default::default()
        };
        if calls.len() >= CALLS
            && let Some(done) = calls.join_next().await
        {
            done??;
        }
        let mut client = client.clone();
        calls.spawn(async move {
            let answer = client.batch_update_blobs(request).await?.into_inner();
            let bad = answer
                .responses
                .into_iter()
                .find_map(|response| response.status.filter(|status| status.code != 0));
            match bad {
                Some(status) => Err(anyhow::anyhow!("a blob was refused: {}", status.message)),
                None => Ok(()),
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}

/// Uploads one blob by `ByteStream.Write`, as a client that copies nothing: what is measured is who takes it.
async fn stream(socket: &Path, object: ObjectId, block: Vec<u8>) -> Result<()> {
    let name = format!(
        "uploads/00000000-0000-4000-8000-000000000000/blobs/{}/{}",
        object.digest.to_hex(),
        object.size
    );
    let size = usize::try_from(object.size)?;
    let block = Bytes::from(block);
    let messages = (0..size / MESSAGE).flat_map(move |at| {
        let head = WriteRequest {
            resource_name: if at == 0 { name.clone() } else { String::new() },
            write_offset: i64::try_from(at * MESSAGE).unwrap_or(i64::MAX),
            finish_write: (at + 1) * MESSAGE == size,
            data: Vec::new(),
        };
        [framed(&head, block.len()), block.clone()].map(|part| Ok::<_, Status>(Frame::data(part)))
    });
    let body = Body::new(StreamBody::new(tokio_stream::iter(messages)));
    let request = http::Request::post("http://localhost/google.bytestream.ByteStream/Write")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let mut channel = connect(socket).await?;
    channel.ready().await?;
    let answer = channel.call(request).await?;
    let refused = Status::from_header_map(answer.headers());
    let answer = answer.into_body().collect().await?;
    let refused = refused.or_else(|| answer.trailers().and_then(Status::from_header_map));
    if let Some(refused) = refused.filter(|status| status.code() != tonic::Code::Ok) {
        return Err(refused.into());
    }
    let message = answer.to_bytes();
    let message = message.get(PREFIX..).context("an empty answer")?;
    let committed = WriteResponse::decode(message)?.committed_size;
    ensure!(
        u64::try_from(committed) == Ok(object.size),
        "{committed} bytes were taken"
    );
    Ok(())
}

/// What stands before the content of so many bytes: the prefix of a gRPC message, and the message up to it.
fn framed(head: &WriteRequest, data: usize) -> Bytes {
    let mut message = head.encode_to_vec();
    encode_key(DATA, WireType::LengthDelimited, &mut message);
    encode_varint(data as u64, &mut message);
    let length = u32::try_from(message.len() + data).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn digest(object: ObjectId) -> reapi::Digest {
    reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).unwrap_or(i64::MAX),
    }
}

// A batch must fit one call.
const _: () = assert!(BATCH * SMALL_BYTES <= bounds::BATCH_BYTES && BATCH <= bounds::BATCH_BLOBS);
