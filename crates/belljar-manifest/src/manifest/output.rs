//! The image that becomes of the outputs, as `belljar.toml` gives it.

use std::collections::BTreeMap;

use belljar_core::{
    BaseImage, ImageConfig, ImageFields, ImageOutput, Input, Invalid, Outputs, Platform, RelPath,
};
use toml::de::DeTable;

use super::Named;
use crate::Lock;
use crate::lock::image_name;
use crate::values::{Refusal, Value, elements, known, refuse, string, subtable};

const OCI: &str = "output.oci";
const FIELDS: [&str; 9] = [
    "base",
    "platform",
    "root",
    "entrypoint",
    "command",
    "env",
    "user",
    "working_directory",
    "labels",
];
/// What stands for no base.
const SCRATCH: &str = "scratch";
/// The platform that this program is for.
const OWN: Platform = if cfg!(target_arch = "aarch64") {
    Platform::LinuxArm64
} else {
    Platform::LinuxAmd64
};
/// Fields by which other tools are told to run a Dockerfile.
const DOCKERFILE_FIELDS: [&str; 6] = [
    "dockerfile",
    "containerfile",
    "dockerfile_inline",
    "build",
    "context",
    "target",
];
const NO_DOCKERFILES: &str = "Dockerfiles are not run: each of their steps could fetch what nobody named by digest. Say in `run` what is to be built, have it lay out a directory, and name that as `root`";

/// An image that becomes of outputs, and the name of its base in the lock.
pub(super) type Output = (ImageOutput, Option<Named>);

/// Reads `output`, beside `outputs`.
pub(super) fn output(
    value: &Value<'_>,
    outputs: &Outputs,
    lock: &Lock,
) -> Result<Option<Output>, Refusal> {
    let table = subtable("output", value)?;
    known(table, "output", &["oci"])?;
    let oci = table.get("oci");
    oci.map(|value| image(value, outputs, lock)).transpose()
}

/// Whether somebody means a Dockerfile by this.
pub(super) fn is_dockerfile(text: &str) -> bool {
    let name = text.rsplit('/').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    let one = |word: &str| {
        name == word || name.starts_with(&format!("{word}.")) || name.ends_with(&format!(".{word}"))
    };
    one("dockerfile") || one("containerfile")
}

/// Whether a file is no Dockerfile, by its name.
///
/// # Errors
/// When it is one: says what to do instead.
pub fn no_dockerfile(file: &str) -> Result<(), Invalid> {
    match is_dockerfile(file) {
        true => Err(no_dockerfiles()),
        false => Ok(()),
    }
}

/// The refusal of one.
pub(super) fn no_dockerfiles() -> Invalid {
    Invalid::new(NO_DOCKERFILES)
}

fn image(value: &Value<'_>, outputs: &Outputs, lock: &Lock) -> Result<Output, Refusal> {
    let table = subtable(OCI, value)?;
    let of = |name: &str| format!("{OCI}.{name}");
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if DOCKERFILE_FIELDS.contains(&name) {
            return Err((key.span().start, no_dockerfiles().within(of(name))));
        }
    }
    known(table, OCI, &FIELDS)?;
    let missing = || {
        let why = "missing; it is required: `scratch`, or the name of an image in belljar.lock";
        refuse(value, Invalid::field(of("base"), why))
    };
    let (base, named) = base(table, table.get("base").ok_or_else(missing)?, lock)?;
    let root = table.get("root");
    let root = root.map(|value| {
        let root = RelPath::new(string(&of("root"), value)?);
        root.map_err(|e| refuse(value, e.within(of("root"))))
    });
    let output = ImageOutput {
        base,
        root: root.transpose()?,
        config: config(table, value)?,
    };
    let place = table.get("root").unwrap_or(value);
    let fits = output.goes_with(outputs);
    fits.map_err(|e| refuse(place, e.within(OCI)))?;
    Ok((output, named))
}

fn base(
    table: &DeTable<'_>,
    value: &Value<'_>,
    lock: &Lock,
) -> Result<(BaseImage, Option<Named>), Refusal> {
    let place = format!("{OCI}.base");
    let refused = |e: Invalid| refuse(value, e.within(&place));
    let text = string(&place, value)?;
    if is_dockerfile(text) {
        return Err(refused(no_dockerfiles()));
    }
    if text == SCRATCH {
        let place = format!("{OCI}.platform");
        let platform = table.get("platform").map_or(Ok(OWN), |value| {
            let platform = string(&place, value)?.parse();
            platform.map_err(|e: Invalid| refuse(value, e.within(&place)))
        });
        return Ok((BaseImage::Scratch(platform?), None));
    }
    if let Some(value) = table.get("platform") {
        let why = "is for `base = \"scratch\"`; else it is the base's";
        return Err(refuse(
            value,
            Invalid::field(format!("{OCI}.platform"), why),
        ));
    }
    let name = image_name(text).map_err(|e| match text.contains(['/', ':']) {
        true => refused(Invalid::new(format!(
            "{}; an image at a registry gets one by `belljar image pull REFERENCE --name NAME`",
            e.reason
        ))),
        false => refused(e),
    })?;
    let image = lock.image(&name).map_err(refused)?;
    if let Input {
        derivation: None, ..
    } = image.input
    {
        let why = format!(
            "belljar.lock has no `derivation` of `{name}`, which says which image it is: import or pull it again"
        );
        return Err(refused(Invalid::new(why)));
    }
    let origin = image.source.origin.clone();
    Ok((BaseImage::Image(image.input), Some(Named { name, origin })))
}

fn config(table: &DeTable<'_>, whole: &Value<'_>) -> Result<ImageConfig, Refusal> {
    let text = |name: &str| {
        let place = format!("{OCI}.{name}");
        let value = table.get(name);
        value.map_or(Ok(String::new()), |value| {
            string(&place, value).map(str::to_owned)
        })
    };
    let fields = ImageFields {
        entrypoint: arguments(table, "entrypoint")?,
        command: arguments(table, "command")?,
        env: texts(table, "env")?,
        user: text("user")?,
        working_directory: text("working_directory")?,
        labels: texts(table, "labels")?,
    };
    ImageConfig::new(fields).map_err(|e| {
        let end = e.field.find(['.', '[']).unwrap_or(e.field.len());
        let place = table.get(&e.field[..end]).unwrap_or(whole);
        refuse(place, e.within(OCI))
    })
}

fn arguments(table: &DeTable<'_>, name: &str) -> Result<Vec<String>, Refusal> {
    let Some(value) = table.get(name) else {
        return Ok(Vec::new());
    };
    let place = format!("{OCI}.{name}");
    let mut arguments = Vec::new();
    for (index, element) in elements(&place, value)?.iter().enumerate() {
        let text = string(&format!("{place}[{index}]"), element)?;
        arguments.push(text.to_owned());
    }
    Ok(arguments)
}

fn texts(table: &DeTable<'_>, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(value) = table.get(name) else {
        return Ok(BTreeMap::new());
    };
    let place = format!("{OCI}.{name}");
    let mut texts = BTreeMap::new();
    for (key, value) in subtable(&place, value)? {
        let key = key.get_ref().as_ref();
        let text = string(&format!("{place}.{}", key.escape_debug()), value)?;
        texts.insert(key.to_owned(), text.to_owned());
    }
    Ok(texts)
}
