use belljar_core::{Digest, Invalid, ObjectId, bounds};
use prost::Message;

use crate::message;
use crate::properties::{self, Of};
use crate::unpacked::{self, too_many};
use crate::{Name, NodeProperties, SymlinkTarget};

/// One directory, canonical: each list sorted by name, names unique across the three lists, the encoding
/// at most [`bounds::DIRECTORY_BYTES`] long. The default is the empty directory, which encodes to
/// nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    files: Vec<FileNode>,
    directories: Vec<DirectoryNode>,
    symlinks: Vec<SymlinkNode>,
    properties: Option<Box<NodeProperties>>,
}

/// A regular file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// Its name.
    pub name: Name,
    /// Its content.
    pub object: ObjectId,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its time, mode and other properties, if it has any.
    pub properties: Option<Box<NodeProperties>>,
}

/// A directory of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryNode {
    /// Its name.
    pub name: Name,
    /// Its own [`Directory`] message.
    pub object: ObjectId,
}

/// A symbolic link of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkNode {
    /// Its name.
    pub name: Name,
    /// Where it points.
    pub target: SymlinkTarget,
    /// Its time and other properties, if it has any.
    pub properties: Option<Box<NodeProperties>>,
}

impl Directory {
    /// A directory of these entries, given in any order.
    ///
    /// # Errors
    /// When a name occurs twice, a size is beyond 2^63, a mode is not one of such a node, there are more than
    /// [`bounds::TREE_ENTRIES`] entries and properties, or the encoding would be larger than
    /// [`bounds::DIRECTORY_BYTES`].
    pub fn new(
        mut files: Vec<FileNode>,
        mut directories: Vec<DirectoryNode>,
        mut symlinks: Vec<SymlinkNode>,
    ) -> Result<Self, Invalid> {
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        directories.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        symlinks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let directory = Self {
            files,
            directories,
            symlinks,
            properties: None,
        };
        directory.check_unique()?;
        for file in &directory.files {
            file.check()?;
        }
        for link in &directory.symlinks {
            link.check()?;
        }
        let objects = directory.files.iter().map(|node| (&node.name, node.object));
        let mut objects = objects.chain(
            directory
                .directories
                .iter()
                .map(|node| (&node.name, node.object)),
        );
        if let Some((name, object)) =
            objects.find(|(_, object)| i64::try_from(object.size).is_err())
        {
            return Err(Invalid::new(format!(
                "`{name}` has {} bytes, which REAPI cannot write",
                object.size
            )));
        }
        directory.check_size()?;
        Ok(directory)
    }

    /// The same directory with these properties, which are its own, not those of anything in it.
    ///
    /// # Errors
    /// When it has too many entries and properties then, or too large an encoding.
    pub fn with_properties(self, properties: NodeProperties) -> Result<Self, Invalid> {
        properties::check(Some(&properties), Of::Directory)?;
        let properties = Some(Box::new(properties));
        let directory = Self { properties, ..self };
        directory.check_size()?;
        Ok(directory)
    }

    /// Reads the canonical encoding.
    ///
    /// # Errors
    /// When `bytes` are too many, not a `Directory`, hold something that is refused (the field is named),
    /// or are not the canonical encoding of what they hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::DIRECTORY_BYTES {
            return Err(too_large(bytes.len()));
        }
        let malformed = |e| Invalid::new(format!("not a Directory message: {e}"));
        // Counted before anything is kept: an empty entry has two bytes here, and sixty times as many in memory.
        unpacked::check_unpacked_size(bytes)?;
        let message = message::Directory::decode(bytes).map_err(malformed)?;
        // What is accepted below is kept field by field, so this is how it would be encoded again.
        let is_canonical = message.encode_to_vec() == bytes;
        let directory = Self::from_message(message)?;
        if !is_canonical {
            return Err(Invalid::new(
                "the Directory message is not in its canonical encoding",
            ));
        }
        Ok(directory)
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        self.to_message().encode_to_vec()
    }

    /// The id of the canonical encoding.
    pub fn object_id(&self) -> ObjectId {
        ObjectId::of(&self.encode())
    }

    /// Its files, sorted by name.
    pub fn files(&self) -> &[FileNode] {
        &self.files
    }

    /// Its directories, sorted by name.
    pub fn directories(&self) -> &[DirectoryNode] {
        &self.directories
    }

    /// Its symbolic links, sorted by name.
    pub fn symlinks(&self) -> &[SymlinkNode] {
        &self.symlinks
    }

    /// Its own time, mode and other properties, if it has any.
    pub fn properties(&self) -> Option<&NodeProperties> {
        self.properties.as_deref()
    }

    /// The properties of everything in it that has some, and its own.
    pub fn all_properties(&self) -> impl Iterator<Item = &NodeProperties> {
        let files = self.files.iter().map(|node| &node.properties);
        let links = self.symlinks.iter().map(|node| &node.properties);
        let own = [&self.properties];
        files.chain(links).chain(own).filter_map(Option::as_deref)
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.symlinks.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn from_message(message: message::Directory) -> Result<Self, Invalid> {
        let directory = Self {
            properties: properties::read(message.node_properties, Of::Directory)?,
            files: each("files", message.files, FileNode::from_message)?,
            directories: each(
                "directories",
                message.directories,
                DirectoryNode::from_message,
            )?,
            symlinks: each("symlinks", message.symlinks, SymlinkNode::from_message)?,
        };
        check_sorted("files", directory.files.iter().map(|node| &node.name))?;
        check_sorted(
            "directories",
            directory.directories.iter().map(|node| &node.name),
        )?;
        check_sorted("symlinks", directory.symlinks.iter().map(|node| &node.name))?;
        directory.check_unique()?;
        Ok(directory)
    }

    pub(crate) fn to_message(&self) -> message::Directory {
        message::Directory {
            files: self.files.iter().map(FileNode::to_message).collect(),
            directories: self
                .directories
                .iter()
                .map(DirectoryNode::to_message)
                .collect(),
            symlinks: self.symlinks.iter().map(SymlinkNode::to_message).collect(),
            node_properties: properties::write(self.properties.as_deref()),
        }
    }

    fn check_size(&self) -> Result<(), Invalid> {
        let properties = self.all_properties().map(NodeProperties::len);
        let count = self.len() + properties.sum::<usize>();
        if count > bounds::TREE_ENTRIES {
            return Err(too_many(count));
        }
        let size = self.to_message().encoded_len();
        if size > bounds::DIRECTORY_BYTES {
            return Err(too_large(size));
        }
        Ok(())
    }

    fn check_unique(&self) -> Result<(), Invalid> {
        let files = self.files.iter().map(|node| &node.name);
        let directories = self.directories.iter().map(|node| &node.name);
        let symlinks = self.symlinks.iter().map(|node| &node.name);
        let mut names: Vec<_> = files.chain(directories).chain(symlinks).collect();
        // Three sorted runs, which the stable sort only merges.
        names.sort();
        match names
            .windows(2)
            .find_map(|pair| (pair[0] == pair[1]).then_some(pair[0]))
        {
            Some(name) => Err(Invalid::new(format!("the name `{name}` occurs twice"))),
            None => Ok(()),
        }
    }
}

impl FileNode {
    fn from_message(message: message::FileNode) -> Result<Self, Invalid> {
        let name = Name::new(message.name).map_err(|e| e.within("name"))?;
        let kind = Of::File {
            executable: message.is_executable,
        };
        Ok(Self {
            object: object(message.digest)?,
            executable: message.is_executable,
            properties: properties::read(message.node_properties, kind)
                .map_err(|e| of(&name, e))?,
            name,
        })
    }

    fn check(&self) -> Result<(), Invalid> {
        let kind = Of::File {
            executable: self.executable,
        };
        properties::check(self.properties.as_deref(), kind).map_err(|e| of(&self.name, e))
    }

    fn to_message(&self) -> message::FileNode {
        message::FileNode {
            name: self.name.as_str().to_owned(),
            digest: Some(digest(self.object)),
            is_executable: self.executable,
            node_properties: properties::write(self.properties.as_deref()),
        }
    }
}

impl DirectoryNode {
    fn from_message(message: message::DirectoryNode) -> Result<Self, Invalid> {
        Ok(Self {
            name: Name::new(message.name).map_err(|e| e.within("name"))?,
            object: object(message.digest)?,
        })
    }

    fn to_message(&self) -> message::DirectoryNode {
        message::DirectoryNode {
            name: self.name.as_str().to_owned(),
            digest: Some(digest(self.object)),
        }
    }
}

impl SymlinkNode {
    fn from_message(message: message::SymlinkNode) -> Result<Self, Invalid> {
        let name = Name::new(message.name).map_err(|e| e.within("name"))?;
        Ok(Self {
            target: SymlinkTarget::new(message.target).map_err(|e| e.within("target"))?,
            properties: properties::read(message.node_properties, Of::Symlink)
                .map_err(|e| of(&name, e))?,
            name,
        })
    }

    fn check(&self) -> Result<(), Invalid> {
        properties::check(self.properties.as_deref(), Of::Symlink).map_err(|e| of(&self.name, e))
    }

    fn to_message(&self) -> message::SymlinkNode {
        message::SymlinkNode {
            name: self.name.as_str().to_owned(),
            target: self.target.as_str().to_owned(),
            node_properties: properties::write(self.properties.as_deref()),
        }
    }
}

/// A refusal of properties, with the name of what has them: in a list it is known by its place alone.
fn of(name: &Name, refused: Invalid) -> Invalid {
    Invalid {
        reason: format!("of `{name}`, {}", refused.reason),
        ..refused
    }
}

fn too_large(size: usize) -> Invalid {
    Invalid::new(format!(
        "a Directory message of {size} bytes; {} are allowed. Spread its entries over subdirectories",
        bounds::DIRECTORY_BYTES
    ))
}

/// Converts a repeated field, naming the element that is refused.
fn each<M, T>(
    field: &str,
    messages: Vec<M>,
    convert: fn(M) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let elements = messages.into_iter().enumerate();
    elements
        .map(|(i, message)| convert(message).map_err(|e| e.within(format!("{field}[{i}]"))))
        .collect()
}

fn check_sorted<'a>(
    field: &str,
    names: impl Iterator<Item = &'a Name> + Clone,
) -> Result<(), Invalid> {
    let pairs = names.clone().zip(names.skip(1)).enumerate();
    for (i, (one, next)) in pairs {
        if one >= next {
            let at = format!("{field}[{}].name", i + 1);
            return Err(Invalid::field(
                at,
                "names are not sorted by their bytes, or not unique",
            ));
        }
    }
    Ok(())
}

fn object(digest: Option<message::Digest>) -> Result<ObjectId, Invalid> {
    let digest = digest.ok_or_else(|| Invalid::field("digest", "is missing"))?;
    let size = u64::try_from(digest.size_bytes)
        .map_err(|_| Invalid::field("digest.size_bytes", "is negative"))?;
    let hash = Digest::from_hex(&digest.hash).map_err(|e| e.within("digest.hash"))?;
    Ok(ObjectId { digest: hash, size })
}

fn digest(object: ObjectId) -> message::Digest {
    message::Digest {
        hash: object.digest.to_hex(),
        // Every constructor has seen that it fits.
        size_bytes: i64::try_from(object.size).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests;
