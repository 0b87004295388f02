use std::collections::BTreeSet;

use belljar_core::{ImageKind, Limits};

use crate::{Access, FetchRules, Grants, Identity};

/// What the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    access: Access,
    images: BTreeSet<ImageKind>,
    caps: Limits,
    fetches: Option<FetchRules>,
}

/// Why something is not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nobody may anything: every call would be denied.
    #[error("nobody may do anything; name at least one member of one project")]
    NobodyAllowed,
    /// No image is allowed: every submission would be denied.
    #[error("images: the list is empty, so no build could run; name at least one image")]
    NoImage,
}

impl Policy {
    /// A policy by which those whom `access` allows may build on the listed sorts of images within `caps`.
    ///
    /// # Errors
    /// When it would deny everything, which is a mistake of the configuration.
    pub fn new(
        access: Access,
        images: impl IntoIterator<Item = ImageKind>,
        caps: Limits,
    ) -> Result<Self, PolicyError> {
        let policy = Self {
            access,
            images: images.into_iter().collect(),
            caps,
            fetches: None,
        };
        if policy.access.is_empty() {
            return Err(PolicyError::NobodyAllowed);
        }
        if policy.images.is_empty() {
            return Err(PolicyError::NoImage);
        }
        Ok(policy)
    }

    /// The same, but that others may do something.
    ///
    /// # Errors
    /// When nobody may anything.
    pub fn with(&self, access: Access) -> Result<Self, PolicyError> {
        let policy = Self::new(access, self.images.iter().copied(), self.caps)?;
        Ok(policy.with_fetches(self.fetches.clone()))
    }

    /// The same, but that builds may have fetched what these rules allow; without any, nothing.
    #[must_use]
    pub fn with_fetches(self, fetches: Option<FetchRules>) -> Self {
        Self { fetches, ..self }
    }

    /// From where builds may have something fetched.
    pub fn fetches(&self) -> Option<&FetchRules> {
        self.fetches.as_ref()
    }

    /// What this principal may do, by project; without any, it is not to be served at all.
    pub fn grants(&self, identity: &Identity) -> Grants {
        self.access.grants(identity)
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether builds may use this sort of root file system.
    pub fn allows_image(&self, image: ImageKind) -> bool {
        self.images.contains(&image)
    }

    /// The most that a build may ask for.
    pub fn caps(&self) -> &Limits {
        &self.caps
    }
}
