use std::collections::BTreeMap;

use belljar_core::{
    BuildSpec, Digest, EnvName, EnvValue, Image, ImageOutput, Input, InputName, Inputs, Invalid,
    Limits, Network, ObjectId, Outputs, RelPath, Steps, canonical_json,
};
use serde::{Deserialize, Serialize};

use crate::store::StagedTree;

/// Where the source tree is mounted, writable through an overlay: the working directory of every step that
/// names none below it.
pub const WORKDIR: &str = "/build";
/// Where further inputs are mounted, each read-only at its name.
pub const INPUTS_DIR: &str = Inputs::DIR;
/// The build user's home directory, empty at the start.
pub const HOME: &str = "/home/build";
/// The build user's name.
pub const USER: &str = "build";
/// The build user's user and group id inside the sandbox. Inside id 0 owns the image and never runs.
pub const BUILD_ID: u32 = 1000;
/// Modification time of everything in the root file system and in further inputs, in seconds since 1970: one
/// for all builds, so that they share what is mounted. Sources have the specification's.
pub const INPUTS_EPOCH: u64 = BuildSpec::DEFAULT_EPOCH;
/// The host name that every build sees.
pub const HOSTNAME: &str = "belljar";

/// What the spawner shall make and run. Every field has a type that cannot hold a bad value, so that
/// reading a plan is validating it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The root file system.
    pub image: Image,
    /// The source tree to mount at [`WORKDIR`].
    pub source: ObjectId,
    /// Further trees to mount, read-only, below [`INPUTS_DIR`].
    pub inputs: Inputs,
    /// Where the steps run, below [`WORKDIR`]; there itself if there is none.
    pub working_directory: Option<RelPath>,
    /// What to run, each by `/bin/sh -eu -c`.
    pub run: Steps,
    /// The variables that the specification sets.
    pub env: BTreeMap<EnvName, EnvValue>,
    /// What to collect, relative to [`WORKDIR`] wherever the steps run.
    pub outputs: Outputs,
    /// The image that the store makes of that, if one shall be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_output: Option<ImageOutput>,
    /// What the attempt may use.
    pub limits: Limits,
    /// What it may reach.
    pub network: Network,
    /// Seconds since 1970: `SOURCE_DATE_EPOCH` and the modification time of the sources.
    pub source_date_epoch: u64,
    /// Which containment the spawner applies.
    pub profile: Profile,
}

/// A named, versioned containment. There is one, and it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// All steps of SECURITY.md's containment list.
    #[serde(rename = "strict/v1")]
    StrictV1,
}

impl Plan {
    /// The plan of `spec`: a pure function, so that anyone who has the specification can check that a
    /// receipt is about it. What the specification has fetched is not in it: see [`Plan::with_fetched`].
    pub fn compile(spec: &BuildSpec) -> Self {
        Self::of(spec, spec.inputs.clone())
    }

    /// The plan of `spec` when `fetched` came of its fetches: a pure function of both. Whether these trees are what the
    /// specification names is told by the store's own records of how it made them.
    ///
    /// # Errors
    /// When a tree is missing, or one is too many.
    pub fn with_fetched(spec: &BuildSpec, fetched: &Inputs) -> Result<Self, Invalid> {
        let due = spec.fetches.iter().map(|(name, _)| name);
        if !due.eq(fetched.iter().map(|(name, _)| name)) {
            return Err(Invalid::field(
                "fetches",
                "what was fetched is not what the specification names",
            ));
        }
        let all = spec.inputs.iter().chain(fetched.iter());
        let all = all.map(|(name, input)| (name.clone(), *input)).collect();
        Ok(Self::of(spec, Inputs::new(all)?))
    }

    fn of(spec: &BuildSpec, inputs: Inputs) -> Self {
        Self {
            image: spec.image,
            source: spec.source,
            inputs,
            working_directory: spec.working_directory.clone(),
            run: spec.run.clone(),
            env: spec.env.clone(),
            outputs: spec.outputs.clone(),
            image_output: spec.image_output.clone(),
            limits: spec.limits,
            network: spec.network,
            source_date_epoch: spec.source_date_epoch,
            profile: Profile::StrictV1,
        }
    }

    /// The canonical encoding (RFC 8785).
    ///
    /// # Errors
    /// Never for a value that [`Plan::compile`] made.
    pub fn canonical(&self) -> Result<Vec<u8>, Invalid> {
        canonical_json(self).map_err(|e| Invalid::new(e.to_string()))
    }

    /// The digest of the canonical encoding.
    ///
    /// # Errors
    /// As [`Plan::canonical`].
    pub fn digest(&self) -> Result<Digest, Invalid> {
        self.canonical().map(|bytes| Digest::of(&bytes))
    }

    /// The complete environment of every step, sorted by name: a fixed base, overridden and extended by
    /// the specification (which cannot name what the sandbox sets itself, see [`EnvName::RESERVED`]).
    pub fn environment(&self) -> BTreeMap<String, String> {
        let epoch = self.source_date_epoch.to_string();
        let base = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
            ("HOME", HOME),
            ("USER", USER),
            ("LOGNAME", USER),
            ("SHELL", "/bin/sh"),
            ("TMPDIR", "/tmp"),
            ("SOURCE_DATE_EPOCH", &epoch),
        ];
        let own = self
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        base.into_iter()
            .chain(own)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The argument vectors of the steps, in order.
    pub fn argv(&self) -> Vec<[&str; 4]> {
        self.run
            .iter()
            .map(|script| ["/bin/sh", "-eu", "-c", script.as_str()])
            .collect()
    }

    /// The source tree, as something to mount.
    pub fn staged_source(&self) -> StagedTree {
        StagedTree {
            tree: self.source,
            mtime: self.source_date_epoch,
            derivation: None,
        }
    }

    /// The root file system, if it is a tree.
    pub fn staged_image(&self) -> Option<StagedTree> {
        match &self.image {
            Image::Host => None,
            Image::Tree(input) => Some(staged(input)),
        }
    }

    /// The further inputs by name.
    pub fn staged_inputs(&self) -> impl Iterator<Item = (&InputName, StagedTree)> {
        self.inputs
            .iter()
            .map(|(name, input)| (name, staged(input)))
    }

    /// Everything that has to be mounted for it.
    pub fn staged_trees(&self) -> Vec<StagedTree> {
        let inputs = self.staged_inputs().map(|(_, tree)| tree);
        let fixed = [self.staged_source()].into_iter();
        fixed.chain(self.staged_image()).chain(inputs).collect()
    }

    /// How many whole CPUs the sandbox may be scheduled on: the bandwidth limit rounded up, so that
    /// `nproc` inside agrees with it, and at most what the host has.
    pub fn cpus(&self, host_cpus: u64) -> u64 {
        self.limits
            .get()
            .cpu_millis
            .div_ceil(1000)
            .clamp(1, host_cpus.max(1))
    }
}

fn staged(input: &Input) -> StagedTree {
    StagedTree {
        tree: input.tree,
        mtime: INPUTS_EPOCH,
        derivation: input.derivation,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use belljar_core::Script;
    use std::collections::BTreeSet;

    pub(crate) fn spec() -> BuildSpec {
        BuildSpec {
            image: Image::Host,
            source: ObjectId::of(b""),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(vec![Script::new("make").unwrap()]).unwrap(),
            env: BTreeMap::from([(
                EnvName::new("TZ").unwrap(),
                EnvValue::new("Asia/Tokyo").unwrap(),
            )]),
            outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
            limits: Limits::DEFAULT,
            network: Network::None,
            source_date_epoch: 7,
        }
    }

    #[test]
    fn a_specification_overrides_the_base_but_not_what_the_sandbox_owns() {
        let environment = Plan::compile(&spec()).environment();
        assert_eq!(environment["TZ"], "Asia/Tokyo");
        assert_eq!(environment["SOURCE_DATE_EPOCH"], "7");
        assert_eq!(environment["HOME"], HOME);
    }

    #[test]
    fn one_specification_one_digest() {
        assert_eq!(
            Plan::compile(&spec()).digest(),
            Plan::compile(&spec()).digest()
        );
        let mut other = spec();
        other.source_date_epoch += 1;
        assert_ne!(
            Plan::compile(&spec()).digest(),
            Plan::compile(&other).digest()
        );
    }

    #[test]
    fn what_is_mounted_is_named_by_all_that_it_depends_on() {
        let mut spec = spec();
        let input = |text: &[u8]| Input {
            tree: ObjectId::of(text),
            derivation: None,
        };
        spec.image = Image::Tree(input(b"image"));
        let name = InputName::new("deps").unwrap();
        spec.inputs = Inputs::new(BTreeMap::from([(name, input(b"deps"))])).unwrap();
        let trees = Plan::compile(&spec).staged_trees();
        let times: Vec<_> = trees.iter().map(|tree| tree.mtime).collect();
        assert_eq!(times, [7, INPUTS_EPOCH, INPUTS_EPOCH]);
        let empty = ObjectId::of(b"").digest.to_hex();
        assert_eq!(trees[0].image(), format!("{empty}-0-7.v1"));
        assert_ne!(trees[1].image(), trees[2].image());
    }

    #[test]
    fn cpus_are_whole_and_there() {
        let mut spec = spec();
        let mut figures = *spec.limits.get();
        figures.cpu_millis = 1500;
        spec.limits = Limits::new(figures).unwrap();
        let plan = Plan::compile(&spec);
        assert_eq!((plan.cpus(8), plan.cpus(1)), (2, 1));
    }
}
