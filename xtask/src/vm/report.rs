//! What the virtual machine reports, and how it is told.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Everything that was tried in one machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// `belljar.test-vm/v1`.
    pub(super) schema: String,
    /// Kernel release (uname(2)).
    pub(super) kernel: String,
    /// What `systemctl --version` calls itself.
    pub(super) systemd: String,
    /// Controllers of the root of the v2 hierarchy.
    pub(super) controllers: String,
    /// From the start of the kernel to the first test.
    pub(super) boot_seconds: f64,
    /// From then to the last one.
    pub(super) seconds: f64,
    /// What was tried, in order.
    pub(super) cases: Vec<Case>,
}

/// One thing that was tried.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Case {
    /// `install`, `residue`, or the suite that the test belongs to.
    pub(super) area: String,
    /// The test's name, or what was done.
    pub(super) name: String,
    /// Whether it went as it must.
    pub(super) passed: bool,
    /// How long it took.
    pub(super) seconds: f64,
    /// Of a failure: what was said. Else what is worth telling, or nothing.
    pub(super) said: String,
}

impl Report {
    /// Whether everything passed; if not, what failed and what it said.
    pub(super) fn judge(&self) -> Result<()> {
        let failed: Vec<_> = self.cases.iter().filter(|case| !case.passed).collect();
        for case in &failed {
            eprintln!("\n--- {} {}\n{}", case.area, case.name, case.said);
        }
        ensure!(
            failed.is_empty() && !self.cases.is_empty(),
            "{} of {} cases failed",
            failed.len(),
            self.cases.len()
        );
        Ok(())
    }

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "Linux {}, {}, cgroup v2 ({}); booted in {:.0} s, tests {:.0} s\n",
            self.kernel, self.systemd, self.controllers, self.boot_seconds, self.seconds
        );
        let width = |of: fn(&Case) -> &str| self.cases.iter().map(|c| of(c).len()).max();
        let (areas, names) = (
            width(|c| &c.area).unwrap_or(0),
            width(|c| &c.name).unwrap_or(0),
        );
        for case in &self.cases {
            let verdict = if case.passed { "passed" } else { "FAILED" };
            text += &format!(
                "{:areas$}  {:names$}  {verdict}  {:6.1} s\n",
                case.area, case.name, case.seconds
            );
        }
        text
    }
}

/// How long the kernel runs, in seconds.
pub(super) fn uptime() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().context("/proc/uptime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_seen_and_is_an_error() {
        let case = |name: &str, passed| Case {
            area: "units".to_owned(),
            name: name.to_owned(),
            passed,
            seconds: 1.25,
            said: String::new(),
        };
        let report = Report {
            schema: String::new(),
            kernel: "6.12".to_owned(),
            systemd: "systemd 257".to_owned(),
            controllers: "cpu memory".to_owned(),
            boot_seconds: 10.0,
            seconds: 2.5,
            cases: vec![case("a", true), case("long", false)],
        };
        let error = report.judge().unwrap_err().to_string();
        assert_eq!(error, "1 of 2 cases failed");
        let table = report.table();
        assert!(table.contains("units  a     passed     1.2 s\n"), "{table}");
        assert!(table.contains("units  long  FAILED     1.2 s\n"), "{table}");
    }
}
