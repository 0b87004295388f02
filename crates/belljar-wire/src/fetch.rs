use std::collections::BTreeMap;

use belljar_core::{
    ArtifactFetch, ArtifactForm, BuilderId, Digest, Fetch, FetchDigest, FetchUrl, Fetches,
    GitFetch, GitId, InputName, Invalid, Mirrors, Unpack, UrlFetch,
};

use crate::numbers::{required, small, unsigned};
use crate::record::{build_name, parse_build_name};
use crate::v1;
use v1::fetch::EarlierBuild;
use v1::unpack::{File, Kind, Tar, Zip};

pub(crate) fn fetches(fetches: BTreeMap<String, v1::Fetch>) -> Result<Fetches, Invalid> {
    let parsed = fetches.into_iter().map(|(name, fetch)| {
        let place = format!("fetches.{}", name.escape_debug());
        let name = InputName::new(name).map_err(|e| e.within("fetches"))?;
        let fetch = fetch.try_into().map_err(|e: Invalid| e.within(place))?;
        Ok((name, fetch))
    });
    let parsed: Result<_, Invalid> = parsed.collect();
    Fetches::new(parsed?).map_err(|e| e.within("fetches"))
}

pub(crate) fn to_wire(fetches: &Fetches) -> BTreeMap<String, v1::Fetch> {
    let all = fetches.iter();
    all.map(|(name, fetch)| (name.to_string(), fetch.into()))
        .collect()
}

impl TryFrom<v1::Fetch> for Fetch {
    type Error = Invalid;

    fn try_from(fetch: v1::Fetch) -> Result<Self, Invalid> {
        let v1::Fetch {
            urls,
            sha256,
            unpack,
            earlier_build,
            git_commit,
        } = fetch;
        if let Some(commit) = git_commit {
            let others = [
                ("sha256", !sha256.is_empty()),
                ("unpack", unpack.is_some()),
                ("earlier_build", earlier_build.is_some()),
            ];
            if let Some((field, _)) = others.into_iter().find(|(_, given)| *given) {
                let why = "a commit has none; leave it out, or `git_commit`";
                return Err(Invalid::field(field, why));
            }
            return git(&urls, &commit).map(Self::Git);
        }
        let digest = Digest::from_hex(&sha256).map_err(|e| e.within("sha256"))?;
        let unpack = unpack
            .map(Unpack::try_from)
            .transpose()
            .map_err(|e| e.within("unpack"))?;
        if let Some(earlier) = earlier_build {
            if !urls.is_empty() {
                let why = "there are none of what an earlier build has left; leave out one of both";
                return Err(Invalid::field("urls", why));
            }
            return artifact(digest, unpack, earlier).map(Self::Artifact);
        }
        Ok(Self::Urls(UrlFetch {
            urls: mirrors(&urls)?,
            digest,
            unpack: required("unpack", unpack)?,
        }))
    }
}

fn mirrors(urls: &[String]) -> Result<Mirrors, Invalid> {
    let urls = urls
        .iter()
        .enumerate()
        .map(|(index, url)| FetchUrl::new(url).map_err(|e| e.within(format!("[{index}]"))));
    let urls: Result<_, Invalid> = urls.collect();
    urls.and_then(Mirrors::new).map_err(|e| e.within("urls"))
}

fn git(urls: &[String], commit: &v1::GitCommit) -> Result<GitFetch, Invalid> {
    let id = GitId::new(&commit.commit);
    let repositories = mirrors(urls)?.repositories();
    Ok(GitFetch {
        repositories: repositories.map_err(|e| e.within("urls"))?,
        commit: id.map_err(|e| Invalid::field("git_commit.commit", e.reason))?,
        submodules: commit.submodules,
    })
}

fn artifact(
    artifact: Digest,
    unpack: Option<Unpack>,
    earlier: EarlierBuild,
) -> Result<ArtifactFetch, Invalid> {
    let EarlierBuild {
        directory,
        build,
        builder,
    } = earlier;
    let within =
        |field: &str, e: Invalid| Invalid::field(format!("earlier_build.{field}"), e.reason);
    let form = match (directory, unpack) {
        (false, unpack) => ArtifactForm::File(required("unpack", unpack)?),
        (true, None) => ArtifactForm::Directory,
        (true, Some(_)) => {
            let why = "a directory is not unpacked; leave this out";
            return Err(Invalid::field("unpack", why));
        }
    };
    let build = match build.as_str() {
        "" => None,
        name => Some(parse_build_name(name).map_err(|e| within("build", e))?),
    };
    let builder = match builder.as_str() {
        "" => None,
        id => Some(BuilderId::new(id).map_err(|e| within("builder", e))?),
    };
    Ok(ArtifactFetch {
        artifact,
        form,
        build,
        builder,
    })
}

impl From<&Fetch> for v1::Fetch {
    fn from(fetch: &Fetch) -> Self {
        let told = |urls: &Mirrors| urls.iter().map(FetchUrl::to_string).collect();
        let (urls, earlier_build) = match fetch {
            Fetch::Urls(fetch) => (told(&fetch.urls), None),
            Fetch::Git(fetch) => (told(&fetch.repositories), None),
            Fetch::Artifact(fetch) => {
                let earlier = EarlierBuild {
                    directory: fetch.form == ArtifactForm::Directory,
                    build: fetch.build.as_ref().map(build_name).unwrap_or_default(),
                    builder: fetch
                        .builder
                        .as_ref()
                        .map(BuilderId::to_string)
                        .unwrap_or_default(),
                };
                (Vec::new(), Some(earlier))
            }
        };
        Self {
            urls,
            sha256: match fetch.digest() {
                FetchDigest::Sha256(digest) => digest.to_hex(),
                FetchDigest::GitCommit(_) => String::new(),
            },
            unpack: fetch.unpack().map(Into::into),
            earlier_build,
            git_commit: match fetch {
                Fetch::Git(fetch) => Some(v1::GitCommit {
                    commit: fetch.commit.to_string(),
                    submodules: fetch.submodules,
                }),
                Fetch::Urls(_) | Fetch::Artifact(_) => None,
            },
        }
    }
}

impl TryFrom<v1::Unpack> for Unpack {
    type Error = Invalid;

    fn try_from(unpack: v1::Unpack) -> Result<Self, Invalid> {
        match required("kind", unpack.kind)? {
            Kind::File(File { name, executable }) => {
                Self::file(&name, executable).map_err(|e| e.within("file.name"))
            }
            Kind::Tar(Tar { strip_components }) => {
                let count = unsigned("tar.strip_components", strip_components.into())?;
                Self::tar(count).map_err(|e| e.within("tar.strip_components"))
            }
            Kind::Zip(Zip { strip_components }) => {
                let count = unsigned("zip.strip_components", strip_components.into())?;
                Self::zip(count).map_err(|e| e.within("zip.strip_components"))
            }
        }
    }
}

impl From<&Unpack> for v1::Unpack {
    fn from(unpack: &Unpack) -> Self {
        let kind = match unpack {
            Unpack::File { name, executable } => Kind::File(File {
                name: name.to_string(),
                executable: *executable,
            }),
            Unpack::Tar { strip_components } => Kind::Tar(Tar {
                strip_components: small(*strip_components),
            }),
            Unpack::Zip { strip_components } => Kind::Zip(Zip {
                strip_components: small(*strip_components),
            }),
        };
        Self { kind: Some(kind) }
    }
}
