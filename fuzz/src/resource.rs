use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{BlobDigest, BlobName};

#[allow(dead_code, reason = "belljard uses more of it")]
#[path = "../../crates/belljard/src/services/resource.rs"]
mod names;

use names::{Download, Form, Function, Upload};

/// The name of a blob in `ByteStream`, or the digits of a digest: what is taken is taken in one form only.
pub fn resource(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok((_, name)) = names::of_instance(text) {
        assert!(text.ends_with(name));
        if let Ok(Download { blob, form }) = names::to_read(name) {
            assert_eq!(written(blob, form), name);
        }
        if let Ok(Upload { uuid, blob, form }) = names::to_write(name) {
            let due = format!("uploads/{uuid}/{}", written(blob, form));
            let rest = name.strip_prefix(&due).expect("it begins so");
            assert!(rest.is_empty() || rest.starts_with('/'));
        }
    }
    let digest = reapi::Digest {
        hash: text.to_owned(),
        size_bytes: 7,
    };
    for function in [Function::Sha256, Function::Blake3] {
        if let Ok(blob) = names::blob(&digest, function) {
            assert_eq!(blob.digest.to_hex(), text);
            assert_eq!(blob.digest.to_string().parse(), Ok(blob.digest));
        }
    }
    if let Ok(digest) = text.parse::<BlobDigest>() {
        assert_eq!(digest.to_string(), text);
    }
}

fn written(blob: BlobName, form: Form) -> String {
    let kind = match form {
        Form::Identity => "blobs",
        Form::Zstd => "compressed-blobs/zstd",
    };
    let function = match blob.digest {
        BlobDigest::Sha256(_) => "",
        BlobDigest::Blake3(_) => "blake3/",
    };
    format!("{kind}/{function}{}/{}", blob.digest.to_hex(), blob.size)
}
