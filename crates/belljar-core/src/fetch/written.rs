use serde::{Deserialize, Serialize};

use super::{Fetch, Mirrors, Unpack, UrlFetch};
use crate::{ArtifactFetch, ArtifactForm, BuildId, BuilderId, Digest, GitFetch, GitId, Invalid};

/// A fetch as it is encoded.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    urls: Option<Mirrors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unpack: Option<Unpack>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact: Option<Digest>,
    /// True for a directory, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build: Option<BuildId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    builder: Option<BuilderId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git: Option<Mirrors>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<GitId>,
    /// True for a commit that is fetched with its submodules, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submodules: Option<bool>,
}

impl TryFrom<Written> for Fetch {
    type Error = Invalid;

    fn try_from(written: Written) -> Result<Self, Invalid> {
        let due = |field: &str| Invalid::field(field, "missing");
        match (&written.artifact, &written.git) {
            (None, None) => {
                written.nothing_of(&[&OF_ARTIFACTS, &OF_COMMITS])?;
                Ok(Self::Urls(UrlFetch {
                    urls: written.urls.ok_or_else(|| due("urls"))?,
                    digest: written.digest.ok_or_else(|| due("digest"))?,
                    unpack: written.unpack.ok_or_else(|| due("unpack"))?,
                }))
            }
            (Some(_), _) => {
                written.nothing_of(&[&OF_URLS, &OF_COMMITS])?;
                written.artifact().map(Self::Artifact)
            }
            (None, Some(_)) => {
                written.nothing_of(&[&OF_URLS, &OF_ARTIFACTS, &["unpack"]])?;
                if written.submodules == Some(false) {
                    return Err(Invalid::field("submodules", "`true`, or absent"));
                }
                let repositories = written.git.ok_or_else(|| due("git"))?;
                let repositories = repositories.repositories();
                Ok(Self::Git(GitFetch {
                    repositories: repositories.map_err(|e| e.within("git"))?,
                    commit: written.commit.ok_or_else(|| due("commit"))?,
                    submodules: written.submodules.is_some(),
                }))
            }
        }
    }
}

/// Fields of what comes from a URL.
const OF_URLS: [&str; 2] = ["urls", "digest"];
/// Fields of what an earlier build has left.
const OF_ARTIFACTS: [&str; 4] = ["artifact", "directory", "build", "builder"];
/// Fields of commits.
const OF_COMMITS: [&str; 3] = ["git", "commit", "submodules"];

impl Written {
    /// Refuses fields of other sorts of fetches.
    fn nothing_of(&self, foreign: &[&[&str]]) -> Result<(), Invalid> {
        let given = [
            ("urls", self.urls.is_some()),
            ("digest", self.digest.is_some()),
            ("unpack", self.unpack.is_some()),
            ("artifact", self.artifact.is_some()),
            ("directory", self.directory.is_some()),
            ("build", self.build.is_some()),
            ("builder", self.builder.is_some()),
            ("git", self.git.is_some()),
            ("commit", self.commit.is_some()),
            ("submodules", self.submodules.is_some()),
        ];
        let foreign = foreign.concat();
        let found = given
            .iter()
            .find(|(field, given)| *given && foreign.contains(field));
        match found {
            Some((field, _)) => Err(Invalid::field(*field, "belongs to another sort of fetch")),
            None => Ok(()),
        }
    }

    fn artifact(self) -> Result<ArtifactFetch, Invalid> {
        let form = match (self.unpack, self.directory) {
            (Some(unpack), None) => ArtifactForm::File(unpack),
            (None, Some(true)) => ArtifactForm::Directory,
            _ => {
                let why = "either this is due, or `directory` as `true`";
                return Err(Invalid::field("unpack", why));
            }
        };
        let artifact = self.artifact;
        Ok(ArtifactFetch {
            artifact: artifact.ok_or_else(|| Invalid::field("artifact", "missing"))?,
            form,
            build: self.build,
            builder: self.builder,
        })
    }
}

impl From<Fetch> for Written {
    fn from(fetch: Fetch) -> Self {
        match fetch {
            Fetch::Urls(UrlFetch {
                urls,
                digest,
                unpack,
            }) => Self {
                urls: Some(urls),
                digest: Some(digest),
                unpack: Some(unpack),
                ..Self::default()
            },
            Fetch::Artifact(ArtifactFetch {
                artifact,
                form,
                build,
                builder,
            }) => {
                let (unpack, directory) = match form {
                    ArtifactForm::File(unpack) => (Some(unpack), None),
                    ArtifactForm::Directory => (None, Some(true)),
                };
                Self {
                    unpack,
                    artifact: Some(artifact),
                    directory,
                    build,
                    builder,
                    ..Self::default()
                }
            }
            Fetch::Git(GitFetch {
                repositories,
                commit,
                submodules,
            }) => Self {
                git: Some(repositories),
                commit: Some(commit),
                submodules: submodules.then_some(true),
                ..Self::default()
            },
        }
    }
}
