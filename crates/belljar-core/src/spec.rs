use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Digest, EnvName, EnvValue, Fetches, ImageOutput, InputName, Invalid, Limits, ObjectId,
    OutputPattern, RelPath, bounds, canonical_json,
};

/// What one build shall do, complete: two builds of one specification on one root file system see
/// the same inputs. It has exactly one encoding ([`BuildSpec::canonical`]) and so one digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// The root file system.
    pub image: Image,
    /// The root `Directory` message of the source tree (REAPI v2).
    pub source: ObjectId,
    /// Further trees, each read-only at `/deps/<name>`; at most [`bounds::INPUTS`].
    pub inputs: Inputs,
    /// What is fetched before the build begins: trees as the further ones, and together with them no more.
    #[serde(default, skip_serializing_if = "Fetches::is_empty")]
    pub fetches: Fetches,
    /// Where the steps run, below the source tree's root; that root itself if there is none. It must be a
    /// directory of the source tree, reached without a symbolic link.
    pub working_directory: Option<RelPath>,
    /// What to run, in order.
    pub run: Steps,
    /// Environment variables beside those that the sandbox sets itself.
    pub env: BTreeMap<EnvName, EnvValue>,
    /// What to keep.
    pub outputs: Outputs,
    /// The image that becomes of that, if one shall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_output: Option<ImageOutput>,
    /// What the build may use.
    pub limits: Limits,
    /// What it may reach.
    pub network: Network,
    /// Seconds since 1970 for `SOURCE_DATE_EPOCH` and the time stamps of the sources
    /// (reproducible-builds.org, SOURCE_DATE_EPOCH specification).
    pub source_date_epoch: u64,
}

/// The root file system of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// Read-only paths of the host that the operator lists. Never hermetic.
    Host,
    /// A tree, by digest.
    Tree(Input),
}

/// Which sort of root file system it is: what an operator allows or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageKind {
    /// [`Image::Host`].
    Host,
    /// [`Image::Tree`].
    Tree,
}

/// A read-only tree that a build sees beside its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its root `Directory` message (REAPI v2).
    pub tree: ObjectId,
    /// The store's record of what it made the tree from, if the store made it: canonical JSON.
    pub derivation: Option<ObjectId>,
}

/// At most [`bounds::INPUTS`] trees by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<InputName, Input>",
    into = "BTreeMap<InputName, Input>"
)]
pub struct Inputs(BTreeMap<InputName, Input>);

/// What a build may reach over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Only itself: a network namespace of its own with a loopback device.
    None,
}

/// One step: a script for `sh -eu -c`; not empty, without NUL, at most [`bounds::SCRIPT_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Script(String);

/// One to [`bounds::STEPS`] scripts, run in order until one fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Script>", into = "Vec<Script>")]
pub struct Steps(Vec<Script>);

/// One to [`bounds::DECLARED_OUTPUTS`] paths or patterns of paths below the root of the source tree, no
/// plain path inside another.
///
/// What they match is taken: a file, or a directory with all that is in it. What stands in such a
/// directory belongs to it, whatever else matches it, so that nothing is taken twice; see
/// [`Outputs::root_of`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<RelPath>", into = "BTreeSet<OutputPattern>")]
pub struct Outputs(BTreeSet<OutputPattern>);

impl BuildSpec {
    /// 1980-01-01T00:00:00Z, the earliest time that ZIP archives can hold; what a specification gets
    /// that names no time of its own.
    pub const DEFAULT_EPOCH: u64 = 315_532_800;
    /// 9999-12-31T23:59:59Z, the latest time that is admitted: later ones have no text form (RFC 3339), and would be
    /// rounded in canonical JSON.
    pub const LAST_EPOCH: u64 = 253_402_300_799;

    /// The one encoding: canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// When it would be larger than [`bounds::SPEC_BYTES`].
    pub fn canonical(&self) -> Result<Vec<u8>, Invalid> {
        let bytes = canonical_json(self).map_err(|e| Invalid::new(e.to_string()))?;
        self.fetches.apart_from(&self.inputs)?;
        if let Some(image) = &self.image_output {
            image.fits(&self.outputs, self.source_date_epoch)?;
        }
        if bytes.len() > bounds::SPEC_BYTES {
            return Err(Invalid::new(format!(
                "the specification has {} bytes; {} are allowed. Move long scripts into files of the source tree",
                bytes.len(),
                bounds::SPEC_BYTES
            )));
        }
        Ok(bytes)
    }

    /// Reads the canonical encoding back.
    ///
    /// # Errors
    /// When `bytes` are not a specification, or not its canonical encoding.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::SPEC_BYTES {
            return Err(Invalid::new("the specification is too large"));
        }
        let spec: Self = serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))?;
        if spec.canonical()? != bytes {
            return Err(Invalid::new(
                "the specification is not in its canonical form (RFC 8785)",
            ));
        }
        Ok(spec)
    }

    /// The digest of the canonical encoding.
    ///
    /// # Errors
    /// As [`BuildSpec::canonical`].
    pub fn digest(&self) -> Result<Digest, Invalid> {
        self.canonical().map(|bytes| Digest::of(&bytes))
    }
}

impl Image {
    /// Which sort it is.
    pub fn kind(&self) -> ImageKind {
        match self {
            Self::Host => ImageKind::Host,
            Self::Tree(_) => ImageKind::Tree,
        }
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Tree => "tree",
        })
    }
}

impl Inputs {
    /// The directory below which a build sees them.
    pub const DIR: &'static str = "/deps";

    /// Takes `inputs` if there are not too many.
    ///
    /// # Errors
    /// When there are more than [`bounds::INPUTS`].
    pub fn new(inputs: BTreeMap<InputName, Input>) -> Result<Self, Invalid> {
        if inputs.len() > bounds::INPUTS {
            return Err(Invalid::new(format!(
                "{} inputs are given; {} are allowed",
                inputs.len(),
                bounds::INPUTS
            )));
        }
        Ok(Self(inputs))
    }

    /// The inputs with their names, sorted by these.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&InputName, &Input)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<InputName, Input>> for Inputs {
    type Error = Invalid;

    fn try_from(inputs: BTreeMap<InputName, Input>) -> Result<Self, Invalid> {
        Self::new(inputs)
    }
}

impl From<Inputs> for BTreeMap<InputName, Input> {
    fn from(inputs: Inputs) -> Self {
        inputs.0
    }
}

impl Script {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(Invalid::new("the command is empty"));
        }
        if text.contains('\0') {
            return Err(Invalid::new("the command contains a NUL character"));
        }
        if text.len() > bounds::SCRIPT_BYTES {
            return Err(Invalid::new(format!(
                "the command has more than {} bytes",
                bounds::SCRIPT_BYTES
            )));
        }
        Ok(Self(text))
    }

    /// The script as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Steps {
    /// Takes `steps` if there is at least one and not too many.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(steps: Vec<Script>) -> Result<Self, Invalid> {
        match steps.len() {
            0 => Err(Invalid::new("no command is given; name at least one")),
            n if n > bounds::STEPS => Err(Invalid::new(format!(
                "{n} commands are given; {} are allowed",
                bounds::STEPS
            ))),
            _ => Ok(Self(steps)),
        }
    }

    /// The scripts, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Script> {
        self.0.iter()
    }
}

impl Outputs {
    /// Takes `paths`, each of which may be a pattern (see [`OutputPattern`]), if there is at least one, not
    /// too many, and no plain one lies inside another.
    ///
    /// # Errors
    /// Says which rule was broken and by which paths.
    pub fn new(paths: BTreeSet<RelPath>) -> Result<Self, Invalid> {
        if paths.is_empty() {
            return Err(Invalid::new(
                "no output is declared; name at least one file or directory",
            ));
        }
        if paths.len() > bounds::DECLARED_OUTPUTS {
            return Err(Invalid::new(format!(
                "{} outputs are declared; {} are allowed",
                paths.len(),
                bounds::DECLARED_OUTPUTS
            )));
        }
        let patterns: BTreeSet<OutputPattern> = paths
            .iter()
            .map(OutputPattern::from_path)
            .collect::<Result<_, _>>()?;
        let wild = patterns.iter().filter(|pattern| !pattern.is_literal());
        let wild = wild.count();
        if wild > bounds::OUTPUT_PATTERNS {
            return Err(Invalid::new(format!(
                "{wild} patterns are declared; {} are allowed",
                bounds::OUTPUT_PATTERNS
            )));
        }
        let plain: BTreeSet<RelPath> = patterns.iter().filter_map(OutputPattern::literal).collect();
        for path in &plain {
            // A prefix of whole components is what counts: `a` and `a.b` are neighbours, `a/b` is inside.
            let inside = plain
                .iter()
                .find(|other| *other != path && path.starts_with(other));
            if let Some(outer) = inside {
                return Err(Invalid::new(format!(
                    "`{path}` lies inside the output `{outer}`; declare one of them"
                )));
            }
        }
        Ok(Self(patterns))
    }

    /// The paths and patterns, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &OutputPattern> {
        self.0.iter()
    }

    /// The output that `path` belongs to: itself or what it lies in, the outermost that matches. None if
    /// it belongs to none.
    pub fn root_of(&self, path: &RelPath) -> Option<RelPath> {
        let matches = self
            .0
            .iter()
            .filter_map(|pattern| pattern.first_match(path));
        // A prefix of whole components of a path is one.
        matches
            .min()
            .and_then(|length| RelPath::new(&path.as_str()[..length]).ok())
    }

    /// What matches none of `paths`, which are all that was collected.
    pub fn unmatched<'a>(
        &'a self,
        paths: impl Iterator<Item = &'a RelPath> + Clone,
    ) -> impl Iterator<Item = &'a OutputPattern> {
        self.0
            .iter()
            .filter(move |pattern| !paths.clone().any(|path| pattern.matches(path)))
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Script {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        script.0
    }
}

impl TryFrom<Vec<Script>> for Steps {
    type Error = Invalid;

    fn try_from(steps: Vec<Script>) -> Result<Self, Invalid> {
        Self::new(steps)
    }
}

impl From<Steps> for Vec<Script> {
    fn from(steps: Steps) -> Self {
        steps.0
    }
}

impl TryFrom<BTreeSet<RelPath>> for Outputs {
    type Error = Invalid;

    fn try_from(paths: BTreeSet<RelPath>) -> Result<Self, Invalid> {
        Self::new(paths)
    }
}

impl From<Outputs> for BTreeSet<OutputPattern> {
    fn from(outputs: Outputs) -> Self {
        outputs.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(texts: &[&str]) -> BTreeSet<RelPath> {
        texts
            .iter()
            .map(|text| RelPath::new(*text).unwrap())
            .collect()
    }

    fn spec(script: &str) -> BuildSpec {
        BuildSpec {
            image: Image::Host,
            source: ObjectId::of(b""),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(vec![Script::new(script).unwrap()]).unwrap(),
            env: BTreeMap::from([(EnvName::new("CC").unwrap(), EnvValue::new("gcc").unwrap())]),
            outputs: Outputs::new(paths(&["app"])).unwrap(),
            limits: Limits::DEFAULT,
            network: Network::None,
            source_date_epoch: BuildSpec::DEFAULT_EPOCH,
        }
    }

    #[test]
    fn nested_outputs_are_refused() {
        assert!(Outputs::new(paths(&["a", "a.b", "a-b", "b/c"])).is_ok());
        assert!(Outputs::new(paths(&["a", "a.b", "a/b"])).is_err());
        assert!(Outputs::new(paths(&[])).is_err());
    }

    #[test]
    fn what_belongs_to_which_output() {
        let outputs =
            Outputs::new(paths(&["app", "dist", "dist/*.whl", "**/report", "lib/*"])).unwrap();
        let path = |text: &str| RelPath::new(text).unwrap();
        let root = |text: &str| outputs.root_of(&path(text)).map(|root| root.to_string());
        for (text, due) in [
            ("app", Some("app")),
            ("app/x", Some("app")),
            ("apple", None),
            ("dist/a.whl", Some("dist")),
            ("a/report/b/report", Some("a/report")),
            ("lib", None),
            ("lib/a/b", Some("lib/a")),
        ] {
            assert_eq!(root(text).as_deref(), due, "{text}");
        }
        let collected = [path("app"), path("dist"), path("dist/a.whl"), path("lib/x")];
        let unmatched: Vec<_> = outputs
            .unmatched(collected.iter())
            .map(|p| p.as_str())
            .collect();
        assert_eq!(unmatched, ["**/report"]);
        assert!(Outputs::new(paths(&["a**"])).is_err());
    }

    #[test]
    fn images_and_inputs_have_one_encoding() {
        let input = Input {
            tree: ObjectId::of(b""),
            derivation: None,
        };
        let mut spec = spec("make");
        spec.image = Image::Tree(input);
        spec.working_directory = Some(RelPath::new("sub").unwrap());
        let name = InputName::new("cargo").unwrap();
        spec.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
        let bytes = spec.canonical().unwrap();
        assert_eq!(BuildSpec::from_canonical(&bytes), Ok(spec));
        let text = String::from_utf8(bytes).unwrap();
        let without = text.replacen("\"derivation\":null,", "", 1);
        assert_ne!(text, without);
        assert!(BuildSpec::from_canonical(without.as_bytes()).is_err());
        let names = (0..=bounds::INPUTS).map(|i| InputName::new(format!("i{i}")).unwrap());
        assert!(Inputs::new(names.map(|name| (name, input)).collect()).is_err());
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        let bytes = spec("make").canonical().unwrap();
        assert!(BuildSpec::from_canonical(&bytes).is_ok());
        let spaced = [b" ", bytes.as_slice()].concat();
        assert!(BuildSpec::from_canonical(&spaced).is_err());
        let text = String::from_utf8(bytes).unwrap();
        let extra = text.replacen('{', "{\"extra\":1,", 1);
        assert!(BuildSpec::from_canonical(extra.as_bytes()).is_err());
        let twice = text.replacen(
            "\"network\":\"none\"",
            "\"network\":\"none\",\"network\":\"none\"",
            1,
        );
        assert!(BuildSpec::from_canonical(twice.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn canonical_round_trips(script in "\\PC{1,60}") {
            prop_assume!(!script.trim().is_empty());
            let spec = spec(&script);
            let read = BuildSpec::from_canonical(&spec.canonical().unwrap());
            prop_assert_eq!(read, Ok(spec));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BuildSpec::from_canonical(&bytes);
        }
    }
}
