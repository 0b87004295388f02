//! Health, reflection and capabilities stand behind the same gate as everything else.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_tests::{Client, wait_for};
use reapi::capabilities_client::CapabilitiesClient;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::site::Site;

type Call = (&'static str, fn(&Client) -> Result<(), Status>);

/// What somebody may ask who has any right at all, and who has none may not.
const CALLS: &[Call] = &[
    ("Health.Check", |client| {
        let mut health = HealthClient::new(client.channel());
        let request = HealthCheckRequest::default();
        client.wait(health.check(request)).map(drop)
    }),
    ("Health.Watch", |client| {
        let mut health = HealthClient::new(client.channel());
        let request = HealthCheckRequest::default();
        client.wait(health.watch(request)).map(drop)
    }),
    ("ServerReflection", |client| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        client.wait(async {
            let mut reflection = ServerReflectionClient::new(client.channel());
            let requests = tokio_stream::iter([request]);
            let answers = reflection.server_reflection_info(requests).await?;
            answers.into_inner().message().await.map(drop)
        })
    }),
    ("Capabilities", |client| {
        let mut capabilities = CapabilitiesClient::new(client.channel());
        let request = reapi::GetCapabilitiesRequest::default();
        client
            .wait(capabilities.get_capabilities(request))
            .map(drop)
    }),
];

#[test]
fn health_and_reflection_are_for_members_only() {
    let site = Site::new();
    let dir = site.dir.path();
    let stranger = site.client(&site.clients.subject(dir, "stranger"));
    // One that may see how things stand, and nothing of what is built.
    let ops = site.client(&site.clients.subject(dir, "ops"));
    for (name, call) in CALLS {
        let refused = call(&stranger).unwrap_err();
        assert_eq!(
            refused.code(),
            Code::PermissionDenied,
            "{name}: {refused:?}"
        );
        assert!(refused.message().contains("x509:CN=stranger"), "{name}");
        call(&ops).unwrap_or_else(|status| panic!("{name}: {status:?}"));
    }
    wait_for("health", std::time::Duration::from_secs(30), || {
        let mut health = HealthClient::new(ops.channel());
        let answer = ops.wait(health.check(HealthCheckRequest::default()));
        (answer.unwrap().into_inner().status() == ServingStatus::Serving).then_some(())
    });
    site.until_said("reason=\"STRANGER\"");
}
