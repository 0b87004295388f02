use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::program;

/// Names the cgroup floor by which every build must have been limited: `v2` or `hybrid`.
const FLOOR_VARIABLE: &str = "BELLJAR_TEST_FLOOR";

/// What came of one `belljar run`.
#[derive(Debug)]
pub struct Run {
    /// Its exit status.
    pub exit_code: i32,
    /// What it printed under `--json`: `belljar.run/v1` or `belljar.error/v1`.
    pub json: Value,
    /// What it said besides, on standard error.
    pub said: String,
    /// What is in `build.log`; empty if there is none.
    pub log: String,
    output: TempDir,
    state: PathBuf,
}

impl Run {
    /// Reads what a `belljar run` has left.
    pub(crate) fn new(ended: std::process::Output, output: TempDir, state: PathBuf) -> Self {
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let exit_code = ended.status.code();
        let exit_code = exit_code.unwrap_or_else(|| panic!("{}:\n{said}", ended.status));
        let json = serde_json::from_slice(&ended.stdout)
            .unwrap_or_else(|e| panic!("no JSON ({e}); exit status {exit_code}:\n{said}"));
        let log = fs::read(output.path().join("build.log")).unwrap_or_default();
        let run = Self {
            exit_code,
            json,
            said,
            log: String::from_utf8_lossy(&log).into_owned(),
            output,
            state,
        };
        run.check_floor();
        run
    }

    /// Where a floor is named, what limited a build is no assumption but what the spawner has read back.
    fn check_floor(&self) {
        let Ok(floor) = std::env::var(FLOOR_VARIABLE) else {
            return;
        };
        let ran = self.json["started"].is_string();
        if ran && matches!(self.exit_code, 0..=6) {
            let read_back = &self.receipt()["enforcement"]["cgroup"]["floor"];
            assert_eq!(*read_back, floor.as_str(), "{self}");
        }
    }

    /// The output directory.
    pub fn output(&self) -> &Path {
        self.output.path()
    }

    /// Content of a file in the output directory.
    pub fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.output().join(path)).unwrap_or_else(|e| panic!("{path}: {e}\n{self}"))
    }

    /// Whether there is something of that name in the output directory.
    pub fn has(&self, path: &str) -> bool {
        self.output().join(path).symlink_metadata().is_ok()
    }

    /// How it ended, such as `{"kind": "failed", "step": 0, "exit_code": 3}`.
    pub fn outcome(&self) -> &Value {
        &self.json["outcome"]
    }

    /// What was signed about an artifact.
    pub fn statement(&self, artifact: &str) -> Value {
        let bundle = self.file(&format!("{artifact}.sigstore.json"));
        let bundle: Value = serde_json::from_slice(&bundle).expect("a bundle is JSON");
        let payload = bundle["dsseEnvelope"]["payload"]
            .as_str()
            .expect("a payload");
        let payload = STANDARD.decode(payload).expect("base 64");
        serde_json::from_slice(&payload).expect("a statement is JSON")
    }

    /// Fails the test unless `belljar verify` finds the provenance of an artifact genuine.
    pub fn assert_verified(&self, artifact: &str) {
        let verified = Command::new(program("belljar"))
            .arg("verify")
            .arg(self.output().join(artifact))
            .arg("--key")
            .arg(self.output().join("builder.pub"))
            .output();
        let verified = verified.expect("belljar");
        assert!(verified.status.success(), "{verified:?}");
    }

    /// The last attempt, such as `01jd8q6z8r4x7j2m5t9v0w3y6b-1`.
    pub fn attempt(&self) -> String {
        let build = self.json["build"]
            .as_str()
            .and_then(|name| name.strip_prefix("builds/"));
        let build = build.unwrap_or_else(|| panic!("no build was accepted\n{self}"));
        format!("{build}-{}", self.json["attempt"])
    }

    /// The spawner's receipt of the last attempt, as it lies in the state directory.
    pub fn receipt(&self) -> Value {
        let path = self.state.join(format!("receipts/{}.json", self.attempt()));
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}\n{self}", path.display()));
        serde_json::from_slice(&bytes).expect("a receipt is JSON")
    }

    /// Fails the test unless the build succeeded.
    pub fn assert_succeeded(&self) {
        assert_eq!(self.exit_code, 0, "{self}");
        assert_eq!(self.outcome()["kind"], "succeeded", "{self}");
    }

    /// Fails the test unless the build ended with this exit status and this outcome, and left a record and a
    /// log but neither artifacts nor provenance.
    pub fn assert_ended(&self, exit_code: i32, outcome: Value) {
        assert_eq!(self.exit_code, exit_code, "{self}");
        assert_eq!(*self.outcome(), outcome, "{self}");
        self.assert_no_provenance();
    }

    /// Fails the test unless the build failed by this limit, with this figure, and says so in words.
    pub fn assert_limit_exceeded(&self, limit: &str, figure: u64) {
        self.assert_exceeded(limit, figure, None);
    }

    /// Fails the test unless the build failed by this limit of its outputs, with this figure, and names the output that
    /// was too much.
    pub fn assert_too_much_output(&self, limit: &str, figure: u64, output: &str) {
        self.assert_exceeded(limit, figure, Some(output));
    }

    fn assert_exceeded(&self, limit: &str, figure: u64, output: Option<&str>) {
        let used = self.outcome()["used"].as_u64().unwrap_or_default();
        let mut outcome = serde_json::json!({
            "kind": "limit_exceeded", "limit": limit, "figure": figure, "used": used,
        });
        if let Some(output) = output {
            outcome["output"] = output.into();
            assert!(
                self.said.contains(&format!(", with the output `{output}`")),
                "{self}"
            );
        }
        self.assert_ended(4, outcome);
        // The kernel counts memory in pages, and scratch space in those that are left.
        assert!(used + 65_536 >= figure, "{used} of {figure}\n{self}");
        let summary = self.json["summary"].as_str().unwrap_or_default();
        assert!(
            summary.starts_with("limit exceeded: the build used "),
            "{self}"
        );
    }

    /// Fails the test if there is more in the output directory than a record and a log, and the receipt with
    /// what was signed about it.
    pub fn assert_no_provenance(&self) {
        let mut names: Vec<_> = fs::read_dir(self.output())
            .expect("the output directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        // What was never begun has no receipt.
        let receipt = ["receipt.json", "receipt.json.sigstore.json"];
        if names.iter().any(|name| name == receipt[1]) {
            let kind = self.statement(receipt[0])["predicateType"].to_string();
            assert!(kind.ends_with("/predicates/receipt/v1\""), "{kind}\n{self}");
        }
        names.retain(|name| !receipt.contains(&name.as_str()));
        assert_eq!(names, ["audit.jsonl", "build.json", "build.log"], "{self}");
        assert_eq!(self.json["artifacts"], serde_json::json!([]), "{self}");
        assert_eq!(self.json["evidence"]["bundle"], Value::Null, "{self}");
        assert_eq!(self.json["verdict"], Value::Null, "{self}");
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit status {}\n{:#}\n--- standard error\n{}\n--- build.log\n{}",
            self.exit_code, self.json, self.said, self.log
        )
    }
}
