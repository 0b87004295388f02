use belljar_tests::{Instance, Project};
use serde_json::json;

/// A `belljar.toml` that is fine; cases change a line or add some.
const GOOD: &str = "image = \"host\"\nrun = [\"true\"]\noutputs = [\"out\"]\n";

/// What is wrong, the change, the line and column that are named, the field, and a word of the reason.
type Case = (
    &'static str,
    &'static str,
    (u64, u64),
    &'static str,
    &'static str,
);

const WRONG: [Case; 33] = [
    ("not TOML", "image = \n", (1, 9), "", "value"),
    (
        "the same key twice",
        "image = \"host\"\nimage = \"host\"\n",
        (2, 1),
        "",
        "duplicate",
    ),
    ("empty", "", (1, 1), "image", "missing"),
    (
        "no run",
        "image = \"host\"\noutputs = [\"out\"]\n",
        (1, 1),
        "run",
        "missing",
    ),
    (
        "no outputs",
        "image = \"host\"\nrun = [\"true\"]\n",
        (1, 1),
        "outputs",
        "missing",
    ),
    (
        "an unknown field",
        "+color = \"red\"",
        (4, 1),
        "color",
        "unknown field",
    ),
    (
        "no lock file",
        "+deps = [\"gcc\"]",
        (4, 9),
        "deps[0]",
        "no lock file that is known",
    ),
    (
        "network",
        "+network = \"full\"",
        (4, 1),
        "network",
        "not supported yet",
    ),
    (
        "no name of an image",
        "image=\"debian:13\"",
        (1, 9),
        "image",
        "no name of an image",
    ),
    (
        "image of another type",
        "image=13",
        (1, 9),
        "image",
        "string",
    ),
    ("run is no list", "run=\"make\"", (2, 7), "run", "array"),
    ("run is empty", "run=[]", (2, 7), "run", "at least one"),
    (
        "an empty step",
        "run=[\"true\", \"  \"]",
        (2, 16),
        "run[1]",
        "empty",
    ),
    (
        "a step of another type",
        "run=[\"true\", 3]",
        (2, 16),
        "run[1]",
        "string",
    ),
    (
        "a NUL in a step",
        "run=[\"a\\u0000b\"]",
        (2, 8),
        "run[0]",
        "NUL",
    ),
    (
        "no output",
        "outputs=[]",
        (3, 11),
        "outputs",
        "at least one",
    ),
    (
        "an absolute output",
        "outputs=[\"out\", \"/etc/passwd\"]",
        (3, 19),
        "outputs[1]",
        "absolute",
    ),
    (
        "an output outside",
        "outputs=[\"../out\"]",
        (3, 12),
        "outputs[0]",
        "`..`",
    ),
    (
        "an output that is a dot",
        "outputs=[\".\"]",
        (3, 12),
        "outputs[0]",
        "`.`",
    ),
    (
        "a trailing slash",
        "outputs=[\"dir/\"]",
        (3, 12),
        "outputs[0]",
        "trailing",
    ),
    (
        "a control character",
        "outputs=[\"a\\tb\"]",
        (3, 12),
        "outputs[0]",
        "control",
    ),
    (
        "an output twice",
        "outputs=[\"a\", \"a\"]",
        (3, 17),
        "outputs[1]",
        "twice",
    ),
    (
        "an output in another",
        "outputs=[\"a\", \"a/b\"]",
        (3, 11),
        "outputs",
        "inside",
    ),
    (
        "evidence's place",
        "outputs=[\"build.log\"]",
        (3, 12),
        "outputs[0]",
        "evidence",
    ),
    (
        "a bundle's place",
        "outputs=[\"a\", \"a.sigstore.json\"]",
        (3, 11),
        "outputs",
        "evidence",
    ),
    (
        "a variable without a name",
        "+[env]\n\"\" = \"x\"",
        (5, 1),
        "env",
        "variable name",
    ),
    (
        "a variable of the sandbox",
        "+[env]\nHOME = \"/root\"",
        (5, 1),
        "env",
        "set by the sandbox",
    ),
    (
        "a number for a variable",
        "+[env]\nN = 3",
        (5, 5),
        "env.N",
        "string",
    ),
    (
        "an unknown limit",
        "+[limits]\nwall = 3",
        (5, 1),
        "limits.wall",
        "wall_seconds",
    ),
    (
        "a limit of zero",
        "+[limits]\npids = 0",
        (5, 8),
        "limits.pids",
        "zero",
    ),
    (
        "a negative limit",
        "+[limits]\npids = -1",
        (5, 8),
        "limits.pids",
        "out of range",
    ),
    (
        "a limit beyond the cap",
        "+[limits]\nwall_seconds = 90000",
        (5, 16),
        "limits.wall_seconds",
        "cap",
    ),
    (
        "a time before 1970",
        "+source_date_epoch = -1",
        (4, 21),
        "source_date_epoch",
        "out of range",
    ),
];

/// [`GOOD`] with one line replaced (`key=value`), or lines added (`+…`); else the text itself.
fn manifest(change: &str) -> String {
    if let Some(more) = change.strip_prefix('+') {
        return format!("{GOOD}{more}\n");
    }
    let keys = ["image", "run", "outputs"];
    let changed = keys.iter().find_map(|key| {
        let value = change.strip_prefix(key)?.strip_prefix('=')?;
        let lines = GOOD.lines().map(|line| match line.starts_with(key) {
            true => format!("{key} = {value}\n"),
            false => format!("{line}\n"),
        });
        Some(lines.collect())
    });
    changed.unwrap_or_else(|| change.to_owned())
}

#[test]
fn a_bad_belljar_toml_is_refused_by_file_line_and_field() {
    let mut instance = Instance::new();
    let mut wrong = Vec::new();
    for (what, change, (line, column), field, reason) in WRONG {
        let project = Project::new(&manifest(change));
        let run = instance.run(&project);
        let file = project.path().join("belljar.toml");
        let place = json!({"file": file, "line": line, "column": column});
        let error = run.json["error"].as_str().unwrap_or_default();
        let named = run.json["fields"][0]["field"].as_str().unwrap_or_default();
        let why = run.json["fields"][0]["reason"].as_str().unwrap_or_default();
        let told = error.starts_with(&format!("{}:{line}:{column}: ", file.display()))
            && error.contains(field)
            && run.said.contains(error);
        let fits = run.exit_code == 2
            && run.json["schema"] == "belljar.error/v1"
            && run.json["place"] == place
            && named == field
            && why.contains(reason);
        if !(fits && told) {
            wrong.push(format!("{what}: {run}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing was started for any of them.
    assert!(!instance.state().join("config").exists());
}

#[test]
fn the_good_one_that_the_cases_change_is_good() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::new(&GOOD.replace("true", ": > out")));
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"");
}

#[test]
fn a_directory_without_one_is_refused_with_a_hint() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::bare());
    assert_eq!(run.exit_code, 2, "{run}");
    let error = run.json["error"].as_str().unwrap();
    assert!(
        error.contains("there is no") && error.contains("belljar.toml"),
        "{error}"
    );
    assert!(
        run.json["hint"]
            .as_str()
            .unwrap()
            .contains("belljar run DIR"),
        "{run}"
    );
}

#[test]
fn text_that_is_no_text_and_too_much_of_it_are_refused() {
    let mut instance = Instance::new();
    let project = Project::bare();
    project.write("belljar.toml", b"image = \"host\"\n# \xff\n");
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    assert_eq!(run.json["place"]["line"], 2, "{run}");
    assert!(
        run.json["error"].as_str().unwrap().contains("UTF-8"),
        "{run}"
    );
    project.write("belljar.toml", format!("{GOOD}#{}", "x".repeat(1 << 20)));
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(
        run.json["error"]
            .as_str()
            .unwrap()
            .contains("larger than 1048576 bytes"),
        "{run}"
    );
}
