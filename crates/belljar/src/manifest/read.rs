//! From TOML's tree, in which every value knows where it stands, to checked values.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{
    BuildSpec, EnvName, EnvValue, Image, Invalid, Limits, OutputPattern, Outputs, PartialLimits,
    RelPath, Script, Steps, bounds,
};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Manifest;
use crate::evidence;

/// A byte offset into the text, and what is wrong there.
type Refusal = (usize, Invalid);
type Value<'i> = Spanned<DeValue<'i>>;

/// Every field with how its absence is taken. What is not here is refused.
const FIELDS: [&str; 7] = [
    "image",
    "run",
    "outputs",
    "env",
    "limits",
    "working_directory",
    "source_date_epoch",
];

/// Fields of the format that are not there yet.
const LATER: [(&str, &str); 2] = [
    (
        "deps",
        "not supported yet: put what the build needs into the source tree",
    ),
    ("network", "not supported yet: a build reaches no network"),
];

/// Reads a whole `belljar.toml`.
pub(super) fn manifest(text: &str) -> Result<Manifest, Refusal> {
    let document = DeTable::parse(text).map_err(|e| {
        (
            e.span().map_or(0, |span| span.start),
            Invalid::new(e.message().to_owned()),
        )
    })?;
    let table = document.get_ref();
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        let reason = match LATER.iter().find(|(later, _)| *later == name) {
            Some((_, reason)) => (*reason).to_owned(),
            None if FIELDS.contains(&name) => continue,
            None => format!("unknown field; the fields are {}", FIELDS.join(", ")),
        };
        return Err((
            key.span().start,
            Invalid::field(name.escape_debug().to_string(), reason),
        ));
    }
    Ok(Manifest {
        image: image(required(table, "image")?)?,
        run: steps(required(table, "run")?)?,
        outputs: outputs(required(table, "outputs")?)?,
        env: table.get("env").map_or(Ok(BTreeMap::new()), environment)?,
        limits: table
            .get("limits")
            .map_or(Ok(PartialLimits::default()), limits)?,
        working_directory: table
            .get("working_directory")
            .map(working_directory)
            .transpose()?,
        source_date_epoch: match table.get("source_date_epoch") {
            Some(value) => number("source_date_epoch", value)?,
            None => BuildSpec::DEFAULT_EPOCH,
        },
    })
}

fn required<'a, 'i>(table: &'a DeTable<'i>, name: &'static str) -> Result<&'a Value<'i>, Refusal> {
    table
        .get(name)
        .ok_or_else(|| (0, Invalid::field(name, "missing; it is required")))
}

fn image(value: &Value<'_>) -> Result<Image, Refusal> {
    match string("image", value)? {
        "host" => Ok(Image::Host),
        other => {
            let reason = format!(
                "`{}` is not supported yet; only \"host\" is",
                other.escape_debug()
            );
            Err(refuse(value, Invalid::field("image", reason)))
        }
    }
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
    evidence::are_apart(&plain).map_err(|e| refuse(value, e.within("outputs")))?;
    Outputs::new(paths).map_err(|e| refuse(value, e.within("outputs")))
}

fn environment(value: &Value<'_>) -> Result<BTreeMap<EnvName, EnvValue>, Refusal> {
    let table = subtable("env", value)?;
    if table.len() > bounds::ENV_VARIABLES {
        let reason = format!(
            "{} variables are set; {} are allowed",
            table.len(),
            bounds::ENV_VARIABLES
        );
        return Err(refuse(value, Invalid::field("env", reason)));
    }
    let mut env = BTreeMap::new();
    for (key, value) in table {
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

fn string<'a>(field: &str, value: &'a Value<'_>) -> Result<&'a str, Refusal> {
    value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(field, value, "a string"))
}

fn elements<'a, 'i>(field: &str, value: &'a Value<'i>) -> Result<&'a [Value<'i>], Refusal> {
    value
        .get_ref()
        .as_array()
        .map(|array| &**array)
        .ok_or_else(|| wrong_type(field, value, "an array of strings"))
}

fn subtable<'a, 'i>(field: &str, value: &'a Value<'i>) -> Result<&'a DeTable<'i>, Refusal> {
    value
        .get_ref()
        .as_table()
        .ok_or_else(|| wrong_type(field, value, "a table"))
}

fn number(field: &str, value: &Value<'_>) -> Result<u64, Refusal> {
    let integer = value
        .get_ref()
        .as_integer()
        .ok_or_else(|| wrong_type(field, value, "a whole number"))?;
    u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| {
        refuse(
            value,
            Invalid::field(field, format!("{} is out of range", integer.as_str())),
        )
    })
}

fn wrong_type(field: &str, value: &Value<'_>, due: &str) -> Refusal {
    refuse(
        value,
        Invalid::field(
            field,
            format!(
                "{due} is due, not a value of type {}",
                value.get_ref().type_str()
            ),
        ),
    )
}

fn refuse(value: &Value<'_>, invalid: Invalid) -> Refusal {
    (value.span().start, invalid)
}
