//! Good and forged bundles before verifiers that nobody here wrote, and before `belljar verify`. [`ROWS`] is what
//! each of them says; SECURITY.md has the same table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_tests::Run;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::verifiers::{Case, build, flipped, said};

/// Names the folder with Node.js and the modules.
const NODE: &str = "BELLJAR_TEST_NODE";
/// Names the program, or says why there is none.
const COSIGN: &str = "BELLJAR_TEST_COSIGN";
/// What the variable begins with where there is none.
const ABSENT: &str = "absent: ";

/// What a verifier says of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Accepted,
    Refused,
    /// It accepts what it verifies, and that is not what was forged: it does not read that part.
    Unread,
}
use Says::{Accepted, Refused, Unread};

/// The verifiers, in the order of the columns.
const VERIFIERS: [&str; 5] = [
    "openssl",
    "securesystemslib 1.6.0",
    "@sigstore/verify 4.1.3",
    "cosign 3",
    "belljar verify",
];

/// A bundle and what is said of it.
struct Row {
    bundle: &'static str,
    says: [Says; VERIFIERS.len()],
    make: fn(&Two) -> Case,
}

/// Two builds of two instances, with a key each.
struct Two {
    own: Run,
    other: Run,
}

impl Two {
    fn bundle(&self) -> Bundle {
        Bundle::parse(&self.own.file("out.sigstore.json"))
    }

    fn receipt_bundle(&self) -> Bundle {
        Bundle::parse(&self.own.file("receipt.json.sigstore.json"))
    }

    /// A receipt and the first build's key, beside this bundle.
    fn receipt(&self, receipt: &[u8], bundle: &Bundle) -> Case {
        Case::new(receipt, &bundle.to_bytes(), &self.own.file("builder.pub"))
    }

    /// The first build's artifact and key, beside this bundle.
    fn with(&self, bundle: &Bundle) -> Case {
        Case::new(
            &self.own.file("out"),
            &bundle.to_bytes(),
            &self.own.file("builder.pub"),
        )
    }
}

const fn row(bundle: &'static str, says: [Says; 5], make: fn(&Two) -> Case) -> Row {
    Row { bundle, says, make }
}

const ALL_REFUSE: [Says; 5] = [Refused; 5];

const ROWS: &[Row] = &[
    row("as it was signed", [Accepted; 5], |two| {
        two.with(&two.bundle())
    }),
    row("a bit of the payload changed", ALL_REFUSE, |two| {
        let bundle = two.bundle();
        let text = String::from_utf8(bundle.payload()).unwrap();
        let at = text.find("\"sha256\":\"").unwrap() + "\"sha256\":\"".len();
        two.with(&bundle.with_payload(&flipped(text.as_bytes(), at)))
    }),
    row("a blank more in the payload", ALL_REFUSE, |two| {
        let bundle = two.bundle();
        two.with(&bundle.with_payload(&[&bundle.payload()[..], b" "].concat()))
    }),
    row("another type of payload", ALL_REFUSE, |two| {
        let mut bundle = two.bundle();
        bundle.0["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+jsonx".into();
        two.with(&bundle)
    }),
    row("a bit of the signature changed", ALL_REFUSE, |two| {
        let bundle = two.bundle();
        let signature = bundle.signature();
        two.with(&bundle.with_signature(&flipped(&signature, signature.len() - 1)))
    }),
    row("a bit of the artifact changed", ALL_REFUSE, |two| {
        let artifact = flipped(&two.own.file("out"), 2048);
        let bundle = two.bundle().to_bytes();
        Case::new(&artifact, &bundle, &two.own.file("builder.pub"))
    }),
    row("another builder's key", ALL_REFUSE, |two| {
        let bundle = two.bundle().to_bytes();
        Case::new(
            &two.own.file("out"),
            &bundle,
            &two.other.file("builder.pub"),
        )
    }),
    row("replayed for another artifact", ALL_REFUSE, |two| {
        let bundle = two.other.file("out.sigstore.json");
        Case::new(
            &two.own.file("out"),
            &bundle,
            &two.other.file("builder.pub"),
        )
    }),
    row(
        "signed by another builder, under this one's key id",
        ALL_REFUSE,
        |two| {
            let mut bundle = Bundle::parse(&two.other.file("out.sigstore.json"));
            let own = two.bundle();
            bundle.0["verificationMaterial"] = own.0["verificationMaterial"].clone();
            bundle.0["dsseEnvelope"]["signatures"][0]["keyid"] =
                own.0["dsseEnvelope"]["signatures"][0]["keyid"].clone();
            two.with(&bundle)
        },
    ),
    row(
        "a second signature, another builder's",
        [Unread, Unread, Refused, Refused, Refused],
        |two| {
            let (mut bundle, other) = (two.bundle(), two.other.file("out.sigstore.json"));
            let second = Bundle::parse(&other).0["dsseEnvelope"]["signatures"][0].clone();
            let signatures = bundle.0["dsseEnvelope"]["signatures"].as_array_mut();
            signatures.unwrap().push(second);
            two.with(&bundle)
        },
    ),
    row(
        "the key's SHA-256 as key id",
        [Unread, Refused, Refused, Refused, Refused],
        |two| {
            let pem = String::from_utf8(two.own.file("builder.pub")).unwrap();
            let lines = pem.lines().filter(|line| !line.starts_with("-----"));
            let der = STANDARD.decode(lines.collect::<String>()).unwrap();
            let id = belljar_core::Digest::of(&der).to_hex();
            let mut bundle = two.bundle();
            bundle.0["verificationMaterial"]["publicKey"]["hint"] = id.as_str().into();
            bundle.0["dsseEnvelope"]["signatures"][0]["keyid"] = id.into();
            two.with(&bundle)
        },
    ),
    row("a receipt's, as it was signed", [Accepted; 5], |two| {
        two.receipt(&two.own.file("receipt.json"), &two.receipt_bundle())
    }),
    row(
        "a receipt's, a bit of the payload changed",
        ALL_REFUSE,
        |two| {
            let bundle = two.receipt_bundle();
            let text = String::from_utf8(bundle.payload()).unwrap();
            let at = text.find("\"sha256\":\"").unwrap() + "\"sha256\":\"".len();
            let changed = bundle.with_payload(&flipped(text.as_bytes(), at));
            two.receipt(&two.own.file("receipt.json"), &changed)
        },
    ),
    row(
        "a receipt's, replayed for another receipt",
        ALL_REFUSE,
        |two| two.receipt(&two.other.file("receipt.json"), &two.receipt_bundle()),
    ),
];

fn of(accepted: bool) -> Says {
    if accepted { Accepted } else { Refused }
}

fn openssl(case: &Case) -> Says {
    let (code, words) = case.openssl();
    let due = [(0, "Verified OK"), (1, "Verification failure")];
    assert!(due.contains(&(code, words.as_str())), "{code}: {words}");
    of(code == 0 && case.is_subject())
}

fn securesystemslib(case: &Case) -> Says {
    let (code, words) = case.python();
    let due = [
        (0, "verified"),
        (1, "VerificationError"),
        (1, "NotASubject"),
    ];
    assert!(due.contains(&(code, words.as_str())), "{code}: {words}");
    of(code == 0)
}

fn sigstore_js(case: &Case) -> Says {
    let folder = variable(NODE, "a folder with Node.js 22 and @sigstore/verify 4.1.3");
    let folder = Path::new(&folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/verify.mjs");
    let mut command = Command::new(folder.join("node"));
    command.arg(script).arg(folder);
    let (code, words) =
        said(command.args(["bundle", "key", "artifact"].map(|name| case.path(name))));
    let refusals = ["VerificationError", "ValidationError", "NotASubject"];
    let due = (code, words.as_str()) == (0, "verified")
        || code == 1 && refusals.contains(&words.as_str());
    assert!(due, "{code}: {words}");
    of(code == 0)
}

fn cosign(case: &Case) -> Option<Says> {
    let program = cosign_program()?;
    let mut command = Command::new(program);
    // What the bundle says of itself, whether that is signed or not: the signature is what is asked about.
    let statement = Bundle::parse(&fs::read(case.path("bundle")).unwrap());
    let payload = serde_json::from_slice::<Value>(&statement.payload()).unwrap_or_default();
    let kind = payload["predicateType"].as_str().unwrap_or_default();
    let kind = match kind.ends_with("/predicates/receipt/v1") {
        true => kind,
        false => "slsaprovenance1",
    };
    command
        .args(["verify-blob-attestation", "--type", kind])
        .arg("--insecure-ignore-tlog=true")
        .arg("--bundle")
        .arg(case.path("bundle"))
        .arg("--key")
        .arg(case.path("key"))
        .arg(case.path("artifact"))
        .env("HOME", case.path(""));
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let due = words.contains("Verified OK") == output.status.success();
    assert!(due, "{output:?}");
    of(output.status.success()).into()
}

/// Where cosign is. It comes from a suite that moves: where there is none, or one of another major version, its
/// column is not checked, which is said.
fn cosign_program() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let told = variable(COSIGN, "cosign 3, or `absent: ` and the reason");
        if let Some(why) = told.strip_prefix(ABSENT) {
            eprintln!("cosign is not asked: {why}");
            return None;
        }
        let program = PathBuf::from(told);
        let version = fs::read_to_string(program.with_extension("version")).unwrap_or_default();
        if !version.starts_with("3.") {
            eprintln!("cosign is not asked: the suite has moved to {version:?}");
            return None;
        }
        Some(program)
    });
    found.as_deref()
}

fn variable(name: &str, what: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: it has to name {what}; `cargo xtask test` provides it")
    })
}

fn belljar(case: &Case) -> Says {
    let (code, report) = case.belljar(&[]);
    assert!([0, 9].contains(&code), "{report}");
    of(code == 0)
}

#[test]
fn each_verifier_says_of_each_bundle_what_the_table_has() {
    let ((_one, own), (_other_one, other)) = (build(), build());
    let two = Two { own, other };
    let mut wrong = Vec::new();
    for row in ROWS {
        let case = (row.make)(&two);
        let says = [
            Some(openssl(&case)),
            Some(securesystemslib(&case)),
            Some(sigstore_js(&case)),
            cosign(&case),
            Some(belljar(&case)),
        ];
        for ((verifier, due), says) in VERIFIERS.iter().zip(row.says).zip(says) {
            let due = if due == Unread { Accepted } else { due };
            if says.is_some_and(|says| says != due) {
                wrong.push(format!("{}: {verifier}: {says:?}", row.bundle));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// The table as SECURITY.md has it.
fn written() -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let head = line(&[&["bundle"], &VERIFIERS[..]].concat());
    let rule = format!("|{}\n", "---|".repeat(VERIFIERS.len() + 1));
    let rows = ROWS.iter().map(|row| {
        let words = row.says.map(|says| match says {
            Accepted => "accepted",
            Refused => "refused",
            Unread => "not read",
        });
        line(&[&[row.bundle], &words[..]].concat())
    });
    [head, rule].into_iter().chain(rows).collect()
}

#[test]
fn the_table_of_verifiers_is_security_mds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
    let security = fs::read_to_string(path).unwrap();
    assert!(
        security.contains(&written()),
        "SECURITY.md, \"Verifiers that nobody here wrote\", has to have this table:\n{}",
        written()
    );
}

#[test]
fn a_bundle_has_exactly_one_signature_and_one_form_of_key_id() {
    let (_instance, run) = build();
    let bundle = Bundle::parse(&run.file("out.sigstore.json")).0;
    let signatures = bundle["dsseEnvelope"]["signatures"].as_array().unwrap();
    let hint = &bundle["verificationMaterial"]["publicKey"]["hint"];
    assert_eq!(signatures.len(), 1);
    assert_eq!(signatures[0]["keyid"], *hint);
    let fingerprint = Value::as_str(hint)
        .unwrap()
        .strip_prefix("SHA256:")
        .unwrap();
    assert_eq!(fingerprint.len(), 43, "no padding");
}
