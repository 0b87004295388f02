use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Input, Invalid, Outputs, Platform, RelPath, bounds};

/// An OCI image that becomes of what a build leaves: a base, and one layer over it (OCI image-spec v1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOutput {
    /// What the layer lies on.
    pub base: BaseImage,
    /// The declared output, a directory, whose content is the root of the layer. None: each output stands in it under its
    /// own path.
    pub root: Option<RelPath>,
    /// How it is run.
    pub config: ImageConfig,
}

/// What the layer of an image lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseImage {
    /// Nothing: the layer is all that there is.
    Scratch(Platform),
    /// An image that the store has made a tree of. Its record, which must be given, says which manifest it was, and so all
    /// its layers.
    Image(Input),
}

/// How an image is run: each replaces what the base says, and what is empty leaves it. With an entry point of its own an
/// image does not take the base's command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ImageFields", into = "ImageFields")]
pub struct ImageConfig(ImageFields);

/// The fields of an [`ImageConfig`], not yet looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFields {
    /// Program and first arguments, as they are.
    pub entrypoint: Vec<String>,
    /// Further arguments, or without an entry point the program with its arguments.
    pub command: Vec<String>,
    /// Environment variables, beside the base's.
    pub env: BTreeMap<String, String>,
    /// `user`, `user:group`, by name or number; empty: the base's.
    pub user: String,
    /// An absolute path; empty: the base's.
    pub working_directory: String,
    /// Labels, beside the base's.
    pub labels: BTreeMap<String, String>,
}

impl ImageOutput {
    /// The last time that a layer can say, in seconds since 1970: 11 octal digits (POSIX.1-2024, pax, "ustar interchange
    /// format").
    pub const LAST_EPOCH: u64 = (1 << 33) - 1;

    /// Whether it fits a specification with these outputs and this time.
    ///
    /// # Errors
    /// As [`ImageOutput::goes_with`], and when a layer cannot say the time.
    pub fn fits(&self, outputs: &Outputs, epoch: u64) -> Result<(), Invalid> {
        let goes = self.goes_with(outputs);
        goes.map_err(|e| e.within("image_output"))?;
        match epoch > Self::LAST_EPOCH {
            true => Err(Invalid::field(
                "source_date_epoch",
                "lies beyond 2242-03-16, the last day that a layer of an image can say",
            )),
            false => Ok(()),
        }
    }

    /// Whether it goes with what is declared.
    ///
    /// # Errors
    /// When `root` is not declared, or the base has no record.
    pub fn goes_with(&self, outputs: &Outputs) -> Result<(), Invalid> {
        if let BaseImage::Image(Input {
            derivation: None, ..
        }) = self.base
        {
            let why =
                "the store's record of how its tree was made is missing: it says which image it is";
            return Err(Invalid::field("base", why));
        }
        let Some(root) = &self.root else {
            return Ok(());
        };
        let mut declared = outputs.iter().filter_map(|output| output.literal());
        match declared.any(|output| output == *root) {
            true => Ok(()),
            false => Err(Invalid::field(
                "root",
                format!("`{root}` is not among `outputs`, by its name and not by a pattern"),
            )),
        }
    }
}

impl BaseImage {
    /// The image, if there is one.
    pub fn image(&self) -> Option<&Input> {
        match self {
            Self::Scratch(_) => None,
            Self::Image(input) => Some(input),
        }
    }
}

impl ImageConfig {
    /// Takes `fields` if an image can be run so.
    ///
    /// # Errors
    /// Names the field and the rule that was broken.
    pub fn new(fields: ImageFields) -> Result<Self, Invalid> {
        arguments(&fields.entrypoint).map_err(|e| e.within("entrypoint"))?;
        arguments(&fields.command).map_err(|e| e.within("command"))?;
        few(fields.env.len(), bounds::ENV_VARIABLES).map_err(|e| e.within("env"))?;
        for (name, value) in &fields.env {
            let place = |e: Invalid| e.within(name.escape_debug()).within("env");
            variable(name).map_err(place)?;
            text(value, bounds::ENV_VALUE_BYTES).map_err(place)?;
        }
        few(fields.labels.len(), bounds::IMAGE_LIST).map_err(|e| e.within("labels"))?;
        for (name, value) in &fields.labels {
            let place = |e: Invalid| e.within(name.escape_debug()).within("labels");
            let fine = !name.is_empty() && !name.chars().any(|c| c.is_control() || c == ' ');
            if !fine || name.len() > bounds::NAME_BYTES {
                let why = "a label's name has 1 to 255 bytes without blanks and control characters";
                return Err(place(Invalid::new(why)));
            }
            text(value, bounds::IMAGE_TEXT_BYTES).map_err(place)?;
        }
        user(&fields.user).map_err(|e| e.within("user"))?;
        directory(&fields.working_directory).map_err(|e| e.within("working_directory"))?;
        Ok(Self(fields))
    }

    /// The fields.
    pub fn get(&self) -> &ImageFields {
        &self.0
    }
}

fn few(found: usize, most: usize) -> Result<(), Invalid> {
    match found > most {
        true => Err(Invalid::new(format!(
            "{found} are given; {most} are allowed"
        ))),
        false => Ok(()),
    }
}

fn text(text: &str, most: usize) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new("contains a NUL character"));
    }
    match text.len() > most {
        true => Err(Invalid::new(format!("has more than {most} bytes"))),
        false => Ok(()),
    }
}

fn arguments(arguments: &[String]) -> Result<(), Invalid> {
    few(arguments.len(), bounds::IMAGE_LIST)?;
    for (index, argument) in arguments.iter().enumerate() {
        text(argument, bounds::IMAGE_TEXT_BYTES).map_err(|e| e.within(format!("[{index}]")))?;
    }
    match arguments.first().map(String::as_str) {
        Some("") => Err(Invalid::field("[0]", "the program has no name")),
        _ => Ok(()),
    }
}

fn variable(name: &str) -> Result<(), Invalid> {
    let mut bytes = name.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let goes_on = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match starts && goes_on && name.len() <= bounds::ENV_NAME_BYTES {
        true => Ok(()),
        false => Err(Invalid::new(
            "not a variable name: use letters, digits and `_`, not beginning with a digit",
        )),
    }
}

/// `name`, `name:group`, each a name or a number; or empty.
fn user(user: &str) -> Result<(), Invalid> {
    let fine = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        !part.is_empty() && !part.starts_with('-') && part.bytes().all(plain)
    };
    let mut parts = user.splitn(2, ':');
    match user.is_empty() || (user.len() <= bounds::NAME_BYTES && parts.all(fine)) {
        true => Ok(()),
        false => Err(Invalid::new(
            "not a user: a name or number is due, and behind `:` one of a group",
        )),
    }
}

fn directory(path: &str) -> Result<(), Invalid> {
    match path.strip_prefix('/') {
        Some("") => Ok(()),
        Some(below) => RelPath::new(below).map(drop),
        None if path.is_empty() => Ok(()),
        None => Err(Invalid::new("an absolute path in the image is due")),
    }
}

impl TryFrom<ImageFields> for ImageConfig {
    type Error = Invalid;

    fn try_from(fields: ImageFields) -> Result<Self, Invalid> {
        Self::new(fields)
    }
}

impl From<ImageConfig> for ImageFields {
    fn from(config: ImageConfig) -> Self {
        config.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;
    use proptest::prelude::*;

    fn outputs(paths: &[&str]) -> Outputs {
        let paths = paths.iter().map(|path| RelPath::new(*path).unwrap());
        Outputs::new(paths.collect()).unwrap()
    }

    fn of(root: Option<&str>, base: BaseImage) -> ImageOutput {
        ImageOutput {
            base,
            root: root.map(|root| RelPath::new(root).unwrap()),
            config: ImageConfig::default(),
        }
    }

    #[test]
    fn a_root_is_declared_and_a_base_has_a_record() {
        let scratch = BaseImage::Scratch(Platform::LinuxAmd64);
        let declared = outputs(&["app", "root", "dist/*"]);
        for good in [None, Some("root"), Some("app")] {
            assert!(of(good, scratch).goes_with(&declared).is_ok(), "{good:?}");
        }
        for bad in ["root/usr", "dist/x", "other"] {
            let refused = of(Some(bad), scratch).goes_with(&declared).unwrap_err();
            assert!(refused.to_string().starts_with("root: "), "{refused}");
        }
        let bare = BaseImage::Image(Input {
            tree: ObjectId::of(b""),
            derivation: None,
        });
        assert!(of(None, bare).goes_with(&declared).is_err());
    }

    #[test]
    fn what_no_image_can_be_run_with_is_refused_by_field() {
        let fields = ImageFields::default;
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let many: Vec<String> = vec!["x".to_owned(); bounds::IMAGE_LIST + 1];
        for (case, due) in [
            (
                ImageFields {
                    entrypoint: strings(&["", "x"]),
                    ..fields()
                },
                "entrypoint[0]",
            ),
            (
                ImageFields {
                    entrypoint: many.clone(),
                    ..fields()
                },
                "entrypoint",
            ),
            (
                ImageFields {
                    command: strings(&["sh", "a\0b"]),
                    ..fields()
                },
                "command[1]",
            ),
            (
                ImageFields {
                    env: map("1X", ""),
                    ..fields()
                },
                "env.1X",
            ),
            (
                ImageFields {
                    env: map("X=Y", ""),
                    ..fields()
                },
                "env.X=Y",
            ),
            (
                ImageFields {
                    env: map("X", "\0"),
                    ..fields()
                },
                "env.X",
            ),
            (
                ImageFields {
                    labels: map("", "x"),
                    ..fields()
                },
                "labels",
            ),
            (
                ImageFields {
                    labels: map("a b", "x"),
                    ..fields()
                },
                "labels.a b",
            ),
            (
                ImageFields {
                    user: "-x".to_owned(),
                    ..fields()
                },
                "user",
            ),
            (
                ImageFields {
                    user: "a:b:c".to_owned(),
                    ..fields()
                },
                "user",
            ),
            (
                ImageFields {
                    user: "a:".to_owned(),
                    ..fields()
                },
                "user",
            ),
            (
                ImageFields {
                    working_directory: "srv".to_owned(),
                    ..fields()
                },
                "working_directory",
            ),
            (
                ImageFields {
                    working_directory: "/a/../b".to_owned(),
                    ..fields()
                },
                "working_directory",
            ),
        ] {
            let refused = ImageConfig::new(case.clone()).unwrap_err();
            assert!(refused.to_string().starts_with(due), "{case:?}: {refused}");
        }
        let good = ImageFields {
            entrypoint: strings(&["/app", ""]),
            command: strings(&["--port", "80"]),
            env: map("HOME", "/srv"),
            user: "65532:nobody".to_owned(),
            working_directory: "/".to_owned(),
            labels: map("org.opencontainers.image.title", "an app"),
        };
        let config = ImageConfig::new(good).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&text).unwrap(), config);
        assert!(serde_json::from_str::<ImageConfig>(&text.replace("/srv", "\\u0000")).is_err());
    }

    proptest! {
        #[test]
        fn any_fields_are_taken_as_they_are_or_refused(
            words in proptest::collection::vec("\\PC{0,6}|[a-z/:]{0,6}", 6),
        ) {
            let [entry, name, value, user, directory, label] = &words[..] else { unreachable!() };
            let fields = ImageFields {
                entrypoint: vec![entry.clone()],
                command: Vec::new(),
                env: BTreeMap::from([(name.clone(), value.clone())]),
                user: user.clone(),
                working_directory: directory.clone(),
                labels: BTreeMap::from([(label.clone(), value.clone())]),
            };
            if let Ok(config) = ImageConfig::new(fields.clone()) {
                prop_assert_eq!(config.get(), &fields);
                let again: ImageConfig = serde_json::from_slice(&serde_json::to_vec(&config).unwrap()).unwrap();
                prop_assert_eq!(again, config);
            }
        }
    }
}
