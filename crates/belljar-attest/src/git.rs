//! Commits of git repositories in provenance: what they are the store's record says, which has looked at every object. Where
//! they were nobody but belljard knows.

use belljar_core::{
    Derivation, Fact, FetchUrl, GitFetch, GitId, Mirrors, ObjectId, Recipe, RelPath,
};
use serde_json::{Value, json};

/// One commit of a record.
struct Commit<'a> {
    path: Option<&'a RelPath>,
    commit: GitId,
    tree: GitId,
    pack: ObjectId,
    url: Option<&'a str>,
}

/// Whether the record is about the tree of the commit that the fetch names, with its submodules if it wants them.
pub(crate) fn fits(fetch: &GitFetch, record: &Derivation) -> bool {
    let Recipe::Git {
        commit,
        pack,
        submodules,
    } = &record.recipe
    else {
        return false;
    };
    let due = std::iter::once((None, *commit, *pack)).chain(
        submodules
            .iter()
            .map(|one| (Some(&one.path), one.commit, one.pack)),
    );
    let found = commits(record).map(|one| (one.path, one.commit, one.pack));
    let links = record
        .facts
        .iter()
        .any(|fact| matches!(fact, Fact::GitLink { .. }));
    let whole = match fetch.submodules {
        true => !links,
        false => submodules.is_empty(),
    };
    *commit == fetch.commit && whole && due.eq(found)
}

fn commits(record: &Derivation) -> impl Iterator<Item = Commit<'_>> {
    record.facts.iter().filter_map(|fact| match fact {
        Fact::GitCommit {
            path,
            commit,
            tree,
            pack,
            url,
        } => Some(Commit {
            path: path.as_ref(),
            commit: *commit,
            tree: *tree,
            pack: *pack,
            url: url.as_deref(),
        }),
        _ => None,
    })
}

/// A resolved dependency for each commit of a record that fits the fetch.
pub(crate) fn descriptors(input: &str, fetch: &GitFetch, record: &Derivation) -> Vec<Value> {
    // Those of parents stand before those of their submodules.
    let mut mirrors: Vec<(&RelPath, Mirrors)> = Vec::new();
    let mut all = Vec::new();
    for one in commits(record) {
        let found = match one.path {
            None => Some(fetch.repositories.clone()),
            Some(path) => {
                let above = mirrors.iter().rev().find(|(at, _)| path.starts_with(at));
                let above = above.map_or(&fetch.repositories, |(_, mirrors)| mirrors);
                one.url.and_then(|url| above.submodule(url).ok())
            }
        };
        all.push(descriptor(input, &one, found.as_ref()));
        if let (Some(path), Some(found)) = (one.path, found) {
            mirrors.push((path, found));
        }
    }
    all
}

fn descriptor(input: &str, one: &Commit<'_>, mirrors: Option<&Mirrors>) -> Value {
    let commit = one.commit;
    let mut annotations = json!({
        "belljar_input": input,
        "belljar_asserted": ["uri"],
        "belljar_pack": one.pack.digest.to_hex(),
        "belljar_size": one.pack.size,
    });
    if let Some(path) = one.path {
        annotations["belljar_submodule"] = path.as_str().into();
    }
    let mut descriptor = json!({
        "digest": { "gitCommit": commit.to_string(), "gitTree": one.tree.to_string() },
    });
    let mut urls = mirrors
        .into_iter()
        .flat_map(Mirrors::iter)
        .map(FetchUrl::as_str);
    if let Some(url) = urls.next() {
        descriptor["uri"] = format!("git+{url}@{commit}").into();
        let others: Vec<&str> = urls.collect();
        if !others.is_empty() {
            annotations["belljar_mirrors"] = others.into();
        }
    }
    descriptor["annotations"] = annotations;
    descriptor
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use belljar_core::GitSubmodule;

    fn named(number: u8) -> GitId {
        GitId::from_bytes([number; 20])
    }

    fn fetch(submodules: bool) -> GitFetch {
        let urls = ["https://a.example/app.git", "https://b.example/app.git"];
        let urls = urls.map(|url| FetchUrl::new(url).unwrap()).into();
        GitFetch {
            repositories: Mirrors::new(urls).unwrap(),
            commit: named(1),
            submodules,
        }
    }

    fn record(recipe: Recipe, facts: Vec<Fact>) -> Derivation {
        Derivation {
            schema: Derivation::SCHEMA.to_owned(),
            recipe,
            from: [ObjectId::of(b"pack"), ObjectId::of(b"below")].into(),
            tree: ObjectId::of(b"tree"),
            entries: 1,
            bytes: 1,
            dropped: BTreeMap::new(),
            facts,
        }
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn put(at: Option<&str>, number: u8, pack: &[u8], url: Option<&str>) -> Fact {
        Fact::GitCommit {
            path: at.map(path),
            commit: named(number),
            tree: named(100 + number),
            pack: ObjectId::of(pack),
            url: url.map(str::to_owned),
        }
    }

    fn recipe(submodules: &[(&str, u8)]) -> Recipe {
        let all = submodules.iter().map(|(at, number)| GitSubmodule {
            path: path(at),
            commit: named(*number),
            pack: ObjectId::of(b"below"),
        });
        Recipe::Git {
            commit: named(1),
            pack: ObjectId::of(b"pack"),
            submodules: all.collect(),
        }
    }

    fn link() -> Fact {
        Fact::GitLink {
            path: path("sub"),
            commit: named(2),
            url: None,
        }
    }

    #[test]
    fn only_the_commit_that_was_asked_for_fits() {
        let root = || put(None, 1, b"pack", None);
        let sub = || put(Some("sub"), 2, b"below", Some("../lib"));
        let plain = record(recipe(&[]), vec![root()]);
        let linked = record(recipe(&[]), vec![root(), link()]);
        let whole = record(recipe(&[("sub", 2)]), vec![root(), sub()]);
        let part = record(recipe(&[("sub", 2)]), vec![root(), sub(), link()]);
        for (name, record, without, with) in [
            ("plain", &plain, true, true),
            ("linked", &linked, true, false),
            ("whole", &whole, false, true),
            ("part", &part, false, false),
            ("no facts", &record(recipe(&[]), Vec::new()), false, false),
            (
                "another's",
                &record(recipe(&[]), vec![put(None, 2, b"pack", None)]),
                false,
                false,
            ),
            (
                "other pack",
                &record(recipe(&[]), vec![put(None, 1, b"below", None)]),
                false,
                false,
            ),
            (
                "unsaid",
                &record(recipe(&[("sub", 2)]), vec![root()]),
                false,
                false,
            ),
            (
                "more",
                &record(recipe(&[]), vec![root(), sub()]),
                false,
                false,
            ),
        ] {
            let found = (fits(&fetch(false), record), fits(&fetch(true), record));
            assert_eq!(found, (without, with), "{name}");
        }
        let other = GitFetch {
            commit: named(9),
            ..fetch(false)
        };
        assert!(!fits(&other, &plain));
        let archive = Recipe::Tar {
            archive: ObjectId::of(b"pack"),
        };
        assert!(!fits(&fetch(false), &record(archive, vec![root()])));
    }

    #[test]
    fn each_commit_is_a_resolved_dependency_whose_place_is_only_said() {
        let facts = vec![
            put(None, 1, b"pack", None),
            put(Some("sub"), 2, b"below", Some("../lib.git")),
            put(Some("sub/in"), 3, b"below", Some("https://c.example/in")),
            put(Some("odd"), 4, b"below", Some("git@c.example:odd")),
        ];
        let all = [("sub", 2), ("sub/in", 3), ("odd", 4)];
        let found = descriptors("deps/x", &fetch(true), &record(recipe(&all), facts));
        let uris: Vec<_> = found.iter().map(|one| one["uri"].as_str()).collect();
        let due = [
            Some(format!("git+https://a.example/app.git@{}", named(1))),
            Some(format!("git+https://a.example/lib.git@{}", named(2))),
            Some(format!("git+https://c.example/in@{}", named(3))),
            None,
        ];
        assert_eq!(uris, due.iter().map(Option::as_deref).collect::<Vec<_>>());
        let due = json!({
            "uri": format!("git+https://a.example/lib.git@{}", named(2)),
            "digest": {
                "gitCommit": named(2).to_string(),
                "gitTree": named(102).to_string(),
            },
            "annotations": {
                "belljar_input": "deps/x",
                "belljar_asserted": ["uri"],
                "belljar_mirrors": ["https://b.example/lib.git"],
                "belljar_pack": ObjectId::of(b"below").digest.to_hex(),
                "belljar_size": 5,
                "belljar_submodule": "sub",
            },
        });
        assert_eq!(found[1], due);
    }
}
