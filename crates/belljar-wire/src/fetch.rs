use std::collections::BTreeMap;

use belljar_core::{Digest, Fetch, FetchUrl, Fetches, InputName, Invalid, Mirrors, Unpack};

use crate::numbers::{required, small, unsigned};
use crate::v1;
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
        } = fetch;
        let urls = urls
            .iter()
            .enumerate()
            .map(|(index, url)| FetchUrl::new(url).map_err(|e| e.within(format!("[{index}]"))));
        let urls: Result<_, Invalid> = urls.collect();
        Ok(Self {
            urls: urls.and_then(Mirrors::new).map_err(|e| e.within("urls"))?,
            digest: Digest::from_hex(&sha256).map_err(|e| e.within("sha256"))?,
            unpack: required("unpack", unpack)?
                .try_into()
                .map_err(|e: Invalid| e.within("unpack"))?,
        })
    }
}

impl From<&Fetch> for v1::Fetch {
    fn from(fetch: &Fetch) -> Self {
        Self {
            urls: fetch.urls.iter().map(FetchUrl::to_string).collect(),
            sha256: fetch.digest.to_hex(),
            unpack: Some((&fetch.unpack).into()),
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
