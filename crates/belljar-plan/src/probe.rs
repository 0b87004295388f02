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

impl HostReport {
    /// Whether builds can run.
    pub fn suffices(&self) -> bool {
        self.layers
            .iter()
            .all(|layer| layer.verdict != Verdict::Missing)
    }
}
