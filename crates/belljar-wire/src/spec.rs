use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{
    BuildSpec, EnvName, EnvValue, Image, ImageOutput, Input, InputName, Inputs, Invalid, Network,
    OutputPattern, Outputs, RelPath, Script, Steps, bounds,
};

use crate::fetch;
use crate::numbers::{optional, required, signed, unsigned};
use crate::v1;

/// The image names that there are.
const HOST: &str = "host";
const TREE: &str = "tree";

impl TryFrom<v1::BuildSpec> for BuildSpec {
    type Error = Invalid;

    fn try_from(spec: v1::BuildSpec) -> Result<Self, Invalid> {
        // Destructured, so that a new field cannot be forgotten here.
        let v1::BuildSpec {
            image,
            source,
            run,
            env,
            outputs,
            limits,
            network,
            source_date_epoch,
            image_tree,
            inputs,
            working_directory,
            fetches,
            image_output,
        } = spec;
        let spec = Self {
            image: self::image(&image, image_tree)?,
            source: required("source", source)?
                .try_into()
                .map_err(|e: Invalid| e.within("source"))?,
            inputs: self::inputs(inputs)?,
            fetches: fetch::fetches(fetches)?,
            image_output: optional("image_output", image_output, ImageOutput::try_from)?,
            working_directory: self::working_directory(working_directory)?,
            run: steps(run)?,
            env: environment(env)?,
            outputs: self::outputs(outputs)?,
            limits: limits
                .unwrap_or_default()
                .try_into()
                .map_err(|e: Invalid| e.within("limits"))?,
            network: self::network(network)?,
            source_date_epoch: match source_date_epoch {
                Some(seconds) => epoch(unsigned("source_date_epoch", seconds)?)?,
                None => Self::DEFAULT_EPOCH,
            },
        };
        spec.canonical()?;
        Ok(spec)
    }
}

impl From<&BuildSpec> for v1::BuildSpec {
    fn from(spec: &BuildSpec) -> Self {
        Self {
            image: match spec.image {
                Image::Host => HOST.to_owned(),
                Image::Tree(_) => TREE.to_owned(),
            },
            image_tree: match &spec.image {
                Image::Host => None,
                Image::Tree(input) => Some(input.into()),
            },
            inputs: spec
                .inputs
                .iter()
                .map(|(name, input)| (name.to_string(), input.into()))
                .collect(),
            fetches: fetch::to_wire(&spec.fetches),
            image_output: spec.image_output.as_ref().map(Into::into),
            working_directory: spec
                .working_directory
                .as_ref()
                .map(RelPath::to_string)
                .unwrap_or_default(),
            source: Some(spec.source.into()),
            run: spec
                .run
                .iter()
                .map(|script| script.as_str().to_owned())
                .collect(),
            env: spec
                .env
                .iter()
                .map(|(name, value)| (name.to_string(), value.as_str().to_owned()))
                .collect(),
            outputs: spec.outputs.iter().map(OutputPattern::to_string).collect(),
            limits: Some((&spec.limits).into()),
            network: match spec.network {
                Network::None => v1::build_spec::Network::None.into(),
            },
            source_date_epoch: Some(signed(spec.source_date_epoch)),
        }
    }
}

impl TryFrom<v1::Input> for Input {
    type Error = Invalid;

    fn try_from(input: v1::Input) -> Result<Self, Invalid> {
        let v1::Input { tree, derivation } = input;
        Ok(Self {
            tree: required("tree", tree)?
                .try_into()
                .map_err(|e: Invalid| e.within("tree"))?,
            derivation: derivation
                .map(TryInto::try_into)
                .transpose()
                .map_err(|e: Invalid| e.within("derivation"))?,
        })
    }
}

impl From<&Input> for v1::Input {
    fn from(input: &Input) -> Self {
        Self {
            tree: Some(input.tree.into()),
            derivation: input.derivation.map(Into::into),
        }
    }
}

fn image(name: &str, tree: Option<v1::Input>) -> Result<Image, Invalid> {
    match (name, tree) {
        (HOST, None) => Ok(Image::Host),
        (HOST, Some(_)) => Err(Invalid::field(
            "image_tree",
            "the image is `host`, which is no tree; leave this out, or set `image` to `tree`",
        )),
        (TREE, Some(tree)) => tree
            .try_into()
            .map(Image::Tree)
            .map_err(|e: Invalid| e.within("image_tree")),
        (TREE, None) => Err(Invalid::field(
            "image_tree",
            "missing; the image `tree` requires it",
        )),
        ("", _) => Err(Invalid::field(
            "image",
            "missing; it is required: `host`, or `tree` with `image_tree`",
        )),
        (other, _) => Err(Invalid::field(
            "image",
            format!(
                "`{}` is not known; `host` is, and `tree` with `image_tree`",
                other.escape_debug()
            ),
        )),
    }
}

fn inputs(inputs: BTreeMap<String, v1::Input>) -> Result<Inputs, Invalid> {
    let parsed = inputs.into_iter().map(|(name, input)| {
        let place = format!("inputs.{}", name.escape_debug());
        let name = InputName::new(name).map_err(|e| e.within("inputs"))?;
        Ok((
            name,
            input.try_into().map_err(|e: Invalid| e.within(place))?,
        ))
    });
    let parsed: Result<_, Invalid> = parsed.collect();
    Inputs::new(parsed?).map_err(|e| e.within("inputs"))
}

fn working_directory(path: String) -> Result<Option<RelPath>, Invalid> {
    match path.is_empty() {
        true => Ok(None),
        false => RelPath::new(path)
            .map(Some)
            .map_err(|e| e.within("working_directory")),
    }
}

fn network(value: i32) -> Result<Network, Invalid> {
    match v1::build_spec::Network::try_from(value) {
        Ok(v1::build_spec::Network::Unspecified | v1::build_spec::Network::None) => {
            Ok(Network::None)
        }
        Err(_) => Err(Invalid::field(
            "network",
            format!("{value} is not a known network mode"),
        )),
    }
}

fn epoch(seconds: u64) -> Result<u64, Invalid> {
    match seconds > BuildSpec::LAST_EPOCH {
        true => Err(Invalid::field(
            "source_date_epoch",
            format!("{seconds} lies beyond the year 9999"),
        )),
        false => Ok(seconds),
    }
}

fn steps(run: Vec<String>) -> Result<Steps, Invalid> {
    let scripts: Result<_, Invalid> = (0_usize..)
        .zip(run)
        .map(|(index, text)| Script::new(text).map_err(|e| e.within(format!("[{index}]"))))
        .collect();
    scripts.and_then(Steps::new).map_err(|e| e.within("run"))
}

fn environment(env: BTreeMap<String, String>) -> Result<BTreeMap<EnvName, EnvValue>, Invalid> {
    if env.len() > bounds::ENV_VARIABLES {
        let reason = format!(
            "{} variables are set; {} are allowed",
            env.len(),
            bounds::ENV_VARIABLES
        );
        return Err(Invalid::field("env", reason));
    }
    let parsed = env.into_iter().map(|(name, value)| {
        let place = format!("env.{}", name.escape_debug());
        let name = EnvName::new(name).map_err(|e| e.within("env"))?;
        Ok((name, EnvValue::new(value).map_err(|e| e.within(place))?))
    });
    parsed.collect()
}

fn outputs(paths: Vec<String>) -> Result<Outputs, Invalid> {
    let mut set = BTreeSet::new();
    for (index, text) in paths.into_iter().enumerate() {
        let place = format!("outputs[{index}]");
        let path = RelPath::new(text).map_err(|e| e.within(&place))?;
        OutputPattern::from_path(&path).map_err(|e| e.within(&place))?;
        if set.contains(&path) {
            return Err(Invalid::field(place, format!("`{path}` is declared twice")));
        }
        set.insert(path);
    }
    Outputs::new(set).map_err(|e| e.within("outputs"))
}
