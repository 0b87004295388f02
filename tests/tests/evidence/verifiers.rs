use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use belljar_tests::{Instance, Project, Run, program};
use serde_json::Value;

use crate::bundle::Bundle;

/// Names the Python that has the libraries.
const PYTHON: &str = "BELLJAR_TEST_PYTHON";

/// Files before the verifiers.
pub(crate) struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    pub(crate) fn new(artifact: &[u8], bundle: &[u8], key: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bundle_of = Bundle::parse(bundle);
        let files = [
            ("artifact", artifact),
            ("bundle", bundle),
            ("key", key),
            ("pae", &bundle_of.pae()),
            ("signature", &bundle_of.signature()),
        ];
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// openssl's exit status and words for the signature over the PAE.
    pub(crate) fn openssl(&self) -> (i32, String) {
        let mut command = Command::new("openssl");
        command
            .args(["dgst", "-sha256", "-verify"])
            .arg(self.path("key"));
        command
            .arg("-signature")
            .arg(self.path("signature"))
            .arg(self.path("pae"));
        said(&mut command)
    }

    /// Whether openssl finds the artifact's digest to be a subject's.
    pub(crate) fn is_subject(&self) -> bool {
        let mut command = Command::new("openssl");
        let (code, said) = said(
            command
                .args(["dgst", "-sha256", "-r"])
                .arg(self.path("artifact")),
        );
        assert_eq!(code, 0, "{said}");
        let digest = said.split(' ').next().unwrap().to_owned();
        let statement = Bundle::parse(&fs::read(self.path("bundle")).unwrap()).statement();
        let subjects = statement["subject"].as_array().unwrap();
        subjects
            .iter()
            .any(|subject| subject["digest"]["sha256"] == digest)
    }

    /// What securesystemslib and in-toto-attestation say, by exit status and word.
    pub(crate) fn python(&self) -> (i32, String) {
        let python = std::env::var_os(PYTHON).unwrap_or_else(|| {
            panic!(
                "{PYTHON} is not set: it has to name a Python with securesystemslib[crypto]==1.6.0 and \
                 in-toto-attestation==0.9.3; `cargo xtask test` provides one"
            )
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/verify.py");
        let mut command = Command::new(python);
        command.arg(script);
        said(command.args(["bundle", "key", "artifact"].map(|name| self.path(name))))
    }

    /// `belljar verify`: exit status, and what `--json` says.
    pub(crate) fn belljar(&self, more: &[&str]) -> (i32, Value) {
        let output = Command::new(program("belljar"))
            .arg("verify")
            .arg(self.path("artifact"))
            .arg("--bundle")
            .arg(self.path("bundle"))
            .arg("--key")
            .arg(self.path("key"))
            .arg("--json")
            .args(more)
            .output()
            .unwrap();
        let json = serde_json::from_slice(&output.stdout);
        (
            code(&output),
            json.unwrap_or_else(|e| panic!("{e}: {output:?}")),
        )
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn said(command: &mut Command) -> (i32, String) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{stderr}");
    }
    (code(&output), stdout)
}

pub(crate) fn build() -> (Instance, Run) {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script("head -c 4096 /dev/urandom > out"));
    run.assert_succeeded();
    (instance, run)
}

/// With one bit changed at `at`.
pub(crate) fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut other = bytes.to_vec();
    other[at] ^= 1;
    other
}

#[test]
fn a_bundle_is_accepted_by_openssl_securesystemslib_in_toto_and_belljar() {
    let (_instance, run) = build();
    let case = Case::new(
        &run.file("out"),
        &run.file("out.sigstore.json"),
        &run.file("builder.pub"),
    );
    assert_eq!(case.openssl(), (0, "Verified OK".to_owned()));
    assert!(case.is_subject());
    assert_eq!(case.python(), (0, "verified".to_owned()));
    let (code, report) = case.belljar(&[]);
    assert_eq!(
        (code, &report["verified"]),
        (0, &Value::Bool(true)),
        "{report}"
    );
    assert_eq!(
        report["verdict"], run.json["verdict"],
        "what `belljar run` said"
    );
    let builder = report["verdict"]["builder"].as_str().unwrap();
    assert_eq!(case.belljar(&["--builder", builder]).0, 0);
    let (code, report) = case.belljar(&["--builder", "urn:somebody:else"]);
    assert_eq!(code, 9, "{report}");
    // The envelope beside it is the same one.
    let line: Value = serde_json::from_slice(&run.file("out.intoto.jsonl")).unwrap();
    let bundle = Bundle::parse(&run.file("out.sigstore.json"));
    assert_eq!(line, bundle.0["dsseEnvelope"]);
    assert_eq!(
        bundle.0["mediaType"],
        "application/vnd.dev.sigstore.bundle.v0.3+json"
    );
}

#[test]
fn whatever_is_changed_is_refused_by_each_of_them() {
    let (_instance, run) = build();
    let (artifact, key) = (run.file("out"), run.file("builder.pub"));
    let bundle = Bundle::parse(&run.file("out.sigstore.json"));
    let (payload, signature) = (bundle.payload(), bundle.signature());
    // A hexadecimal digit in the subject's digest: the statement stays one, and is about something else.
    let text = String::from_utf8(payload.clone()).unwrap();
    let digest = text.find("\"sha256\":\"").unwrap() + "\"sha256\":\"".len();
    let last = signature.len() - 1;
    let changed = [
        ("payload", bundle.with_payload(&flipped(&payload, digest))),
        (
            "payload's end",
            bundle.with_payload(&[&payload[..], b" "].concat()),
        ),
        (
            "signature",
            bundle.with_signature(&flipped(&signature, last)),
        ),
    ];
    for (what, other) in changed {
        let case = Case::new(&artifact, &other.to_bytes(), &key);
        assert_eq!(
            case.openssl(),
            (1, "Verification failure".to_owned()),
            "{what}"
        );
        assert_eq!(case.python(), (1, "VerificationError".to_owned()), "{what}");
        let (code, report) = case.belljar(&[]);
        assert_eq!(code, 9, "{what}: {report}");
        assert_eq!(report["schema"], "belljar.error/v1", "{what}: {report}");
    }
    let case = Case::new(&flipped(&artifact, 2048), &bundle.to_bytes(), &key);
    assert_eq!(case.openssl().0, 0, "the signature is not at fault");
    assert!(!case.is_subject());
    assert_eq!(case.python(), (1, "NotASubject".to_owned()));
    assert_eq!(case.belljar(&[]).0, 9);

    let (_other_instance, other) = build();
    let case = Case::new(&artifact, &bundle.to_bytes(), &other.file("builder.pub"));
    assert_eq!(case.openssl(), (1, "Verification failure".to_owned()));
    assert_eq!(case.python(), (1, "VerificationError".to_owned()));
    assert_eq!(case.belljar(&[]).0, 9);
    // Another build's bundle, by its own key, does not vouch for this artifact.
    let case = Case::new(
        &artifact,
        &other.file("out.sigstore.json"),
        &other.file("builder.pub"),
    );
    assert_eq!(case.openssl().0, 0);
    assert!(!case.is_subject());
    assert_eq!(case.python(), (1, "NotASubject".to_owned()));
    assert_eq!(case.belljar(&[]).0, 9);
}

#[test]
fn a_receipt_is_verified_alone_and_with_the_provenance_that_names_it() {
    let (mut instance, run) = build();
    let receipt = Case::new(
        &run.file("receipt.json"),
        &run.file("receipt.json.sigstore.json"),
        &run.file("builder.pub"),
    );
    assert_eq!(receipt.openssl(), (0, "Verified OK".to_owned()));
    assert!(receipt.is_subject());
    assert_eq!(receipt.python(), (0, "verified".to_owned()));
    let (code, report) = receipt.belljar(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["verdict"], Value::Null);
    assert_eq!(report["receipt"]["outcome"]["kind"], "succeeded");
    assert_eq!(receipt.belljar(&["--builder", "urn:x:y"]).0, 2);

    let out = Case::new(
        &run.file("out"),
        &run.file("out.sigstore.json"),
        &run.file("builder.pub"),
    );
    let path = receipt.path("bundle");
    let (code, report) = out.belljar(&["--receipt-bundle", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["receipt"]["receipt"], report["verdict"]["receipt"]);

    // A failure has a signed receipt too; it goes with no provenance, nor does provenance stand in for it.
    let failed = instance.run(&Project::script("exit 3"));
    let other = Case::new(
        &failed.file("receipt.json"),
        &failed.file("receipt.json.sigstore.json"),
        &run.file("builder.pub"),
    );
    assert_eq!(other.python(), (0, "verified".to_owned()));
    let (code, report) = other.belljar(&[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["receipt"]["outcome"]["kind"], "failed");
    for bundle in [other.path("bundle"), out.path("bundle")] {
        let (code, report) = out.belljar(&["--receipt-bundle", bundle.to_str().unwrap()]);
        assert_eq!(code, 9, "{report}");
    }
}

#[test]
fn what_cannot_be_read_is_not_verified() {
    let (_instance, run) = build();
    let case = Case::new(
        &run.file("out"),
        &run.file("out.sigstore.json"),
        &run.file("builder.pub"),
    );
    assert_eq!(case.belljar(&[]).0, 0);
    let good = fs::read_to_string(case.path("bundle")).unwrap();
    for bad in [
        "",
        "{}",
        "null",
        &good[..good.len() / 2],
        &good.replacen('{', "{\"extra\":1,", 1),
    ] {
        fs::write(case.path("bundle"), bad).unwrap();
        assert_eq!(case.belljar(&[]).0, 9, "{bad:?}");
    }
    fs::write(case.path("bundle"), &good).unwrap();
    fs::write(
        case.path("key"),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    )
    .unwrap();
    assert_ne!(case.belljar(&[]).0, 0);
    fs::remove_file(case.path("artifact")).unwrap();
    assert_eq!(case.belljar(&[]).0, 12);
}

#[test]
fn each_declared_output_has_the_bundle_beside_it() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::of(
        &["mkdir dir; echo one > dir/one; echo two > dir/two; echo app > app"],
        &["dir", "app"],
        "",
    ));
    run.assert_succeeded();
    assert_eq!(run.file("app.sigstore.json"), run.file("dir.sigstore.json"));
    for artifact in ["app", "dir/one", "dir/two"] {
        let case = Case::new(
            &run.file(artifact),
            &run.file("dir.sigstore.json"),
            &run.file("builder.pub"),
        );
        assert_eq!(case.python(), (0, "verified".to_owned()), "{artifact}");
        assert_eq!(case.belljar(&[]).0, 0, "{artifact}");
    }
}

#[test]
fn the_key_is_the_signers_from_first_to_last() {
    let mut instance = Instance::started();
    let first = instance.run(&Project::script("echo 1 > out"));
    let public = instance.command("key public").output().unwrap();
    assert_eq!(public.stdout, first.file("builder.pub"));
    instance.end_part(belljar_tests::Part::Signer);
    instance.start_part(belljar_tests::Part::Signer);
    let second = instance.run(&Project::script("echo 2 > out"));
    second.assert_succeeded();
    assert_eq!(first.file("builder.pub"), second.file("builder.pub"));
    let key = instance.state().join("signer/key.pk8").metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (key.uid(), key.mode() & 0o7777),
        (belljar_tests::SIGNER_UID, 0o600)
    );
}
