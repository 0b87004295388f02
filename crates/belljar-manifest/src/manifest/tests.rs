use super::*;
use crate::Place;
use crate::changes::changed;
use belljar_core::{ArtifactForm, BaseImage, Digest, Fetch, FetchDigest, Platform, Unpack, bounds};
use proptest::prelude::*;

const GOOD: &str = r#"image = "host"
run = ["make"]
outputs = ["app"]
"#;

fn load(text: &[u8]) -> Result<Manifest, Wrong> {
    Manifest::parse(text, &Lock::default())
}

/// `line:column: field: reason` of a refused file.
fn refusal(text: &str) -> String {
    load(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_documented_example_is_read() {
    let text = include_str!("mod.rs");
    let example: String = text
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim()))
        .collect();
    let manifest = load(example.as_bytes()).unwrap();
    let spec = manifest
        .spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT)
        .unwrap();
    assert_eq!(spec.run.iter().len(), 2);
    assert_eq!(spec.source_date_epoch, 1_700_000_000);
    assert_eq!(spec.limits.get().wall_seconds, 600);
    assert_eq!(spec.limits.get().pids, Limits::DEFAULT.get().pids);
    let names: Vec<&str> = spec.env.keys().map(EnvName::as_str).collect();
    assert_eq!(names, ["CARGO_HOME", "CFLAGS"]);
    assert_eq!(spec.working_directory, RelPath::new("sub").ok());
}

/// A lock with an image that has a record, and one that has none.
fn locked() -> Lock {
    let mut lock = Lock::default();
    for (name, derivation) in [("base", Some(ObjectId::of(b"record"))), ("bare", None)] {
        let tree = ObjectId::of(name.as_bytes());
        let origin = Origin::File(format!("{name}.tar"));
        let image = crate::lock::Image {
            input: Input { tree, derivation },
            source: crate::lock::Source {
                origin,
                object: tree,
            },
        };
        lock.set(InputName::new(name).unwrap(), image);
    }
    lock
}

#[test]
fn an_image_becomes_of_outputs_as_it_is_described() {
    let read =
        |text: &str| Manifest::parse(format!("{GOOD}[output.oci]\n{text}").as_bytes(), &locked());
    let manifest =
        read("base = \"base\"\nroot = \"app\"\nentrypoint = [\"/app\"]\nenv = { A = \"1\" }")
            .unwrap();
    let (input, named) = manifest.base().unwrap();
    assert_eq!(
        (input.tree, named.name.as_str()),
        (ObjectId::of(b"base"), "base")
    );
    let spec = manifest
        .spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT)
        .unwrap();
    let output = spec.image_output.unwrap();
    assert_eq!(output.base.image(), Some(&input));
    assert_eq!(output.root, RelPath::new("app").ok());
    assert_eq!(output.config.get().entrypoint, ["/app"]);
    assert_eq!(output.config.get().env["A"], "1");
    let scratch = read("base = \"scratch\"\nplatform = \"linux/arm64\"").unwrap();
    assert!(scratch.base().is_none());
    let spec = scratch
        .spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT)
        .unwrap();
    let due = BaseImage::Scratch(Platform::LinuxArm64);
    assert_eq!(spec.image_output.unwrap().base, due);
    for (text, due) in [
        ("", "4:1: output.oci.base: missing"),
        (
            "base = \"other\"",
            "5:8: output.oci.base: `other` is not in belljar.lock",
        ),
        (
            "base = \"bare\"",
            "5:8: output.oci.base: belljar.lock has no `derivation`",
        ),
        ("base = \"host\"", "5:8: output.oci.base: `host`"),
        (
            "base = \"debian:trixie\"",
            "5:8: output.oci.base: `debian:trixie` is no name of an image: 1 to 64 characters out of lower-case letters, digits, `.`, \
             `_` and `-`, the first a letter or digit; an image at a registry gets one by `belljar image pull",
        ),
        ("base = 1", "5:8: output.oci.base: a string is due"),
        (
            "base = \"base\"\nplatform = \"linux/arm64\"",
            "6:12: output.oci.platform: ",
        ),
        (
            "base = \"scratch\"\nplatform = \"x\"",
            "6:12: output.oci.platform: `x`",
        ),
        (
            "base = \"scratch\"\nroot = \"other\"",
            "6:8: output.oci.root: `other` is not among",
        ),
        (
            "base = \"scratch\"\nroot = \"/x\"",
            "6:8: output.oci.root: ",
        ),
        (
            "base = \"scratch\"\nentrypoint = \"sh\"",
            "6:14: output.oci.entrypoint: an array",
        ),
        (
            "base = \"scratch\"\nentrypoint = [\"\"]",
            "6:14: output.oci.entrypoint[0]: ",
        ),
        (
            "base = \"scratch\"\nenv = { \"1\" = \"x\" }",
            "6:7: output.oci.env.1: ",
        ),
        (
            "base = \"scratch\"\nlabels = [1]",
            "6:10: output.oci.labels: a table",
        ),
        (
            "base = \"scratch\"\nuser = \"a b\"",
            "6:8: output.oci.user: ",
        ),
        (
            "base = \"scratch\"\nworking_directory = \"x\"",
            "6:21: output.oci.working_directory: ",
        ),
        (
            "base = \"scratch\"\nports = [1]",
            "6:1: output.oci.ports: unknown field",
        ),
        (
            "base = \"scratch\"\ndockerfile = \"x\"",
            "6:1: output.oci.dockerfile: Dockerfiles are not run",
        ),
        (
            "base = \"x/Dockerfile\"",
            "5:8: output.oci.base: Dockerfiles are not run",
        ),
    ] {
        let refused = read(text).unwrap_err().to_string();
        assert!(refused.starts_with(due), "{text}: {refused}");
    }
    let refused = refusal(&format!("{GOOD}[output.tar]\nx = 1"));
    assert!(
        refused.starts_with("4:9: output.tar: unknown field"),
        "{refused}"
    );
    for (file, fine) in [
        ("Dockerfile", false),
        ("a/app.dockerfile", false),
        ("Containerfile.dev", false),
        ("dockerfiles", true),
        ("image.tar", true),
    ] {
        assert_eq!(no_dockerfile(file).is_ok(), fine, "{file}");
    }
}

#[test]
fn what_is_fetched_is_named_by_urls_and_digest() {
    let fetches = |text: &str| {
        let manifest = load(format!("{GOOD}{text}").as_bytes()).unwrap();
        let spec = manifest.spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT);
        spec.unwrap().fetches
    };
    let digest = ObjectId::of(b"").digest;
    let hex = format!("sha256 = \"{}\"", digest.to_hex());
    let sri = "integrity = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"";
    for (rest, due) in [
        (hex.clone(), Unpack::file("x.jar", false)),
        (
            format!("{sri}\nexecutable = true\nfile_name = \"tool\""),
            Unpack::file("tool", true),
        ),
        (format!("{sri}\nunpack = true"), Unpack::tar(0)),
        (
            format!("{hex}\nunpack = true\nstrip_components = 2"),
            Unpack::tar(2),
        ),
        (format!("{hex}\nunpack = \"tar\""), Unpack::tar(0)),
        (
            format!("{hex}\nunpack = \"zip\"\nstrip_components = 1"),
            Unpack::zip(1),
        ),
    ] {
        let all = fetches(&format!(
            "[fetch.a]\nurls = [\"https://a.example/x.jar?v=1\"]\n{rest}\n"
        ));
        let fetch = all.get(&InputName::new("a").unwrap()).unwrap();
        assert_eq!(
            (fetch.digest(), fetch.unpack()),
            (FetchDigest::Sha256(digest), Some(&due.unwrap()))
        );
    }
    let url = "urls = [\"https://a.example/x\"]";
    for (text, due) in [
        ("[fetch.A]".to_owned(), "fetch: an input's name"),
        (format!("[fetch.a]\n{hex}"), "fetch.a.urls: missing"),
        (format!("[fetch.a]\n{url}"), "fetch.a.sha256: missing"),
        (
            format!("[fetch.a]\n{url}\n{hex}\n{sri}"),
            "fetch.a.integrity: is given beside",
        ),
        (
            format!("[fetch.a]\n{url}\nintegrity = \"sha512-AAAA\""),
            "fetch.a.integrity: `sha512-AAAA` is no SHA-256",
        ),
        (
            format!("[fetch.a]\nurls = [\"ftp://a/x\"]\n{hex}"),
            "fetch.a.urls[0]: `ftp` URLs",
        ),
        (
            format!("[fetch.a]\nurls = []\n{hex}"),
            "fetch.a.urls: no URL",
        ),
        (
            format!("[fetch.a]\n{url}\n{hex}\nstrip_components = 1"),
            "fetch.a.strip_components: is for an archive",
        ),
        (
            format!("[fetch.a]\n{url}\n{hex}\nunpack = true\nexecutable = true"),
            "fetch.a.executable: is for a file",
        ),
        (
            format!("[fetch.a]\n{url}\n{hex}\nunpack = \"rar\""),
            "fetch.a.unpack: archives are `\"tar\"`",
        ),
        (
            format!("[fetch.a]\n{url}\n{hex}\nunpack = 1"),
            "fetch.a.unpack: `true`, `false`, `\"tar\"` or `\"zip\"` is due",
        ),
        (
            format!("[fetch.a]\nurls = [\"https://a.example/\"]\n{hex}"),
            "fetch.a.file_name: missing",
        ),
        (
            format!("[fetch.a]\n{url}\n{hex}\nproxy = \"x\""),
            "fetch.a.proxy: unknown field",
        ),
    ] {
        let refusal = refusal(&format!("{GOOD}{text}\n"));
        assert!(refusal.contains(due), "{refusal}");
    }
}

#[test]
fn a_commit_is_named_by_its_full_name() {
    let read = |text: &str| {
        let text = format!("{GOOD}[fetch.a]\n{text}\n");
        let manifest = load(text.as_bytes()).map_err(|e| e.to_string())?;
        let spec = manifest.spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT);
        let fetches = spec.unwrap().fetches;
        match fetches.get(&InputName::new("a").unwrap()).unwrap() {
            Fetch::Git(fetch) => Ok(fetch.clone()),
            other => Err(format!("{other:?}")),
        }
    };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let full = format!("commit = \"{commit}\"");
    let one = "git = \"https://a.example/x.git\"";
    for (text, urls, submodules) in [
        (format!("{one}\n{full}"), 1, false),
        (format!("{one}\n{full}\nsubmodules = false"), 1, false),
        (
            format!(
                "git = [\"https://a.example/x\", \"https://b.example/x\"]\n{full}\nsubmodules = true"
            ),
            2,
            true,
        ),
    ] {
        let fetch = read(&text).unwrap();
        assert_eq!(fetch.commit.to_string(), commit);
        let found = (fetch.repositories.iter().len(), fetch.submodules);
        assert_eq!(found, (urls, submodules));
    }
    let long = "a".repeat(64);
    for (text, due) in [
        (one.to_owned(), "fetch.a.commit: missing"),
        (
            format!("{one}\ncommit = \"main\""),
            "fetch.a.commit: not the full name of a commit",
        ),
        (
            format!("{one}\ncommit = \"{long}\""),
            "with SHA-256 are not fetched",
        ),
        (format!("git = []\n{full}"), "fetch.a.git: no URL"),
        (
            format!("git = \"git@a.example:x\"\n{full}"),
            "fetch.a.git: not an absolute URL",
        ),
        (
            format!("git = \"ssh://a.example/x\"\n{full}"),
            "fetch.a.git: `ssh` URLs are not fetched",
        ),
        (
            format!("git = \"https://a.example/?r=x\"\n{full}"),
            "fetch.a.git: the URL has a query",
        ),
        (
            format!("git = [\"https://a.example/x\", \"https://b.example/x?y\"]\n{full}"),
            "fetch.a.git[1]: the URL has a query",
        ),
        (
            format!("{one}\n{full}\nbranch = \"main\""),
            "fetch.a.branch: means another commit tomorrow",
        ),
        (
            format!("{one}\n{full}\nunpack = true"),
            "fetch.a.unpack: is for archives",
        ),
        (
            format!("{one}\n{full}\nsubmodules = 1"),
            "fetch.a.submodules: `true` or `false`",
        ),
        (
            format!("{one}\n{full}\nartifact = \"x\""),
            "fetch.a.artifact: is had by its digest",
        ),
        (
            format!("{one}\n{full}\ndepth = 1"),
            "fetch.a.depth: unknown field",
        ),
    ] {
        let refusal = refusal(&format!("{GOOD}[fetch.a]\n{text}\n"));
        assert!(refusal.contains(due), "{refusal}");
    }
}

#[test]
fn what_an_earlier_build_has_left_is_named_by_its_digest() {
    let read = |text: &str| {
        let text = format!("{GOOD}[fetch.a]\nartifact = \"{}\"\n{text}\n", digest());
        let manifest = load(text.as_bytes()).map_err(|e| e.to_string())?;
        let spec = manifest.spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT);
        let fetches = spec.unwrap().fetches;
        match fetches.get(&InputName::new("a").unwrap()).unwrap() {
            Fetch::Artifact(fetch) => Ok(fetch.clone()),
            Fetch::Urls(_) | Fetch::Git(_) => Err("from elsewhere".to_owned()),
        }
    };
    let id = "01m80ts0f9k8jr4yh4r7abv98y";
    let file = |unpack: Result<Unpack, Invalid>| ArtifactForm::File(unpack.unwrap());
    for (rest, due) in [
        ("file_name = \"tool\"", file(Unpack::file("tool", false))),
        (
            "file_name = \"tool\"\nexecutable = true",
            file(Unpack::file("tool", true)),
        ),
        ("unpack = true\nstrip_components = 1", file(Unpack::tar(1))),
        ("directory = true", ArtifactForm::Directory),
    ] {
        let found = read(rest).unwrap();
        assert_eq!((found.artifact, found.form), (digest(), due));
        assert_eq!((found.build, found.builder), (None, None));
    }
    let narrow = read(&format!(
        "directory = true\nbuild = \"builds/{id}\"\nbuilder = \"urn:x/builders/dev/v1\""
    ));
    let narrow = narrow.unwrap();
    assert_eq!(narrow.build.unwrap().as_str(), id);
    assert_eq!(narrow.builder.unwrap().as_str(), "urn:x/builders/dev/v1");
    for (rest, due) in [
        ("", "fetch.a.file_name: missing; a file needs a name"),
        ("executable = true", "fetch.a.file_name: missing"),
        (
            "directory = true\nfile_name = \"x\"",
            "fetch.a.file_name: is for a file",
        ),
        (
            "directory = true\nunpack = true",
            "fetch.a.unpack: is for a file",
        ),
        ("directory = 1", "fetch.a.directory: `true` or `false`"),
        (
            "directory = true\nurls = []",
            "fetch.a.urls: is for what comes from elsewhere",
        ),
        (
            "directory = true\nsha256 = \"\"",
            "fetch.a.sha256: is for what comes from elsewhere",
        ),
        (
            "directory = true\nintegrity = \"\"",
            "fetch.a.integrity: is for what comes from elsewhere",
        ),
        (
            "directory = true\nbuild = \"01m\"",
            "fetch.a.build: not the name of a build",
        ),
        (
            "directory = true\nbuild = \"builds/01m\"",
            "fetch.a.build: ",
        ),
        (
            "directory = true\nbuilder = \"a b\"",
            "fetch.a.builder: `a b` is no builder.id",
        ),
        (
            "directory = true\nat = \"/opt\"",
            "fetch.a.at: unknown field",
        ),
    ] {
        let refusal = read(rest).unwrap_err();
        assert!(refusal.contains(due), "{rest}: {refusal}");
    }
    let bad = refusal(&format!("{GOOD}[fetch.a]\nartifact = \"abc\"\n"));
    assert!(bad.contains("fetch.a.artifact: "), "{bad}");
}

fn digest() -> Digest {
    Digest::of(b"artifact")
}

#[test]
fn lock_files_bring_variables_that_may_be_overridden() {
    let with = |more: &str| {
        let text = format!("{GOOD}deps = [\"package-lock.json\", \"a/Cargo.lock\"]\n{more}");
        let manifest = load(text.as_bytes()).unwrap();
        let files = manifest.deps().iter();
        let paths: Vec<&str> = files.map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["package-lock.json", "a/Cargo.lock"]);
        let spec = manifest.spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT);
        spec.unwrap().env
    };
    let value = |env: &BTreeMap<EnvName, EnvValue>, name: &str| {
        env[&EnvName::new(name).unwrap()].as_str().to_owned()
    };
    let env = with("");
    assert_eq!(value(&env, "CARGO_HOME"), "/deps/cargo/home");
    assert_eq!(value(&env, "npm_config_cache"), "/deps/npm");
    let own = with("env = { CARGO_HOME = \"/own\" }");
    assert_eq!(value(&own, "CARGO_HOME"), "/own");
}

#[test]
fn an_image_is_looked_up_in_the_lock_beside_it() {
    let object = |text: &str| {
        let object = ObjectId::of(text.as_bytes());
        format!("digest = \"{}\", size = {}", object.digest, object.size)
    };
    let lock = format!(
        "version = 1\n[image.rust]\ntree = {{ {} }}\nderivation = {{ {} }}\nsource = {{ file = \"r.tar\", {} }}\n",
        object("tree"),
        object("record"),
        object("archive")
    );
    let load = |lock: &str, name: &str| {
        let lock = Lock::parse(lock.as_bytes()).unwrap();
        Manifest::parse(GOOD.replace("host", name).as_bytes(), &lock)
    };
    let manifest = load(&lock, "rust").unwrap();
    let (input, named) = manifest.image().unwrap();
    assert_eq!(
        (input.tree, named.origin.to_string().as_str()),
        (ObjectId::of(b"tree"), "r.tar")
    );
    assert_eq!(
        manifest
            .clone()
            .spec(ObjectId::of(b""), Inputs::default(), &Limits::DEFAULT)
            .unwrap()
            .image,
        Image::Tree(input)
    );
    let wrong = load(&lock, "go").unwrap_err();
    assert!(
        wrong.invalid.reason.contains("it names rust; import it"),
        "{wrong}"
    );
}

#[test]
fn little_is_enough() {
    let mut figures = *Limits::DEFAULT.get();
    figures.pids = 5;
    let defaults = Limits::new(figures).unwrap();
    let manifest = load(GOOD.as_bytes()).unwrap();
    let spec = manifest
        .spec(ObjectId::of(b"x"), Inputs::default(), &defaults)
        .unwrap();
    assert_eq!(spec.limits, defaults, "the daemon's defaults");
    assert_eq!(spec.source_date_epoch, BuildSpec::DEFAULT_EPOCH);
    assert_eq!(spec.source, ObjectId::of(b"x"));
}

#[test]
fn what_is_wrong_is_told_with_line_column_and_field() {
    let with = |more: &str| refusal(&format!("{GOOD}{more}"));
    let instead = |old: &str, new: &str| refusal(&GOOD.replace(old, new));
    let cases: [(String, &str); 30] = [
        (
            refusal("image = \"host\"\nrun = [\"make\"\n"),
            "2:14: unclosed array",
        ),
        (
            refusal("image = \"host\"\nimage = \"host\"\n"),
            "2:1: duplicate key",
        ),
        (refusal(""), "1:1: image: missing"),
        (instead("run = [\"make\"]\n", ""), "1:1: run: missing"),
        (
            instead("\"host\"", "\"rust\""),
            "1:9: image: `rust` is not in belljar.lock, it names none; import it",
        ),
        (instead("\"host\"", "7"), "1:9: image: a string is due"),
        (instead("[\"make\"]", "\"make\""), "2:7: run: an array"),
        (instead("[\"make\"]", "[]"), "2:7: run: no command"),
        (
            instead("[\"make\"]", "[\"make\", \" \"]"),
            "2:16: run[1]: the command is empty",
        ),
        (
            instead("[\"make\"]", "[\"make\", 5]"),
            "2:16: run[1]: a string is due",
        ),
        (
            instead("[\"app\"]", "[\n  \"app\",\n  \"../up\",\n]"),
            "5:3: outputs[1]: `../up` has a `.` or `..`",
        ),
        (
            instead("[\"app\"]", "[\"/abs\"]"),
            "3:12: outputs[0]: `/abs` is absolute",
        ),
        (
            instead("[\"app\"]", "[\"app\", \"app\"]"),
            "3:19: outputs[1]: `app` is declared twice",
        ),
        (
            instead("[\"app\"]", "[\"app\", \"app/x\"]"),
            "3:11: outputs: `app/x` lies inside",
        ),
        (
            instead("[\"app\"]", "[\"build.log\"]"),
            "3:12: outputs[0]: `build.log` would take the place",
        ),
        (
            instead("[\"app\"]", "[\"lib/a**\"]"),
            "3:12: outputs[0]: the pattern `lib/a**` has `**` inside",
        ),
        (
            instead("[\"app\"]", "[\"build.*\"]"),
            "3:12: outputs[0]: `build.*` could take the place",
        ),
        (
            with("working_directory = \"../up\""),
            "4:21: working_directory: `../up` has a `.` or `..`",
        ),
        (
            with("[limits]\ngrace_seconds = 301"),
            "5:17: limits.grace_seconds: 301 is beyond the cap of 300",
        ),
        (
            with("deps = [\"go.sum\"]"),
            "4:9: deps[0]: lock files of Go (`go.sum`) are not supported yet",
        ),
        (
            with("deps = [\"Cargo.lock\", \"sub/Cargo.lock\"]"),
            "4:23: deps[1]: `sub/Cargo.lock` is a second lock file of cargo",
        ),
        (
            with("deps = [\"../Cargo.lock\"]"),
            "4:9: deps[0]: `../Cargo.lock` has a `.` or `..`",
        ),
        (
            with("network = \"none\""),
            "4:1: network: not supported yet",
        ),
        (
            with("colour = 1"),
            "4:1: colour: unknown field; the fields are image, run",
        ),
        (
            with("source_date_epoch = -1"),
            "4:21: source_date_epoch: -1 is out of range",
        ),
        (
            with("env = { 1A = \"\" }"),
            "4:9: env: `1A` is not a variable name",
        ),
        (
            with("[env]\nHOME = \"/\""),
            "5:1: env: `HOME` is set by the sandbox",
        ),
        (with("[env]\nA = 5"), "5:5: env.A: a string is due"),
        (
            with("[limits]\nwall_seconds = 5\npids = 0"),
            "6:8: limits.pids: zero is not a limit",
        ),
        (
            with("[limits]\nmemory = 1"),
            "5:1: limits.memory: unknown limit",
        ),
    ];
    for (said, due) in cases {
        assert!(said.starts_with(due), "said: {said}\n due: {due}");
    }
}

#[test]
fn what_a_daemon_would_refuse_of_all_fields_together_is_refused_here() {
    let set = |count: usize| (0..count).map(|n| format!("V{n} = \"\"\n"));
    let env = |count: usize, more: &str| format!("[env]\n{more}{}", set(count).collect::<String>());
    let fetch = |name: &str| {
        let hex = ObjectId::of(b"").digest.to_hex();
        format!("[fetch.{name}]\nurls = [\"https://a.example/x\"]\nsha256 = \"{hex}\"\n")
    };
    let fetches = |count: usize| {
        (0..count)
            .map(|n| fetch(&format!("f{n}")))
            .collect::<String>()
    };
    let scripts = |count: usize| format!("\"{}\", ", "x".repeat(60_000)).repeat(count);
    let with_scripts = |count: usize| GOOD.replace("[\"make\"]", &format!("[{}]", scripts(count)));
    // So many that nobody could wait until each was compared with each.
    let many = |count: usize| (0..count).map(|n| format!("\"{n}\",")).collect::<String>();
    let deps = "deps = [\"Cargo.lock\"]\n";
    for good in [
        format!("{GOOD}{}", env(bounds::ENV_VARIABLES, "")),
        format!(
            "{GOOD}{deps}{}",
            env(bounds::ENV_VARIABLES - 1, "CARGO_HOME = \"/own\"\n")
        ),
        format!("{GOOD}{}", fetches(bounds::INPUTS)),
        format!("{GOOD}{}", fetch("cargo")),
        format!("{GOOD}{deps}{}", fetches(bounds::INPUTS - 1)),
        format!("{GOOD}source_date_epoch = {}", BuildSpec::LAST_EPOCH),
        with_scripts(2),
    ] {
        load(good.as_bytes()).unwrap();
    }
    for (bad, due) in [
        (
            format!("{GOOD}{deps}{}", env(bounds::ENV_VARIABLES, "")),
            "5:1: env: 257 variables are set, with those of `deps`; 256 are allowed",
        ),
        (
            format!("{GOOD}{deps}{}", fetch("cargo")),
            "5:8: fetch.cargo: the packages of `Cargo.lock` have this name; choose another",
        ),
        (
            format!("{GOOD}{deps}{}", fetches(bounds::INPUTS)),
            "fetch: with `deps` more than 16 trees",
        ),
        (
            format!("{GOOD}source_date_epoch = {}", BuildSpec::LAST_EPOCH + 1),
            "4:21: source_date_epoch: 253402300800 lies beyond the year 9999",
        ),
        (with_scripts(3), "1:1: the specification has 18"),
        (
            GOOD.replace("[\"app\"]", &format!("[{}]", many(100_000))),
            "3:11: outputs: 100000 outputs are declared; 256 are allowed",
        ),
    ] {
        let said = refusal(&bad);
        assert!(said.contains(due), "said: {said}\n due: {due}");
    }
}

#[test]
fn what_is_no_text_or_too_large_is_refused() {
    let place = |text: &[u8]| load(text).unwrap_err().place.to_string();
    assert_eq!(place(b"a = 1\nb\xff"), "2:2");
    assert_eq!(place(&vec![b'#'; bounds::CONFIG_BYTES + 1]), "1:1");
    assert!(load("#".repeat(bounds::CONFIG_BYTES - GOOD.len() - 1).as_bytes()).is_err());
}

#[test]
fn columns_count_characters() {
    assert_eq!(Place::at("ä = ö\nü", "ä = ö\nü".len()).to_string(), "2:2");
    assert_eq!(Place::at("x", 99).to_string(), "1:2");
}

/// With what else it may have.
fn whole() -> String {
    format!(
        "{GOOD}working_directory = \"src\"\nsource_date_epoch = 7\n[env]\nA = \"b\"\n[limits]\npids = 7\n"
    )
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = load(&bytes);
    }

    /// A good file with bytes of it gone, put in or replaced.
    #[test]
    fn a_changed_file_is_read_or_refused_with_a_place(text in changed(whole(), |text| load(text.as_bytes()).is_ok())) {
        let _ = load(text.as_bytes());
    }
}
