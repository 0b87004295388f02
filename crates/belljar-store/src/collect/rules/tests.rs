use super::*;
use belljar_core::{ObjectId, Sha512Digest};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    bytes: 100,
    entries: 50,
};

/// Ends a collection, whatever its files are.
fn end(rules: Collection) -> Result<Vec<OutputEntry>, Rejected> {
    let files = rules.is_complete()?;
    rules.end(&vec![(ObjectId::of(b"x"), Sha512Digest::of(b"x")); files])
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn outputs(paths: &[&str]) -> Outputs {
    Outputs::new(paths.iter().map(|text| path(text)).collect()).unwrap()
}

fn file(rules: &mut Collection, at: &str) -> Result<(), Rejected> {
    rules.begin_file(path(at), false, 0)?;
    rules.end_file().map(drop)
}

fn is_entry(result: Result<(), Rejected>) -> bool {
    matches!(result, Err(Rejected::Outputs(Refusal::Entry { .. })))
}

#[test]
fn directories_come_before_what_lies_in_them() {
    let mut rules = Collection::new(outputs(&["d", "x/y"]), LIMITS);
    assert!(is_entry(file(&mut rules, "d/a")), "`d` has not come");
    rules.directory(path("d")).unwrap();
    file(&mut rules, "d/a").unwrap();
    assert!(is_entry(file(&mut rules, "d/a")), "twice");
    assert!(is_entry(file(&mut rules, "d/a/b")), "in a file");
    assert!(
        is_entry(file(&mut rules, "d/sub/b")),
        "`d/sub` has not come"
    );
    assert!(
        is_entry(rules.directory(path("x"))),
        "above a declared output"
    );
    assert!(is_entry(file(&mut rules, "da")), "a neighbour");
    file(&mut rules, "x/y").unwrap();
    assert!(is_entry(file(&mut rules, "x/y/z")), "in a declared file");
    assert_eq!(end(rules).unwrap().len(), 3);
}

#[test]
fn patterns_take_what_they_match_whole_and_once() {
    let mut rules = Collection::new(outputs(&["dist/*.whl", "**/report", "app"]), LIMITS);
    assert!(is_entry(rules.directory(path("dist"))), "matches nothing");
    assert!(is_entry(file(&mut rules, "dist/a.tar")));
    file(&mut rules, "dist/a.whl").unwrap();
    assert!(is_entry(file(&mut rules, "x/report/page")), "not yet there");
    rules.directory(path("x/report")).unwrap();
    file(&mut rules, "x/report/page").unwrap();
    rules.directory(path("x/report/report")).unwrap();
    rules
        .symlink(path("x/report/report/up"), "../page".into())
        .unwrap();
    let out = rules.symlink(path("x/report/out"), "../y".into());
    assert!(is_entry(out), "out of what is taken");
    let link = rules.symlink(path("dist/l.whl"), "a.whl".into());
    assert!(is_entry(link), "a link that a pattern matches");
    let Err(Rejected::Outputs(Refusal::Entry { why })) = end(rules) else {
        panic!("`app` did not come");
    };
    assert!(why.contains("`app` is not there"), "{why}");
    let rules = Collection::new(outputs(&["*.o"]), LIMITS);
    let Err(Rejected::Outputs(Refusal::Entry { why })) = end(rules) else {
        panic!("nothing came");
    };
    assert!(why.contains("`*.o` matches nothing"), "{why}");
}

#[test]
fn links_stay_inside() {
    let mut rules = Collection::new(outputs(&["d", "l"]), LIMITS);
    rules.directory(path("d")).unwrap();
    rules.directory(path("d/s")).unwrap();
    let mut link = |at: &str, target: &str| rules.symlink(path(at), target.to_owned());
    assert!(is_entry(link("l", "d")), "a declared output itself");
    let bad = [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../d",
        "./..",
        "a/..",
        "s/../s",
        "a\nb",
        "..//..",
    ];
    for target in bad {
        assert!(is_entry(link("d/bad", target)), "{target:?}");
    }
    for target in ["../..", "../../d", "../s/..", ".././.."] {
        assert!(is_entry(link("d/s/bad", target)), "{target:?}");
    }
    for (i, target) in ["s", "s/x", ".", "./s", "nowhere", "..a", "..."]
        .into_iter()
        .enumerate()
    {
        link(&format!("d/good{i}"), target).unwrap();
    }
    for (i, target) in ["..", "../s", "./../x", "x"].into_iter().enumerate() {
        link(&format!("d/s/good{i}"), target).unwrap();
    }
}

#[test]
fn a_link_is_not_a_directory_to_put_things_in() {
    let mut rules = Collection::new(outputs(&["d"]), LIMITS);
    rules.directory(path("d")).unwrap();
    rules.symlink(path("d/l"), "x".into()).unwrap();
    assert!(is_entry(file(&mut rules, "d/l/f")));
}

#[test]
fn limits_are_reached_not_passed() {
    let mut rules = Collection::new(outputs(&["f"]), LIMITS);
    rules.begin_file(path("f"), false, 0).unwrap();
    rules.piece(100).unwrap();
    assert_eq!(
        rules.piece(1),
        Err(Rejected::Outputs(Refusal::TooManyBytes {
            bytes: 101,
            path: path("f")
        }))
    );

    let mut rules = Collection::new(outputs(&["d"]), LIMITS);
    rules.directory(path("d")).unwrap();
    for i in 1..50 {
        rules.directory(path(&format!("d/{i}"))).unwrap();
    }
    assert_eq!(
        rules.directory(path("d/50")),
        Err(Rejected::Outputs(Refusal::TooManyEntries {
            entries: 51,
            path: path("d/50")
        }))
    );
}

#[test]
fn a_file_larger_than_any_object_is_refused_by_name() {
    let limits = Limits {
        bytes: u64::MAX,
        entries: 1,
    };
    let mut rules = Collection::new(outputs(&["f"]), limits);
    rules.begin_file(path("f"), false, 0).unwrap();
    rules
        .piece(usize::try_from(bounds::BLOB_BYTES).unwrap())
        .unwrap();
    assert!(is_entry(rules.piece(1)));
    let mut rules = Collection::new(outputs(&["f"]), limits);
    assert!(is_entry(rules.begin_file(
        path("f"),
        false,
        bounds::BLOB_BYTES + 1
    )));
}

#[test]
fn a_file_that_seems_too_large_is_refused_before_it_is_read() {
    let mut rules = Collection::new(outputs(&["e", "f"]), LIMITS);
    rules.begin_file(path("e"), false, 60).unwrap();
    rules.piece(60).unwrap();
    rules.end_file().map(drop).unwrap();
    for (size, bytes) in [(41, 101), (u64::MAX, u64::MAX)] {
        let why = Refusal::TooManyBytes {
            bytes,
            path: path("f"),
        };
        assert_eq!(
            rules.begin_file(path("f"), false, size),
            Err(Rejected::Outputs(why))
        );
    }
    // The word of whoever sends is not believed: a file may still turn out too large.
    rules.begin_file(path("f"), false, 40).unwrap();
    let why = Refusal::TooManyBytes {
        bytes: 101,
        path: path("f"),
    };
    assert_eq!(rules.piece(41), Err(Rejected::Outputs(why)));
}

#[test]
fn no_output_takes_the_place_of_evidence() {
    let rejected = |declared: &[&str], directories: &[&str], files: &[&str]| {
        let mut rules = Collection::new(outputs(declared), LIMITS);
        let collected = || -> Result<(), Rejected> {
            for at in directories {
                rules.directory(path(at))?;
            }
            for at in files {
                file(&mut rules, at)?;
            }
            end(rules).map(drop)
        }();
        match collected {
            Ok(()) => None,
            Err(Rejected::Outputs(Refusal::Entry { why })) => Some(why),
            Err(other) => panic!("{other:?}"),
        }
    };
    type Paths = &'static [&'static str];
    let bad: [(Paths, Paths, Paths, &str); 5] = [
        (
            &["h*"],
            &[],
            &["hello", "hello.sigstore.json"],
            "`hello.sigstore.json` would take the place of the evidence of `hello`",
        ),
        (
            &["*"],
            &["a", "a.intoto.jsonl"],
            &["a.intoto.jsonl/x"],
            "`a.intoto.jsonl` would take the place of the evidence of `a`",
        ),
        (
            &["*/x"],
            &[],
            &["audit.jsonl/x"],
            "`audit.jsonl/x` would take the place of the evidence file `audit.jsonl`",
        ),
        (
            &["**/x"],
            &["builder.pub/x"],
            &[],
            "`builder.pub/x` would take the place of the evidence file `builder.pub`",
        ),
        (
            &["build.log"],
            &[],
            &["build.log"],
            "`build.log` would take the place of the evidence file `build.log`",
        ),
    ];
    for (declared, directories, files, due) in bad {
        assert_eq!(rejected(declared, directories, files).as_deref(), Some(due));
    }
    // Deeper, in a directory that is kept as a whole, nothing is put.
    let inside = ["d/build.log", "d/a", "d/a.sigstore.json"];
    assert_eq!(rejected(&["d"], &["d"], &inside), None);
}

#[derive(Clone, Debug)]
enum Message {
    File(String),
    Piece(usize),
    FileEnd,
    Symlink(String, String),
    Directory(String),
}

fn message() -> impl Strategy<Value = Message> {
    let name = "[ab](/[abc]){0,3}|out(/[ab]){0,3}|o";
    prop_oneof![
        name.prop_map(Message::File),
        (0..60usize).prop_map(Message::Piece),
        Just(Message::FileEnd),
        (name, "(\\.\\./){0,3}[ab]{0,1}(/\\.\\.){0,2}")
            .prop_map(|(at, to)| Message::Symlink(at, to)),
        name.prop_map(Message::Directory),
    ]
}

fn apply(rules: &mut Collection, message: Message) -> Result<(), Rejected> {
    match message {
        Message::File(at) => rules.begin_file(path(&at), false, 0),
        Message::Piece(length) => rules.piece(length),
        Message::FileEnd => rules.end_file().map(drop),
        Message::Symlink(at, target) => rules.symlink(path(&at), target),
        Message::Directory(at) => rules.directory(path(&at)),
    }
}

/// Follows a path through the entries as a kernel would; none when it leaves `root`.
fn resolve(entries: &BTreeMap<RelPath, Entry>, root: &RelPath, from: &RelPath) -> Option<()> {
    let mut at: Vec<String> = from.components().map(str::to_owned).collect();
    let mut todo: Vec<String> = vec![at.pop()?];
    let floor = root.components().count();
    for _ in 0..200 {
        let Some(name) = todo.pop() else {
            return Some(());
        };
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                at.pop();
                if at.len() < floor {
                    return None;
                }
                continue;
            }
            _ => at.push(name),
        }
        let here = path(&at.join("/"));
        if let Some(Entry::Symlink { target }) = entries.get(&here) {
            at.pop();
            todo.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    // A loop of links leads nowhere at all.
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_outside_the_declared_outputs_is_ever_taken(
        messages in proptest::collection::vec(message(), 0..40)
    ) {
        let declared = outputs(&["a", "out/b", "o", "**/c"]);
        let mut rules = Collection::new(declared.clone(), LIMITS);
        for message in messages {
            // A refused message changes nothing; the collection is over in the store, but need not be here.
            let before = rules.entries.clone();
            if apply(&mut rules, message).is_err() {
                prop_assert_eq!(&rules.entries, &before);
            }
            let open = rules.open.as_ref().map(|open| &open.path);
            for path in rules.entries.keys().chain(open) {
                prop_assert!(declared.root_of(path).is_some(), "{}", path);
            }
        }
        prop_assert!(rules.entries.len() as u64 <= LIMITS.entries);
        for (at, kind) in &rules.entries {
            let root = &declared.root_of(at).unwrap();
            if at != root {
                let parent = path(at.as_str().rsplit_once('/').unwrap().0);
                prop_assert_eq!(rules.entries.get(&parent), Some(&Entry::Directory));
            }
            if matches!(kind, Entry::Symlink { .. }) {
                prop_assert!(resolve(&rules.entries, root, at).is_some(), "{} leaves {}", at, root);
            }
        }
    }
}

#[test]
fn names_together_fit_a_receipt() {
    let limits = Limits {
        entries: 10_000,
        ..LIMITS
    };
    let mut rules = Collection::new(outputs(&["d"]), limits);
    let long = "x".repeat(255);
    let mut at = "d".to_owned();
    rules.directory(path(&at)).unwrap();
    for _ in 0..15 {
        at = format!("{at}/{long}");
        rules.directory(path(&at)).unwrap();
    }
    let refused = (0..10_000).find(|n| is_entry(file(&mut rules, &format!("{at}/{n:0100}"))));
    let most = bounds::OUTPUT_NAMES_BYTES / at.len();
    assert!(refused.is_some_and(|n| n < most), "{refused:?}");
}
