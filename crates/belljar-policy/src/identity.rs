use std::fmt;

/// Who asks, and how that was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A process of this machine, by the effective user id that the kernel noted when it connected.
    Unix {
        /// The user id.
        uid: u32,
    },
}

impl Identity {
    /// How the identity was established, as audit entries and provenance name it.
    pub fn authenticated_by(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "SO_PEERCRED",
        }
    }
}

/// The principal, in the one form that the queue, audit entries and provenance use: `unix:uid=0`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid } => write!(f, "unix:uid={uid}"),
        }
    }
}
