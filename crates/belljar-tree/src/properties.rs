//! What a node has beside its content: REAPI's `NodeProperties`.

use belljar_core::{Invalid, bounds};

use crate::message;

/// What a node has beside its content, at least one thing. Its time and mode are what a build sees; what is named
/// means nothing to a file system, and is only kept. The default has nothing, and is refused wherever it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProperties {
    mtime: Option<Mtime>,
    mode: Option<u16>,
    named: Vec<NodeProperty>,
}

/// A property that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeProperty {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// When a node was modified (`google.protobuf.Timestamp`): from the year 1 to 9999, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    seconds: i64,
    nanos: u32,
}

/// What has the properties.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    File { executable: bool },
    Directory,
    Symlink,
}

/// The least and the most seconds since 1970 that a `google.protobuf.Timestamp` may have.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const PERMISSIONS: u16 = 0o777;
const EXECUTE: u16 = 0o111;
/// A symbolic link's permissions, which nobody looks at and nobody can change.
const OF_SYMLINK: u16 = 0o777;

impl Mtime {
    /// A time, in seconds since 1970 and nanoseconds after them.
    ///
    /// # Errors
    /// When it is before the year 1 or after 9999, or there is a second of nanoseconds.
    pub fn new(seconds: i64, nanos: u32) -> Result<Self, Invalid> {
        if !SECONDS.contains(&seconds) {
            let why = format!("{seconds} is not between the years 1 and 9999");
            return Err(Invalid::field("seconds", why));
        }
        if nanos > 999_999_999 {
            return Err(beyond_a_second(nanos));
        }
        Ok(Self { seconds, nanos })
    }

    /// Seconds since 1970, negative before.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after these.
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}

impl NodeProperties {
    /// The same with this time.
    #[must_use]
    pub fn with_mtime(self, mtime: Mtime) -> Self {
        let mtime = Some(mtime);
        Self { mtime, ..self }
    }

    /// The same with these permission bits.
    ///
    /// # Errors
    /// When there are other bits.
    pub fn with_mode(self, mode: u32) -> Result<Self, Invalid> {
        let mode = Some(permissions(mode).map_err(|e| e.within("unix_mode"))?);
        Ok(Self { mode, ..self })
    }

    /// The same with these properties, given in any order.
    ///
    /// # Errors
    /// When a name occurs twice, or they are more than [`bounds::NODE_PROPERTIES`] or longer than
    /// [`bounds::NODE_PROPERTIES_BYTES`].
    pub fn with_named(self, mut named: Vec<NodeProperty>) -> Result<Self, Invalid> {
        named.sort_unstable();
        check_named(&named).map_err(|e| e.within("properties"))?;
        Ok(Self { named, ..self })
    }

    /// When the node was modified.
    pub fn mtime(&self) -> Option<Mtime> {
        self.mtime
    }

    /// Its permission bits, none beyond 0777.
    pub fn mode(&self) -> Option<u16> {
        self.mode
    }

    /// What is named, sorted by name.
    pub fn named(&self) -> &[NodeProperty] {
        &self.named
    }

    /// How many things it has.
    pub fn len(&self) -> usize {
        usize::from(self.mtime.is_some()) + usize::from(self.mode.is_some()) + self.named.len()
    }

    /// Whether it has nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes of memory, in bytes.
    pub fn weight(&self) -> usize {
        let named = self.named.iter();
        let texts = named.map(|one| size_of::<NodeProperty>() + one.name.len() + one.value.len());
        size_of::<Self>() + texts.sum::<usize>()
    }

    fn from_message(message: message::NodeProperties) -> Result<Self, Invalid> {
        let named = message.properties.into_iter();
        let named: Vec<_> = named
            .map(|message::NodeProperty { name, value }| NodeProperty { name, value })
            .collect();
        check_named(&named).map_err(|e| e.within("properties"))?;
        let mtime = message.mtime.map(|time| {
            let nanos = u32::try_from(time.nanos).map_err(|_| beyond_a_second(time.nanos))?;
            Mtime::new(time.seconds, nanos)
        });
        let mode = message.unix_mode.map(|mode| permissions(mode.value));
        Ok(Self {
            mtime: mtime.transpose().map_err(|e| e.within("mtime"))?,
            mode: mode.transpose().map_err(|e| e.within("unix_mode"))?,
            named,
        })
    }

    fn to_message(&self) -> message::NodeProperties {
        let named = self.named.iter().map(|one| message::NodeProperty {
            name: one.name.clone(),
            value: one.value.clone(),
        });
        message::NodeProperties {
            properties: named.collect(),
            mtime: self.mtime.map(|time| message::Timestamp {
                seconds: time.seconds,
                // Every constructor has seen that it fits.
                nanos: i32::try_from(time.nanos).unwrap_or(0),
            }),
            unix_mode: self.mode.map(|mode| message::UInt32Value {
                value: u32::from(mode),
            }),
        }
    }

    fn check(&self, of: Of) -> Result<(), Invalid> {
        if self.is_empty() {
            return Err(Invalid::new("is empty; leave it out"));
        }
        let Some(mode) = self.mode else {
            return Ok(());
        };
        let refused = |why: String| Err(Invalid::field("unix_mode", why));
        match of {
            Of::File { executable } if executable != (mode & EXECUTE != 0) => {
                let (is, has) = if executable {
                    ("is executable", "nobody")
                } else {
                    ("is not executable", "somebody")
                };
                refused(format!(
                    "{mode:04o} lets {has} execute it, though the node says that it {is}"
                ))
            }
            Of::Symlink if mode != OF_SYMLINK => refused(format!(
                "{mode:04o} is no mode of a symbolic link, which has 0777 alone"
            )),
            Of::File { .. } | Of::Directory | Of::Symlink => Ok(()),
        }
    }
}

/// Reads the properties of a node, naming what is refused.
pub(crate) fn read(
    message: Option<message::NodeProperties>,
    of: Of,
) -> Result<Option<Box<NodeProperties>>, Invalid> {
    let properties = message.map(NodeProperties::from_message).transpose();
    let properties = properties.map_err(|e| e.within("node_properties"))?;
    check(properties.as_ref(), of)?;
    Ok(properties.map(Box::new))
}

/// Sees that a node of this kind may have these.
pub(crate) fn check(properties: Option<&NodeProperties>, of: Of) -> Result<(), Invalid> {
    let checked = properties.map_or(Ok(()), |properties| properties.check(of));
    checked.map_err(|e| e.within("node_properties"))
}

/// The properties of a node as they are on the wire.
pub(crate) fn write(properties: Option<&NodeProperties>) -> Option<message::NodeProperties> {
    properties.map(NodeProperties::to_message)
}

fn permissions(mode: u32) -> Result<u16, Invalid> {
    match u16::try_from(mode) {
        Ok(mode) if mode & !PERMISSIONS == 0 => Ok(mode),
        Ok(mode) if mode & !0o7777 == 0 => Err(Invalid::new(format!(
            "{mode:04o} has set-uid, set-gid or sticky bits, which are not given to builds; leave them out"
        ))),
        _ => Err(Invalid::new(format!(
            "{mode:#o} has bits that are no permissions, as those of a file's type; leave them out"
        ))),
    }
}

fn check_named(named: &[NodeProperty]) -> Result<(), Invalid> {
    if named.len() > bounds::NODE_PROPERTIES {
        return Err(Invalid::new(format!(
            "{} of one node; {} are allowed",
            named.len(),
            bounds::NODE_PROPERTIES
        )));
    }
    let bytes = named.iter().map(|one| one.name.len() + one.value.len());
    let bytes: usize = bytes.sum();
    if bytes > bounds::NODE_PROPERTIES_BYTES {
        return Err(Invalid::new(format!(
            "{bytes} bytes of one node; {} are allowed",
            bounds::NODE_PROPERTIES_BYTES
        )));
    }
    let mut pairs = named.windows(2);
    match pairs.position(|pair| pair[0].name >= pair[1].name) {
        Some(at) => Err(Invalid::field(
            format!("[{}].name", at + 1),
            "names are not sorted by their bytes, or not unique",
        )),
        None => Ok(()),
    }
}

fn beyond_a_second(nanos: impl std::fmt::Display) -> Invalid {
    let why = format!("{nanos} is not between 0 and 999999999");
    Invalid::field("nanos", why)
}

#[cfg(test)]
mod tests;
