//! What the tests attest with: a key, and directories of receipts and evidence that belong to whoever runs
//! the tests, where in earnest the receipts are root's.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use belljar_attest::{BuilderConfig, Key};
use belljar_plan::Receipt;
use belljar_plan::signer::{Answer, Request};
use belljar_sys::process::effective_uid;

use crate::evidence::Evidence;
use crate::fixture;
use crate::receipts::Receipts;
use crate::seen::Seen;
use crate::service::Service;

pub(crate) struct Bench {
    directory: tempfile::TempDir,
    key: Vec<u8>,
}

impl Bench {
    /// Empty directories.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["receipts", "evidence"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(0o750)).unwrap();
        }
        Self {
            directory,
            key: Key::generate_pkcs8().unwrap(),
        }
    }

    /// With the receipt of a success.
    pub(crate) fn with_receipt() -> Self {
        let bench = Self::new();
        bench.put(&receipt());
        bench
    }

    pub(crate) fn put(&self, receipt: &Receipt) {
        self.put_bytes(&receipt.canonical().unwrap());
    }

    pub(crate) fn put_bytes(&self, bytes: &[u8]) {
        std::fs::write(self.receipt(), bytes).unwrap();
        std::fs::set_permissions(self.receipt(), Permissions::from_mode(0o640)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn receipt(&self) -> PathBuf {
        self.path(&format!("receipts/{}.json", fixture::attempt()))
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path(&format!("evidence/{}.sigstore.json", fixture::attempt()))
    }

    pub(crate) fn public_key(&self) -> String {
        self.key().public().to_pem()
    }

    pub(crate) fn key(&self) -> Key {
        Key::from_pkcs8(&self.key).unwrap()
    }

    /// A service as after a (re)start.
    pub(crate) fn service(&self) -> Service {
        self.service_for(effective_uid(), self.key())
    }

    pub(crate) fn service_for(&self, receipts_owner: u32, key: Key) -> Service {
        let receipts = Receipts::new(self.path("receipts"), receipts_owner);
        let evidence = Evidence::new(self.path("evidence"), effective_uid());
        let seen = Seen::open(&evidence).unwrap();
        Service::new(
            key,
            BuilderConfig::new("urn:belljar:embedded").unwrap(),
            (receipts, seen),
            evidence,
            Vec::new(),
        )
    }
}

/// The fixture's receipt as the first of a chain.
pub(crate) fn receipt() -> Receipt {
    Receipt {
        sequence: 1,
        previous: None,
        previous_attempt: None,
        ..fixture::receipt()
    }
}

/// The request that the fixture's receipt is about.
pub(crate) fn request() -> Request {
    Request::Attest {
        attempt: fixture::attempt(),
        spec: String::from_utf8(fixture::spec().canonical().unwrap()).unwrap(),
        asserted: fixture::asserted(),
    }
}

/// The reasons, and whether asking again may help; fails for any other answer.
pub(crate) fn reasons(answer: Answer) -> (bool, String) {
    match answer {
        Answer::Refused { retryable, reasons } => (retryable, reasons.join("; ")),
        other => panic!("not refused: {other:?}"),
    }
}
