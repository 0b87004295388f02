//! A commit of a git repository, as `belljar.toml` names it.

use belljar_core::{FetchUrl, GitFetch, GitId, Invalid, Mirrors};
use toml::de::DeTable;

use super::fetch::{flag, mirrors};
use crate::values::{Refusal, Value, known, refuse, string};

const FIELDS: [&str; 3] = ["git", "commit", "submodules"];

/// Fields that are for other sorts, or that others have for the same, and what to do instead.
const FOREIGN: [(&str, &str); 11] = [
    (
        "artifact",
        "is had by its digest alone; leave out one of both",
    ),
    (
        "urls",
        "is for what has a digest; mirrors of a repository stand in `git`",
    ),
    (
        "sha256",
        "is for what comes from `urls`; a commit is known by `commit`",
    ),
    (
        "integrity",
        "is for what comes from `urls`; a commit is known by `commit`",
    ),
    ("unpack", "is for archives; a commit is its tree"),
    ("strip_components", "is for archives; a commit is its tree"),
    ("file_name", "is for files; a commit is its tree"),
    ("executable", "is for files; a commit is its tree"),
    (
        "branch",
        "means another commit tomorrow; name it by `commit`",
    ),
    (
        "tag",
        "can be moved to another commit; name that by `commit`",
    ),
    ("rev", "is called `commit` here, and is its full name"),
];

/// Reads the table at `field` that has a `git`.
pub(super) fn git(
    field: &str,
    table: &DeTable<'_>,
    whole: &Value<'_>,
) -> Result<GitFetch, Refusal> {
    let of = |name: &str| format!("{field}.{name}");
    for (name, why) in FOREIGN {
        if let Some((key, _)) = table.get_key_value(name) {
            return Err((key.span().start, Invalid::field(of(name), why)));
        }
    }
    known(table, field, &FIELDS)?;
    let missing = |name: &str| refuse(whole, Invalid::field(of(name), "missing; it is required"));
    let listed = table.get("git").ok_or_else(|| missing("git"))?;
    let repositories = match listed.get_ref().as_str() {
        // There is no index then.
        Some(url) => FetchUrl::new(url)
            .and_then(|url| Mirrors::new(vec![url])?.repositories())
            .map_err(|e| refuse(listed, Invalid::field(of("git"), e.reason)))?,
        None => mirrors(&of("git"), listed)?
            .repositories()
            .map_err(|e| refuse(listed, e.within(of("git"))))?,
    };
    let value = table.get("commit").ok_or_else(|| missing("commit"))?;
    let commit = GitId::new(string(&of("commit"), value)?);
    Ok(GitFetch {
        repositories,
        commit: commit.map_err(|e| refuse(value, e.within(of("commit"))))?,
        submodules: flag(&of("submodules"), table.get("submodules"))?,
    })
}
