use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, FetchUrl, Invalid, bounds};

/// Which images a registry has under one name: `registry.example.org/team/c`, at most [`bounds::REPOSITORY_BYTES`] long
/// (OCI distribution-spec v1.1, "pulling manifests"). The host comes first, always, with a port if it is not 443.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

/// One image of a registry: a repository, and a tag or a digest, or both, as in
/// `registry.example.org/team/c:12@sha256:…`. A digest says which image it is; a tag alone what somebody calls it today.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Repository {
    /// Host, and port if it is not 443.
    pub fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// What the registry itself calls it.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ImageReference {
    /// Where the image is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What it is called there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Which image it must be.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same reference, for the image of this digest only.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same without a digest, if there is a tag.
    pub fn unpinned(&self) -> Option<Self> {
        self.tag.as_ref().map(|_| Self {
            digest: None,
            ..self.clone()
        })
    }
}

impl FromStr for Repository {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let named = |text: &str| text.contains(['.', ':']) || text == "localhost";
        let (registry, name) = text
            .split_once('/')
            .filter(|(registry, _)| named(registry))
            .ok_or_else(|| {
                Invalid::new(format!(
                    "`{}` does not begin with the host of a registry; write all of it, as in `docker.io/library/debian`",
                    excerpt(text)
                ))
            })?;
        if text.len() > bounds::REPOSITORY_BYTES {
            return Err(Invalid::new(format!(
                "the repository's name has {} bytes; {} are allowed",
                text.len(),
                bounds::REPOSITORY_BYTES
            )));
        }
        let url = FetchUrl::new(&format!("https://{registry}/"));
        // A host that is written otherwise than usual might be taken for another one.
        let url = url
            .ok()
            .filter(|url| url.authority() == registry)
            .ok_or_else(|| {
                Invalid::new(format!(
                    "`{}` is no host of a registry: a name in lower case or an address, and a port if it is not 443",
                    excerpt(registry)
                ))
            })?;
        if !name.split('/').all(is_component) {
            return Err(Invalid::new(format!(
                "`{}` is no name of a repository: lower-case letters and figures, between them `.`, `_` and `-`, and `/`",
                excerpt(name)
            )));
        }
        Ok(Self(format!("{}/{name}", url.authority())))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution-spec).
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    text.starts_with(plain) && text.ends_with(plain) && text.split(plain).all(separator)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec).
fn is_tag(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= bounds::TAG_BYTES
        && text.starts_with(first)
        && text.chars().all(|c| first(c) || matches!(c, '.' | '-'))
}

impl FromStr for ImageReference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        // A colon before the last slash is a port's.
        let slash = rest.rfind('/').unwrap_or(0);
        let (repository, tag) = match rest[slash..].find(':') {
            Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
            None => (rest, None),
        };
        let repository: Repository = repository.parse()?;
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(Invalid::new(format!(
                "`{}` is no tag: at most {} letters, figures, `_`, `.` and `-`",
                excerpt(tag),
                bounds::TAG_BYTES
            )));
        }
        if tag.is_none() && digest.is_none() {
            return Err(Invalid::new(format!(
                "`{repository}` names no image: add a tag, as in `{repository}:latest`, or a digest, `{repository}@sha256:…`"
            )));
        }
        Ok(Self {
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn excerpt(text: &str) -> String {
    text.escape_debug().take(100).collect()
}

impl TryFrom<String> for Repository {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        let repository: Self = text.parse()?;
        match repository.0 == text {
            true => Ok(repository),
            false => Err(Invalid::new("the repository is not in its one form")),
        }
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    #[test]
    fn references_are_taken_apart() {
        let digest = Digest::of(b"image");
        let both = format!("r.example:5000/a/b_c:v1.0@{digest}");
        let reference = parsed(&both);
        assert_eq!(reference.repository().registry(), "r.example:5000");
        assert_eq!(reference.repository().name(), "a/b_c");
        assert_eq!(reference.tag(), Some("v1.0"));
        assert_eq!(reference.digest(), Some(digest));
        assert_eq!(reference.to_string(), both);
        let tagged = parsed("r.example:5000/a/b_c:v1.0");
        assert_eq!(reference.unpinned(), Some(tagged.clone()));
        assert_eq!(tagged.pinned(digest), reference);
        let bare = parsed(&format!("127.0.0.1/a@{digest}"));
        assert_eq!((bare.tag(), bare.unpinned()), (None, None));
        assert_eq!(
            parsed("[::1]:5000/a:b").repository().registry(),
            "[::1]:5000"
        );
        assert_eq!(
            parsed("localhost/a--b/c__d:1").repository().name(),
            "a--b/c__d"
        );
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        let digest = Digest::of(b"image");
        for (text, due) in [
            ("debian:12".to_owned(), "does not begin with the host"),
            (
                "library/debian:12".to_owned(),
                "does not begin with the host",
            ),
            (":12".to_owned(), "does not begin with the host"),
            (String::new(), "does not begin with the host"),
            ("r.example/a".to_owned(), "names no image"),
            ("R.example/a:1".to_owned(), "is no host"),
            ("r.example:443/a:1".to_owned(), "is no host"),
            ("user@r.example/a:1".to_owned(), "is not a digest"),
            ("127.1/a:1".to_owned(), "is no host"),
            ("https://r.example/a:1".to_owned(), "is no host"),
            ("r.example/A:1".to_owned(), "is no name of a repository"),
            ("r.example/:1".to_owned(), "is no name of a repository"),
            ("r.example/a//b:1".to_owned(), "is no name of a repository"),
            ("r.example/../b:1".to_owned(), "is no name of a repository"),
            ("r.example/a..b:1".to_owned(), "is no name of a repository"),
            ("r.example/a___b:1".to_owned(), "is no name of a repository"),
            ("r.example/a?x=1:1".to_owned(), "is no name of a repository"),
            ("r.example/a%2e:1".to_owned(), "is no name of a repository"),
            ("r.example/a:".to_owned(), "is no tag"),
            ("r.example/a:-x".to_owned(), "is no tag"),
            ("r.example/a:x y".to_owned(), "is no tag"),
            (format!("r.example/a:{}", "x".repeat(129)), "is no tag"),
            (format!("r.example/{}:1", "a".repeat(300)), "bytes"),
            ("r.example/a@sha256:00".to_owned(), "hexadecimal"),
            (
                format!("r.example/a@sha512:{}", digest.to_hex()),
                "is not a digest",
            ),
            (format!("r.example/a@{digest}@{digest}"), "hexadecimal"),
        ] {
            let refused = text.parse::<ImageReference>().unwrap_err();
            assert!(refused.reason.contains(due), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_in_one_form_or_refused(text in "\\PC{0,40}", rest in "[a-z0-9./:@_-]{0,40}") {
            for text in [text, format!("r.example/{rest}"), rest] {
                if let Ok(reference) = text.parse::<ImageReference>() {
                    prop_assert_eq!(reference.to_string(), text);
                    let repository = reference.repository().clone();
                    prop_assert_eq!(Repository::try_from(String::from(repository.clone())), Ok(repository));
                }
            }
        }
    }
}
