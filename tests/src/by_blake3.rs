use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use tonic::Status;

use crate::Client;

/// `blake3/HASH/SIZE`, as REAPI's resource names have it.
pub fn by_blake3(content: &[u8]) -> String {
    format!(
        "blake3/{}/{}",
        blake3::hash(content).to_hex(),
        content.len()
    )
}

/// REAPI's digest of this content by BLAKE3.
pub fn blake3_digest(content: &[u8]) -> reapi::Digest {
    reapi::Digest {
        hash: blake3::hash(content).to_hex().to_string(),
        size_bytes: i64::try_from(content.len()).expect("a size"),
    }
}

/// A client that names blobs by BLAKE3.
impl Client {
    /// Uploads content under the name of other content, or of itself.
    ///
    /// # Errors
    /// What the server says.
    pub fn send_by_blake3(&self, named: &[u8], content: &[u8]) -> Result<i64, Status> {
        let request = WriteRequest {
            resource_name: format!("uploads/5c2f0d5e-b3/blobs/{}", by_blake3(named)),
            write_offset: 0,
            finish_write: true,
            data: content.to_vec(),
        };
        let answer = self.wait(self.streams().write(tokio_stream::iter([request])));
        answer.map(|answer| answer.into_inner().committed_size)
    }

    /// For each of these contents, whether the server says that it has it.
    pub fn has_by_blake3(&self, contents: &[&[u8]]) -> Vec<bool> {
        let digests: Vec<_> = contents
            .iter()
            .map(|content| blake3_digest(content))
            .collect();
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: digests.clone(),
            digest_function: reapi::digest_function::Value::Blake3.into(),
            ..Default::default()
        };
        let answer = self.wait(self.blobs().find_missing_blobs(request));
        let missing = answer.expect("an answer").into_inner().missing_blob_digests;
        let has = digests.iter().map(|digest| !missing.contains(digest));
        has.collect()
    }

    /// Downloads what has this content's name.
    ///
    /// # Errors
    /// What the server says.
    pub fn read_by_blake3(&self, named: &[u8]) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            resource_name: format!("blobs/{}", by_blake3(named)),
            ..Default::default()
        };
        self.wait(async {
            let mut stream = self.streams().read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.message().await? {
                bytes.extend(piece.data);
            }
            Ok(bytes)
        })
    }
}
