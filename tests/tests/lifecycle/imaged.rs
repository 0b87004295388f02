use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use belljar_core::Digest;
use belljar_tests::{Instance, Project, Run, program};
use serde_json::{Value, json};

/// A build that leaves a directory with a program, to be the root of an image.
const ROOT: &str = "mkdir -p root/usr/bin root/etc root/var/empty root/proc
printf '#!/bin/sh\\necho hello\\n' > root/usr/bin/app
chmod 4755 root/usr/bin/app 2>/dev/null || chmod 755 root/usr/bin/app
chmod u-s root/usr/bin/app; echo 1 > root/etc/release; chmod 600 root/etc/release
ln -s app root/usr/bin/other; touch -d @7 root/etc/release
n=$(printf '%0200d' 0); mkdir -p root/long/$n; echo far > root/long/$n/$n
echo beside > beside";

fn image(lines: &str) -> String {
    format!("[output.oci]\n{lines}")
}

/// The manifest's digest, as `build.json` tells.
fn digest(run: &Run) -> String {
    let digest = run.json["image"]["manifest"]["digest"].as_str();
    digest.unwrap_or_else(|| panic!("{run}")).to_owned()
}

fn blob(run: &Run, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let content = run.file(&format!("image.oci/blobs/sha256/{hex}"));
    assert_eq!(Digest::of(&content).to_string(), digest);
    assert_eq!(content.len() as u64, descriptor["size"]);
    content
}

/// The manifest and the configuration, by the layout that came home.
fn documents(run: &Run) -> (Value, Value) {
    let index: Value = serde_json::from_slice(&run.file("image.oci/index.json")).unwrap();
    let parsed = |content: Vec<u8>| serde_json::from_slice::<Value>(&content).unwrap();
    let manifest = parsed(blob(run, &index["manifests"][0]));
    let config = parsed(blob(run, &manifest["config"]));
    (manifest, config)
}

/// What `belljar verify` says of a layout.
fn verified(layout: &Path, run: &Run) -> (i32, Value) {
    let output = Command::new(program("belljar"))
        .args(["verify", "--json", "--key"])
        .arg(run.output().join("builder.pub"))
        .arg("--bundle")
        .arg(run.output().join("image.oci.sigstore.json"))
        .arg(layout)
        .output()
        .unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), said)
}

#[test]
fn an_image_from_scratch_comes_home_attested_and_twice_the_same() {
    let mut instance = Instance::new();
    let lines = "base = \"scratch\"\nplatform = \"linux/arm64\"\nroot = \"root\"\nentrypoint = [\"/usr/bin/app\", \"-x\"]\n\
                 user = \"65532:65532\"\nworking_directory = \"/var/empty\"\nenv = { PATH = \"/usr/bin\" }\nlabels = { \"org.opencontainers.image.title\" = \"an app\" }";
    let project = Project::of(&[ROOT], &["root", "beside"], &image(lines));
    let run = instance.run(&project);
    run.assert_succeeded();
    let (manifest, config) = documents(&run);
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["created"], "1980-01-01T00:00:00Z");
    let due = json!({
        "Entrypoint": ["/usr/bin/app", "-x"],
        "Env": ["PATH=/usr/bin"],
        "Labels": {"org.opencontainers.image.title": "an app"},
        "User": "65532:65532",
        "WorkingDir": "/var/empty",
    });
    assert_eq!(config["config"], due);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    // What is not packed has one digest.
    assert_eq!(config["rootfs"]["diff_ids"], json!([layers[0]["digest"]]));

    // By a reader of archives that is not ours: owners, modes, times, and no more than that.
    let layer = blob(&run, &layers[0]);
    let mut archive = tar::Archive::new(&layer[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!(header.mtime().unwrap(), 315_532_800);
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mode = header.mode().unwrap();
        names.push((path, mode));
    }
    let mode = |name: &str| {
        names
            .iter()
            .find(|(path, _)| path == name)
            .map(|(_, mode)| *mode)
    };
    assert_eq!(mode("usr/bin/app"), Some(0o755), "{names:?}");
    assert_eq!(mode("etc/release"), Some(0o644));
    assert_eq!(mode("var/empty/"), Some(0o755));
    assert_eq!(mode("usr/bin/other"), Some(0o755));
    assert!(names.is_sorted_by_key(|(path, _)| path.trim_end_matches('/').to_owned()));
    let long = "0".repeat(200);
    assert_eq!(mode(&format!("long/{long}/{long}")), Some(0o644));
    assert!(
        !names.iter().any(|(path, _)| path.contains("beside")),
        "it is not in the root"
    );

    // The image is what provenance is about, by the digest that a registry would know it by.
    let statement = run.statement("image.oci");
    let subjects = statement["subject"].as_array().unwrap().iter();
    let subject = subjects
        .clone()
        .find(|subject| subject["name"] == "image.oci")
        .unwrap();
    assert_eq!(
        format!("sha256:{}", subject["digest"]["sha256"].as_str().unwrap()),
        digest(&run)
    );
    assert_eq!(subjects.count(), 5);
    run.assert_verified("image.oci");
    assert_eq!(
        run.file("image.oci.sigstore.json"),
        run.file("root.sigstore.json")
    );

    // Another build of the same, by other processes with other keys, at another time: the same image.
    let mut other = Instance::new();
    let again = other.run(&Project::of(&[ROOT], &["root", "beside"], &image(lines)));
    assert_eq!(digest(&again), digest(&run));
    assert_eq!(
        again.file("image.oci/index.json"),
        run.file("image.oci/index.json")
    );
    // And of other files, or with another time: another one.
    let epoch = format!("source_date_epoch = 1700000000\n{}", image(lines));
    let later = instance.run(&Project::of(&[ROOT], &["root", "beside"], &epoch));
    assert_ne!(digest(&later), digest(&run));
    let (_, config) = documents(&later);
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn without_a_root_outputs_stand_under_their_own_paths() {
    let mut instance = Instance::new();
    let script =
        "mkdir -p srv/app/data empty; echo x > srv/app/run; echo y > srv/app/data/y; echo z > z";
    let lines = image("base = \"scratch\"\ncommand = [\"/srv/app/run\"]");
    let run = instance.run(&Project::of(&[script], &["srv/app", "z"], &lines));
    run.assert_succeeded();
    let (manifest, config) = documents(&run);
    assert_eq!(config["config"], json!({"Cmd": ["/srv/app/run"]}));
    let layer = blob(&run, &manifest["layers"][0]);
    let mut archive = tar::Archive::new(&layer[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    // With what lies between.
    let due = [
        "srv/",
        "srv/app/",
        "srv/app/data/",
        "srv/app/data/y",
        "srv/app/run",
        "z",
    ];
    assert_eq!(names, due);
    // A run without an image leaves none of an earlier one.
    let project = Project::of(&[script], &["z"], "");
    let output = run.output().to_owned();
    let output = output.to_str().unwrap();
    let plain = instance.tell(
        "run",
        &[
            "--json",
            "--output",
            output,
            project.path().to_str().unwrap(),
        ],
    );
    let plain = plain.assert_code(0).json("belljar.run/v1");
    assert_eq!(plain["image"], Value::Null);
    assert!(!run.has("image.oci") && run.has("z"));
}

#[test]
fn verify_computes_the_image_again_and_sees_each_change() {
    let mut instance = Instance::new();
    let script = "mkdir -p root/bin; echo 1 > root/bin/one; echo 2 > root/two";
    let lines = image("base = \"scratch\"\nroot = \"root\"");
    let run = instance.run(&Project::of(&[script], &["root"], &lines));
    run.assert_succeeded();
    let other = instance.run(&Project::of(
        &[&script.replace("echo 2", "echo 3")],
        &["root"],
        &lines,
    ));
    let layout = run.output().join("image.oci");
    let (code, said) = verified(&layout, &run);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["verdict"]["artifact"], digest(&run));
    // Another image, as genuine as this one.
    let (code, said) = verified(&other.output().join("image.oci"), &run);
    assert_eq!(code, 9, "{said}");
    let copy = tempfile::tempdir().unwrap();
    let blobs: Vec<_> = fs::read_dir(layout.join("blobs/sha256")).unwrap().collect();
    assert_eq!(blobs.len(), 3);
    for blob in blobs {
        let name = blob.unwrap().file_name();
        let at = copy.path().join("image.oci/blobs/sha256").join(&name);
        for spoil in [
            |content: &mut Vec<u8>| *content.last_mut().unwrap() ^= 1,
            |content: &mut Vec<u8>| content.push(0),
            |content: &mut Vec<u8>| content.clear(),
        ] {
            let to = copy.path().join("image.oci");
            let copied = Command::new("cp").arg("-aT").arg(&layout).arg(to).status();
            assert!(copied.unwrap().success());
            let mut content = fs::read(&at).unwrap();
            spoil(&mut content);
            fs::write(&at, content).unwrap();
            let (code, said) = verified(&copy.path().join("image.oci"), &run);
            let why = said["error"].as_str().unwrap_or_default();
            let due = "the image is not what its provenance says";
            assert!(code == 9 && why.starts_with(due), "{name:?}: {said}");
        }
    }
    // What says another size than is due is not read at all: it would take a day.
    let (manifest, _) = documents(&run);
    let name = manifest["layers"][0]["digest"].as_str().unwrap();
    let name = name.replace("sha256:", "");
    let to = copy.path().join("image.oci");
    let copied = Command::new("cp").arg("-aT").arg(&layout).arg(&to).status();
    assert!(copied.unwrap().success());
    let sparse = fs::File::options()
        .write(true)
        .open(to.join("blobs/sha256").join(name));
    sparse.unwrap().set_len(1 << 42).unwrap();
    let (code, said) = verified(&to, &run);
    let why = said["error"].as_str().unwrap_or_default();
    assert!(
        code == 9 && why.contains("not what its name says"),
        "{said}"
    );
}

/// What a build leaves as `root`, and what the refusal has to say.
const REFUSED: [(&str, &str, &[&str]); 9] = [
    (
        "mkdir root; touch root/.wh.passwd",
        "root",
        &["`root/.wh.passwd`", "removes something of the base"],
    ),
    (
        "mkdir -p root/etc; touch root/etc/.wh..wh..opq",
        "root",
        &["`root/etc/.wh..wh..opq`"],
    ),
    (
        "mkdir -p root/.wh.x; touch root/.wh.x/y",
        "root",
        &["`root/.wh.x`"],
    ),
    // What no output may be is in no layer either.
    (
        "mkdir root; echo x > root/x; chmod 4755 root/x",
        "root",
        &["`root/x`", "set-user-id"],
    ),
    (
        "mkdir root; ln -s ../belljar.toml root/x",
        "root",
        &["`root/x`", "leaves"],
    ),
    (
        "mkdir root; ln -s /etc/shadow root/x",
        "root",
        &["`root/x`", "absolute"],
    ),
    (
        "mkdir root; mkfifo root/x",
        "root",
        &["`root/x`", "named pipe"],
    ),
    ("echo > root", "root", &["`root`", "is no directory"]),
    ("mkdir root; touch other", "root", &["`root`", "is empty"]),
];

#[test]
fn what_no_layer_can_have_is_refused_by_name() {
    let mut instance = Instance::new();
    for (script, root, due) in REFUSED {
        let lines = image(&format!("base = \"scratch\"\nroot = \"{root}\""));
        let script = format!("{script}; touch other");
        let run = instance.run(&Project::of(&[&script], &["root", "other"], &lines));
        assert_eq!(run.exit_code, 5, "{script}: {run}");
        assert_eq!(run.outcome()["kind"], "output_rejected");
        let why = run.outcome()["why"].as_str().unwrap();
        for words in due {
            assert!(why.contains(words), "{script}: {why}");
        }
        run.assert_no_provenance();
        assert!(!run.has("image.oci"));
        assert!(run.receipt().get("image_output").is_none());
    }
    // And an image leaves the outputs its own name.
    let lines = image("base = \"scratch\"");
    let run = instance.run(&Project::of(
        &["echo x > image.ocj"],
        &["image.oc?"],
        &lines,
    ));
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(run.said.contains("image.oci"), "{run}");
}

#[test]
fn outputs_of_all_sorts_are_as_many_in_the_layer_and_bounded() {
    let mut instance = Instance::new();
    // Sparse, and as many as the limit allows.
    let script = "mkdir root; cd root; truncate -s 3000000 sparse; for n in $(seq 997); do echo $n > $n; done";
    let more = format!(
        "{}\n[limits]\noutput_entries = 1000\noutput_bytes = 4000000",
        image("base = \"scratch\"\nroot = \"root\"")
    );
    let run = instance.run(&Project::of(&[script], &["root"], &more));
    run.assert_succeeded();
    run.assert_verified("image.oci");
    let (manifest, _) = documents(&run);
    let size = manifest["layers"][0]["size"].as_u64().unwrap();
    assert!(size > 3_000_000 + 997 * 1024 && size < 4_600_000, "{size}");
    let over = script.replace("997", "999");
    let run = instance.run(&Project::of(&[&over], &["root"], &more));
    run.assert_too_much_output("output_entries", 1000, "root/sparse");
}

/// Names that readers of archives might take for something else, and files that are one.
#[test]
fn names_and_links_that_are_meant_to_trick_readers_of_archives_are_what_they_are() {
    let mut instance = Instance::new();
    let long = "n".repeat(120);
    let names = [
        "././@PaxHeader".trim_start_matches("./").to_owned(),
        "GNUSparseFile.0".to_owned(),
        "a=b 30 path=..".to_owned(),
        "-C".to_owned(),
        "..x".to_owned(),
        "x\\..\\y".to_owned(),
        "x.wh.y".to_owned(),
        format!("{long} 20 linkpath=x"),
        format!("{long}ü"),
    ];
    let quoted = names.iter().map(|name| format!("echo x > './{name}'"));
    let quoted: Vec<String> = quoted.collect();
    let script = format!(
        "mkdir root; cd root; {}; echo one > one; ln one two",
        quoted.join("; ")
    );
    let lines = image("base = \"scratch\"\nroot = \"root\"");
    let run = instance.run(&Project::of(&[&script], &["root"], &lines));
    run.assert_succeeded();
    run.assert_verified("image.oci");
    let (manifest, _) = documents(&run);
    let layer = blob(&run, &manifest["layers"][0]);
    let mut archive = tar::Archive::new(&layer[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().entry_type(), tar::EntryType::Regular);
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        found.push((name, content));
    }
    let mut due: Vec<_> = names.map(|name| (name, "x\n".to_owned())).into();
    due.extend(["one", "two"].map(|name| (name.to_owned(), "one\n".to_owned())));
    due.sort();
    assert_eq!(found, due);
}

#[test]
fn few_outputs_far_down_make_no_layer_without_bounds() {
    let mut instance = Instance::new();
    let script = "d=d; for n in $(seq 6); do d=$d/$d; done; for n in $(seq 700); do mkdir -p $n/$d; : > $n/$d/x; done";
    let lines = image("base = \"scratch\"");
    let run = instance.run(&Project::of(&[script], &["**/x"], &lines));
    assert_eq!(run.exit_code, 5, "{run}");
    let why = run.outcome()["why"].as_str().unwrap();
    assert!(why.contains("more than 40000 entries"), "{why}");
    run.assert_no_provenance();
}

#[test]
fn dockerfiles_are_refused_by_name() {
    let mut instance = Instance::new();
    let oci = "base = \"scratch\"\n";
    let mut wrong = Vec::new();
    for (manifest, place) in [
        (
            "image = \"Dockerfile\"\nrun = [\":\"]\noutputs = [\"x\"]\n".to_owned(),
            ":1:9: image: ",
        ),
        (
            "image = \"host\"\nrun = [\":\"]\noutputs = [\"x\"]\ndockerfile = \"Dockerfile\"\n"
                .to_owned(),
            ":4:1: dockerfile: ",
        ),
        (
            format!(
                "image = \"host\"\nrun = [\":\"]\noutputs = [\"x\"]\n{}",
                image("base = \"docker/app.Dockerfile\"")
            ),
            ":5:8: output.oci.base: ",
        ),
        (
            format!(
                "image = \"host\"\nrun = [\":\"]\noutputs = [\"x\"]\n{}",
                image(&format!("{oci}dockerfile = \"x\""))
            ),
            ":6:1: output.oci.dockerfile: ",
        ),
        (
            format!(
                "image = \"host\"\nrun = [\":\"]\noutputs = [\"x\"]\n{}",
                image(&format!("{oci}context = \".\""))
            ),
            ":6:1: output.oci.context: ",
        ),
    ] {
        let run = instance.run(&Project::new(&manifest));
        let said = run.json["error"].as_str().unwrap_or_default().to_owned();
        let fine =
            run.exit_code == 2 && said.contains(place) && said.contains("Dockerfiles are not run");
        if !fine {
            wrong.push(format!("{manifest}\n{} {said}", run.exit_code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let dir = Project::bare();
    let file = dir.write("Containerfile", "FROM scratch\n");
    let told = instance.tell(
        "image import",
        &["--json", "--name", "x", file.to_str().unwrap()],
    );
    let said = told.assert_code(2).json("belljar.error/v1");
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("Dockerfiles are not run"),
        "{said}"
    );
}

/// Tools that nobody here wrote read the layout; `cargo xtask test` installs them.
#[test]
fn other_tools_take_the_layout_for_what_it_is() {
    let mut instance = Instance::new();
    let lines = image("base = \"scratch\"\nroot = \"root\"\nentrypoint = [\"/usr/bin/app\"]");
    let run = instance.run(&Project::of(&[ROOT], &["root"], &lines));
    run.assert_succeeded();
    let layout = run.output().join("image.oci");
    let told = |command: &mut Command| {
        let output = command
            .output()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let inspected = told(
        Command::new("skopeo")
            .arg("inspect")
            .arg(format!("oci:{}", layout.display())),
    );
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], digest(&run));
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 1);
    // Copied blob by blob, each looked at.
    let copied = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", copied.path().join("image").display());
    told(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--preserve-digests"])
            .arg(format!("oci:{}", layout.display()))
            .arg(to),
    );
    let unpacked = copied.path().join("bundle");
    told(
        Command::new("umoci")
            .arg("unpack")
            .arg("--image")
            .arg(format!("{}:latest", layout.display()))
            .arg(&unpacked),
    );
    let rootfs = unpacked.join("rootfs");
    assert_eq!(
        fs::read(rootfs.join("usr/bin/app")).unwrap(),
        run.file("root/usr/bin/app")
    );
    assert_eq!(
        fs::read_link(rootfs.join("usr/bin/other")).unwrap(),
        Path::new("app")
    );
    let long = "0".repeat(200);
    assert_eq!(
        fs::read(rootfs.join(format!("long/{long}/{long}"))).unwrap(),
        b"far\n"
    );
    let runs: Value =
        serde_json::from_slice(&fs::read(unpacked.join("config.json")).unwrap()).unwrap();
    assert_eq!(runs["process"]["args"], json!(["/usr/bin/app"]));
}
