use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::ObjectId;
use belljar_tests::{Instance, Project};
use reapi::batch_update_blobs_request::Request as Blob;

use crate::raw::Raw;

fn batch(client: &Raw, contents: impl Iterator<Item = String>) {
    let requests = contents.map(|content| {
        let object = ObjectId::of(content.as_bytes());
        Blob {
            digest: Some(reapi::Digest {
                hash: object.digest.to_hex(),
                size_bytes: i64::try_from(object.size).unwrap(),
            }),
            data: content.into_bytes(),
            compressor: 0,
        }
    });
    let request = reapi::BatchUpdateBlobsRequest {
        requests: requests.collect(),
        ..Default::default()
    };
    let mut blobs = client.blobs.clone();
    let answer = client.runtime.block_on(blobs.batch_update_blobs(request));
    for response in answer.unwrap().into_inner().responses {
        assert_eq!(response.status.unwrap().code, 0);
    }
}

/// What a project has is noted in a tree of pages. Where many of them change at once, SQLite would keep how they were in a
/// file of its own, and belljard may make none.
#[test]
fn a_project_that_has_many_objects_gets_more_of_them_all_over_the_index() {
    let mut instance = Instance::started();
    let client = Raw::connect(&instance);
    for part in 0..3 {
        batch(&client, (0..2_500).map(|n| format!("{part} {n}")));
    }
    let project = Project::of(
        &["mkdir out; for i in $(seq 300); do echo \"built $i\" > out/$i; done"],
        &["out"],
        "",
    );
    instance.run(&project).assert_succeeded();
}
