use std::time::Duration;

use belljar_tests::{Client, Instance, Part, wait_for};
use prost::Message as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// Long enough for the daemon to notice on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

fn status(client: &Client, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client.wait(HealthClient::new(client.channel()).check(request));
    answer
        .map(|answer| answer.into_inner().status())
        .map_err(|status| status.code())
}

#[test]
fn health_tells_who_is_away() {
    const BUILDS: &str = "belljar.v1.BuildService";
    const BLOBS: &str = "build.bazel.remote.execution.v2.ContentAddressableStorage";
    let mut instance = Instance::started();
    let client = instance.client();
    let becomes = |service: &str, due: ServingStatus| {
        wait_for(&format!("{service:?} is {due:?}"), NOTICED, || {
            (status(&client, service) == Ok(due)).then_some(())
        });
    };
    becomes("", ServingStatus::Serving);
    for part in [Part::Spawner, Part::Store, Part::Signer] {
        instance.kill_part(part);
        becomes("", ServingStatus::NotServing);
        becomes(BUILDS, ServingStatus::NotServing);
        let blobs = match part {
            Part::Store => ServingStatus::NotServing,
            _ => ServingStatus::Serving,
        };
        becomes(BLOBS, blobs);
        becomes("google.bytestream.ByteStream", blobs);
        // What is on record can still be read.
        becomes("belljar.v1.EvidenceService", ServingStatus::Serving);
        instance.start_part(part);
        becomes("", ServingStatus::Serving);
        becomes(BLOBS, ServingStatus::Serving);
    }
    assert_eq!(status(&client, "no.such.Service"), Err(Code::NotFound));
}

fn reflect(client: &Client, request: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    client.wait(async {
        let mut reflection = ServerReflectionClient::new(client.channel());
        let answers = reflection
            .server_reflection_info(tokio_stream::iter([request]))
            .await;
        let answer = answers.unwrap().into_inner().message().await;
        answer.unwrap().unwrap()
    })
}

#[test]
fn the_api_describes_itself() {
    let instance = Instance::started();
    let client = instance.client();
    let answer = reflect(&client, MessageRequest::ListServices(String::new()));
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = listed.service.into_iter().map(|one| one.name).collect();
    for due in [
        "belljar.v1.BuildService",
        "belljar.v1.EvidenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&due.to_owned()), "{due} in {names:?}");
    }
    let symbol = "belljar.v1.BuildService.ListBuilds".to_owned();
    let answer = reflect(&client, MessageRequest::FileContainingSymbol(symbol));
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    assert_eq!(file.name(), "belljar/v1/build_service.proto");
}
