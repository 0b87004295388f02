mod written;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use written::Written;

use crate::{
    ArtifactFetch, ArtifactForm, Digest, FetchUrl, GitFetch, GitId, InputName, Inputs, Invalid,
    RelPath, bounds,
};

/// Something that belljard brings before a build begins: the build sees what has its digest, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Fetch {
    /// From elsewhere.
    Urls(UrlFetch),
    /// What an earlier build has left.
    Artifact(ArtifactFetch),
    /// A commit of a git repository.
    Git(GitFetch),
}

/// By what something that is fetched is known. Written as the digest is, or `gitCommit:` and the name of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FetchDigest {
    /// Its own digest.
    Sha256(Digest),
    /// The name of a commit.
    GitCommit(GitId),
}

/// Something that comes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UrlFetch {
    /// Where it can be had: mirrors, tried in this order.
    pub urls: Mirrors,
    /// SHA-256 of what comes, as it comes.
    pub digest: Digest,
    /// What is made of it.
    pub unpack: Unpack,
}

/// One to [`bounds::FETCH_MIRRORS`] URLs, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<FetchUrl>", into = "Vec<FetchUrl>")]
pub struct Mirrors(Vec<FetchUrl>);

/// Which tree becomes of what was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Unpack {
    /// One file.
    File {
        /// Its name: one component.
        name: RelPath,
        /// Whether it may be executed.
        executable: bool,
    },
    /// What a tar archive holds, plain or compressed by gzip, zstd or xz.
    Tar {
        /// So many leading components of each name are left out, at most [`bounds::PATH_DEPTH`]. Directories that
        /// are nothing but these are none of the tree; files and links must be below them.
        strip_components: u32,
    },
    /// What a ZIP archive holds, of which no reader could make something else.
    Zip {
        /// As for a tar archive.
        strip_components: u32,
    },
}

/// What is fetched for a build, by the names under which it appears; at most [`bounds::INPUTS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<InputName, Fetch>",
    into = "BTreeMap<InputName, Fetch>"
)]
pub struct Fetches(BTreeMap<InputName, Fetch>);

impl Mirrors {
    /// Takes `urls` if there is at least one, not too many, and none twice.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(urls: Vec<FetchUrl>) -> Result<Self, Invalid> {
        if urls.is_empty() {
            return Err(Invalid::new("no URL is given; name at least one"));
        }
        if urls.len() > bounds::FETCH_MIRRORS {
            let (given, most) = (urls.len(), bounds::FETCH_MIRRORS);
            return Err(Invalid::new(format!(
                "{given} URLs are given; {most} are allowed"
            )));
        }
        for (index, url) in urls.iter().enumerate() {
            if urls[..index].contains(url) {
                return Err(Invalid::field(format!("[{index}]"), "was given already"));
            }
        }
        Ok(Self(urls))
    }

    /// The URLs, in the order in which they are tried.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &FetchUrl> {
        self.0.iter()
    }
}

impl Fetch {
    /// By what it is known.
    pub fn digest(&self) -> FetchDigest {
        match self {
            Self::Urls(fetch) => FetchDigest::Sha256(fetch.digest),
            Self::Artifact(fetch) => FetchDigest::Sha256(fetch.artifact),
            Self::Git(fetch) => FetchDigest::GitCommit(fetch.commit),
        }
    }

    /// What is made of it, if it is a file.
    pub fn unpack(&self) -> Option<&Unpack> {
        match self {
            Self::Urls(fetch) => Some(&fetch.unpack),
            Self::Artifact(fetch) => match &fetch.form {
                ArtifactForm::File(unpack) => Some(unpack),
                ArtifactForm::Directory => None,
            },
            Self::Git(_) => None,
        }
    }
}

impl FetchDigest {
    const GIT_COMMIT: &'static str = "gitCommit:";
}

impl fmt::Display for FetchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::GitCommit(commit) => write!(f, "{}{commit}", Self::GIT_COMMIT),
        }
    }
}

impl TryFrom<String> for FetchDigest {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.strip_prefix(Self::GIT_COMMIT) {
            Some(commit) => commit.parse().map(Self::GitCommit),
            None => text.parse().map(Self::Sha256),
        }
    }
}

impl From<FetchDigest> for String {
    fn from(digest: FetchDigest) -> Self {
        digest.to_string()
    }
}

impl Unpack {
    /// One file of this name, which must be one component.
    ///
    /// # Errors
    /// When it is none.
    pub fn file(name: &str, executable: bool) -> Result<Self, Invalid> {
        let unpack = Self::File {
            name: RelPath::new(name)?,
            executable,
        };
        unpack.checked()
    }

    /// A tar archive without so many leading components.
    ///
    /// # Errors
    /// When these are too many.
    pub fn tar(strip_components: u32) -> Result<Self, Invalid> {
        Self::Tar { strip_components }.checked()
    }

    /// A ZIP archive without so many leading components.
    ///
    /// # Errors
    /// When these are too many.
    pub fn zip(strip_components: u32) -> Result<Self, Invalid> {
        Self::Zip { strip_components }.checked()
    }

    fn checked(self) -> Result<Self, Invalid> {
        match &self {
            Self::File { name, .. } if name.components().count() != 1 => Err(Invalid::new(
                format!("`{name}` is a path; a file that is fetched has a name of one component"),
            )),
            Self::Tar { strip_components } | Self::Zip { strip_components }
                if *strip_components as usize > bounds::PATH_DEPTH =>
            {
                let most = bounds::PATH_DEPTH;
                Err(Invalid::new(format!(
                    "{strip_components} components; at most {most} can be left out"
                )))
            }
            _ => Ok(self),
        }
    }
}

impl fmt::Display for Unpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, executable } => {
                let kind = if *executable {
                    "executable file"
                } else {
                    "file"
                };
                write!(f, "{kind} `{name}`")
            }
            Self::Tar { strip_components } => archive(f, "tar", *strip_components),
            Self::Zip { strip_components } => archive(f, "ZIP", *strip_components),
        }
    }
}

fn archive(f: &mut fmt::Formatter<'_>, kind: &str, strip_components: u32) -> fmt::Result {
    match strip_components {
        0 => write!(f, "{kind} archive"),
        count => write!(f, "{kind} archive without {count} leading components"),
    }
}

impl Fetches {
    /// Takes `fetches` if there are not too many and each makes one tree.
    ///
    /// # Errors
    /// Says which rule was broken, and by which.
    pub fn new(fetches: BTreeMap<InputName, Fetch>) -> Result<Self, Invalid> {
        if fetches.len() > bounds::INPUTS {
            let (given, most) = (fetches.len(), bounds::INPUTS);
            return Err(Invalid::new(format!(
                "{given} things are to be fetched; {most} are allowed"
            )));
        }
        for (name, fetch) in &fetches {
            let checked = fetch.unpack().cloned().map(Unpack::checked);
            checked
                .transpose()
                .map_err(|e| e.within("unpack").within(name))?;
        }
        Ok(Self(fetches))
    }

    /// What is given and what is fetched must not have one name, nor be too many together.
    pub(crate) fn apart_from(&self, inputs: &Inputs) -> Result<(), Invalid> {
        if inputs.iter().len() + self.0.len() > bounds::INPUTS {
            let reason = format!("with the inputs more than {} trees", bounds::INPUTS);
            return Err(Invalid::field("fetches", reason));
        }
        let mut names = inputs.iter().map(|(name, _)| name);
        match names.find(|name| self.0.contains_key(*name)) {
            Some(name) => Err(Invalid::field(
                format!("fetches.{name}"),
                "there is an input of this name; choose another",
            )),
            None => Ok(()),
        }
    }

    /// The fetches with their names, sorted by these.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&InputName, &Fetch)> {
        self.0.iter()
    }

    /// The one of this name.
    pub fn get(&self, name: &InputName) -> Option<&Fetch> {
        self.0.get(name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<FetchUrl>> for Mirrors {
    type Error = Invalid;

    fn try_from(urls: Vec<FetchUrl>) -> Result<Self, Invalid> {
        Self::new(urls)
    }
}

impl From<Mirrors> for Vec<FetchUrl> {
    fn from(mirrors: Mirrors) -> Self {
        mirrors.0
    }
}

impl TryFrom<BTreeMap<InputName, Fetch>> for Fetches {
    type Error = Invalid;

    fn try_from(fetches: BTreeMap<InputName, Fetch>) -> Result<Self, Invalid> {
        Self::new(fetches)
    }
}

impl From<Fetches> for BTreeMap<InputName, Fetch> {
    fn from(fetches: Fetches) -> Self {
        fetches.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Vec<FetchUrl> {
        texts.iter().map(|t| FetchUrl::new(t).unwrap()).collect()
    }

    #[test]
    fn mirrors_are_few_and_each_is_another() {
        assert!(Mirrors::new(urls(&["https://a/", "https://b/"])).is_ok());
        assert!(Mirrors::new(Vec::new()).is_err());
        let twice = Mirrors::new(urls(&["https://a/", "https://A:443"])).unwrap_err();
        assert_eq!(twice.field, "[1]");
        let many: Vec<String> = (0..=bounds::FETCH_MIRRORS)
            .map(|i| format!("https://a{i}/"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(Mirrors::new(urls(&many)).is_err());
    }

    #[test]
    fn a_file_has_a_name_and_an_archive_not_too_deep_a_root() {
        assert!(Unpack::file("a.jar", true).is_ok());
        for bad in ["", "a/b", "..", "/a"] {
            assert!(Unpack::file(bad, false).is_err(), "{bad}");
        }
        assert!(Unpack::tar(128).is_ok());
        assert!(Unpack::tar(129).is_err());
        assert!(Unpack::zip(128).is_ok());
        assert!(Unpack::zip(129).is_err());
        let shown = Unpack::zip(1).unwrap().to_string();
        assert_eq!(shown, "ZIP archive without 1 leading components");
        // Nor by way of serde.
        let text = r#"{"x":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","unpack":{"executable":false,"kind":"file","name":"a/b"},"urls":["https://a/"]}}"#;
        assert!(serde_json::from_str::<Fetches>(text).is_err());
        let good = text.replace("a/b", "ab");
        assert!(serde_json::from_str::<Fetches>(&good).is_ok());
    }

    #[test]
    fn the_two_sorts_of_fetches_do_not_mix() {
        let digest = Digest::of(b"");
        let file = r#""unpack":{"executable":false,"kind":"file","name":"a"}"#;
        let artifact = format!(r#""artifact":"{digest}""#);
        let urls = format!(r#""urls":["https://a/"],"digest":"{digest}""#);
        let build = r#""build":"01m80ts0f9k8jr4yh4r7abv98y""#;
        let git = r#""git":["https://a/"]"#;
        let commit = r#""commit":"0123456789abcdef0123456789abcdef01234567""#;
        let query = r#""git":["https://b/","https://a/?x"]"#;
        let read = |fields: &[&str]| {
            let text = format!("{{{}}}", fields.join(","));
            serde_json::from_str::<Fetch>(&text).map(|fetch| {
                // In one encoding, which is read back.
                let again = serde_json::to_string(&fetch).unwrap();
                assert_eq!(serde_json::from_str::<Fetch>(&again).unwrap(), fetch);
                assert_eq!(again.len(), text.len());
            })
        };
        for good in [
            &[&*urls, file][..],
            &[&artifact, file],
            &[&artifact, r#""directory":true"#],
            &[&artifact, file, build, r#""builder":"urn:x""#],
            &[git, commit],
        ] {
            assert!(read(good).is_ok(), "{good:?}");
        }
        for (bad, due) in [
            (&[&*urls][..], "unpack"),
            (&[file], "urls"),
            (&[&urls, file, build], "build"),
            (&[&urls, file, r#""directory":true"#], "directory"),
            (&[&urls, file, r#""builder":"x""#], "builder"),
            (&[&artifact], "unpack"),
            (&[&artifact, file, r#""directory":true"#], "unpack"),
            (&[&artifact, r#""directory":false"#], "unpack"),
            (&[&artifact, file, &urls], "urls"),
            (&[&artifact, file, r#""network":"host""#], "network"),
            (&[git], "commit"),
            (&[query, commit], "git[1]"),
        ] {
            let refused = read(bad).unwrap_err().to_string();
            assert!(refused.contains(due), "{bad:?}: {refused}");
        }
    }
}
