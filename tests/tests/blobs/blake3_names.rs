use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::ObjectId;
use belljar_tests::{Instance, Part, blake3_digest, by_blake3, tool};
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::compressor::Value::Zstd;

use crate::raw::{PIECE, Raw, messages, named, noise};
use crate::resume::{SILENCE, files};

fn functions() -> [i32; 2] {
    use reapi::digest_function::Value::{Blake3, Sha256};
    [Sha256, Blake3].map(i32::from)
}

fn sha256_digest(content: &[u8]) -> reapi::Digest {
    reapi::Digest {
        hash: ObjectId::of(content).digest.to_hex(),
        size_bytes: i64::try_from(content.len()).unwrap(),
    }
}

/// What `du` says that the objects take, in bytes.
fn du(instance: &Instance) -> u64 {
    let objects = instance.state().join("store/objects");
    let said = tool(&objects, "du", &["-s", "--block-size=1", "."]);
    said.split('\t').next().unwrap().parse().unwrap()
}

#[test]
fn a_blob_that_came_by_blake3_is_one_object_and_stays_over_restarts() {
    let mut instance = Instance::started();
    let client = Raw::connect(&instance);
    let content = [noise(11, 3_000_000), vec![1; 2_000_000]].concat();
    let object = ObjectId::of(&content);
    let before = files(instance.state());
    let plain = format!("uploads/u/blobs/{}", by_blake3(&content));
    let upload = messages(&plain, 0, &content, true);
    let committed = client.write(tokio_stream::iter(upload)).unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    let after = files(instance.state());
    assert_eq!(after.len(), before.len() + 1);
    assert!(belljar_cas::path_of(&instance.state().join("store"), object.digest).exists());
    let used = du(&instance);
    // The same bytes under the other name, and once more under this one, in each form.
    let packed = ::zstd::encode_all(&content[..], 3).unwrap();
    let zstd = format!("uploads/v/compressed-blobs/zstd/{}", by_blake3(&content));
    for (name, bytes) in [
        (named("uploads/v/blobs", object), &content),
        (zstd, &packed),
    ] {
        let upload = messages(&name, 0, bytes, true);
        client.write(tokio_stream::iter(upload)).unwrap();
    }
    assert_eq!(files(instance.state()), after);
    assert_eq!(du(&instance), used);
    for part in [Part::Store, Part::Belljard] {
        instance.kill_part(part);
        instance.start_part(part);
    }
    let client = Raw::connect(&instance);
    let blob = by_blake3(&content);
    assert_eq!(client.read(format!("blobs/{blob}"), 0).unwrap(), content);
    let rest = client.read(format!("blobs/{blob}"), 4_000_000).unwrap();
    assert_eq!(rest, &content[4_000_000..]);
    let packed = client.read(format!("compressed-blobs/zstd/{blob}"), 0);
    assert_eq!(::zstd::decode_all(&packed.unwrap()[..]).unwrap(), content);
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
}

#[test]
fn packed_content_and_batches_come_by_either_function() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    let content = noise(12, 300_000);
    let packed = ::zstd::encode_all(&content[..], 3).unwrap();
    let name = format!("uploads/u/compressed-blobs/zstd/{}", by_blake3(&content));
    let upload = messages(&name, 0, &packed, true);
    let committed = client.write(tokio_stream::iter(upload)).unwrap();
    assert_eq!(committed, 300_000);
    let contents: Vec<Vec<u8>> = (0..3000).map(|n| format!("b3 {n}").into_bytes()).collect();
    let [_, blake3] = functions();
    let digests: Vec<_> = contents.iter().map(|c| blake3_digest(c)).collect();
    let missing = || {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: digests.clone(),
            digest_function: blake3,
            ..Default::default()
        };
        let mut blobs = client.blobs.clone();
        let answer = client.runtime.block_on(blobs.find_missing_blobs(request));
        answer.unwrap().into_inner().missing_blob_digests.len()
    };
    assert_eq!(missing(), 3000);
    let requests = contents.iter().enumerate().map(|(n, content)| Blob {
        digest: Some(digests[n].clone()),
        data: match n % 2 {
            0 => content.clone(),
            _ => ::zstd::encode_all(&content[..], 1).unwrap(),
        },
        compressor: if n % 2 == 0 { 0 } else { Zstd.into() },
    });
    let request = reapi::BatchUpdateBlobsRequest {
        requests: requests.collect(),
        digest_function: blake3,
        ..Default::default()
    };
    let mut blobs = client.blobs.clone();
    let answer = client.runtime.block_on(blobs.batch_update_blobs(request));
    for (response, digest) in answer.unwrap().into_inner().responses.iter().zip(&digests) {
        assert_eq!(response.digest.as_ref(), Some(digest), "in the order asked");
        assert_eq!(response.status.as_ref().unwrap().code, 0);
    }
    assert_eq!(missing(), 0);
    let own: Vec<_> = contents.iter().map(|c| sha256_digest(c)).collect();
    for (function, digests) in functions().into_iter().zip([own, digests.clone()]) {
        let request = reapi::BatchReadBlobsRequest {
            digests,
            digest_function: function,
            ..Default::default()
        };
        let answer = client
            .runtime
            .block_on(client.blobs.clone().batch_read_blobs(request));
        let read = answer.unwrap().into_inner().responses;
        assert!(read.iter().map(|one| &one.data).eq(&contents));
    }
}

#[test]
fn an_upload_by_blake3_that_was_cut_goes_on_by_blake3_only() {
    let mut instance = Instance::started();
    let content = noise(13, 30 * PIECE + 5);
    let object = ObjectId::of(&content);
    let name = format!("uploads/u/blobs/{}", by_blake3(&content));
    let before = files(instance.state());
    let begun = messages(&name, 0, &content[..20 * PIECE], false);
    Raw::connect(&instance).write_and_break(begun, SILENCE);
    let at = 20 * PIECE;
    Raw::connect(&instance).until_committed(&name, i64::try_from(at).unwrap());
    assert_eq!(files(instance.state()), before, "half of it is nowhere");
    // It is not the same upload by the other function, nor by the same digits.
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = Raw::connect(&instance);
    let own = named("uploads/u/blobs", object);
    let digits = name.replace("blake3/", "");
    for other in [&own, &digits] {
        assert_eq!(client.status(other).committed_size, 0);
        let rest = messages(other, at, &content[at..], true);
        assert!(client.write(tokio_stream::iter(rest)).is_err());
    }
    client.until_committed(&name, i64::try_from(at).unwrap());
    let packed = ::zstd::encode_all(&content[at..], 3).unwrap();
    let zstd = format!("uploads/u/compressed-blobs/zstd/{}", by_blake3(&content));
    let rest = messages(&zstd, at, &packed, true);
    let committed = client.write(tokio_stream::iter(rest)).unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    let status = client.status(&name);
    assert_eq!((status.committed_size, status.complete), (committed, true));
    let blob = format!("blobs/{}", by_blake3(&content));
    assert_eq!(client.read(blob, 0).unwrap(), content);
}

#[test]
fn content_that_is_not_what_blake3_says_is_refused_and_leaves_nothing() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    let content = noise(14, 4 * PIECE);
    let before = files(instance.state());
    let mut damaged = content.clone();
    damaged[9] ^= 1;
    let plain = format!("uploads/u/blobs/{}", by_blake3(&content));
    let packed = format!("uploads/u/compressed-blobs/zstd/{}", by_blake3(&content));
    // The digits of SHA-256, said to be BLAKE3's.
    let own = ObjectId::of(&content).digest.to_hex();
    let crossed = format!("uploads/u/blobs/blake3/{own}/{}", content.len());
    let zstd = ::zstd::encode_all(&damaged[..], 1).unwrap();
    for (name, bytes) in [
        (&plain, &damaged[..]),
        (&plain, &content[1..]),
        (&packed, &zstd),
        (&packed, &content),
        (&crossed, &content),
    ] {
        let error = client.write(tokio_stream::iter(messages(name, 0, bytes, true)));
        let error = error.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error:?}");
        client.until_committed(name, 0);
    }
    let request = reapi::BatchUpdateBlobsRequest {
        requests: vec![Blob {
            digest: Some(blake3_digest(&content)),
            data: damaged,
            compressor: 0,
        }],
        digest_function: functions()[1],
        ..Default::default()
    };
    let mut blobs = client.blobs.clone();
    let answer = client.runtime.block_on(blobs.batch_update_blobs(request));
    let status = answer.unwrap().into_inner().responses[0].status.clone();
    assert_eq!(
        status.unwrap().code,
        i32::from(tonic::Code::InvalidArgument)
    );
    assert_eq!(files(instance.state()), before);
    let absent = client.read(format!("blobs/{}", by_blake3(&content)), 0);
    assert_eq!(absent.unwrap_err().code(), tonic::Code::NotFound);
}
