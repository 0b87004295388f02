use super::*;
use crate::Tree;
use proptest::prelude::*;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn file(content: &str) -> Leaf {
    Leaf::File {
        object: ObjectId::of(content.as_bytes()),
        executable: false,
    }
}

#[test]
fn directories_come_children_first_and_once() {
    let built = build([
        (path("x/same/f"), file("1")),
        (path("y/same/f"), file("1")),
        (path("z"), Leaf::EmptyDirectory),
    ])
    .unwrap();
    // `same`, its parent (`x` and `y` are alike), the empty directory, the root.
    assert_eq!(built.directories.len(), 4);
    assert_eq!(built.directories.last().unwrap().0, built.root);
    let mut seen = BTreeSet::new();
    for (id, bytes) in &built.directories {
        assert_eq!(ObjectId::of(bytes), *id);
        let directory = Directory::decode(bytes).unwrap();
        assert!(
            directory
                .directories()
                .iter()
                .all(|child| seen.contains(&child.object))
        );
        seen.insert(*id);
    }
}

#[test]
fn nothing_at_all_is_an_empty_root() {
    let built = build([]).unwrap();
    assert_eq!(
        (built.root, built.directories.len()),
        (ObjectId::of(b""), 1)
    );
}

/// What REAPI says of an output directory with `is_topologically_sorted`.
fn check_sorted(built: &Built) {
    let tree = Tree::decode(&built.tree()).unwrap();
    assert_eq!(tree.root().object_id(), built.root);
    assert_eq!(tree.children().len() + 1, built.directories.len());
    let all = || std::iter::once(tree.root()).chain(tree.children());
    for (at, directory) in all().enumerate() {
        let mut before = all().take(at + 1);
        let of = |below: &Directory| {
            directory
                .directories()
                .iter()
                .any(|node| node.object == below.object_id())
        };
        assert!(
            !before.any(of),
            "a directory stands before one that it lies in"
        );
    }
}

#[test]
fn in_a_message_of_all_of_it_no_directory_stands_before_one_that_it_lies_in() {
    // `same` lies in the root and in what lies in the root, by either order of their names.
    for (one, other) in [("a", "b"), ("b", "a")] {
        let built = build([
            (path(&format!("{one}/f")), file("1")),
            (path(&format!("{other}/{one}/f")), file("1")),
            (path("empty"), Leaf::EmptyDirectory),
        ])
        .unwrap();
        assert_eq!(built.directories.len(), 4);
        check_sorted(&built);
    }
    assert_eq!(build([]).unwrap().tree(), [0x0a, 0]);
}

#[test]
fn two_things_at_one_place_are_refused_in_either_order() {
    let cases = [
        (("a", file("1")), ("a", file("1"))),
        (("a", file("1")), ("a", Leaf::EmptyDirectory)),
        (("a", file("1")), ("a/b", file("2"))),
        (("a/b", file("1")), ("a/b/c/d", file("2"))),
        (("a", Leaf::EmptyDirectory), ("a/b", file("2"))),
        (("a", Leaf::EmptyDirectory), ("a", Leaf::EmptyDirectory)),
    ];
    for ((one, first), (other, second)) in cases {
        let (one, other) = ((path(one), first), (path(other), second));
        let error = build([one.clone(), other.clone()]).unwrap_err();
        assert_eq!(error.field, other.0.as_str());
        let error = build([other.clone(), one.clone()]).unwrap_err();
        assert_eq!(error.field, one.0.as_str());
    }
}

#[test]
fn entries_are_counted_with_their_directories() {
    let leaves = |n: usize| (0..n).map(|i| (path(&format!("d{i}/f")), file("1")));
    assert!(build(leaves(bounds::TREE_ENTRIES / 2 + 1)).is_err());
}

proptest! {
    #[test]
    fn the_order_of_the_leaves_does_not_matter(
        (ordered, shuffled) in proptest::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,3}", "[xy]{0,1}", 0..12).prop_flat_map(|map| {
            let leaves: Vec<_> = map.into_iter().map(|(at, content)| (path(&at), file(&content))).collect();
            (Just(leaves.clone()), Just(leaves).prop_shuffle())
        })
    ) {
        match (build(ordered), build(shuffled)) {
            (Ok(one), Ok(other)) => {
                check_sorted(&one);
                prop_assert_eq!(one, other);
            }
            // Which of two paths is in the way of the other depends on the order, that one is does not.
            (one, other) => prop_assert!(one.is_err() && other.is_err()),
        }
    }
}
