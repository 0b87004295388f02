//! Lies of git servers that reach the processes which are confined, and what is said of them.

use std::fs;

use belljar_core::{Fetch, FetchUrl, GitFetch, GitId, Mirrors, Outcome};
use belljar_tests::{Instance, Part};
use gix_object::Kind;

use crate::pack_file::{PackFile, commit, delta, ended, tree};
use crate::repository::{GitServer, Lie, Repositories, line, pack, result};
use crate::{run, spec, told};

fn wanted(server: &GitServer, name: &str, commit: GitId, submodules: bool) -> Fetch {
    let url = FetchUrl::new(&server.url(name)).unwrap();
    Fetch::Git(GitFetch {
        repositories: Mirrors::new(vec![url]).unwrap(),
        commit,
        submodules,
    })
}

fn started_at(port: u16) -> Instance {
    let mut instance = Instance::configured();
    crate::start(&mut instance, port, "");
    instance
}

/// How a build ends that wants this, of which no tree is made.
pub(super) fn refusal(instance: &Instance, name: &str, wanted: Fetch) -> Outcome {
    let client = instance.client();
    let build = run(&client, name, &spec(&client, "true", &[("x", wanted)]));
    let events = told(&client, &build);
    assert!(events[0]["found"]["tree"].is_null(), "{name}: {events:?}");
    build.outcome.unwrap()
}

#[test]
fn secrets_in_urls_of_submodules_are_not_repeated() {
    let repositories = Repositories::new();
    let path = repositories.create("outer");
    let module = "160000,0123456789abcdef0123456789abcdef01234567,sub";
    repositories.git("outer", &["update-index", "--add", "--cacheinfo", module]);
    let server = repositories.serve(vec![]);
    let instance = started_at(server.port());
    for (name, url, due) in [
        (
            "user",
            "https://me:hunter2@git.example/x",
            "has a user or a password",
        ),
        (
            "token",
            "https://hunter2@git.example/x",
            "`https://…@git.example/x`",
        ),
        (
            "query",
            "https://git.example/x?private_token=hunter2",
            "`https://git.example/x?…`",
        ),
        (
            "two",
            "https://me:a@hunter2@git.example/x?@",
            "has a user or a password",
        ),
        (
            "other",
            "ssh://me:hunter2@git.example/x",
            "`ssh://…@git.example/x`",
        ),
    ] {
        let text = format!("[submodule \"s\"]\npath = sub\nurl = {url}\n");
        fs::write(path.join(".gitmodules"), text).unwrap();
        repositories.git("outer", &["add", ".gitmodules"]);
        repositories.git("outer", &["commit", "--quiet", "-m", name]);
        let wanted = wanted(&server, "outer", repositories.head("outer"), true);
        let client = instance.client();
        let build = run(&client, name, &spec(&client, "true", &[("x", wanted)]));
        let story = format!("{:?} {:?}", build.outcome, told(&client, &build));
        assert!(story.contains(due), "{name}: {story}");
        assert!(!story.contains("hunter2"), "{name}: {story}");
    }
    let said = instance.said(Part::Belljard);
    assert!(said.contains("the submodule `sub`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

/// Repositories of these names, each of which has these bytes behind what a server says before a pack.
fn lying(repositories: &Repositories, lies: &[(&str, Vec<u8>, &str)]) -> GitServer {
    let lie = |(name, bytes, _): &(&str, Vec<u8>, &str)| {
        repositories.create(name);
        let body = [line(b"packfile\n"), bytes.clone()].concat();
        let lie: Lie = Box::new(move |stream, _| result(stream, &body));
        (format!("/{name}/git-upload-pack"), lie)
    };
    repositories.serve(lies.iter().map(lie).collect())
}

#[test]
fn bands_that_no_server_has_are_refused_and_what_is_told_meanwhile_is_not_content() {
    let repositories = Repositories::new();
    let mut honest = PackFile::new();
    let blob = honest.add(Kind::Blob, b"x");
    let root = honest.add(Kind::Tree, &tree(&[("100644", "file", blob)]));
    let head = honest.add(Kind::Commit, &commit(root, ""));
    let honest = honest.end();
    let band = |band: u8, bytes: &[u8]| line(&[&[band], bytes].concat());
    let (first, rest) = honest.split_at(30);
    let flush = || b"0000".to_vec();
    let odd = "not what git's protocol has";
    let lies = [
        ("zero", [band(0, &honest), flush()].concat(), odd),
        ("four", [band(4, &honest), flush()].concat(), odd),
        ("last", [band(255, &honest), flush()].concat(), odd),
        ("bare", [line(&honest), flush()].concat(), odd),
        (
            "empty",
            [b"0004".to_vec(), band(1, &honest), flush()].concat(),
            "pkt-lines",
        ),
        (
            "stop",
            [band(1, first), b"0001".to_vec(), band(1, rest), flush()].concat(),
            odd,
        ),
        (
            "end",
            [band(1, first), b"0002".to_vec(), band(1, rest), flush()].concat(),
            "in the middle",
        ),
        (
            "twice",
            [band(1, first), flush(), band(1, rest), flush()].concat(),
            odd,
        ),
        (
            "behind",
            [band(1, &honest), flush(), band(2, b"done")].concat(),
            odd,
        ),
        ("told", [band(2, &honest), flush()].concat(), "is cut"),
        (
            "fatal",
            [band(1, &honest), band(3, b"no\x1b[31m"), flush()].concat(),
            "it says: no\\u{1b}[31m",
        ),
        ("open", band(1, &honest), "broke off before its end"),
    ];
    let server = lying(&repositories, &lies);
    let instance = started_at(server.port());
    for (name, _, due) in &lies {
        let outcome = refusal(&instance, name, wanted(&server, name, head, false));
        assert!(outcome.to_string().contains(due), "{name}: {outcome}");
    }
    // In pieces of a byte, with words and nothing between them, it is the same pack.
    let pieces = honest
        .iter()
        .map(|byte| [band(1, &[*byte]), band(1, b""), band(2, b"PACK")].concat());
    let pieces = pieces.chain([flush()]).collect::<Vec<_>>().concat();
    let server = lying(&repositories, &[("pieces", pieces, "")]);
    let instance = started_at(server.port());
    let client = instance.client();
    let wanted = wanted(&server, "pieces", head, false);
    let spec = spec(&client, "cat /deps/x/file > out", &[("x", wanted)]);
    assert_eq!(
        run(&client, "pieces", &spec).outcome,
        Some(Outcome::Succeeded)
    );
}

#[test]
fn objects_that_are_made_of_each_other_or_of_nothing_end_no_process() {
    let repositories = Repositories::new();
    let (one, two) = (GitId::from_bytes([1; 20]), GitId::from_bytes([2; 20]));
    let whole = |change: &dyn Fn(&mut PackFile)| {
        let mut pack = PackFile::new();
        let blob = pack.add(Kind::Blob, b"x");
        let root = pack.add(Kind::Tree, &tree(&[("100644", "file", blob)]));
        let head = pack.add(Kind::Commit, &commit(root, ""));
        change(&mut pack);
        (head, pack.end())
    };
    let insert = delta(1, 1, b"\x01y");
    let (head, honest) = whole(&|_| {});
    let mut untrue = honest.clone();
    *untrue.last_mut().unwrap() ^= 1;
    let mut more = honest[..honest.len() - 20].to_vec();
    more[11] += 1;
    let thin = "a thin pack";
    let cases = [
        (
            "loop",
            whole(&|pack| {
                pack.ref_delta(two, &insert);
                pack.ref_delta(one, &insert);
            })
            .1,
            thin,
        ),
        (
            "itself",
            whole(&|pack| pack.ref_delta(crate::pack_file::id(Kind::Blob, b"y"), &insert)).1,
            thin,
        ),
        ("thin", whole(&|pack| pack.ref_delta(one, &insert)).1, thin),
        (
            "zero",
            whole(&|pack| pack.ofs_delta(0, &insert)).1,
            "does not begin where it should",
        ),
        (
            // Within the first one, which begins behind twelve bytes.
            "between",
            whole(&|pack| pack.ofs_delta(pack.at() - 13, &insert)).1,
            "does not begin where it should",
        ),
        ("trailer", untrue, "is cut or damaged"),
        ("count", ended(more), "fewer objects than it says"),
    ];
    let lies = cases.iter().map(|(name, bytes, _)| {
        repositories.create(name);
        (format!("/{name}/git-upload-pack"), pack(bytes.clone()))
    });
    let server = repositories.serve(lies.collect());
    let instance = started_at(server.port());
    for (name, _, due) in cases {
        let outcome = refusal(&instance, name, wanted(&server, name, head, false));
        assert_eq!(outcome.kind(), "refused", "{name}: {outcome}");
        assert!(outcome.to_string().contains(due), "{name}: {outcome}");
    }
    let said = instance.said(Part::Store);
    assert!(!said.contains("an unpacker failed"), "{said}");
}
