use std::collections::BTreeMap;

use belljar_core::{Invalid, ObjectId, bounds};
use prost::Message;

use crate::unpacked::{count_tree_entries, too_many};
use crate::{Directory, message};

/// A directory with every directory below it, each once: REAPI's `Tree`, as which an output directory is
/// described in one blob. The default is an empty directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    root: Directory,
    children: Vec<Directory>,
}

impl Tree {
    /// A tree of `root` and everything below it, in any order.
    ///
    /// # Errors
    /// When a directory is missing, given twice, or not part of the tree, or when there are more than
    /// [`bounds::TREE_ENTRIES`] of them.
    pub fn new(root: Directory, children: Vec<Directory>) -> Result<Self, Invalid> {
        if children.len() > bounds::TREE_ENTRIES {
            return Err(too_many(children.len()));
        }
        let mut given: BTreeMap<ObjectId, (usize, bool)> = BTreeMap::new();
        for (i, child) in children.iter().enumerate() {
            if given.insert(child.object_id(), (i, false)).is_some() {
                return Err(Invalid::field(
                    format!("children[{i}]"),
                    "was given already",
                ));
            }
        }
        // Content cannot name its own digest, so there are no cycles, and each directory is entered once.
        let mut pending = vec![&root];
        while let Some(directory) = pending.pop() {
            for node in directory.directories() {
                match given.get_mut(&node.object) {
                    Some((_, true)) => {}
                    Some((i, reached)) => {
                        *reached = true;
                        pending.push(&children[*i]);
                    }
                    None => {
                        let why =
                            format!("the directory `{}`, {}, is missing", node.name, node.object);
                        return Err(Invalid::field("children", why));
                    }
                }
            }
        }
        match given.values().find(|(_, reached)| !reached) {
            Some((i, _)) => Err(Invalid::field(
                format!("children[{i}]"),
                "is not part of the tree",
            )),
            None => Ok(Self { root, children }),
        }
    }

    /// Reads the encoding that [`Tree::encode`] writes. REAPI leaves the order of the children open, so it
    /// is kept as it is.
    ///
    /// # Errors
    /// When `bytes` are too many, not a `Tree`, or hold something that is refused; the field is named.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::DIRECTORY_BYTES {
            let why = format!(
                "a Tree message of {} bytes; {} are allowed",
                bytes.len(),
                bounds::DIRECTORY_BYTES
            );
            return Err(Invalid::new(why));
        }
        let malformed = |e| Invalid::new(format!("not a Tree message: {e}"));
        let entries = count_tree_entries(bytes).map_err(malformed)?;
        if entries > bounds::TREE_ENTRIES {
            return Err(too_many(entries));
        }
        let message = message::Tree::decode(bytes).map_err(malformed)?;
        let root = message
            .root
            .ok_or_else(|| Invalid::field("root", "is missing"))?;
        let root = Directory::from_message(root).map_err(|e| e.within("root"))?;
        let children = message.children.into_iter().enumerate();
        let children = children
            .map(|(i, child)| {
                Directory::from_message(child).map_err(|e| e.within(format!("children[{i}]")))
            })
            .collect::<Result<_, _>>()?;
        let tree = Self::new(root, children)?;
        if tree.encode() != bytes {
            return Err(Invalid::new(
                "the Tree message is not in its canonical encoding",
            ));
        }
        Ok(tree)
    }

    /// The encoding: root first, the children in the order they were given.
    pub fn encode(&self) -> Vec<u8> {
        let children = self.children.iter().map(Directory::to_message).collect();
        let root = Some(self.root.to_message());
        message::Tree { root, children }.encode_to_vec()
    }

    /// The directory at the top.
    pub fn root(&self) -> &Directory {
        &self.root
    }

    /// Every directory below it, each once.
    pub fn children(&self) -> &[Directory] {
        &self.children
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DirectoryNode, Name};

    fn parent(of: &[(&str, &Directory)]) -> Directory {
        let node = |(name, child): &(&str, &Directory)| DirectoryNode {
            name: Name::new(*name).unwrap(),
            object: child.object_id(),
        };
        Directory::new(vec![], of.iter().map(node).collect(), vec![]).unwrap()
    }

    #[test]
    fn a_complete_tree_round_trips() {
        let leaf = Directory::default();
        let middle = parent(&[("a", &leaf), ("b", &leaf)]);
        let root = parent(&[("leaf", &leaf), ("middle", &middle)]);
        let tree = Tree::new(root, vec![leaf, middle]).unwrap();
        assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
    }

    #[test]
    fn missing_spare_and_repeated_directories_are_refused() {
        let leaf = Directory::default();
        let root = parent(&[("leaf", &leaf)]);
        let other = parent(&[("x", &leaf)]);
        let field = |children| Tree::new(root.clone(), children).unwrap_err().field;
        assert_eq!(field(vec![]), "children");
        assert_eq!(field(vec![leaf.clone(), leaf.clone()]), "children[1]");
        assert_eq!(field(vec![leaf.clone(), other]), "children[1]");
    }

    #[test]
    fn a_flood_of_tiny_entries_is_counted_before_it_is_unpacked() {
        let inner = [0x0a, 0].repeat(bounds::TREE_ENTRIES);
        let mut flood = vec![0x0a];
        prost::encoding::encode_varint(inner.len() as u64, &mut flood);
        flood.extend_from_slice(&inner);
        assert!(Tree::decode(&flood).unwrap_err().reason.contains("entries"));
    }

    #[test]
    fn a_tree_without_a_root_is_refused() {
        assert_eq!(Tree::decode(b"").unwrap_err().field, "root");
    }
}
