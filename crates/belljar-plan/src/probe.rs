use serde::{Deserialize, Serialize};

/// What a host offers, layer by layer: the answer to `Probe`, and what `belljar doctor` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Every layer of the sandbox that depends on the host, in the order of the containment list.
    pub layers: Vec<LayerReport>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// A short stable name, such as `landlock`.
    pub name: String,
    /// What was found: a version or a setting.
    pub found: String,
    /// Whether it suffices.
    pub verdict: Verdict,
    /// What to change when it does not, or what a lowered floor means; may be empty.
    pub hint: String,
}

/// What one of Belljar's own processes has done to itself, one step of SECURITY.md's list. It does not run
/// without all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfinedStep {
    /// Name of the step.
    pub name: String,
    /// What came of it, in a few words.
    pub found: String,
}

/// Whether a layer suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As demanded.
    Enforced,
    /// Less than the default floor, and the operator's configuration names that: another `builder.id`.
    Lowered,
    /// Not as demanded: builds are refused.
    Missing,
}

impl LayerReport {
    /// What the process of that name tells of itself; nothing, if it does not answer.
    pub fn of_process(name: &str, steps: Option<&[ConfinedStep]>) -> Self {
        let words = |step: &ConfinedStep| format!("{}: {}", step.name, step.found);
        let (verdict, found, hint) = match steps {
            None => (
                Verdict::Missing,
                "it does not answer".to_owned(),
                format!(
                    "it must run; `systemctl status {name}`, or its log, says what keeps it from that"
                ),
            ),
            Some([]) => (
                Verdict::Missing,
                "it does not tell".to_owned(),
                "it must confine itself; its log says what keeps it from that".to_owned(),
            ),
            Some(steps) => {
                let found = steps.iter().map(words).collect::<Vec<_>>().join("; ");
                (Verdict::Enforced, found, String::new())
            }
        };
        Self {
            name: format!("process {name}"),
            found,
            verdict,
            hint,
        }
    }
}

impl HostReport {
    /// Whether builds can run.
    pub fn suffices(&self) -> bool {
        self.layers
            .iter()
            .all(|layer| layer.verdict != Verdict::Missing)
    }
}
