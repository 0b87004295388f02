//! Real projects, whose sources come from the package registries when they are asked for: none is kept here.

use std::fs;
use std::path::Path;

use crate::{Project, tool};

/// The C library: libffi as it is released, in the crate of its bindings.
const LIBFFI: (&str, &str) = ("libffi-sys", "=4.1.0");
/// What calls a function through it.
const CALLER: &str = r#"#include <ffi.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    ffi_cif cif;
    ffi_type *types[] = { &ffi_type_pointer };
    const char *text = "a bell jar";
    void *values[] = { &text };
    ffi_arg length;
    if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 1, &ffi_type_ulong, types) != FFI_OK)
        return 1;
    ffi_call(&cif, FFI_FN(strlen), &length, values);
    printf("%s: %lu\n", text, (unsigned long)length);
    return 0;
}
"#;

/// Programs that are released as crates, as members of one workspace.
const MEMBERS: [(&str, &str); 2] = [("hexyl", "=0.16.0"), ("runiq", "=2.0.0")];
/// Without what nobody looks for: debugging information, what a next build could begin with, checks of sums.
const WORKSPACE: &str = r#"[workspace]
members = ["hexyl", "runiq"]
resolver = "2"

[profile.dev]
debug = false
incremental = false
debug-assertions = false
overflow-checks = false
"#;

/// A server, and what makes one file of it and all that it needs.
const PACKAGE: &str = r#"{
  "name": "server",
  "version": "1.0.0",
  "private": true,
  "dependencies": { "express": "4.21.2" },
  "devDependencies": { "webpack": "5.101.3", "webpack-cli": "6.0.1" }
}
"#;
const SERVER: &str = r#"
const app = require("express")();
app.get("/:who", (request, response) => response.json({ hello: request.params.who }));
const server = app.listen(0, "127.0.0.1", async () => {
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/jar`);
  console.log(answer.status, await answer.text());
  server.close();
  server.closeAllConnections();
});
"#;

/// How much of Belljar is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The privileged process only, which needs the fewest crates.
    Spawner,
    /// Every program of the workspace.
    Programs,
}

/// A project, and what builds it.
#[derive(Debug)]
pub struct Real {
    /// Its sources, with a `belljar.toml` that names the image `toolchain`.
    pub project: Project,
    /// Its commands.
    pub steps: Vec<String>,
    /// Its lock file, if it has one.
    pub lock: Option<&'static str>,
    /// What it leaves.
    pub outputs: Vec<String>,
}

impl Real {
    fn new(project: Project, lock: Option<&'static str>, steps: &[&str], outputs: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let real = Self {
            project,
            steps: owned(steps),
            lock,
            outputs: owned(outputs),
        };
        real.configure("");
        real
    }

    /// Writes its `belljar.toml`; `more` is appended, such as `[limits]`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, more: &str) {
        let list = |items: &[String]| serde_json::to_string(items).expect("a list of strings");
        let deps = self.lock.map(|lock| format!("deps = [\"{lock}\"]\n"));
        let text = format!(
            "image = \"toolchain\"\n{}run = {}\noutputs = {}\n{more}\n",
            deps.unwrap_or_default(),
            list(&self.steps),
            list(&self.outputs)
        );
        self.project.write("belljar.toml", text);
    }

    /// A C library with `configure` and `make`, and a program that is linked with it.
    ///
    /// # Panics
    /// When its sources are not to be had.
    pub fn c_library() -> Self {
        let project = Project::bare();
        fetch(project.path(), &[LIBFFI], |name, from| {
            assert_eq!(name, LIBFFI.0);
            copy(&from.join("libffi"), project.path());
        });
        project.write("caller.c", CALLER);
        let steps = [
            "./configure --prefix=/usr --disable-docs --disable-multi-os-directory",
            "make -j\"$(nproc)\"",
            "make install DESTDIR=\"$PWD/installed\"",
            "gcc -O2 -Iinstalled/usr/include -o caller caller.c installed/usr/lib/libffi.a",
            "./caller",
        ];
        Self::new(project, None, &steps, &["installed/usr", "caller"])
    }

    /// A workspace of Cargo's with more than a hundred locked crates.
    ///
    /// # Panics
    /// When its sources are not to be had.
    pub fn cargo_workspace() -> Self {
        let project = Project::bare();
        fetch(project.path(), &MEMBERS, |name, from| {
            copy(from, &project.path().join(name));
        });
        project.write("Cargo.toml", WORKSPACE);
        tool(project.path(), "cargo", &["generate-lockfile"]);
        let steps = ["cargo build --frozen --workspace"];
        let outputs = ["target/debug/hexyl", "target/debug/runiq"];
        Self::new(project, Some("Cargo.lock"), &steps, &outputs)
    }

    /// A project of npm's with more than a hundred locked packages.
    ///
    /// # Panics
    /// When its lock file cannot be made.
    pub fn npm_project() -> Self {
        let project = Project::bare();
        project.write("package.json", PACKAGE);
        project.write("server.js", SERVER);
        let only_the_lock = [
            "install",
            "--package-lock-only",
            "--omit-lockfile-registry-resolved=false",
        ];
        tool(project.path(), "npm", &only_the_lock);
        let steps = [
            "npm ci --offline",
            "node_modules/.bin/webpack --mode none --target node -o bundle ./server.js",
            "node bundle/main.js | tee said.txt",
        ];
        let outputs = ["bundle/main.js", "said.txt"];
        Self::new(project, Some("package-lock.json"), &steps, &outputs)
    }

    /// Belljar itself: what git has of it.
    ///
    /// # Panics
    /// When these sources are not in git.
    pub fn belljar(extent: Extent) -> Self {
        let project = Project::bare();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let prefix = format!("--prefix={}/", project.path().display());
        let checkout = ["checkout-index", "--all", &prefix];
        tool(repository.expect("the repository"), "git", &checkout);
        let (which, programs) = match extent {
            // Nobody measures this one: to optimise what it uses is half of the time that it takes.
            Extent::Spawner => (
                "--config 'profile.dev.package.\"*\".opt-level = 0' --config profile.dev.debug=false \
                 --config profile.dev.incremental=false --package belljar-spawner",
                &["belljar-spawner"][..],
            ),
            Extent::Programs => (
                "--workspace --bins",
                &[
                    "belljar",
                    "belljard",
                    "belljar-signer",
                    "belljar-spawner",
                    "belljar-store",
                ][..],
            ),
        };
        let step = format!("cargo build --frozen {which}");
        let outputs: Vec<_> = programs
            .iter()
            .map(|program| format!("target/debug/{program}"))
            .collect();
        let outputs: Vec<_> = outputs.iter().map(String::as_str).collect();
        Self::new(project, Some("Cargo.lock"), &[&step], &outputs)
    }
}

/// Has cargo fetch crates, and shows the sources of each, as they were released.
fn fetch(beside: &Path, crates: &[(&str, &str)], mut take: impl FnMut(&str, &Path)) {
    let dir = tempfile::Builder::new()
        .prefix("belljar-project-")
        .tempdir_in(beside.parent().expect("a parent"))
        .expect("a directory");
    let wanted = crates
        .iter()
        .map(|(name, version)| format!("{name} = \"{version}\"\n"));
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [lib]\npath = \"lib.rs\"\n[workspace]\n[dependencies]\n{}",
        wanted.collect::<String>()
    );
    fs::write(dir.path().join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(dir.path().join("lib.rs"), "").expect("a library");
    tool(dir.path(), "cargo", &["vendor", "--quiet", "vendor"]);
    for (name, _) in crates {
        take(name, &dir.path().join("vendor").join(name));
    }
}

/// Copies what is in a directory of sources.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() != ".cargo-checksum.json" {
            fs::copy(entry.path(), to).expect("a file");
        }
    }
}
