use std::collections::BTreeMap;

use belljar_core::{Invalid, RelPath};

use crate::{Built, Leaf, build};

/// The tree of each directory that lies in no other, given all that stands in them, in any order: none
/// for a directory, whether or not there is something in it.
///
/// # Errors
/// As [`build`].
pub fn outermost(
    entries: impl IntoIterator<Item = (RelPath, Option<Leaf>)>,
) -> Result<BTreeMap<RelPath, Built>, Invalid> {
    let entries: BTreeMap<RelPath, Option<Leaf>> = entries.into_iter().collect();
    let is_directory = |path: &str| {
        let entry = RelPath::new(path).ok().and_then(|path| entries.get(&path));
        matches!(entry, Some(None))
    };
    let mut leaves: BTreeMap<RelPath, Vec<(RelPath, Leaf)>> = BTreeMap::new();
    let mut filled = std::collections::BTreeSet::new();
    for path in entries.keys() {
        if let Some((parent, _)) = path.as_str().rsplit_once('/') {
            filled.insert(parent);
        }
    }
    for (path, entry) in &entries {
        let root = path.prefixes().find(|prefix| is_directory(prefix));
        let Some(root) = root.map(RelPath::new).transpose()? else {
            continue;
        };
        let below = leaves.entry(root.clone()).or_default();
        let Some(at) = path.below(&root) else {
            continue;
        };
        match entry {
            Some(leaf) => below.push((at, leaf.clone())),
            None if filled.contains(path.as_str()) => {}
            None => below.push((at, Leaf::EmptyDirectory)),
        }
    }
    let trees = leaves.into_iter().map(|(root, leaves)| {
        let built = build(leaves).map_err(|e| e.within(&root))?;
        Ok((root, built))
    });
    trees.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Directory;
    use belljar_core::ObjectId;

    #[test]
    fn each_outermost_directory_is_one_tree() {
        let path = |text: &str| RelPath::new(text).unwrap();
        let file = |text: &str| {
            Some(Leaf::File {
                object: ObjectId::of(text.as_bytes()),
                executable: false,
            })
        };
        let trees = outermost([
            (path("app"), file("app")),
            (path("share"), None),
            (path("share/a"), None),
            (path("share/a/x"), file("x")),
            (path("share/empty"), None),
            (path("sharex"), file("other")),
            (path("none"), None),
            (path("deep/in"), None),
            (path("deep/in/y"), file("y")),
        ])
        .unwrap();
        let names: Vec<_> = trees.keys().map(RelPath::as_str).collect();
        assert_eq!(names, ["deep/in", "none", "share"]);
        let empty = Directory::default().object_id();
        assert_eq!(trees[&path("none")].root, empty);
        let leaf = |text: &str| file(text).unwrap();
        let share = build([
            (path("a/x"), leaf("x")),
            (path("empty"), Leaf::EmptyDirectory),
        ]);
        assert_eq!(trees[&path("share")], share.unwrap());
        assert_eq!(
            trees[&path("deep/in")],
            build([(path("y"), leaf("y"))]).unwrap()
        );
        assert!(outermost([]).unwrap().is_empty());
    }
}
