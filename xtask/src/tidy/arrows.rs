//! Which crate may depend on which: the table of the design, checked against cargo and the README.

use super::markdown;
use super::{Finding, Member};

/// What a crate may depend on, among the crates of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// These and no others.
    Only(&'static [&'static str]),
    /// Any of them; in return nothing may depend on this one but what is no part of the product either.
    Anything,
}

/// Every crate and its arrows. A crate that is not named here is a finding.
pub(crate) const ARROWS: &[(&str, Allowed)] = &[
    ("belljar-core", Allowed::Only(&[])),
    ("belljar-sys", Allowed::Only(&[])),
    ("belljar-tree", Allowed::Only(&["belljar-core"])),
    ("belljar-lock", Allowed::Only(&["belljar-core"])),
    (
        "belljar-manifest",
        Allowed::Only(&["belljar-core", "belljar-lock"]),
    ),
    ("belljar-plan", Allowed::Only(&["belljar-core"])),
    (
        "belljar-oci",
        Allowed::Only(&["belljar-core", "belljar-plan"]),
    ),
    ("belljar-policy", Allowed::Only(&["belljar-core"])),
    ("belljar-wire", Allowed::Only(&["belljar-core"])),
    ("belljar-audit", Allowed::Only(&["belljar-core"])),
    (
        "belljar-cas",
        Allowed::Only(&["belljar-core", "belljar-tree"]),
    ),
    (
        "belljar-attest",
        Allowed::Only(&["belljar-core", "belljar-oci", "belljar-plan"]),
    ),
    (
        "belljar-store",
        Allowed::Only(&[
            "belljar-core",
            "belljar-tree",
            "belljar-lock",
            "belljar-oci",
            "belljar-plan",
            "belljar-sys",
            "belljar-cas",
        ]),
    ),
    (
        "belljar-spawner",
        Allowed::Only(&["belljar-core", "belljar-plan", "belljar-sys"]),
    ),
    (
        "belljar-signer",
        Allowed::Only(&[
            "belljar-core",
            "belljar-plan",
            "belljar-sys",
            "belljar-attest",
            "belljar-audit",
        ]),
    ),
    (
        "belljar-engine",
        Allowed::Only(&[
            "belljar-core",
            "belljar-plan",
            "belljar-policy",
            "belljar-tree",
            "belljar-cas",
            "belljar-attest",
            "belljar-audit",
        ]),
    ),
    (
        "belljard",
        Allowed::Only(&[
            "belljar-core",
            "belljar-tree",
            "belljar-oci",
            "belljar-plan",
            "belljar-policy",
            "belljar-wire",
            "belljar-audit",
            "belljar-cas",
            "belljar-attest",
            "belljar-engine",
            "belljar-sys",
        ]),
    ),
    (
        "belljar",
        Allowed::Only(&[
            "belljar-core",
            "belljar-tree",
            "belljar-lock",
            "belljar-manifest",
            "belljar-oci",
            "belljar-wire",
            "belljar-attest",
            "belljar-audit",
        ]),
    ),
    ("belljar-tests", Allowed::Anything),
    ("belljar-bench", Allowed::Anything),
    ("xtask", Allowed::Anything),
];

fn find(table: &[(&str, Allowed)], name: &str) -> Option<Allowed> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, allowed)| *allowed)
}

/// Every crate is in the table, every arrow is allowed, and nothing leans on the chores or the tests.
pub(crate) fn check(table: &[(&str, Allowed)], members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let Some(allowed) = find(table, &member.name) else {
            findings.push(Finding::new(
                &member.manifest,
                format!("{} is missing in the table of arrows", member.name),
            ));
            continue;
        };
        for dep in &member.deps {
            match (find(table, dep), allowed) {
                (None, _) | (Some(_), Allowed::Anything) => {}
                (Some(_), Allowed::Only(names)) if names.contains(&dep.as_str()) => {}
                (Some(_), Allowed::Only(_)) => {
                    findings.push(Finding::new(
                        &member.manifest,
                        format!("{} may not depend on {dep}", member.name),
                    ));
                }
            }
        }
        for dep in member.deps.iter().chain(&member.dev_deps) {
            let is_product = find(table, &member.name) != Some(Allowed::Anything);
            if is_product && find(table, dep) == Some(Allowed::Anything) {
                findings.push(Finding::new(
                    &member.manifest,
                    format!("nothing may depend on {dep}"),
                ));
            }
        }
    }
    for (name, _) in table {
        if !members.iter().any(|member| member.name == *name) {
            findings.push(Finding::new(
                "xtask",
                format!("{name} is in the table of arrows, but not in the workspace"),
            ));
        }
    }
    findings
}

/// The README's section "Crates" says the same: one row per crate, its name in backticks first, the
/// short names of what it may depend on last, `–` for none, `anything` for the two that may.
pub(crate) fn check_readme(table: &[(&str, Allowed)], readme: &str) -> Vec<Finding> {
    let Some(section) = markdown::section(readme, "Crates") else {
        return vec![Finding::new("README.md", "there is no section \"Crates\"")];
    };
    let rows: Vec<_> = markdown::rows(readme, section)
        .into_iter()
        .filter_map(|row| {
            let name = row
                .cells
                .first()
                .and_then(|cell| markdown::in_backticks(cell))?
                .to_owned();
            Some((
                row.line,
                name,
                row.cells.last().cloned().unwrap_or_default(),
            ))
        })
        .collect();
    let mut findings = Vec::new();
    for (line, name, written) in &rows {
        let Some(allowed) = find(table, name) else {
            findings.push(Finding::at(
                "README.md",
                *line,
                format!("{name} is not a crate of the table of arrows"),
            ));
            continue;
        };
        let (said, meant) = (normal(written), in_words(allowed));
        if said != meant {
            findings.push(Finding::at(
                "README.md",
                *line,
                format!("{name}: says \"{said}\", the code says \"{meant}\""),
            ));
        }
    }
    for (name, _) in table {
        match rows.iter().filter(|(_, row, _)| row == name).count() {
            1 => {}
            0 => findings.push(Finding::new(
                "README.md",
                format!("the table of crates lacks `{name}`"),
            )),
            _ => findings.push(Finding::new(
                "README.md",
                format!("the table of crates names `{name}` twice"),
            )),
        }
    }
    findings
}

fn short(name: &str) -> &str {
    name.strip_prefix("belljar-").unwrap_or(name)
}

fn in_words(allowed: Allowed) -> String {
    match allowed {
        Allowed::Anything => "anything".to_owned(),
        Allowed::Only([]) => "–".to_owned(),
        Allowed::Only(names) => sorted(names.iter().map(|name| short(name).to_owned())),
    }
}

fn normal(cell: &str) -> String {
    sorted(
        cell.replace('`', "")
            .split(',')
            .map(|name| short(name.trim()).to_owned()),
    )
}

fn sorted(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, Allowed)] = &[
        ("belljar-core", Allowed::Only(&[])),
        ("belljar-tree", Allowed::Only(&["belljar-core"])),
        (
            "belljar-cas",
            Allowed::Only(&["belljar-core", "belljar-tree"]),
        ),
        ("xtask", Allowed::Anything),
    ];

    fn member(name: &str, deps: &[&str], dev_deps: &[&str]) -> Member {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Member {
            name: name.to_owned(),
            deps: owned(deps),
            dev_deps: owned(dev_deps),
            features: Vec::new(),
            manifest: format!("crates/{name}/Cargo.toml"),
        }
    }

    fn workspace() -> Vec<Member> {
        vec![
            member("belljar-core", &["serde"], &[]),
            member("belljar-tree", &["belljar-core"], &["belljar-core"]),
            member("belljar-cas", &["belljar-core", "belljar-tree"], &[]),
            member("xtask", &["belljar-cas"], &[]),
        ]
    }

    const README: &str = "\
# It
## Crates
| crate | does | may depend on |
|---|---|---|
| `belljar-core` | nouns | – |
| `belljar-tree` | trees | core |
| `belljar-cas` | objects | `core`, `tree` |
| `xtask` | chores | anything |
## Other
| `belljar-cas` | another table | – |
";

    #[test]
    fn what_the_table_allows_is_no_finding() {
        assert_eq!(check(TABLE, &workspace()), []);
        assert_eq!(check_readme(TABLE, README), []);
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let mut members = workspace();
        members[0].deps.push("belljar-tree".to_owned());
        assert_eq!(
            check(TABLE, &members),
            [Finding::new(
                "crates/belljar-core/Cargo.toml",
                "belljar-core may not depend on belljar-tree"
            )]
        );
    }

    #[test]
    fn unknown_and_vanished_crates_are_found() {
        let mut members = workspace();
        members.pop();
        members.push(member("belljar-util", &[], &[]));
        let found = check(TABLE, &members);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.contains("belljar-util is missing"));
        assert!(found[1].what.contains("xtask is in the table"));
    }

    #[test]
    fn leaning_on_the_chores_is_found_even_in_tests() {
        let mut members = workspace();
        members[2].dev_deps.push("xtask".to_owned());
        assert_eq!(
            check(TABLE, &members),
            [Finding::new(
                "crates/belljar-cas/Cargo.toml",
                "nothing may depend on xtask"
            )]
        );
    }

    #[test]
    fn chores_may_lean_on_each_other() {
        const TABLE: &[(&str, Allowed)] =
            &[("tests", Allowed::Anything), ("xtask", Allowed::Anything)];
        let members = [member("tests", &[], &[]), member("xtask", &["tests"], &[])];
        assert_eq!(check(TABLE, &members), []);
    }

    #[test]
    fn a_readme_that_differs_is_found() {
        let wrong = [
            (
                README.replace("| trees | core |", "| trees | – |"),
                "says \"–\", the code says \"core\"",
            ),
            (
                README.replace("| `xtask` | chores | anything |\n", ""),
                "lacks `xtask`",
            ),
            (
                README.replace("`belljar-core` | nouns", "`belljar-nouns` | nouns"),
                "not a crate of the table",
            ),
            (
                README.replace("## Crates", "## Map"),
                "no section \"Crates\"",
            ),
        ];
        for (readme, expected) in wrong {
            let found = check_readme(TABLE, &readme);
            assert!(
                found.iter().any(|finding| finding.what.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }
}
