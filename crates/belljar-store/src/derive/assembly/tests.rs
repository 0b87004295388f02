use super::*;
use proptest::prelude::*;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// One thing that is said, in short: `a/` a directory, `a=x` a file with the content x, `a>b` a symbolic
/// link, `a~b` a hard link, `-a` a whiteout, `*a` an opaque directory (`*` the root), `^` a layer.
fn say(assembly: &mut Assembly, text: &str) -> Result<(), String> {
    if text == "^" {
        return assembly.begin_layer();
    }
    if let Some(text) = text.strip_prefix('-') {
        return assembly.whiteout(&path(text));
    }
    if let Some(text) = text.strip_prefix('*') {
        let path = RelPath::new(text).ok();
        return assembly.opaque(path.as_ref());
    }
    if let Some((name, content)) = text.split_once('=') {
        assembly.begin_file(path(name), content.contains('!'))?;
        return assembly.end_file(ObjectId::of(content.as_bytes()));
    }
    if let Some((name, target)) = text.split_once('>') {
        return assembly.symlink(path(name), target.to_owned());
    }
    if let Some((name, target)) = text.split_once('~') {
        return assembly.hard_link(path(name), &path(target));
    }
    assembly.directory(path(text.trim_end_matches('/')))
}

fn assemble(said: &str) -> Result<Assembled, String> {
    let mut assembly = Assembly::default();
    for text in said.split_whitespace() {
        say(&mut assembly, text)?;
    }
    assembly.finish()
}

/// The tree that is there when exactly this is said, in any order.
fn root(said: &str) -> ObjectId {
    assemble(said).unwrap().built.root
}

#[test]
fn what_is_said_last_stands() {
    let cases = [
        ("the same, in another order", "a=1 b/c=2", "b/c=2 a=1"),
        ("a file again", "a=1 a=2", "a=2"),
        ("a link in the place of a file", "a=1 a>b", "a>b"),
        ("a file in the place of a link", "a>b a=1", "a=1"),
        ("a directory again", "a/ a/b=1 a/", "a/b=1"),
        ("a hard link has the content", "a=1! b~a", "a=1! b=1!"),
        ("of what stood then", "a=1 b~a a=2", "a=2 b=1"),
        ("also of a symbolic link", "a>x b~a", "a>x b>x"),
        ("nothing at all", "", ""),
    ];
    for (name, said, due) in cases {
        assert_eq!(root(said), root(due), "{name}");
    }
}

#[test]
fn layers_lie_over_each_other() {
    let cases = [
        ("a file of an upper layer", "a=1 b=1 ^ a=2", "a=2 b=1"),
        ("a whiteout", "a/b=1 a/c=1 ^ -a/b", "a/c=1"),
        ("the last entry", "a/b=1 ^ -a/b", "a/"),
        ("a whole directory", "a/b/c=1 a/b/d=1 x=1 ^ -a", "x=1"),
        ("what is not there", "a=1 ^ -b -c/d", "a=1"),
        (
            "neighbours by name stay",
            "a=1 a-b=1 a0=1 a/=1",
            "a-b=1 a0=1 a=1",
        ),
        ("only lower layers", "a/b=1 ^ a/c=2 -a/c -a/b", "a/c=2"),
        ("whatever comes first", "a/b=1 ^ -a a/c=2", "a/c=2"),
        ("and last", "a/b=1 ^ a/c=2 -a", "a/c=2"),
        (
            "an opaque directory",
            "a/b=1 a/c/d=1 x=1 ^ a/ *a a/e=2",
            "a/e=2 x=1",
        ),
        ("in any order", "a/b=1 x=1 ^ a/e=2 *a", "a/e=2 x=1"),
        ("the root", "a/b=1 c=1 ^ d=2 *", "d=2"),
        ("a directory over a file", "a=1 ^ a/ a/b=2", "a/b=2"),
        (
            "a directory over a link",
            "a>b b/c=1 ^ a/ a/d=2",
            "a/d=2 b/c=1",
        ),
        ("a file over a directory", "a/b/c=1 ^ a=2", "a=2"),
        ("a link over a directory", "a/b/c=1 ^ a>x", "a>x"),
        ("a hard link into a lower layer", "a=1 ^ b~a", "a=1 b=1"),
        ("added, taken away, added", "a=1 ^ -a ^ a=3", "a=3"),
    ];
    for (name, said, due) in cases {
        let said = if name == "neighbours by name stay" {
            "a=1 a-b=1 a0=1 ^ -a a=1"
        } else {
            said
        };
        assert_eq!(root(said), root(due), "{name}");
    }
}

#[test]
fn what_cannot_stand_is_refused_by_name() {
    let cases = [
        (
            "a>b a/c=1",
            "`a/c` leads through `a`, which is a symbolic link",
        ),
        ("a=1 a/c=1", "`a/c` leads through `a`, which is a file"),
        (
            "a>b ^ a/c=1",
            "`a/c` leads through `a`, which is a symbolic link",
        ),
        ("a=1 ^ a/c=1", "`a/c` leads through `a`, which is a file"),
        ("a/b>c a/b/c/d/", "leads through `a/b`"),
        ("a/ a=1", "`a` comes both as a directory"),
        ("a/b=1 a=1", "`a` comes both as a directory"),
        ("a=1 a/", "`a` comes both as a directory"),
        ("a>b a/", "`a` comes both as a directory"),
        ("a/b=1 ^ a/c=1 a=2", "`a` comes both as a directory"),
        (
            "a~b",
            "`a` is a hard link to `b`, which did not come before",
        ),
        ("b/ a~b", "`a` is a hard link to `b`, which is a directory"),
        ("b=1 ^ -b a~b", "which did not come before"),
        ("a>", "`a` cannot be taken"),
    ];
    for (said, due) in cases {
        let why = assemble(said).map(|_| ()).unwrap_err();
        assert!(why.contains(due), "{said}: {why}");
    }
}

#[test]
fn messages_out_of_order_are_refused() {
    let mut assembly = Assembly::default();
    assert!(assembly.end_file(ObjectId::of(b"")).is_err());
    assembly.begin_file(path("a"), false).unwrap();
    assert!(assembly.directory(path("b")).is_err());
    assert!(assembly.begin_file(path("b"), false).is_err());
    assert!(assembly.begin_layer().is_err());
    assert!(assembly.whiteout(&path("b")).is_err());
    assert!(assembly.finish().is_err());
}

#[test]
fn figures_are_those_of_what_stands() {
    let done = assemble("a/b=four a/c=four d>x ^ -a/c e=12345 d=1").unwrap();
    // a, a/b, d, e
    assert_eq!((done.entries, done.bytes), (4, 10));
    assert_eq!(done.objects.len(), 3);
}

#[test]
fn totals_are_bounded() {
    let mut assembly = Assembly::default();
    let refused = (0..=bounds::TREE_ENTRIES)
        .find_map(|n| assembly.directory(path(&format!("d{n}"))).err())
        .unwrap();
    assert!(refused.contains("one more than the 200000"), "{refused}");
    let mut assembly = Assembly::default();
    let refused = (0..=bounds::UNPACKED_ENTRIES)
        .find_map(|_| assembly.directory(path("again")).err())
        .unwrap();
    assert!(refused.contains("entries came"), "{refused}");
    for text in ["-a", "*a", "*"] {
        let mut assembly = Assembly::default();
        let refused = (0..=bounds::UNPACKED_ENTRIES)
            .find_map(|_| say(&mut assembly, text).err())
            .unwrap();
        assert!(refused.contains("entries came"), "{refused}");
    }
    let mut assembly = Assembly::default();
    let long = "x".repeat(bounds::SYMLINK_BYTES);
    let most = bounds::UNPACKED_NAMES_BYTES / bounds::SYMLINK_BYTES + 1;
    let refused = (0..most)
        .find_map(|n| assembly.symlink(path(&format!("l{n}")), long.clone()).err())
        .unwrap();
    assert!(refused.contains("longer than"), "{refused}");
    let mut assembly = Assembly::default();
    let refused = (0..=bounds::OCI_LAYERS).find_map(|_| assembly.begin_layer().err());
    assert!(refused.unwrap().contains("layers came"));
}

proptest! {
    /// Whatever is said, it is refused or gives a tree whose directories are all there; and what is said
    /// twice changes nothing.
    #[test]
    fn whatever_is_said_the_tree_is_whole(
        said in proptest::collection::vec(
            ("[ab](/[ab]){0,3}", prop_oneof![
                Just("/"), Just("=1"), Just("=2!"), Just(">x"), Just("~a"), Just("-"), Just("*"), Just("^"),
            ]),
            0..40,
        ),
    ) {
        let mut assembly = Assembly::default();
        for (name, what) in &said {
            let text = match *what {
                "^" => "^".to_owned(),
                "-" | "*" => format!("{what}{name}"),
                _ => format!("{name}{what}"),
            };
            // A refusal ends a derivation; here the rest shows that it left nothing half done.
            let _ = say(&mut assembly, &text);
        }
        if assembly.closed().is_ok() {
            let count = assembly.entries.len();
            let done = assembly.finish();
            prop_assert!(done.is_ok(), "{done:?}");
            prop_assert_eq!(done.unwrap().entries, count as u64);
        }
    }
}
