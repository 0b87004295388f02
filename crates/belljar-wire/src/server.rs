use belljar_core::{Invalid, Limits, ProjectId};

use crate::numbers::{required, signed, small, unsigned};
use crate::{parse_project_name, project_name, v1};

/// What a server is and can do: the parsed form of `belljar.v1.ServerInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Version of the daemon.
    pub version: String,
    /// Layers of the sandbox that depend on the host.
    pub layers: Vec<Layer>,
    /// Whether builds are accepted. While a process is a layer that is missing, they wait.
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
    /// The caller's name.
    pub principal: String,
    /// The caller's projects.
    pub memberships: Vec<Membership>,
    /// How the door fares; only for who may administer.
    pub door: Option<Door>,
}

/// A project and what the caller may do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The project.
    pub project: ProjectId,
    /// Names of rights.
    pub rights: Vec<String>,
}

/// The door to remote callers, and who was turned away since the daemon's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Where it listens, if it does.
    pub address: Option<String>,
    /// SHA-256 of the server's certificate, in hexadecimal.
    pub certificate_sha256: Option<String>,
    /// Why the certificate files that lie there now are not in use.
    pub reload_error: Option<String>,
    /// How often somebody was turned away.
    pub refusals: Vec<Refusals>,
}

/// How often somebody was turned away for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// A short stable word.
    pub reason: String,
    /// How often.
    pub count: u64,
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
            principal: info.principal.clone(),
            memberships: info.memberships.iter().map(Into::into).collect(),
            door: info.door.as_ref().map(Into::into),
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
        let memberships = (0_usize..)
            .zip(info.memberships)
            .map(|(index, membership)| {
                Membership::try_from(membership)
                    .map_err(|e| e.within(format!("memberships[{index}]")))
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
            principal: info.principal,
            memberships: memberships.collect::<Result<_, _>>()?,
            door: info.door.map(Door::try_from).transpose()?,
        })
    }
}

impl From<&Membership> for v1::Membership {
    fn from(membership: &Membership) -> Self {
        Self {
            project: project_name(&membership.project),
            rights: membership.rights.clone(),
        }
    }
}

impl TryFrom<v1::Membership> for Membership {
    type Error = Invalid;

    fn try_from(membership: v1::Membership) -> Result<Self, Invalid> {
        Ok(Self {
            project: parse_project_name(&membership.project)?,
            rights: membership.rights,
        })
    }
}

impl From<&Door> for v1::Door {
    fn from(door: &Door) -> Self {
        let refusals = door.refusals.iter().map(|refusals| v1::door::Refusals {
            reason: refusals.reason.clone(),
            count: signed(refusals.count),
        });
        Self {
            address: door.address.clone().unwrap_or_default(),
            certificate_sha256: door.certificate_sha256.clone().unwrap_or_default(),
            reload_error: door.reload_error.clone().unwrap_or_default(),
            refusals: refusals.collect(),
        }
    }
}

impl TryFrom<v1::Door> for Door {
    type Error = Invalid;

    fn try_from(door: v1::Door) -> Result<Self, Invalid> {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let refusals = door.refusals.into_iter().map(|refusals| {
            Ok(Refusals {
                reason: refusals.reason,
                count: unsigned("door.refusals.count", refusals.count)?,
            })
        });
        Ok(Self {
            address: text(door.address),
            certificate_sha256: text(door.certificate_sha256),
            reload_error: text(door.reload_error),
            refusals: refusals.collect::<Result<_, Invalid>>()?,
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
