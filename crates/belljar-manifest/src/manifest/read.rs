//! From TOML's tree, in which every value knows where it stands, to checked values.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{
    BuildSpec, Digest, EnvName, EnvValue, Fetches, Image, Input, Inputs, Invalid, Limits, ObjectId,
    OutputPattern, Outputs, PartialLimits, RelPath, Script, Steps, bounds, evidence,
};

use belljar_lock::Ecosystem;

use super::fetch::fetches;
use super::{Manifest, Named, output};
use crate::lock::image_name;
use crate::values::{Refusal, Value, elements, number, refuse, required, string, subtable, table};
use crate::{Lock, LockFile};

/// Every field with how its absence is taken. What is not here is refused.
const FIELDS: [&str; 10] = [
    "image",
    "run",
    "outputs",
    "output",
    "deps",
    "fetch",
    "env",
    "limits",
    "working_directory",
    "source_date_epoch",
];

/// Fields of the format that are not there yet.
const LATER: [(&str, &str); 1] = [("network", "not supported yet: a build reaches no network")];

/// Reads a whole `belljar.toml`, whose image is in `lock` unless it is the host's.
pub(super) fn manifest(text: &str, lock: &Lock) -> Result<Manifest, Refusal> {
    let document = table(text)?;
    let table = document.get_ref();
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        let reason = match LATER.iter().find(|(later, _)| *later == name) {
            Some((_, reason)) => (*reason).to_owned(),
            None if output::is_dockerfile(name) => output::no_dockerfiles().reason,
            None if FIELDS.contains(&name) => continue,
            None => format!("unknown field; the fields are {}", FIELDS.join(", ")),
        };
        return Err((
            key.span().start,
            Invalid::field(name.escape_debug().to_string(), reason),
        ));
    }
    let (image, named) = image(required(table, "image")?, lock)?;
    let deps = table.get("deps").map_or(Ok(Vec::new()), lock_files)?;
    let fetches = match table.get("fetch") {
        Some(value) => fetches(value, &deps)?,
        None => Fetches::default(),
    };
    let outputs = outputs(required(table, "outputs")?)?;
    let output = match table.get("output") {
        Some(value) => output::output(value, &outputs, lock)?,
        None => None,
    };
    let manifest = Manifest {
        image,
        named,
        run: steps(required(table, "run")?)?,
        outputs,
        output,
        env: environment(table.get("env"), &deps)?,
        deps,
        fetches,
        limits: table
            .get("limits")
            .map_or(Ok(PartialLimits::default()), limits)?,
        working_directory: table
            .get("working_directory")
            .map(working_directory)
            .transpose()?,
        source_date_epoch: table
            .get("source_date_epoch")
            .map_or(Ok(BuildSpec::DEFAULT_EPOCH), epoch)?,
    };
    fits(&manifest).map_err(|e| (0, e))?;
    Ok(manifest)
}

/// Whether a specification comes of it that is not too large, whichever trees and defaults it gets: nobody wants to hear
/// that after a long upload.
fn fits(manifest: &Manifest) -> Result<(), Invalid> {
    let largest = ObjectId {
        digest: Digest::of(b""),
        size: bounds::BLOB_BYTES,
    };
    let input = Input {
        tree: largest,
        derivation: Some(largest),
    };
    let names = manifest.deps.iter().map(LockFile::input);
    let inputs: Result<BTreeMap<_, _>, Invalid> = names.map(|name| Ok((name?, input))).collect();
    let spec = manifest.clone();
    let spec = spec.spec(largest, Inputs::new(inputs?)?, &Limits::CEILING)?;
    spec.canonical().map(drop)
}

fn image(value: &Value<'_>, lock: &Lock) -> Result<(Image, Option<Named>), Refusal> {
    let text = string("image", value)?;
    if text == "host" {
        return Ok((Image::Host, None));
    }
    let refused = |invalid: Invalid| refuse(value, invalid.within("image"));
    if output::is_dockerfile(text) {
        return Err(refused(output::no_dockerfiles()));
    }
    let name = image_name(text).map_err(refused)?;
    let image = lock.image(&name).map_err(refused)?;
    let named = Named {
        name,
        origin: image.source.origin.clone(),
    };
    Ok((Image::Tree(image.input), Some(named)))
}

fn steps(value: &Value<'_>) -> Result<Steps, Refusal> {
    let mut scripts = Vec::new();
    for (index, element) in elements("run", value)?.iter().enumerate() {
        let field = format!("run[{index}]");
        let script =
            Script::new(string(&field, element)?).map_err(|e| refuse(element, e.within(&field)))?;
        scripts.push(script);
    }
    Steps::new(scripts).map_err(|e| refuse(value, e.within("run")))
}

fn outputs(value: &Value<'_>) -> Result<Outputs, Refusal> {
    let (mut paths, mut plain) = (BTreeSet::new(), BTreeSet::new());
    for (index, element) in elements("outputs", value)?.iter().enumerate() {
        let field = format!("outputs[{index}]");
        let refused = |e: Invalid| refuse(element, e.within(&field));
        let path = RelPath::new(string(&field, element)?).map_err(refused)?;
        if paths.contains(&path) {
            return Err(refused(Invalid::new(format!("`{path}` is declared twice"))));
        }
        let pattern = OutputPattern::from_path(&path).map_err(refused)?;
        evidence::pattern_keeps_clear(&pattern).map_err(refused)?;
        plain.extend(pattern.literal());
        paths.insert(path);
    }
    let refused = |e: Invalid| refuse(value, e.within("outputs"));
    // First, since it bounds how many are compared with each other.
    let outputs = Outputs::new(paths).map_err(refused)?;
    evidence::are_apart(&plain).map_err(refused)?;
    Ok(outputs)
}

fn lock_files(value: &Value<'_>) -> Result<Vec<LockFile>, Refusal> {
    let mut files: Vec<LockFile> = Vec::new();
    for (index, element) in elements("deps", value)?.iter().enumerate() {
        let field = format!("deps[{index}]");
        let refused = |e: Invalid| refuse(element, e.within(&field));
        let path = RelPath::new(string(&field, element)?).map_err(refused)?;
        let ecosystem = Ecosystem::of_file_name(path.file_name()).map_err(refused)?;
        if files.iter().any(|other| other.ecosystem == ecosystem) {
            let reason = format!("`{path}` is a second lock file of {ecosystem}; one is supported");
            return Err(refused(Invalid::new(reason)));
        }
        files.push(LockFile { path, ecosystem });
    }
    Ok(files)
}

/// What is set, and what lock files need beside it.
fn environment(
    value: Option<&Value<'_>>,
    deps: &[LockFile],
) -> Result<BTreeMap<EnvName, EnvValue>, Refusal> {
    let mut env = value.map_or(Ok(BTreeMap::new()), variables)?;
    for file in deps {
        // What the user sets himself stays.
        for (name, value) in file.environment().map_err(|e| (0, e.within("deps")))? {
            env.entry(name).or_insert(value);
        }
    }
    if env.len() > bounds::ENV_VARIABLES {
        let (set, most) = (env.len(), bounds::ENV_VARIABLES);
        let reason = format!("{set} variables are set, with those of `deps`; {most} are allowed");
        let place = value.map_or(0, |value| value.span().start);
        return Err((place, Invalid::field("env", reason)));
    }
    Ok(env)
}

fn variables(value: &Value<'_>) -> Result<BTreeMap<EnvName, EnvValue>, Refusal> {
    let mut env = BTreeMap::new();
    for (key, value) in subtable("env", value)? {
        let name = EnvName::new(key.get_ref().as_ref())
            .map_err(|e| (key.span().start, e.within("env")))?;
        let field = format!("env.{name}");
        let text =
            EnvValue::new(string(&field, value)?).map_err(|e| refuse(value, e.within(&field)))?;
        env.insert(name, text);
    }
    Ok(env)
}

fn working_directory(value: &Value<'_>) -> Result<RelPath, Refusal> {
    let field = "working_directory";
    RelPath::new(string(field, value)?).map_err(|e| refuse(value, e.within(field)))
}

fn epoch(value: &Value<'_>) -> Result<u64, Refusal> {
    let field = "source_date_epoch";
    let epoch = number(field, value)?;
    if epoch > BuildSpec::LAST_EPOCH {
        let reason = format!("{epoch} lies beyond the year 9999");
        return Err(refuse(value, Invalid::field(field, reason)));
    }
    Ok(epoch)
}

fn limits(value: &Value<'_>) -> Result<PartialLimits, Refusal> {
    let table = subtable("limits", value)?;
    let mut asked = PartialLimits::default();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let Some(figure) = asked.figure(name) else {
            let known = Limits::DEFAULT
                .get()
                .named()
                .map(|(name, _)| name)
                .join(", ");
            let field = format!("limits.{}", name.escape_debug());
            return Err((
                key.span().start,
                Invalid::field(field, format!("unknown limit; the limits are {known}")),
            ));
        };
        *figure = Some(number(&format!("limits.{name}"), value)?);
    }
    asked.over(&Limits::DEFAULT).map_err(|e| {
        let place = table.get(e.field.as_str()).unwrap_or(value);
        refuse(place, e.within("limits"))
    })?;
    Ok(asked)
}
