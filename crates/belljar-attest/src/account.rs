use belljar_core::{AttemptId, Digest, Invalid, ObjectId, Outcome, evidence};
use belljar_plan::{
    EnforcementReport, ImageRule, NamespaceReport, OutputKind, Receipt, RootFsRecord,
};

use crate::verdict::VerifiedTree;

/// A receipt, read for people: what the spawner saw of one attempt, in words. That it is genuine is shown by
/// its digest, which a verified bundle names.
#[derive(Clone, Debug)]
pub struct Account {
    digest: Digest,
    receipt: Receipt,
}

/// Facts that belong together, each a label and what is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// The facts, in order.
    pub facts: Vec<(String, String)>,
}

impl Account {
    /// Reads a receipt file.
    ///
    /// # Errors
    /// When it is not a receipt in its canonical form.
    pub fn read(bytes: &[u8]) -> Result<Self, Invalid> {
        Ok(Self {
            digest: Digest::of(bytes),
            receipt: Receipt::from_canonical(bytes)?,
        })
    }

    /// Digest of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The attempt that it is about.
    pub fn attempt(&self) -> &AttemptId {
        &self.receipt.attempt
    }

    /// How that ended.
    pub fn outcome(&self) -> &Outcome {
        &self.receipt.outcome
    }

    /// The digest of a regular file among the outputs: what provenance of this attempt must be about.
    pub fn artifact(&self) -> Option<Digest> {
        self.receipt.artifacts().first().copied()
    }

    /// Everything in words.
    pub fn sections(&self) -> Vec<Section> {
        let section = |title, facts| Section { title, facts };
        let mut sections = vec![
            section("inputs, as the store verified them", self.inputs()),
            section("what enforced it", self.enforcers()),
        ];
        sections.push(match &self.receipt.enforcement {
            Some(report) => section("layers, as read back from the kernel", layers(report)),
            None => section(
                "layers, as read back from the kernel",
                vec![fact("none", "the attempt ended before they were read back")],
            ),
        });
        sections.push(section(
            "forbidden things, tried from inside",
            self.probes(),
        ));
        // Known and said: neither the receipt nor the trail has a place for them yet.
        let unreported = "none reported: refused calls and paths are not recorded by this version";
        sections.push(section("denials", vec![fact("denials", unreported)]));
        sections.push(section("steps and what they used", self.use_of()));
        sections.push(section("outputs", self.outputs()));
        sections.push(section("teardown", self.teardown()));
        sections
    }

    fn inputs(&self) -> Vec<(String, String)> {
        let receipt = &self.receipt;
        let unchanged = match receipt.input.unchanged {
            Some(true) => "unchanged after the build",
            Some(false) => "CHANGED during the build",
            None => "not looked at afterwards: the attempt ended before",
        };
        let rootfs = match &receipt.rootfs {
            RootFsRecord::Tree { tree, derivation } => tree_in_words(*tree, *derivation),
            host @ RootFsRecord::Host { .. } => serde_json::to_string(host).unwrap_or_default(),
        };
        let rule = match receipt.image_rule {
            Some(ImageRule::Listed) => "listed in the spawner's configuration",
            Some(ImageRule::Any) => "the spawner's configuration admits any",
            None => "the spawner's version had no list and admitted any",
        };
        let mut facts = vec![
            fact("source tree", receipt.input.tree.digest),
            fact("", unchanged),
            fact("root file system", rootfs),
            fact("", rule),
        ];
        facts.extend(receipt.inputs.iter().map(|(name, input)| {
            let words = tree_in_words(input.tree, input.derivation);
            fact(format!("input {name}"), words)
        }));
        facts.push(fact("specification", receipt.spec));
        facts.push(fact("plan", receipt.plan));
        facts
    }

    fn enforcers(&self) -> Vec<(String, String)> {
        let binaries = &self.receipt.binaries;
        vec![
            fact(
                "belljar-spawner",
                format!("{} ({})", binaries.version, binaries.spawner),
            ),
            fact("its configuration", binaries.spawner_config),
            fact("kernel", &binaries.kernel),
            fact("boot id", &self.receipt.boot_id),
        ]
    }

    fn probes(&self) -> Vec<(String, String)> {
        let probes = self.receipt.self_probes.iter().map(|probe| {
            let said = match probe.refused {
                true => format!("refused (errno {})", probe.errno),
                false => "NOT REFUSED".to_owned(),
            };
            fact(&probe.name, said)
        });
        or_none(probes.collect(), "the attempt ended before")
    }

    fn use_of(&self) -> Vec<(String, String)> {
        let (receipt, usage) = (&self.receipt, &self.receipt.usage);
        let mut facts = Vec::new();
        for (step, number) in receipt.steps.iter().zip(1..) {
            let end = match (step.exit_code, step.signal) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "killed with the sandbox".to_owned(),
            };
            let time = seconds(step.wall_micros);
            facts.push(fact(
                format!("step {number}"),
                format!("{end} after {time}"),
            ));
        }
        facts.extend([
            fact("wall-clock time", seconds(usage.wall_micros)),
            fact("CPU time", seconds(usage.cpu_micros)),
            fact(
                "memory, at most",
                format!("{} bytes", usage.memory_peak_bytes),
            ),
            fact(
                "killed for memory",
                format!("{} processes", usage.oom_kills),
            ),
        ]);
        facts.push(match &receipt.log {
            Some(log) if log.truncated => fact("log, cut at its limit", log.object),
            Some(log) => fact("log", log.object),
            None => fact("log", "none was opened"),
        });
        facts.push(fact("outcome", &receipt.outcome));
        facts
    }

    fn outputs(&self) -> Vec<(String, String)> {
        let outputs = self.receipt.outputs.iter().map(|entry| match &entry.kind {
            OutputKind::File { object, .. } => fact(
                entry.path.as_str(),
                format!("{}, {} bytes", object.digest, object.size),
            ),
            OutputKind::Symlink { target } => {
                fact(entry.path.as_str(), format!("link to {target:?}"))
            }
            OutputKind::Directory => fact(entry.path.as_str(), "directory"),
        });
        let image = self.receipt.image_output.iter();
        let image = image.map(|image| {
            let layers = image.layers.len();
            let words = format!("{}, an image of {layers} layers", image.manifest.digest);
            fact(evidence::IMAGE, words)
        });
        or_none(outputs.chain(image).collect(), "nothing was collected")
    }

    fn teardown(&self) -> Vec<(String, String)> {
        let room = &self.receipt.clean_room;
        let found = |gone: bool| {
            if gone {
                "none is left"
            } else {
                "SOMETHING IS LEFT"
            }
        };
        vec![
            fact("processes", found(room.no_process)),
            fact("connections", found(room.no_connection)),
            fact("mounts", found(room.no_mount)),
            fact("files", found(room.no_file)),
            fact("begun", self.receipt.started),
            fact("everything gone", self.receipt.finished),
        ]
    }
}

fn layers(report: &EnforcementReport) -> Vec<(String, String)> {
    let mut facts = namespaces(report);
    let ids = |ids: &[u32; 4]| ids.map(|id| id.to_string()).join(" ");
    let capabilities: Vec<_> = report
        .capabilities
        .sets()
        .iter()
        .map(|(name, mask)| format!("{name} {mask}"))
        .collect();
    let groups: Vec<_> = report.groups.iter().map(u32::to_string).collect();
    let no_new_privs = if report.no_new_privs {
        "set"
    } else {
        "NOT SET"
    };
    let (seccomp, landlock, cgroup) = (&report.seccomp, &report.landlock, &report.cgroup);
    facts.extend([
        fact(
            "host ids",
            format!("user {}, group {}", ids(&report.uids), ids(&report.gids)),
        ),
        fact(
            "supplementary groups",
            if groups.is_empty() {
                "none".to_owned()
            } else {
                groups.join(" ")
            },
        ),
        fact("capabilities", capabilities.join(", ")),
        fact("no new privileges", no_new_privs),
        fact(
            "further user namespaces",
            format!("{} allowed", report.max_user_namespaces),
        ),
        fact(
            "seccomp",
            format!(
                "mode {}, {} filters, program {}",
                seccomp.mode, seccomp.filters, seccomp.program
            ),
        ),
        fact(
            "Landlock",
            format!("ABI {}, ruleset {}", landlock.abi, landlock.ruleset),
        ),
        fact(
            "limits in the cgroup",
            format!(
                "{} bytes of memory, {} processes, {} thousandths of a CPU",
                cgroup.memory_bytes, cgroup.pids, cgroup.cpu_millis
            ),
        ),
        fact("mounts", report.mounts.len()),
    ]);
    facts
}

/// Those that are as due, and those that are not.
fn namespaces(report: &EnforcementReport) -> Vec<(String, String)> {
    let own = |ns: &NamespaceReport| ns.owned_by_initial && ns.inode != ns.host_inode;
    let (good, bad): (Vec<_>, Vec<_>) = report.namespaces.iter().partition(|ns| own(ns));
    let names = |list: &[&NamespaceReport]| {
        let names: Vec<_> = list.iter().map(|ns| ns.kind.proc_name()).collect();
        names.join(", ")
    };
    let said = format!(
        "{}: own ones, owned by the initial user namespace",
        names(&good)
    );
    let mut facts = vec![fact("namespaces", said)];
    if !bad.is_empty() {
        facts.push(fact("", format!("NOT SO: {}", names(&bad))));
    }
    facts
}

fn tree_in_words(tree: ObjectId, derivation: Option<ObjectId>) -> String {
    let tree = VerifiedTree {
        tree: tree.digest,
        derivation: derivation.map(|record| record.digest),
    };
    tree.to_string()
}

fn fact(label: impl ToString, said: impl ToString) -> (String, String) {
    (label.to_string(), said.to_string())
}

fn or_none(facts: Vec<(String, String)>, why: &str) -> Vec<(String, String)> {
    match facts.is_empty() {
        true => vec![fact("none", why)],
        false => facts,
    }
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_receipt_is_told_in_words() {
        let bytes = fixture::receipt().canonical().unwrap();
        let account = Account::read(&bytes).unwrap();
        assert_eq!(account.digest(), Digest::of(&bytes));
        let sections = account.sections();
        let said = |title: &str, label: &str| {
            let section = sections.iter().find(|section| section.title == title);
            let fact = section.unwrap().facts.iter().find(|(l, _)| l == label);
            fact.unwrap_or_else(|| panic!("{label}")).1.clone()
        };
        let layers = "layers, as read back from the kernel";
        assert!(said(layers, "namespaces").contains("own ones"));
        assert_eq!(said(layers, "no new privileges"), "set");
        assert_eq!(said("teardown", "mounts"), "none is left");
        assert!(said("denials", "denials").contains("none reported"));
        let shouting: Vec<_> = sections
            .iter()
            .flat_map(|section| &section.facts)
            .filter(|(_, said)| said.contains("NOT ") || said.contains("CHANGED"))
            .collect();
        assert!(shouting.is_empty(), "{shouting:?}");
    }

    #[test]
    fn what_is_wrong_is_said_aloud() {
        let mut receipt = fixture::receipt();
        receipt.input.unchanged = Some(false);
        receipt.clean_room.no_mount = false;
        receipt.self_probes[0].refused = false;
        let report = receipt.enforcement.as_mut().unwrap();
        report.namespaces[0].owned_by_initial = false;
        report.no_new_privs = false;
        let account = Account::read(&receipt.canonical().unwrap()).unwrap();
        let all: Vec<_> = account
            .sections()
            .into_iter()
            .flat_map(|s| s.facts)
            .collect();
        for aloud in [
            "CHANGED",
            "SOMETHING IS LEFT",
            "NOT REFUSED",
            "NOT SO",
            "NOT SET",
        ] {
            assert!(all.iter().any(|(_, said)| said.contains(aloud)), "{aloud}");
        }
    }

    #[test]
    fn other_bytes_are_no_receipt() {
        assert!(Account::read(b"{}").is_err());
        let mut bytes = fixture::receipt().canonical().unwrap();
        bytes.push(b'\n');
        assert!(Account::read(&bytes).is_err());
    }
}
