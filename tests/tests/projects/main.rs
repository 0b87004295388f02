//! Real projects, fetched at test time, built twice without a network on an image with a toolchain.
//!
//! One test for all, since the image is large: it is taken into the store once.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_tests::{Extent, Images, Instance, Project, Real, Run, program, tool};
use serde_json::Value;

/// A Belljar whose store has the toolchain.
struct Workshop {
    instance: Instance,
    dir: Project,
    image: Value,
}

impl Workshop {
    fn new() -> Self {
        let (mut instance, dir) = (Instance::started(), Project::bare());
        let make = instance.command("image build-debian");
        let layout = timed("the image is there", || Images::of_tests().toolchain(make));
        let told = timed("it is in the store", || {
            let lock = dir.path().join("belljar.lock");
            let arguments =
                [&layout, Path::new("--lock"), &lock].map(|path| path.to_str().unwrap());
            let options = ["--json", "--name", "toolchain"];
            instance.tell("image import", &[&arguments[..], &options].concat())
        });
        assert_eq!(told.code, 0, "{}", told.said);
        let image = serde_json::from_str(&told.printed).unwrap();
        Self {
            instance,
            dir,
            image,
        }
    }

    /// Builds it; the result is verified.
    fn build(&mut self, name: &str, real: &Real) -> Run {
        let lock = fs::read(self.dir.path().join("belljar.lock")).unwrap();
        real.project.write("belljar.lock", lock);
        let run = timed(&format!("{name}, built"), || {
            self.instance.run(&real.project)
        });
        run.assert_succeeded();
        for step in run.json["steps"].as_array().unwrap() {
            let seconds = step["wall_micros"].as_u64().unwrap() / 1_000_000;
            eprintln!("    {seconds:4} s  {}", step["run"]);
        }
        self.check_evidence(&run, real);
        run
    }

    /// Builds it twice, for the same result. Gives the first.
    fn build_twice(&mut self, name: &str, real: &Real) -> Run {
        let [run, again] = [(); 2].map(|()| self.build(name, real));
        assert_eq!(
            run.json["artifacts"], again.json["artifacts"],
            "{name}: built twice, and not the same"
        );
        run
    }

    /// Hermetic, without a network, on that image, signed by the right key.
    fn check_evidence(&self, run: &Run, real: &Real) {
        for output in &real.outputs {
            let artifact = match run.output().join(output).is_dir() {
                true => continue,
                false => output,
            };
            run.assert_verified(artifact);
            assert_openssl_agrees(run, artifact);
        }
        assert_eq!(run.json["verdict"]["hermetic"], true, "{run}");
        assert_eq!(run.json["spec"]["network"], "none", "{run}");
        assert_eq!(run.receipt()["rootfs"]["tree"], self.image["tree"], "{run}");
        let built_by = run.json["verdict"]["builder"].as_str().unwrap();
        assert!(!built_by.ends_with("/host-rootfs/v1"), "{run}");
    }
}

/// How many packages are named in what was signed about an artifact.
fn packages(run: &Run, artifact: &str) -> usize {
    let statement = run.statement(artifact);
    let all = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let uris = all.as_array().unwrap().iter();
    let uris = uris.filter_map(|one| one["uri"].as_str());
    uris.filter(|uri| uri.starts_with("pkg:")).count()
}

/// The signature over the envelope (DSSE's PAE), checked without any code of Belljar's.
fn assert_openssl_agrees(run: &Run, artifact: &str) {
    let bundle: Value =
        serde_json::from_slice(&run.file(&format!("{artifact}.sigstore.json"))).unwrap();
    let envelope = &bundle["dsseEnvelope"];
    let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let payload = decoded(&envelope["payload"]);
    let kind = envelope["payloadType"].as_str().unwrap();
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    let dir = tempfile::tempdir().unwrap();
    let pae = [head.as_bytes(), &payload].concat();
    fs::write(dir.path().join("pae"), pae).unwrap();
    let signature = decoded(&envelope["signatures"][0]["sig"]);
    fs::write(dir.path().join("signature"), signature).unwrap();
    fs::write(dir.path().join("key"), run.file("builder.pub")).unwrap();
    let arguments = "dgst -sha256 -verify key -signature signature pae";
    let arguments: Vec<_> = arguments.split(' ').collect();
    assert_eq!(
        tool(dir.path(), "openssl", &arguments),
        "Verified OK\n",
        "{run}"
    );
    let digest = tool(run.output(), "sha256sum", &[artifact]);
    let digest = digest.split(' ').next().unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    let mut subjects = statement["subject"].as_array().unwrap().iter();
    assert!(
        subjects.any(|subject| subject["digest"]["sha256"] == digest),
        "{statement:#}"
    );
}

/// Says how long something took: nobody wants to guess where the minutes of this suite went.
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = run();
    let time: Duration = start.elapsed();
    eprintln!("{:6.1} s  {what}", time.as_secs_f64());
    done
}

#[test]
fn real_projects_are_built_twice_the_same_without_a_network() {
    let mut workshop = Workshop::new();
    c_library(&mut workshop);
    cargo_workspace(&mut workshop);
    npm_project(&mut workshop);
    belljar_itself(&mut workshop);
}

fn c_library(workshop: &mut Workshop) {
    let run = workshop.build_twice("libffi", &Real::c_library());
    assert!(run.has("installed/usr/lib/libffi.a"), "{run}");
    let said = tool(run.output(), "./caller", &[]);
    assert_eq!(said, "a bell jar: 10\n");
}

fn cargo_workspace(workshop: &mut Workshop) {
    let run = workshop.build_twice("a workspace of Cargo's", &Real::cargo_workspace());
    let locked = packages(&run, "target/debug/runiq");
    assert!(locked >= 100, "{locked} packages are named");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "jar\nno\njar\n").unwrap();
    let program = |name: &str| run.output().join("target/debug").join(name);
    let said = |name: &str, arguments: &[&str]| {
        tool(dir.path(), program(name).to_str().unwrap(), arguments)
    };
    assert_eq!(said("runiq", &["a.txt"]), "jar\nno\n");
    let dump = said("hexyl", &["--plain", "--color=never", "a.txt"]);
    assert!(dump.contains("6a 61 72 0a 6e 6f 0a 6a"), "{dump}");
}

fn npm_project(workshop: &mut Workshop) {
    let run = workshop.build_twice("a project of npm's", &Real::npm_project());
    let locked = packages(&run, "bundle/main.js");
    assert!(locked >= 100, "{locked} packages are named");
    let due = "200 {\"hello\":\"jar\"}\n";
    assert_eq!(run.file("said.txt"), due.as_bytes());
    assert_eq!(tool(run.output(), "node", &["bundle/main.js"]), due);
}

/// Once, since it takes the longest. The privileged process as Belljar built it takes a build through, beside the others as cargo built them.
fn belljar_itself(workshop: &mut Workshop) {
    let run = workshop.build("Belljar itself", &Real::belljar(Extent::Spawner));
    let spawner = "target/debug/belljar-spawner";
    assert!(packages(&run, spawner) >= 100, "{run}");
    // All programs are looked for in one directory, which belongs to root.
    let dir = tempfile::Builder::new()
        .prefix("belljar-test-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .unwrap();
    let place = |name: &str, from: PathBuf| fs::copy(from, dir.path().join(name)).unwrap();
    for name in ["belljar", "belljard", "belljar-store", "belljar-signer"] {
        place(name, program(name));
    }
    place("belljar-spawner", run.output().join(spawner));
    let project = Project::script("echo built by what was built > out");
    let out = tempfile::tempdir().unwrap();
    let ended = Command::new(dir.path().join("belljar"))
        .arg("run")
        .arg(project.path())
        .arg("--output")
        .arg(out.path())
        .arg("--state")
        .arg(dir.path().join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let left = fs::read_to_string(out.path().join("out")).unwrap();
    assert_eq!(left, "built by what was built\n");
    let receipt: Value =
        serde_json::from_slice(&fs::read(out.path().join("receipt.json")).unwrap()).unwrap();
    let digest = tool(dir.path(), "sha256sum", &["belljar-spawner"]);
    let digest = digest.split(' ').next().unwrap();
    assert!(receipt.to_string().contains(digest), "{receipt:#}");
}
