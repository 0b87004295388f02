use belljar_core::{Invalid, Limits};

use crate::numbers::{required, small, unsigned};
use crate::v1;

/// What a server is and can do: the parsed form of `belljar.v1.ServerInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Version of the daemon.
    pub version: String,
    /// Layers of the sandbox that depend on the host.
    pub layers: Vec<Layer>,
    /// Whether builds can run.
    pub can_build: bool,
    /// The signer's public key in PEM.
    pub public_key_pem: String,
    /// Its id.
    pub key_id: String,
    /// The `builder.id`s that provenance may carry.
    pub builder_ids: Vec<String>,
    /// What a build gets that asks for no limits.
    pub default_limits: Limits,
    /// The most that a build may ask for.
    pub maximum_limits: Limits,
    /// How many builds run at once.
    pub slots: u32,
}

/// One layer of the sandbox on the server's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// A short stable name.
    pub name: String,
    /// What was found.
    pub found: String,
    /// Whether it suffices.
    pub verdict: LayerVerdict,
    /// What to change; may be empty.
    pub hint: String,
}

/// Whether a layer suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerVerdict {
    /// As demanded.
    Enforced,
    /// Less than the default floor, as the operator's configuration allows by name.
    Lowered,
    /// Not as demanded: builds are refused.
    Missing,
}

impl From<&ServerInfo> for v1::ServerInfo {
    fn from(info: &ServerInfo) -> Self {
        Self {
            version: info.version.clone(),
            layers: info.layers.iter().map(Into::into).collect(),
            can_build: info.can_build,
            public_key_pem: info.public_key_pem.clone(),
            key_id: info.key_id.clone(),
            builder_ids: info.builder_ids.clone(),
            default_limits: Some((&info.default_limits).into()),
            maximum_limits: Some((&info.maximum_limits).into()),
            slots: small(info.slots),
        }
    }
}

impl TryFrom<v1::ServerInfo> for ServerInfo {
    type Error = Invalid;

    fn try_from(info: v1::ServerInfo) -> Result<Self, Invalid> {
        let limits = |field: &str, limits: Option<v1::Limits>| {
            required(field, limits)
                .and_then(|limits| Limits::try_from(limits).map_err(|e| e.within(field)))
        };
        let layers = (0_usize..).zip(info.layers).map(|(index, layer)| {
            Layer::try_from(layer).map_err(|e| e.within(format!("layers[{index}]")))
        });
        Ok(Self {
            version: info.version,
            layers: layers.collect::<Result<_, _>>()?,
            can_build: info.can_build,
            public_key_pem: info.public_key_pem,
            key_id: info.key_id,
            builder_ids: info.builder_ids,
            default_limits: limits("default_limits", info.default_limits)?,
            maximum_limits: limits("maximum_limits", info.maximum_limits)?,
            slots: unsigned("slots", info.slots.into())?,
        })
    }
}

impl From<&Layer> for v1::Layer {
    fn from(layer: &Layer) -> Self {
        use v1::layer::Verdict;
        let verdict = match layer.verdict {
            LayerVerdict::Enforced => Verdict::Enforced,
            LayerVerdict::Lowered => Verdict::Lowered,
            LayerVerdict::Missing => Verdict::Missing,
        };
        Self {
            name: layer.name.clone(),
            found: layer.found.clone(),
            verdict: verdict.into(),
            hint: layer.hint.clone(),
        }
    }
}

impl TryFrom<v1::Layer> for Layer {
    type Error = Invalid;

    fn try_from(layer: v1::Layer) -> Result<Self, Invalid> {
        use v1::layer::Verdict;
        let verdict = match Verdict::try_from(layer.verdict) {
            Ok(Verdict::Enforced) => LayerVerdict::Enforced,
            Ok(Verdict::Lowered) => LayerVerdict::Lowered,
            Ok(Verdict::Missing) => LayerVerdict::Missing,
            Ok(Verdict::Unspecified) | Err(_) => {
                return Err(Invalid::field(
                    "verdict",
                    format!("{} is not a known verdict", layer.verdict),
                ));
            }
        };
        Ok(Self {
            name: layer.name,
            found: layer.found,
            verdict,
            hint: layer.hint,
        })
    }
}
