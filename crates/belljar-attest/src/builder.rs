use belljar_core::{AttemptId, Invalid};
use belljar_plan::{CgroupFloor, EnforcementReport, RootFsRecord};

/// Who attests: the signer's own configuration, the third thing that a statement is a function of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuilderConfig {
    base: String,
}

/// How sandboxes of a builder are made. Ways that differ in what they protect from have different ids, so
/// that a consumer who expects one is never given the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every layer, and everything that the build can read in trees named by digest.
    Hermetic,
    /// Every layer, but with read-only paths of the host as the root file system: not hermetic.
    HostRootfs,
    /// The operator's configuration lowered the floor (limits in cgroup v1): for development.
    Dev,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Hermetic, Self::HostRootfs, Self::Dev];

    /// The mode that a sandbox ran in.
    pub(crate) fn of(rootfs: &RootFsRecord, enforcement: &EnforcementReport) -> Self {
        match (enforcement.cgroup.floor, rootfs) {
            (CgroupFloor::Hybrid, _) => Self::Dev,
            (CgroupFloor::V2, RootFsRecord::Host { .. }) => Self::HostRootfs,
            (CgroupFloor::V2, RootFsRecord::Tree { .. }) => Self::Hermetic,
        }
    }

    /// What follows the base in the builder's id.
    fn suffix(self) -> &'static str {
        match self {
            Self::Hermetic => "/builders/hermetic/v1",
            Self::HostRootfs => "/builders/host-rootfs/v1",
            Self::Dev => "/builders/dev/v1",
        }
    }

    /// Whether such a build may be said to be hermetic or not: that everything that it can read is named by
    /// digest does not depend on where its limits stand.
    pub(crate) fn fits(self, hermetic: bool) -> bool {
        match self {
            Self::Hermetic => hermetic,
            Self::HostRootfs => !hermetic,
            Self::Dev => true,
        }
    }

    /// The base and the mode in a builder's id; none for a mode that this version does not know.
    pub(crate) fn in_id(id: &str) -> Option<(&str, Self)> {
        Self::ALL
            .iter()
            .find_map(|mode| id.strip_suffix(mode.suffix()).map(|base| (base, *mode)))
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Hermetic => "all sandbox layers, root file system and inputs by digest",
            Self::HostRootfs => "all sandbox layers, root file system from the host",
            Self::Dev => {
                "DEVELOPMENT builder: the operator lowered the isolation floor (cgroup v1)"
            }
        }
    }
}

impl BuilderConfig {
    /// Longest base, in bytes.
    const BASE_BYTES: usize = 512;
    /// What follows the base in the build type's URI. The crate's documentation describes it.
    pub(crate) const BUILD_TYPE: &'static str = "/buildtypes/sandboxed-steps/v1";
    /// What follows it in the predicate type of receipts. `docs/predicates/` describes it.
    const RECEIPT_TYPE: &'static str = "/predicates/receipt/v1";

    /// A builder whose URIs all begin with `base`: an absolute URI of the operator's own, such as
    /// `https://builds.acme.example` or `urn:belljar:embedded`, without query, fragment or `/` at its end.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(base: &str) -> Result<Self, Invalid> {
        let (scheme, rest) = base.split_once(':').unwrap_or_default();
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.bytes().all(letters)
            || rest.is_empty()
        {
            return Err(Invalid::new(
                "not an absolute URI, such as `https://builds.acme.example`",
            ));
        }
        let allowed = |b: u8| {
            b.is_ascii_graphic()
                && !matches!(
                    b,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                )
        };
        if !rest.bytes().all(allowed) {
            return Err(Invalid::new(
                "contains a character that a URI cannot hold (RFC 3986)",
            ));
        }
        if rest.contains(['?', '#']) || base.ends_with('/') {
            return Err(Invalid::new(
                "must have no query, no fragment and no `/` at its end",
            ));
        }
        if base.len() > Self::BASE_BYTES {
            return Err(Invalid::new(format!(
                "more than {} bytes",
                Self::BASE_BYTES
            )));
        }
        Ok(Self {
            base: base.to_owned(),
        })
    }

    /// What all URIs begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `builder.id` of what was made in `mode`.
    pub fn id(&self, mode: Mode) -> String {
        format!("{}{}", self.base, mode.suffix())
    }

    /// `buildType`.
    pub fn build_type(&self) -> String {
        format!("{}{}", self.base, Self::BUILD_TYPE)
    }

    /// `predicateType` of statements about receipts.
    pub fn receipt_type(&self) -> String {
        format!("{}{}", self.base, Self::RECEIPT_TYPE)
    }

    /// The base in such a type; none in any other.
    pub(crate) fn of_receipt_type(predicate_type: &str) -> Option<&str> {
        predicate_type.strip_suffix(Self::RECEIPT_TYPE)
    }

    /// `invocationId`.
    pub(crate) fn invocation(&self, attempt: &AttemptId) -> String {
        format!(
            "{}/builds/{}/attempts/{}",
            self.base,
            attempt.build(),
            attempt.number()
        )
    }

    /// What the host's root file system is called.
    pub(crate) fn host_rootfs(&self) -> String {
        format!("{}/rootfs/host", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        for good in [
            "urn:belljar:embedded",
            "https://builds.acme.example",
            "https://acme.example/belljar",
        ] {
            assert!(BuilderConfig::new(good).is_ok(), "{good}");
        }
        let long = format!("urn:{}", "a".repeat(600));
        for bad in [
            "",
            "belljar",
            ":x",
            "urn:",
            "https://a/",
            "https://a?b",
            "https://a#b",
            "https://a b",
            "1a:b",
            "urn:ü",
            &long,
        ] {
            assert!(BuilderConfig::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_tells_its_mode() {
        let config = BuilderConfig::new("urn:belljar:embedded").unwrap();
        for mode in Mode::ALL {
            assert_eq!(
                Mode::in_id(&config.id(mode)),
                Some(("urn:belljar:embedded", mode))
            );
        }
        assert_eq!(
            Mode::in_id("urn:belljar:embedded/builders/hermetic/v2"),
            None
        );
    }
}
