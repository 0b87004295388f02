//! What an artifact's evidence must withstand: our verifier, a stranger's, and two forgeries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::shell;

/// An artifact, the bundle beside it, and the builder's public key.
pub(super) struct Evidence {
    artifact: PathBuf,
    bundle: PathBuf,
    key: PathBuf,
}

/// The parts of a bundle that a signature is about.
struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Evidence {
    /// The evidence beside an artifact in a build's output folder.
    pub(super) fn of(out: &Path, name: &str) -> Result<Self> {
        let evidence = Self {
            artifact: out.join(name),
            bundle: out.join(format!("{name}.sigstore.json")),
            key: out.join("builder.pub"),
        };
        let lines = out.join(format!("{name}.intoto.jsonl"));
        for file in [&evidence.artifact, &evidence.bundle, &evidence.key, &lines] {
            ensure!(file.is_file(), "the build did not leave {}", file.display());
        }
        Ok(evidence)
    }

    /// Our own verifier accepts it.
    pub(super) fn verify(&self, belljar: &Path) -> Result<()> {
        let said = shell::read(&mut self.verifier(belljar, &self.artifact, &self.bundle))?;
        said.lines().for_each(|line| println!("   {line}"));
        Ok(())
    }

    fn verifier(&self, belljar: &Path, artifact: &Path, bundle: &Path) -> Command {
        let mut command = Command::new(belljar);
        command
            .arg("verify")
            .arg(artifact)
            .arg("--bundle")
            .arg(bundle)
            .arg("--key")
            .arg(&self.key);
        command
    }

    /// openssl accepts the signature over the statement, and the statement names the artifact's digest
    /// as openssl computes it.
    pub(super) fn verify_with_openssl(&self, folder: &Path) -> Result<()> {
        let envelope = envelope(&self.read_bundle()?)?;
        let (pae, signature) = (folder.join("pae.bin"), folder.join("sig.der"));
        std::fs::write(&pae, pre_authentication(&envelope)).context("writing pae.bin")?;
        std::fs::write(&signature, &envelope.signature).context("writing sig.der")?;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["dgst", "-sha256", "-verify"])
            .arg(&self.key)
            .arg("-signature")
            .arg(&signature)
            .arg(&pae);
        let said = shell::read(&mut openssl)?;
        println!("   {}: {}", shell::shown(&openssl), said.trim_end());
        ensure!(
            said.trim_end() == "Verified OK",
            "openssl does not accept the signature"
        );

        let hashed = shell::read(
            Command::new("openssl")
                .args(["dgst", "-sha256", "-r"])
                .arg(&self.artifact),
        )?;
        let digest = hashed
            .split_whitespace()
            .next()
            .context("openssl printed no digest")?;
        let statement: Value =
            serde_json::from_slice(&envelope.payload).context("the statement")?;
        ensure!(
            names_subject(&statement, digest),
            "the statement does not name the artifact's digest {digest}"
        );
        println!("   the statement's subject is the artifact: sha256 {digest}");
        Ok(())
    }

    /// A copy that differs in one byte is refused.
    pub(super) fn refuse_changed_artifact(&self, belljar: &Path, folder: &Path) -> Result<()> {
        let mut bytes = std::fs::read(&self.artifact).context("reading the artifact")?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("the artifact is empty")? ^= 1;
        // Under its own name, so that nothing but the content can be the cause.
        let copy = copy_beside(folder, "changed-artifact", &self.artifact, &bytes)?;
        println!("   byte {middle} of {} flipped", bytes.len());
        refuse(&mut self.verifier(belljar, &copy, &self.bundle))
    }

    /// A statement that differs in one byte is refused, though it is well-formed base64 and JSON as before.
    pub(super) fn refuse_changed_statement(&self, belljar: &Path, folder: &Path) -> Result<()> {
        let mut bundle = self.read_bundle()?;
        let mut payload = envelope(&bundle)?.payload;
        let position = digit_to_change(&payload).context("the statement holds no digest")?;
        payload[position] = if payload[position] == b'0' {
            b'1'
        } else {
            b'0'
        };
        bundle["dsseEnvelope"]["payload"] = Value::String(STANDARD.encode(&payload));
        let text = serde_json::to_vec(&bundle).context("writing the forged bundle")?;
        let forged = copy_beside(folder, "changed-statement", &self.bundle, &text)?;
        println!("   byte {position} of the statement changed");
        refuse(&mut self.verifier(belljar, &self.artifact, &forged))
    }

    fn read_bundle(&self) -> Result<Value> {
        let text =
            std::fs::read(&self.bundle).with_context(|| self.bundle.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| self.bundle.display().to_string())
    }
}

fn copy_beside(folder: &Path, name: &str, original: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let folder = folder.join(name);
    std::fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let copy = folder.join(original.file_name().context("a file has a name")?);
    std::fs::write(&copy, bytes).with_context(|| format!("writing {}", copy.display()))?;
    Ok(copy)
}

/// The verifier must say no, in words, and by its exit code; a crash or a wrong call is no refusal.
fn refuse(verifier: &mut Command) -> Result<()> {
    let output = shell::output(verifier)?;
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said)
        .lines()
        .for_each(|line| println!("   {line}"));
    match output.status.code() {
        Some(0) => bail!("the verifier accepted a forgery"),
        // 2 is a wrong command line, as with most programs; 101 is a panic.
        None | Some(2 | 101) => bail!("the verifier did not judge: {}", output.status),
        Some(code) => {
            println!("   refused, exit code {code}");
            Ok(())
        }
    }
}

/// The one signature of a Sigstore bundle's DSSE envelope and what it is about.
fn envelope(bundle: &Value) -> Result<Envelope> {
    let envelope = &bundle["dsseEnvelope"];
    let text = |value: &Value, name: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("the bundle has no {name}"))
    };
    let bytes = |value: &Value, name: &str| {
        STANDARD
            .decode(text(value, name)?)
            .with_context(|| format!("the bundle's {name} is not base64"))
    };
    let signatures = envelope["signatures"].as_array().map_or(0, Vec::len);
    ensure!(
        signatures == 1,
        "a bundle has one signature, this one has {signatures}"
    );
    Ok(Envelope {
        payload_type: text(&envelope["payloadType"], "payloadType")?,
        payload: bytes(&envelope["payload"], "payload")?,
        signature: bytes(&envelope["signatures"][0]["sig"], "signature")?,
    })
}

/// DSSE's pre-authentication encoding: what is signed.
fn pre_authentication(envelope: &Envelope) -> Vec<u8> {
    let (kind, payload) = (&envelope.payload_type, &envelope.payload);
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn names_subject(statement: &Value, digest: &str) -> bool {
    let subjects = statement["subject"].as_array().into_iter().flatten();
    subjects
        .into_iter()
        .any(|subject| subject["digest"]["sha256"] == digest)
}

/// The first digit of a digest: changing it leaves the statement well-formed.
fn digit_to_change(payload: &[u8]) -> Option<usize> {
    let start = payload
        .windows(8)
        .position(|bytes| bytes == b"\"sha256\"")?
        + 8;
    let rest = payload.get(start..)?;
    Some(start + rest.iter().position(u8::is_ascii_hexdigit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Value {
        let payload = STANDARD.encode(r#"{"subject":[{"name":"app","digest":{"sha256":"ab12"}}]}"#);
        serde_json::json!({ "dsseEnvelope": {
            "payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{ "sig": "AAEC" }],
        }})
    }

    #[test]
    fn the_encoding_is_the_one_that_dsse_documents() {
        let example = Envelope {
            payload_type: "http://example.com/HelloWorld".to_owned(),
            payload: b"hello world".to_vec(),
            signature: vec![],
        };
        assert_eq!(
            pre_authentication(&example),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_bundle_is_taken_apart() {
        let envelope = envelope(&bundle()).unwrap();
        assert_eq!(envelope.signature, [0, 1, 2]);
        let statement = serde_json::from_slice(&envelope.payload).unwrap();
        assert!(names_subject(&statement, "ab12"));
        assert!(!names_subject(&statement, "ab13"));
        let digit = digit_to_change(&envelope.payload).unwrap();
        assert_eq!(envelope.payload[digit..digit + 4], *b"ab12");
    }

    #[test]
    fn a_bundle_that_is_not_one_is_refused() {
        let mut two = bundle();
        two["dsseEnvelope"]["signatures"] =
            serde_json::json!([{ "sig": "AA==" }, { "sig": "AA==" }]);
        let mut garbled = bundle();
        garbled["dsseEnvelope"]["payload"] = "%".into();
        for bad in [two, garbled, Value::Null] {
            assert!(envelope(&bad).is_err());
        }
    }

    #[test]
    fn only_a_judgement_is_a_refusal() {
        let exits = |code: u8| refuse(Command::new("sh").arg("-c").arg(format!("exit {code}")));
        assert!(exits(0).is_err());
        assert!(exits(2).is_err());
        assert!(exits(101).is_err());
        assert!(exits(3).is_ok());
        assert!(refuse(Command::new("sh").args(["-c", "kill -9 $$"])).is_err());
    }

    /// An output folder with evidence that openssl itself signed.
    fn signed_by_openssl(folder: &Path) -> Evidence {
        let openssl = |args: &[&str]| {
            shell::read(Command::new("openssl").current_dir(folder).args(args)).unwrap()
        };
        std::fs::write(folder.join("app"), "artifact").unwrap();
        let digest = openssl(&["dgst", "-sha256", "-r", "app"])
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        let payload =
            format!(r#"{{"subject":[{{"name":"app","digest":{{"sha256":"{digest}"}}}}]}}"#);
        let mut envelope = Envelope {
            payload_type: "application/vnd.in-toto+json".to_owned(),
            payload: payload.into_bytes(),
            signature: vec![],
        };
        std::fs::write(folder.join("pae"), pre_authentication(&envelope)).unwrap();
        openssl(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            "key",
        ]);
        openssl(&["pkey", "-in", "key", "-pubout", "-out", "builder.pub"]);
        openssl(&["dgst", "-sha256", "-sign", "key", "-out", "sig", "pae"]);
        envelope.signature = std::fs::read(folder.join("sig")).unwrap();
        let bundle = serde_json::json!({ "dsseEnvelope": {
            "payloadType": envelope.payload_type,
            "payload": STANDARD.encode(&envelope.payload),
            "signatures": [{ "sig": STANDARD.encode(&envelope.signature) }],
        }});
        std::fs::write(folder.join("app.sigstore.json"), bundle.to_string()).unwrap();
        std::fs::write(folder.join("app.intoto.jsonl"), "").unwrap();
        Evidence::of(folder, "app").unwrap()
    }

    #[test]
    fn openssl_judges_signature_and_subject() {
        let folder = tempfile::tempdir().unwrap();
        let evidence = signed_by_openssl(folder.path());
        evidence.verify_with_openssl(folder.path()).unwrap();

        std::fs::write(&evidence.artifact, "another").unwrap();
        let error = evidence
            .verify_with_openssl(folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("does not name the artifact's digest"),
            "{error}"
        );

        let mut bundle = evidence.read_bundle().unwrap();
        bundle["dsseEnvelope"]["payload"] = STANDARD.encode("{}").into();
        std::fs::write(&evidence.bundle, bundle.to_string()).unwrap();
        assert!(evidence.verify_with_openssl(folder.path()).is_err());
    }

    #[test]
    fn evidence_that_is_not_all_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        drop(signed_by_openssl(folder.path()));
        for file in [
            "app",
            "app.sigstore.json",
            "app.intoto.jsonl",
            "builder.pub",
        ] {
            let kept = std::fs::read(folder.path().join(file)).unwrap();
            std::fs::remove_file(folder.path().join(file)).unwrap();
            assert!(
                Evidence::of(folder.path(), "app")
                    .err()
                    .unwrap()
                    .to_string()
                    .contains(file)
            );
            std::fs::write(folder.path().join(file), kept).unwrap();
        }
    }
}
