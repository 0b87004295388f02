use std::fs;

use belljar_tests::{Instance, Project};
use serde_json::json;

/// A `belljar.lock` that is fine; cases replace a part of it.
const GOOD: &str = r#"version = 1

[image.c]
tree = { digest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", size = 315 }
derivation = { digest = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9", size = 618 }
source = { file = "c.tar", digest = "sha256:baa5a0964d3320fbc0c6a922140453c8513ea24ab8fd0577034804a967248096", size = 98304000 }
"#;
const MANIFEST: &str = "image = \"c\"\nrun = [\"true\"]\noutputs = [\"out\"]\n";
const TREE: &str = "\"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"";
const RECORD: &str = "{ digest = \"sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9\", size = 618 }";
const ARCHIVE: &str = "{ file = \"c.tar\", digest = \"sha256:baa5a0964d3320fbc0c6a922140453c8513ea24ab8fd0577034804a967248096\", size = 98304000 }";

/// What is wrong, a part of [`GOOD`] and what takes its place (all of it, where the part is empty), the text at which
/// line and column are named, the field, and a word of the reason.
type Case = (
    &'static str,
    (&'static str, &'static str),
    &'static str,
    &'static str,
    &'static str,
);

const WRONG: [Case; 44] = [
    ("empty", ("", ""), "", "version", "missing"),
    (
        "not TOML",
        ("version = 1", "version ="),
        "\n\n[image",
        "",
        "value",
    ),
    (
        "an open string",
        ("c.tar\"", "c.tar"),
        "sha256:baa5",
        "",
        "comma",
    ),
    (
        "a key twice",
        ("version = 1", "version = 1\nversion = 1"),
        "version = 1\n\n",
        "",
        "duplicate",
    ),
    (
        "an image twice",
        ("source", "[image.c]\nsource"),
        "c]\nsource",
        "",
        "duplicate",
    ),
    ("no version", ("version = 1", ""), "", "version", "missing"),
    (
        "a later version",
        ("version = 1", "version = 2"),
        "2",
        "version",
        "only version 1",
    ),
    (
        "version zero",
        ("version = 1", "version = 0"),
        "0",
        "version",
        "only version 1",
    ),
    (
        "a negative version",
        ("version = 1", "version = -1"),
        "-1",
        "version",
        "out of range",
    ),
    (
        "a version in words",
        ("version = 1", "version = \"1\""),
        "\"1\"",
        "version",
        "whole number",
    ),
    (
        "a broken version",
        ("version = 1", "version = 1.0"),
        "1.0",
        "version",
        "whole number",
    ),
    (
        "an unknown field",
        ("version = 1", "version = 1\nmirror = \"m\""),
        "mirror",
        "mirror",
        "unknown field",
    ),
    (
        "images in a list",
        ("[image.c]", "[[image]]"),
        "[[image]]",
        "image",
        "a table",
    ),
    (
        "images in a word",
        ("", "version = 1\nimage = \"c\"\n"),
        "\"c\"",
        "image",
        "a table",
    ),
    (
        "an image in a word",
        ("", "version = 1\nimage.c = \"c\"\n"),
        "\"c\"",
        "image.c",
        "a table",
    ),
    (
        "the host's name",
        ("image.c", "image.host"),
        "host",
        "image",
        "`host`",
    ),
    (
        "a name in capitals",
        ("image.c", "image.C"),
        "C]",
        "image",
        "no name of an image",
    ),
    (
        "an empty name",
        ("image.c", "image.\"\""),
        "\"\"]",
        "image",
        "no name of an image",
    ),
    (
        "a name that is a path",
        ("image.c", "image.\"../c\""),
        "\"../c\"",
        "image",
        "no name of an image",
    ),
    (
        "a name with an escape",
        ("image.c", "image.\"c\\u001b[2J\""),
        "\"c\\u001b",
        "image",
        "no name of an image",
    ),
    (
        "a NUL in a name",
        ("image.c", "image.\"c\\u0000\""),
        "\"c\\u0000",
        "image",
        "no name of an image",
    ),
    (
        "a name beyond ASCII",
        ("image.c", "image.\"с\""),
        "\"с\"",
        "image",
        "no name of an image",
    ),
    (
        "a field of an image that is none",
        ("tree =", "bush ="),
        "bush",
        "image.c.bush",
        "unknown field",
    ),
    (
        "no tree",
        (
            "tree = { digest = \"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\", size = 315 }\n",
            "",
        ),
        "[image.c]",
        "image.c.tree",
        "missing",
    ),
    (
        "no source",
        ("source =", "derivation2 ="),
        "derivation2",
        "image.c.derivation2",
        "unknown field",
    ),
    (
        "a record in a word",
        (RECORD, "\"none\""),
        "\"none\"",
        "image.c.derivation",
        "a table",
    ),
    (
        "a source in a word",
        (ARCHIVE, "\"c.tar\""),
        "\"c.tar\"",
        "image.c.source",
        "a table",
    ),
    (
        "a source without a file",
        ("file = \"c.tar\", ", ""),
        "{ digest = \"sha256:baa5",
        "image.c.source",
        "either `file` or `reference` is due",
    ),
    (
        "a source from a registry without a digest",
        ("file = \"c.tar\"", "reference = \"r.example/c:1\""),
        "\"r.example/c:1\"",
        "image.c.source.reference",
        "its digest is not that beside it",
    ),
    (
        "a file that is no text",
        ("\"c.tar\"", "7"),
        "7, digest = \"sha256:baa5",
        "image.c.source.file",
        "a string",
    ),
    (
        "a size too many",
        ("size = 315", "size = 315, mode = 7"),
        "mode",
        "image.c.tree.mode",
        "unknown field",
    ),
    (
        "no digest",
        (
            "digest = \"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\", ",
            "",
        ),
        "{ size = 315",
        "image.c.tree.digest",
        "missing",
    ),
    (
        "a digest that is no text",
        (TREE, "12"),
        "12, size",
        "image.c.tree.digest",
        "a string",
    ),
    (
        "an unknown function",
        ("sha256:2c26", "sha512:2c26"),
        "\"sha512:",
        "image.c.tree.digest",
        "sha256",
    ),
    (
        "no function",
        ("\"sha256:2c26", "\"2c26"),
        "\"2c26",
        "image.c.tree.digest",
        "sha256",
    ),
    (
        "a digest in capitals",
        ("7ae\"", "7AE\""),
        TREE_UPPER,
        "image.c.tree.digest",
        "lower-case",
    ),
    (
        "a digest cut short",
        ("7ae\"", "7a\""),
        TREE_SHORT,
        "image.c.tree.digest",
        "hexadecimal",
    ),
    (
        "a record's digest cut short",
        ("8fb9\"", "8fb\""),
        "\"sha256:fcde",
        "image.c.derivation.digest",
        "hexadecimal",
    ),
    (
        "an archive's digest cut short",
        ("8096\"", "809\""),
        "\"sha256:baa5",
        "image.c.source.digest",
        "hexadecimal",
    ),
    (
        "no size",
        (", size = 315", ""),
        "{ digest = \"sha256:2c26",
        "image.c.tree.size",
        "missing",
    ),
    (
        "a negative size",
        ("size = 315", "size = -315"),
        "-315",
        "image.c.tree.size",
        "out of range",
    ),
    (
        "a size beyond all numbers",
        ("size = 315", "size = 99999999999999999999"),
        "99999",
        "image.c.tree.size",
        "out of range",
    ),
    (
        "a size beyond an object's",
        ("size = 98304000", "size = 4294967297"),
        "4294967297",
        "image.c.source.size",
        "more than an object",
    ),
    (
        "a size in words",
        ("size = 618", "size = \"618\""),
        "\"618\"",
        "image.c.derivation.size",
        "whole number",
    ),
];
const TREE_UPPER: &str =
    "\"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7AE\"";
const TREE_SHORT: &str =
    "\"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7a\"";

/// Line and column of the first place of `at` in `text`, from 1.
fn place(text: &str, at: &str) -> (usize, usize) {
    let before = &text[..text.find(at).unwrap_or_else(|| panic!("{at:?} in {text}"))];
    let line = before.rsplit('\n').next().unwrap();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[test]
fn a_bad_belljar_lock_is_refused_by_file_line_and_field() {
    let mut instance = Instance::new();
    let mut wrong = Vec::new();
    for (what, (old, new), at, field, reason) in WRONG {
        let text = match old {
            "" => new.to_owned(),
            old => GOOD.replacen(old, new, 1),
        };
        assert!(old.is_empty() || text != GOOD, "{what}: nothing changed");
        let project = Project::new(MANIFEST);
        let file = project.write("belljar.lock", &text);
        let (line, column) = place(&text, at);
        let place = json!({"file": file, "line": line, "column": column});
        let run = instance.run(&project);
        let lock = ["--lock", file.to_str().unwrap(), "--json"];
        let listed = std::process::Command::new(belljar_tests::program("belljar"))
            .args(["image", "list"])
            .args(lock)
            .output()
            .unwrap();
        let listed_as: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        for (code, json) in [
            (run.exit_code, &run.json),
            (listed.status.code().unwrap(), &listed_as),
        ] {
            let error = json["error"].as_str().unwrap_or_default();
            let fits = code == 2
                && json["schema"] == "belljar.error/v1"
                && json["place"] == place
                && json["fields"][0]["field"] == field
                && json["fields"][0]["reason"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(reason)
                && error.starts_with(&format!("{}:{line}:{column}: ", file.display()))
                && run.said.contains(error);
            if !fits {
                wrong.push(format!("{what}: {code} {json} where {place} is due"));
            }
        }
        // It is left as it was, and so is everything around it.
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::read_dir(project.path()).unwrap().count(), 2, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing was started for any of them.
    assert!(!instance.state().join("config").exists());
}

#[test]
fn an_import_into_a_bad_belljar_lock_changes_nothing() {
    let mut instance = Instance::started();
    let project = Project::bare();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    archive.append_data(&mut header, "d", &b""[..]).unwrap();
    let archive = project.write("c.tar", archive.into_inner().unwrap());
    let bad = GOOD.replace("size = 315", "size = -1");
    let lock = project.write("belljar.lock", &bad);
    let (archive, path) = (archive.to_str().unwrap(), lock.to_str().unwrap());
    let import = |name: &str| ["--name", name, "--lock", path, "--json"].map(str::to_owned);
    for name in ["d", "c"] {
        let arguments = import(name);
        let arguments = [&[archive][..], &arguments.each_ref().map(String::as_str)].concat();
        let told = instance.tell("image import", &arguments);
        let refused = told.clone().assert_code(2).json("belljar.error/v1");
        assert_eq!(
            refused["fields"][0]["field"], "image.c.tree.size",
            "{told:?}"
        );
        assert_eq!(fs::read_to_string(&lock).unwrap(), bad);
    }
    assert_eq!(fs::read_dir(project.path()).unwrap().count(), 2);
}

#[test]
fn text_that_is_no_lock_and_too_much_of_it_are_refused() {
    let mut instance = Instance::new();
    let project = Project::new(MANIFEST);
    project.write("belljar.lock", b"version = 1\n# \xff\n");
    let run = instance.run(&project);
    assert_eq!(
        (run.exit_code, &run.json["place"]["line"]),
        (2, &json!(2)),
        "{run}"
    );
    project.write("belljar.lock", format!("{GOOD}#{}", "x".repeat(1 << 20)));
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    let error = run.json["error"].as_str().unwrap();
    assert!(
        error.contains("belljar.lock") && error.contains("larger than"),
        "{run}"
    );
    // Nested without end: refused as well, not followed.
    let nested = format!(
        "version = 1\nimage = {}{}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    project.write("belljar.lock", nested);
    let run = instance.run(&project);
    assert_eq!(
        (run.exit_code, &run.json["place"]["line"]),
        (2, &json!(2)),
        "{run}"
    );
    // What is not there is named, with what to do.
    fs::remove_file(project.path().join("belljar.lock")).unwrap();
    let run = instance.run(&project);
    assert_eq!(
        (run.exit_code, &run.json["fields"][0]["field"]),
        (2, &json!("image")),
        "{run}"
    );
    let error = run.json["error"].as_str().unwrap();
    assert!(
        error.contains("belljar image import FILE --name c"),
        "{run}"
    );
    project.write("belljar.lock", GOOD.replace("[image.c]", "[image.d]"));
    let run = instance.run(&project);
    let error = run.json["error"].as_str().unwrap();
    assert!(
        error.contains("it names d") && error.contains("image import"),
        "{run}"
    );
    assert!(!instance.state().join("config").exists());
}
