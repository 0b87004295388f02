use std::collections::BTreeSet;

use belljar_core::{ImageKind, Limits};

/// What the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    allowed_uids: BTreeSet<u32>,
    images: BTreeSet<ImageKind>,
    caps: Limits,
}

/// Why something is not a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No user id is allowed: every submission would be denied.
    #[error(
        "allowed_uids: the list is empty, so nobody could submit a build; name at least one user id"
    )]
    NobodyAllowed,
    /// No image is allowed: every submission would be denied.
    #[error("images: the list is empty, so no build could run; name at least one image")]
    NoImage,
}

impl Policy {
    /// A policy by which the listed user ids may build on the listed sorts of images within `caps`.
    ///
    /// # Errors
    /// When it would deny everything, which is a mistake of the configuration.
    pub fn new(
        allowed_uids: impl IntoIterator<Item = u32>,
        images: impl IntoIterator<Item = ImageKind>,
        caps: Limits,
    ) -> Result<Self, PolicyError> {
        let policy = Self {
            allowed_uids: allowed_uids.into_iter().collect(),
            images: images.into_iter().collect(),
            caps,
        };
        if policy.allowed_uids.is_empty() {
            return Err(PolicyError::NobodyAllowed);
        }
        if policy.images.is_empty() {
            return Err(PolicyError::NoImage);
        }
        Ok(policy)
    }

    /// Whether this user id may talk to the daemon at all.
    pub fn allows_uid(&self, uid: u32) -> bool {
        self.allowed_uids.contains(&uid)
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
