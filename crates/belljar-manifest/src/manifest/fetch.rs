//! What is fetched before the build begins, as `belljar.toml` gives it.

use std::collections::BTreeMap;

use belljar_core::{
    Digest, Fetch, FetchUrl, Fetches, InputName, Invalid, Mirrors, Unpack, UrlFetch, bounds,
};
use belljar_lock::sri;
use toml::de::DeTable;

use super::artifact::artifact;
use super::git::git;
use crate::LockFile;
use crate::values::{Refusal, Value, elements, known, number, refuse, string, subtable};

const FIELDS: [&str; 7] = [
    "urls",
    "sha256",
    "integrity",
    "unpack",
    "strip_components",
    "file_name",
    "executable",
];

/// Reads `fetch`, beside what is made of `deps`.
pub(super) fn fetches(value: &Value<'_>, deps: &[LockFile]) -> Result<Fetches, Refusal> {
    let mut fetches = BTreeMap::new();
    for (key, value) in subtable("fetch", value)? {
        let name = InputName::new(key.get_ref().as_ref());
        let name = name.map_err(|e| (key.span().start, e.within("fetch")))?;
        let field = format!("fetch.{name}");
        let same = |file: &&LockFile| file.ecosystem.name() == name.as_str();
        if let Some(file) = deps.iter().find(same) {
            let why = format!(
                "the packages of `{}` have this name; choose another",
                file.path
            );
            return Err((key.span().start, Invalid::field(field, why)));
        }
        fetches.insert(name, fetch(&field, value)?);
    }
    if fetches.len() + deps.len() > bounds::INPUTS {
        let why = format!("with `deps` more than {} trees", bounds::INPUTS);
        return Err(refuse(value, Invalid::field("fetch", why)));
    }
    Fetches::new(fetches).map_err(|e| refuse(value, e.within("fetch")))
}

fn fetch(field: &str, value: &Value<'_>) -> Result<Fetch, Refusal> {
    let table = subtable(field, value)?;
    let of = |name: &str| format!("{field}.{name}");
    if table.contains_key("git") {
        return git(field, table, value).map(Fetch::Git);
    }
    if table.contains_key("artifact") {
        return artifact(field, table, value).map(Fetch::Artifact);
    }
    known(table, field, &FIELDS)?;
    let missing = |name: &str| refuse(value, Invalid::field(of(name), "missing; it is required"));
    let listed = table.get("urls").ok_or_else(|| missing("urls"))?;
    let urls = mirrors(&of("urls"), listed)?;
    let digest = match (table.get("sha256"), table.get("integrity")) {
        (Some(value), None) => Digest::from_hex(string(&of("sha256"), value)?)
            .map_err(|e| refuse(value, e.within(of("sha256"))))?,
        (None, Some(value)) => sri::sha256(string(&of("integrity"), value)?)
            .map_err(|e| refuse(value, e.within(of("integrity"))))?,
        (None, None) => return Err(missing("sha256")),
        (Some(_), Some(value)) => {
            let why = "is given beside `sha256`; one of them is enough";
            return Err(refuse(value, Invalid::field(of("integrity"), why)));
        }
    };
    let name = urls.iter().next().and_then(FetchUrl::file_name);
    let name = name.ok_or("missing; the first URL does not end in a name");
    let unpack = unpack(field, table, value, name)?;
    Ok(Fetch::Urls(UrlFetch {
        urls,
        digest,
        unpack,
    }))
}

/// A list of URLs, mirrors of one another.
pub(super) fn mirrors(field: &str, listed: &Value<'_>) -> Result<Mirrors, Refusal> {
    let mut urls = Vec::new();
    for (index, element) in elements(field, listed)?.iter().enumerate() {
        let place = format!("{field}[{index}]");
        let url = FetchUrl::new(string(&place, element)?);
        urls.push(url.map_err(|e| refuse(element, e.within(&place)))?);
    }
    Mirrors::new(urls).map_err(|e| refuse(listed, e.within(field)))
}

/// What is made of it, and nothing that belongs to the other sort. A file has the given name if it gets none here, or there
/// is none, and why.
pub(super) fn unpack(
    field: &str,
    table: &DeTable<'_>,
    whole: &Value<'_>,
    name: Result<&str, &str>,
) -> Result<Unpack, Refusal> {
    let of = |name: &str| format!("{field}.{name}");
    let archive = archive(&of("unpack"), table.get("unpack"))?;
    let (foreign, why) = match archive {
        Some(_) => (
            &["file_name", "executable"][..],
            "is for a file; with `unpack` the archive says it",
        ),
        None => (
            &["strip_components"][..],
            "is for an archive; add `unpack = true`, or `unpack = \"zip\"`",
        ),
    };
    if let Some((name, value)) = foreign
        .iter()
        .find_map(|name| Some((name, table.get(*name)?)))
    {
        return Err(refuse(value, Invalid::field(of(name), why)));
    }
    if let Some(archive) = archive {
        let Some(value) = table.get("strip_components") else {
            return archive(0).map_err(|e| refuse(whole, e));
        };
        let place = of("strip_components");
        let count = u32::try_from(number(&place, value)?).unwrap_or(u32::MAX);
        return archive(count).map_err(|e| refuse(value, e.within(place)));
    }
    let executable = flag(&of("executable"), table.get("executable"))?;
    let place = of("file_name");
    if let Some(value) = table.get("file_name") {
        let name = string(&place, value)?;
        return Unpack::file(name, executable).map_err(|e| refuse(value, e.within(place)));
    }
    let name = name.map_err(|why| refuse(whole, Invalid::field(&place, why)))?;
    Unpack::file(name, executable).map_err(|e| refuse(whole, e.within(place)))
}

/// An archive without so many leading components.
type Archive = fn(u32) -> Result<Unpack, Invalid>;

/// Which sort of archive it is, if it is to be unpacked.
fn archive(field: &str, value: Option<&Value<'_>>) -> Result<Option<Archive>, Refusal> {
    let Some(value) = value else {
        return Ok(None);
    };
    let why = match (value.get_ref().as_bool(), value.get_ref().as_str()) {
        (Some(false), _) => return Ok(None),
        (Some(true), _) | (_, Some("tar")) => return Ok(Some(Unpack::tar)),
        (_, Some("zip")) => return Ok(Some(Unpack::zip)),
        (_, Some(_)) => "archives are `\"tar\"`, also by `true`, or `\"zip\"`".to_owned(),
        (None, None) => {
            let found = value.get_ref().type_str();
            format!("`true`, `false`, `\"tar\"` or `\"zip\"` is due, not a value of type {found}")
        }
    };
    Err(refuse(value, Invalid::field(field, why)))
}

pub(super) fn flag(field: &str, value: Option<&Value<'_>>) -> Result<bool, Refusal> {
    let Some(value) = value else {
        return Ok(false);
    };
    value.get_ref().as_bool().ok_or_else(|| {
        let found = value.get_ref().type_str();
        let why = format!("`true` or `false` is due, not a value of type {found}");
        refuse(value, Invalid::field(field, why))
    })
}
