//! Which crate may use which of other people's crates, so that a privilege stays behind its line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cargo_metadata::{DependencyKind, Metadata};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::source::SourceFile;
use super::{Finding, Member};

/// Crates that only some of ours may name as a direct dependency.
pub(crate) struct Ban {
    /// Names; a trailing `*` stands for any ending.
    banned: &'static [&'static str],
    /// Who may use them nevertheless.
    only: &'static [&'static str],
    /// Why, for the person who meets the finding.
    why: &'static str,
}

/// Crates that must not be anywhere below one of ours.
pub(crate) struct Closure {
    of: &'static [&'static str],
    banned: &'static [&'static str],
    why: &'static str,
}

/// The direct bans.
pub(crate) const BANS: &[Ban] = &[
    Ban {
        banned: &["landlock", "caps", "libc"],
        only: &["belljar-sys"],
        why: "raw system interfaces have one door",
    },
    Ban {
        banned: &["nix"],
        only: &["belljar-sys", "belljar-tests"],
        why: "raw system interfaces have one door; the tests look at processes from outside, which no product code does",
    },
    Ban {
        banned: &["rustix"],
        only: &["belljar-sys", "belljar-cas", "belljar", "belljar-tests"],
        why: "raw system interfaces have one door; only the object store's files, and what the command line \
              asks about its user and its state directory, do without",
    },
    Ban {
        banned: &[
            "aws-lc-rs",
            "ring",
            "p256",
            "p384",
            "k256",
            "ecdsa",
            "ed25519*",
            "rsa",
            "openssl*",
            "boring*",
            "sigstore*",
        ],
        only: &["belljar-attest", "belljar-audit", "belljar-tests"],
        why: "signatures are made and checked in two places only",
    },
    Ban {
        banned: &["rustls*", "tokio-rustls", "x509*"],
        only: &["belljard", "belljar", "belljar-tests"],
        why: "certificates are looked at where callers come in and where the command line goes out",
    },
    Ban {
        banned: &["tonic*"],
        only: &[
            "belljar-wire",
            "belljard",
            "belljar",
            "belljar-tests",
            "belljar-bench",
        ],
        why: "services stay at the edge; the chores measure them from outside",
    },
    Ban {
        banned: &["prost*"],
        only: &[
            "belljar-tree",
            "belljar-wire",
            "belljard",
            "belljar",
            "belljar-tests",
            "belljar-bench",
        ],
        why: "protobuf is parsed once, at the edge; only trees are protobuf by definition",
    },
    Ban {
        banned: &["bazel-remote-apis"],
        only: &["belljard", "belljar", "belljar-tests", "belljar-bench"],
        why: "blobs move between a client and the daemon only",
    },
];

/// The bans on everything below a crate.
pub(crate) const CLOSURES: &[Closure] = &[Closure {
    of: &["belljar-spawner", "belljar-signer"],
    banned: &["tokio", "tonic", "prost", "hyper", "regex*"],
    why: "the privileged process and the one with the key stay small enough to read",
}];

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

/// No crate names a banned one among its normal and build dependencies.
pub(crate) fn check_direct(bans: &[Ban], members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        for ban in bans
            .iter()
            .filter(|ban| !ban.only.contains(&member.name.as_str()))
        {
            for dep in member
                .deps
                .iter()
                .filter(|dep| ban.banned.iter().any(|pattern| matches(pattern, dep)))
            {
                let what = format!("{} may not depend on {dep}: {}", member.name, ban.why);
                findings.push(Finding::new(&member.manifest, what));
            }
        }
    }
    findings
}

/// Our crates have no features: one program, one set of checks.
pub(crate) fn check_features(members: &[Member]) -> Vec<Finding> {
    members
        .iter()
        .filter(|member| !member.features.is_empty())
        .map(|member| {
            Finding::new(
                &member.manifest,
                format!("cargo features: {}", member.features.join(", ")),
            )
        })
        .collect()
}

/// Crate name → names of its normal dependencies, as cargo resolved them.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The resolved graph by name. Versions of one crate are taken together: the ban is on all of them.
pub(crate) fn graph(metadata: &Metadata) -> Graph {
    let mut graph = Graph::new();
    for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        let deps = graph
            .entry(metadata[&node.id].name.to_string())
            .or_default();
        for dep in &node.deps {
            if dep
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
            {
                deps.insert(metadata[&dep.pkg].name.to_string());
            }
        }
    }
    graph
}

/// Nothing banned is below these crates; a finding shows the way that leads there.
pub(crate) fn check_closures(closures: &[Closure], graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for closure in closures {
        for &of in closure.of {
            if !graph.contains_key(of) {
                findings.push(Finding::new(of, "is not in the graph that cargo resolved"));
            }
            for way in closure
                .banned
                .iter()
                .filter_map(|&banned| way(graph, of, banned))
            {
                findings.push(Finding::new(
                    of,
                    format!("{}: {}", way.join(" → "), closure.why),
                ));
            }
        }
    }
    findings
}

/// The shortest way from one crate to another.
fn way(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(here) = queue.pop_front() {
        if here == to {
            let mut way = vec![here.to_owned()];
            let mut at = here;
            while let Some(&before) = came_from.get(at) {
                way.push(before.to_owned());
                at = before;
            }
            way.reverse();
            return Some(way);
        }
        for next in graph.get(here).into_iter().flatten() {
            if next != from && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The mount interface of rustix is belljar-sys's alone: cargo unites features, so the source is read.
pub(crate) fn check_mount_api(sources: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.starts_with("crates/belljar-sys/"))
    {
        let mut seen = MountPaths(Vec::new());
        seen.visit_file(&source.ast);
        findings.extend(seen.0.into_iter().map(|line| {
            Finding::at(
                &source.path,
                line,
                "rustix::mount is used outside belljar-sys: mounts have one door",
            )
        }));
    }
    findings
}

struct MountPaths(Vec<usize>);

impl<'ast> Visit<'ast> for MountPaths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        if names.next().as_deref() == Some("rustix") && names.next().as_deref() == Some("mount") {
            self.0.push(path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_use_path(&mut self, path: &'ast syn::UsePath) {
        if path.ident == "rustix" && names_mount(&path.tree) {
            self.0.push(path.ident.span().start().line);
        }
        visit::visit_use_path(self, path);
    }
}

/// Whether a `use` of rustix reaches its mount module; a glob does.
fn names_mount(tree: &syn::UseTree) -> bool {
    match tree {
        syn::UseTree::Path(path) => path.ident == "mount",
        syn::UseTree::Name(name) => name.ident == "mount",
        syn::UseTree::Rename(rename) => rename.ident == "mount",
        syn::UseTree::Glob(_) => true,
        syn::UseTree::Group(group) => group.items.iter().any(names_mount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, deps: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            deps: deps.iter().map(|&dep| dep.to_owned()).collect(),
            dev_deps: Vec::new(),
            features: Vec::new(),
            manifest: "Cargo.toml".to_owned(),
        }
    }

    #[test]
    fn direct_bans_hold_but_for_those_named() {
        let fine = [
            member("belljar-sys", &["nix", "libc", "rustix"]),
            member("belljar-cas", &["rustix"]),
            member("belljar-attest", &["aws-lc-rs"]),
            member("belljar-wire", &["tonic", "tonic-prost", "prost"]),
        ];
        assert_eq!(check_direct(BANS, &fine), []);
        let cases = [
            ("belljar-spawner", "nix"),
            ("belljar-cas", "libc"),
            ("belljar-store", "rustix"),
            ("belljar-signer", "ed25519-dalek"),
            ("belljar-engine", "tonic-types"),
            ("belljar-store", "prost"),
            ("belljar-engine", "bazel-remote-apis"),
        ];
        for (name, dep) in cases {
            let found = check_direct(BANS, &[member(name, &[dep])]);
            assert_eq!(found.len(), 1, "{name} → {dep}");
            assert!(
                found[0]
                    .what
                    .contains(&format!("{name} may not depend on {dep}"))
            );
        }
    }

    #[test]
    fn a_feature_is_found() {
        let mut one = member("belljar-core", &[]);
        assert_eq!(check_features(std::slice::from_ref(&one)), []);
        one.features.push("extra".to_owned());
        assert_eq!(check_features(&[one]).len(), 1);
    }

    #[test]
    fn a_closure_shows_the_way() {
        let entry = |name: &str, deps: &[&str]| {
            (
                name.to_owned(),
                deps.iter().map(|&dep| dep.to_owned()).collect(),
            )
        };
        let graph: Graph = [
            entry("belljar-spawner", &["a", "b"]),
            entry("belljar-signer", &["a"]),
            entry("a", &[]),
            entry("b", &["c", "belljar-spawner"]),
            entry("c", &["tokio"]),
            entry("tokio", &[]),
        ]
        .into();
        let found = check_closures(CLOSURES, &graph);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.starts_with("belljar-spawner → b → c → tokio"));
        assert_eq!(
            check_closures(CLOSURES, &Graph::new()).len(),
            2,
            "an absent crate is not a clean one"
        );
    }

    #[test]
    fn mounts_have_one_door() {
        let fine = [
            "use rustix::fs::openat;",
            "use rustix::{fs, process};",
            "fn f() { other::mount::x(); }",
        ];
        let bad = [
            "use rustix::mount::mount;",
            "use rustix::{fs, mount};",
            "use rustix::*;",
            "fn f() { rustix::mount::unmount(); }",
        ];
        let check =
            |path: &str, text: &str| check_mount_api(&[SourceFile::parse(path, text).unwrap()]);
        for text in fine {
            assert_eq!(check("crates/belljar-cas/src/lib.rs", text), [], "{text}");
        }
        for text in bad {
            assert_eq!(
                check("crates/belljar-cas/src/lib.rs", text).len(),
                1,
                "{text}"
            );
            assert_eq!(check("crates/belljar-sys/src/lib.rs", text), [], "{text}");
        }
    }
}
