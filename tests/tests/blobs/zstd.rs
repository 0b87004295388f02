use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{ObjectId, bounds};
use belljar_tests::Instance;
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::compressor::Value::Zstd;

use crate::raw::{Raw, messages, named, noise};

/// Something like source code, and something like a picture.
fn samples() -> Vec<Vec<u8>> {
    let text: String = (0..60_000)
        .map(|n| format!("fn f{n}(x: u32) -> u32 {{ x + {} }}\n", n * 7 % 1000))
        .collect();
    vec![
        text.into_bytes(),
        noise(8, 3_000_000),
        vec![0; 5_000_000],
        b"x".to_vec(),
        [noise(9, 200_000), vec![1; 200_000], noise(9, 200_000)].concat(),
    ]
}

#[test]
fn the_reference_implementation_packs_what_is_taken_and_unpacks_what_is_given() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    for (at, content) in samples().into_iter().enumerate() {
        let object = ObjectId::of(&content);
        let level = [1, 3, 9, 19, 19][at];
        let packed = ::zstd::encode_all(&content[..], level).unwrap();
        let name = named("uploads/u/compressed-blobs/zstd", object);
        let upload = messages(&name, 0, &packed, true);
        let committed = client.write(tokio_stream::iter(upload)).unwrap();
        assert_eq!(committed, i64::try_from(content.len()).unwrap(), "{at}");
        assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
        let name = named("compressed-blobs/zstd", object);
        let packed = client.read(name.clone(), 0).unwrap();
        assert_eq!(::zstd::decode_all(&packed[..]).unwrap(), content, "{at}");
        let half = content.len() / 2;
        let packed = client.read(name, i64::try_from(half).unwrap()).unwrap();
        assert_eq!(::zstd::decode_all(&packed[..]).unwrap(), &content[half..]);
    }
}

#[test]
fn ten_thousand_small_blobs_in_batches_packed_and_plain_are_all_there_after_a_restart() {
    let mut instance = Instance::started();
    let client = Raw::connect(&instance);
    let contents: Vec<Vec<u8>> = (0..bounds::BATCH_BLOBS)
        .map(|n| format!("blob number {n}\n").repeat(3).into_bytes())
        .collect();
    let digest = |content: &Vec<u8>| {
        let object = ObjectId::of(content);
        reapi::Digest {
            hash: object.digest.to_hex(),
            size_bytes: i64::try_from(object.size).unwrap(),
        }
    };
    let requests = contents.iter().enumerate().map(|(n, content)| Blob {
        digest: Some(digest(content)),
        data: match n % 2 {
            0 => content.clone(),
            _ => ::zstd::encode_all(&content[..], 1).unwrap(),
        },
        compressor: if n % 2 == 0 { 0 } else { Zstd.into() },
    });
    let request = reapi::BatchUpdateBlobsRequest {
        requests: requests.collect(),
        ..Default::default()
    };
    let answer = client
        .runtime
        .block_on(client.blobs.clone().batch_update_blobs(request));
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.responses.len(), contents.len());
    for (content, response) in contents.iter().zip(&answer.responses) {
        assert_eq!(response.digest, Some(digest(content)), "in the order asked");
        assert_eq!(response.status.as_ref().unwrap().code, 0);
    }
    instance.kill_part(belljar_tests::Part::Store);
    instance.kill_part(belljar_tests::Part::Belljard);
    instance.start_part(belljar_tests::Part::Store);
    instance.start_part(belljar_tests::Part::Belljard);
    let client = Raw::connect(&instance);
    let request = reapi::BatchReadBlobsRequest {
        digests: contents.iter().map(digest).collect(),
        acceptable_compressors: vec![Zstd.into()],
        ..Default::default()
    };
    let answer = client
        .runtime
        .block_on(client.blobs.clone().batch_read_blobs(request));
    for (content, response) in contents.iter().zip(answer.unwrap().into_inner().responses) {
        let data = match response.compressor {
            0 => response.data,
            _ => ::zstd::decode_all(&response.data[..]).unwrap(),
        };
        assert_eq!(&data, content);
    }
}
