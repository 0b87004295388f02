//! What an earlier build has left, as `belljar.toml` names it.

use belljar_core::{ArtifactFetch, ArtifactForm, BuildId, BuilderId, Digest, Invalid};
use toml::de::DeTable;

use super::fetch::{flag, unpack};
use crate::values::{Refusal, Value, known, refuse, string};

const FIELDS: [&str; 8] = [
    "artifact",
    "unpack",
    "strip_components",
    "file_name",
    "executable",
    "directory",
    "build",
    "builder",
];

/// Fields that are for files only.
const OF_FILES: [&str; 4] = ["unpack", "strip_components", "file_name", "executable"];
/// Fields that are for what comes from elsewhere.
const OF_URLS: [&str; 3] = ["urls", "sha256", "integrity"];

/// Reads the table at `field` that has an `artifact`.
pub(super) fn artifact(
    field: &str,
    table: &DeTable<'_>,
    whole: &Value<'_>,
) -> Result<ArtifactFetch, Refusal> {
    let of = |name: &str| format!("{field}.{name}");
    for name in OF_URLS {
        if let Some((key, _)) = table.get_key_value(name) {
            let why = "is for what comes from elsewhere; an `artifact` is had by its digest alone";
            return Err((key.span().start, Invalid::field(of(name), why)));
        }
    }
    known(table, field, &FIELDS)?;
    let missing = || refuse(whole, Invalid::field(of("artifact"), "missing"));
    let value = table.get("artifact").ok_or_else(missing)?;
    let digest = string(&of("artifact"), value)?.parse::<Digest>();
    let digest = digest.map_err(|e| refuse(value, e.within(of("artifact"))))?;
    let form = match flag(&of("directory"), table.get("directory"))? {
        true => directory(field, table)?,
        false => {
            let why = "missing; a file needs a name here (an archive `unpack`, a directory `directory = true`)";
            ArtifactForm::File(unpack(field, table, whole, Err(why))?)
        }
    };
    let build = table.get("build").map(|value| {
        let text = string(&of("build"), value)?;
        build(text).map_err(|e| refuse(value, e.within(of("build"))))
    });
    let builder = table.get("builder").map(|value| {
        let id = BuilderId::new(string(&of("builder"), value)?);
        id.map_err(|e| refuse(value, e.within(of("builder"))))
    });
    Ok(ArtifactFetch {
        artifact: digest,
        form,
        build: build.transpose()?,
        builder: builder.transpose()?,
    })
}

/// A directory, and nothing that is for files.
fn directory(field: &str, table: &DeTable<'_>) -> Result<ArtifactForm, Refusal> {
    for name in OF_FILES {
        if let Some((key, _)) = table.get_key_value(name) {
            let why = "is for a file; a directory is taken as it is";
            let field = format!("{field}.{name}");
            return Err((key.span().start, Invalid::field(field, why)));
        }
    }
    Ok(ArtifactForm::Directory)
}

fn build(text: &str) -> Result<BuildId, Invalid> {
    let id = text.strip_prefix("builds/");
    let id = id.ok_or_else(|| Invalid::new("not the name of a build: `builds/<id>` is due"))?;
    BuildId::new(id)
}
