use std::path::PathBuf;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest,
};
use belljar_core::ObjectId;
use belljar_tests::{Instance, Part, wait_for};
use hyper_util::rt::TokioIo;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Bytes in one message of an upload.
pub(crate) const PIECE: usize = 64 * 1024;

/// A client with a connection of its own.
pub(crate) struct Raw {
    pub(crate) runtime: Runtime,
    pub(crate) streams: ByteStreamClient<Channel>,
    pub(crate) blobs: ContentAddressableStorageClient<Channel>,
}

impl Raw {
    pub(crate) fn connect(instance: &Instance) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let socket: PathBuf = Part::Belljard.socket(instance.state());
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = runtime
            .block_on(Endpoint::from_static("http://localhost").connect_with_connector(connector))
            .expect("belljard listens");
        Self {
            runtime,
            streams: ByteStreamClient::new(channel.clone()),
            blobs: ContentAddressableStorageClient::new(channel),
        }
    }

    /// Sends messages until their end.
    pub(crate) fn write(
        &self,
        messages: impl Stream<Item = WriteRequest> + Send + 'static,
    ) -> Result<i64, Status> {
        let written = self
            .runtime
            .block_on(self.streams.clone().write(messages))?;
        Ok(written.into_inner().committed_size)
    }

    /// Sends messages, keeps silent then for a while, and breaks off: the connection is gone afterwards.
    pub(crate) fn write_and_break(self, messages: Vec<WriteRequest>, silence: Duration) {
        let silent = tokio_stream::iter(messages).chain(tokio_stream::pending());
        let mut streams = self.streams.clone();
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(silence, streams.write(silent)).await });
        assert!(answer.is_err(), "nothing to answer yet: {answer:?}");
    }

    pub(crate) fn status(&self, name: &str) -> QueryWriteStatusResponse {
        let request = QueryWriteStatusRequest {
            resource_name: name.to_owned(),
        };
        let answer = self
            .runtime
            .block_on(self.streams.clone().query_write_status(request));
        answer.unwrap().into_inner()
    }

    /// Waits until so much of an upload has come.
    pub(crate) fn until_committed(&self, name: &str, due: i64) {
        wait_for("an upload to stand", Duration::from_secs(20), || {
            (self.status(name).committed_size == due).then_some(())
        });
    }

    pub(crate) fn read(&self, name: String, offset: i64) -> Result<Vec<u8>, Status> {
        let mut content = Vec::new();
        self.read_each(name, offset, |piece| content.extend(piece))?;
        Ok(content)
    }

    pub(crate) fn read_each(
        &self,
        name: String,
        offset: i64,
        mut each: impl FnMut(Vec<u8>),
    ) -> Result<(), Status> {
        let request = ReadRequest {
            resource_name: name,
            read_offset: offset,
            read_limit: 0,
        };
        self.runtime.block_on(async {
            let mut pieces = self.streams.clone().read(request).await?.into_inner();
            while let Some(piece) = pieces.message().await? {
                each(piece.data);
            }
            Ok(())
        })
    }
}

/// `KIND/HASH/SIZE`.
pub(crate) fn named(kind: &str, object: ObjectId) -> String {
    format!("{kind}/{}/{}", object.digest.to_hex(), object.size)
}

/// The messages of an upload from `offset` on; the last one says so if `finish`.
pub(crate) fn messages(
    name: &str,
    offset: usize,
    content: &[u8],
    finish: bool,
) -> Vec<WriteRequest> {
    let count = content.chunks(PIECE).count();
    let each = content.chunks(PIECE).enumerate();
    each.map(|(at, piece)| WriteRequest {
        resource_name: if at == 0 {
            name.to_owned()
        } else {
            String::new()
        },
        write_offset: i64::try_from(offset + at * PIECE).unwrap(),
        finish_write: finish && at + 1 == count,
        data: piece.to_vec(),
    })
    .collect()
}

/// Bytes that no packing makes smaller, always the same.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
