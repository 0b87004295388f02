//! Commits of git repositories, as something that a build is given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{FetchUrl, Invalid, Mirrors, ObjectId, RelPath};

/// The name of an object of git: SHA-1 of its type, length and content (gitformat-pack(5)). Written as 40 lower-case
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitId([u8; 20]);

/// A commit of a git repository: the build sees its tree, without its history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitFetch {
    /// Where it can be had: mirrors of one repository, tried in this order.
    pub repositories: Mirrors,
    /// The commit.
    pub commit: GitId,
    /// Whether what it names as submodules is fetched, too, each by its commit; else an empty directory stands there.
    pub submodules: bool,
}

/// A commit that stands in the tree of another, and the pack with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSubmodule {
    /// Where it stands.
    pub path: RelPath,
    /// The commit.
    pub commit: GitId,
    /// The pack that has come.
    pub pack: ObjectId,
}

impl GitId {
    /// From 40 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Any other length or character.
    pub fn new(hex: &str) -> Result<Self, Invalid> {
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Invalid::new(
                "it has 64 digits: commits of repositories with SHA-256 are not fetched, only those with SHA-1",
            ));
        }
        let mut bytes = [0; 20];
        match base16ct::lower::decode(hex, &mut bytes) {
            Ok(all) if all.len() == 20 => Ok(Self(bytes)),
            _ => Err(Invalid::new(
                "not the full name of a commit: write its 40 lower-case hexadecimal digits, no branch, tag or beginning of them",
            )),
        }
    }

    /// The name that these bytes are.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl Mirrors {
    /// Takes them if repositories can be there: none has a query, which says nothing about what is behind it.
    ///
    /// # Errors
    /// Names the first that has one.
    pub fn repositories(self) -> Result<Self, Invalid> {
        let with_query = self.iter().position(|url| url.as_str().contains('?'));
        match with_query {
            Some(index) => Err(Invalid::field(
                format!("[{index}]"),
                "the URL has a query, and a repository is asked for by paths behind its URL; leave `?` out, or percent-encode it",
            )),
            None => Ok(self),
        }
    }

    /// Where a submodule can be had whose URL stands in `.gitmodules` of this repository: absolute, or relative to where
    /// the repository itself is (gitmodules(5)).
    ///
    /// # Errors
    /// When that is nothing that is fetched from.
    pub fn submodule(&self, url: &str) -> Result<Self, Invalid> {
        let is_relative = url.starts_with("./") || url.starts_with("../");
        if !is_relative {
            return Self::new(vec![FetchUrl::new(url)?])?.repositories();
        }
        let mut all = Vec::new();
        for repository in self.iter() {
            let resolved = relative(repository, url)?;
            if !all.contains(&resolved) {
                all.push(resolved);
            }
        }
        Self::new(all)?.repositories()
    }
}

/// A relative URL of a submodule: `..` takes the last component of the repository's own path away, as git has it.
fn relative(repository: &FetchUrl, url: &str) -> Result<FetchUrl, Invalid> {
    let text = repository.as_str();
    if text.contains('?') {
        return Err(Invalid::new(
            "it is relative to a URL with a query, which says nothing about its neighbours",
        ));
    }
    let (origin, path) = text.split_at(text.len() - repository.target().len());
    let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for part in url.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let above = "it leads above the root of the host that the repository is at";
                names.pop().ok_or_else(|| Invalid::new(above))?;
            }
            name => names.push(name),
        }
    }
    FetchUrl::new(&format!("{origin}/{}", names.join("/")))
}

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for GitId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<String> for GitId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(&text)
    }
}

impl From<GitId> for String {
    fn from(id: GitId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_full_name_of_a_commit_is_one() {
        let full = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(GitId::new(full).unwrap().to_string(), full);
        let long = "a".repeat(64);
        for (bad, due) in [
            ("", "40"),
            ("main", "40"),
            (&full[..39], "40"),
            (&full.to_uppercase(), "40"),
            (&format!("{full}0"), "40"),
            ("v1.0", "40"),
            (&long, "SHA-256"),
        ] {
            let refused = GitId::new(bad).unwrap_err().to_string();
            assert!(refused.contains(due), "{bad}: {refused}");
        }
    }

    #[test]
    fn submodules_are_where_gitmodules_says_as_git_reads_it() {
        let mirrors = |all: &[&str]| {
            let all = all.iter().map(|url| FetchUrl::new(url).unwrap());
            Mirrors::new(all.collect()).unwrap()
        };
        let two = mirrors(&["https://a.example/team/app.git", "https://b.example/m/app/"]);
        let found = |url: &str| {
            let found = two.submodule(url);
            found.map(|found| found.iter().map(FetchUrl::to_string).collect::<Vec<_>>())
        };
        for (url, due) in [
            ("https://c.example/x", &["https://c.example/x"][..]),
            (
                "../lib.git",
                &[
                    "https://a.example/team/lib.git",
                    "https://b.example/m/lib.git",
                ],
            ),
            (
                "../../o/lib",
                &["https://a.example/o/lib", "https://b.example/o/lib"],
            ),
            (
                "./sub",
                &[
                    "https://a.example/team/app.git/sub",
                    "https://b.example/m/app/sub",
                ],
            ),
        ] {
            assert_eq!(found(url).unwrap(), due, "{url}");
        }
        for bad in [
            "",
            "lib",
            "/srv/lib",
            "git@c.example:x",
            "ssh://c.example/x",
            "file:///x",
            "../../../lib",
            "https://u:p@c.example/x",
            "https://c.example/?r=x",
            "../lib?x",
            "../a b",
        ] {
            assert!(found(bad).is_err(), "{bad}");
        }
        let query = mirrors(&["https://a.example/app", "https://a.example/?r=app"]);
        assert!(query.submodule("../lib").is_err());
        assert_eq!(query.repositories().unwrap_err().field, "[1]");
        assert!(two.clone().repositories().is_ok());
        let same = mirrors(&["https://a.example/x", "https://a.example/y"]);
        assert_eq!(same.submodule("../lib").unwrap().iter().len(), 1);
    }
}
