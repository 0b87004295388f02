use std::fmt;

use belljar_core::{BuildSpec, Fetch, ProjectId};

use crate::{Identity, Policy, Right};

/// What became of a submission.
#[must_use = "a decision that nobody looks at protects nothing"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be queued.
    Admit(Admitted),
    /// It may not.
    Deny {
        /// Why, at least one.
        reasons: Vec<Reason>,
    },
}

/// Proof that [`decide`] admitted this specification from this principal for this project. It has no other
/// constructor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    spec: Box<BuildSpec>,
    identity: Identity,
    project: ProjectId,
}

/// One reason of a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Whether the principal or what it asks for was denied.
    pub class: Class,
    /// The field of the submission that it is about, as a client would write it (`limits.pids`), or
    /// `identity`.
    pub field: String,
    /// What is wrong and what would be right, as a sentence without a full stop.
    pub sentence: String,
}

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The principal may not submit builds, whatever it asks for.
    Identity,
    /// The principal may submit builds, but not this one.
    Submission,
}

/// What an operator has to do who wants fetches.
pub const NO_FETCHES: &str = "nothing is fetched here: the operator has not configured it (`allow` of [fetch] in \
     belljard.toml; in embedded mode in `fetch.toml` in the state directory)";

/// Decides whether `identity` may have `spec` built for `project`. Pure: the same arguments give the same decision.
/// All reasons are given, not the first, except that a principal who may not submit learns no more.
pub fn decide(
    spec: BuildSpec,
    identity: Identity,
    project: ProjectId,
    policy: &Policy,
) -> Decision {
    if !policy.grants(&identity).with(&project).has(Right::Submit) {
        return Decision::Deny {
            reasons: vec![not_a_submitter(&identity, &project)],
        };
    }
    let mut reasons = Vec::new();
    let mut deny = |field: &str, sentence: String| {
        reasons.push(Reason {
            class: Class::Submission,
            field: field.to_owned(),
            sentence,
        });
    };
    if !policy.allows_image(spec.image.kind()) {
        deny(
            "image",
            format!(
                "the image `{}` is not allowed by the operator",
                spec.image.kind()
            ),
        );
    }
    let caps = policy.caps().get().named();
    for ((name, asked), (_, cap)) in spec.limits.get().named().into_iter().zip(caps) {
        if asked > cap {
            deny(
                &format!("limits.{name}"),
                format!("{asked} is beyond the operator's cap of {cap}; ask for less"),
            );
        }
    }
    for (field, why) in not_fetched(&spec, policy) {
        deny(&field, why);
    }
    if spec.source_date_epoch > BuildSpec::LAST_EPOCH {
        deny(
            "source_date_epoch",
            format!("{} lies beyond the year 9999", spec.source_date_epoch),
        );
    }
    if reasons.is_empty() {
        Decision::Admit(Admitted {
            spec: Box::new(spec),
            identity,
            project,
        })
    } else {
        Decision::Deny { reasons }
    }
}

/// What must not be fetched of it, and why.
fn not_fetched(spec: &BuildSpec, policy: &Policy) -> Vec<(String, String)> {
    let mut refused = Vec::new();
    for (name, fetch) in spec.fetches.iter() {
        // Which artifacts there are for whom is found when they are fetched.
        let (field, urls) = match fetch {
            Fetch::Urls(fetch) => ("urls", &fetch.urls),
            // Where submodules are is only known when it has come: each URL is looked at then.
            Fetch::Git(fetch) => ("git", &fetch.repositories),
            Fetch::Artifact(_) => continue,
        };
        for (index, url) in urls.iter().enumerate() {
            let allowed = match policy.fetches() {
                Some(rules) => rules.allows(url),
                None => Err(NO_FETCHES.to_owned()),
            };
            if let Err(why) = allowed {
                refused.push((format!("fetches.{name}.{field}[{index}]"), why));
            }
        }
    }
    refused
}

fn not_a_submitter(identity: &Identity, project: &ProjectId) -> Reason {
    Reason {
        class: Class::Identity,
        field: "identity".to_owned(),
        sentence: format!(
            "{identity} may not submit builds of the project `{project}`; the operator says who may in belljard.toml"
        ),
    }
}

impl Admitted {
    /// What was admitted.
    pub fn spec(&self) -> &BuildSpec {
        &self.spec
    }

    /// What was admitted, when nothing else is needed any more.
    pub fn into_spec(self) -> BuildSpec {
        *self.spec
    }

    /// From whom.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// For which project.
    pub fn project(&self) -> &ProjectId {
        &self.project
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::Access;
    use crate::FetchRules;
    use belljar_core::{
        Digest, Fetch, FetchUrl, GitFetch, GitId, Image, ImageKind, Input, InputName, Inputs,
        LimitFigures, Limits, Mirrors, Network, ObjectId, Outputs, RelPath, Script, Steps, Unpack,
        UrlFetch,
    };
    use proptest::prelude::*;

    fn spec(limits: Limits) -> BuildSpec {
        BuildSpec {
            image: Image::Host,
            source: ObjectId::of(b""),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(vec![Script::new("make").unwrap()]).unwrap(),
            env: BTreeMap::new(),
            outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
            limits,
            network: Network::None,
            source_date_epoch: BuildSpec::DEFAULT_EPOCH,
        }
    }

    fn policy(caps: Limits) -> Policy {
        Policy::new(
            Access::of_users([0, 1000]).unwrap(),
            [ImageKind::Host],
            caps,
        )
        .unwrap()
    }

    fn with(change: impl FnOnce(&mut LimitFigures)) -> Limits {
        let mut figures = *Limits::DEFAULT.get();
        change(&mut figures);
        Limits::new(figures).unwrap()
    }

    fn fields(decision: &Decision) -> Vec<&str> {
        match decision {
            Decision::Admit(_) => vec![],
            Decision::Deny { reasons } => {
                reasons.iter().map(|reason| reason.field.as_str()).collect()
            }
        }
    }

    #[test]
    fn only_what_the_operator_allows_is_fetched() {
        let with = |urls: &[&str]| {
            let urls = urls.iter().map(|url| FetchUrl::new(url).unwrap()).collect();
            let fetch = Fetch::Urls(UrlFetch {
                urls: Mirrors::new(urls).unwrap(),
                digest: Digest::of(b"x"),
                unpack: Unpack::tar(0).unwrap(),
            });
            let name = InputName::new("x").unwrap();
            let mut spec = spec(Limits::DEFAULT);
            spec.fetches = BTreeMap::from([(name, fetch)]).try_into().unwrap();
            spec
        };
        let rules = FetchRules::new(
            vec!["a.example".parse().unwrap()],
            vec![443],
            vec![],
            vec![],
        );
        let open = policy(Limits::CEILING).with_fetches(Some(rules.unwrap()));
        let asked = |spec: BuildSpec, policy: &Policy| {
            decide(
                spec,
                Identity::Unix { uid: 0 },
                ProjectId::default(),
                policy,
            )
        };
        let good = with(&["https://a.example/x"]);
        assert!(matches!(asked(good.clone(), &open), Decision::Admit(_)));
        // Also when who may do what is read anew.
        let again = open.with(Access::of_users([0]).unwrap()).unwrap();
        assert!(matches!(asked(good.clone(), &again), Decision::Admit(_)));
        let denied = asked(with(&["https://a.example/x", "https://b.example/x"]), &open);
        assert_eq!(fields(&denied), ["fetches.x.urls[1]"]);
        let repository = Mirrors::new(vec![FetchUrl::new("https://b.example/x").unwrap()]);
        let mut commit = with(&["https://a.example/x"]);
        let fetch = Fetch::Git(GitFetch {
            repositories: repository.unwrap(),
            commit: GitId::from_bytes([1; 20]),
            submodules: true,
        });
        let name = InputName::new("x").unwrap();
        commit.fetches = BTreeMap::from([(name, fetch)]).try_into().unwrap();
        assert_eq!(fields(&asked(commit, &open)), ["fetches.x.git[0]"]);
        let Decision::Deny { reasons } = asked(good, &policy(Limits::CEILING)) else {
            panic!("admitted")
        };
        assert_eq!(reasons[0].field, "fetches.x.urls[0]");
        assert!(reasons[0].sentence.contains("[fetch]"), "{}", reasons[0]);
    }

    #[test]
    fn a_listed_user_within_the_caps_is_admitted() {
        let decision = decide(
            spec(Limits::DEFAULT),
            Identity::Unix { uid: 1000 },
            ProjectId::default(),
            &policy(Limits::DEFAULT),
        );
        let Decision::Admit(admitted) = decision else {
            panic!("{decision:?}")
        };
        assert_eq!(admitted.identity().to_string(), "unix:uid=1000");
        assert_eq!(admitted.project(), &ProjectId::default());
        assert_eq!(admitted.spec(), &spec(Limits::DEFAULT));
    }

    #[test]
    fn a_user_who_is_not_listed_learns_nothing_else() {
        let greedy = spec(with(|f| f.pids = 4096));
        let decision = decide(
            greedy.clone(),
            Identity::Unix { uid: 7 },
            ProjectId::default(),
            &policy(Limits::DEFAULT),
        );
        assert_eq!(fields(&decision), ["identity"]);
        // Nor does a member of one project about another.
        let other = ProjectId::new("other").unwrap();
        let decision = decide(
            greedy,
            Identity::Unix { uid: 0 },
            other,
            &policy(Limits::DEFAULT),
        );
        assert_eq!(fields(&decision), ["identity"]);
    }

    #[test]
    fn everything_beyond_a_cap_is_named_at_once() {
        let greedy = spec(with(|f| {
            f.pids = 4096;
            f.memory_bytes = 8 << 30;
        }));
        let mut late = greedy.clone();
        late.source_date_epoch = u64::MAX;
        let root = Identity::Unix { uid: 0 };
        assert_eq!(
            fields(&decide(
                greedy,
                root.clone(),
                ProjectId::default(),
                &policy(Limits::DEFAULT)
            )),
            ["limits.memory_bytes", "limits.pids"]
        );
        assert_eq!(
            fields(&decide(
                late,
                root,
                ProjectId::default(),
                &policy(Limits::DEFAULT)
            )),
            ["limits.memory_bytes", "limits.pids", "source_date_epoch"]
        );
    }

    #[test]
    fn images_are_the_operators_choice() {
        let input = Input {
            tree: ObjectId::of(b""),
            derivation: None,
        };
        let mut asking = spec(Limits::DEFAULT);
        asking.image = Image::Tree(input);
        asking.inputs = Inputs::new([(InputName::new("seed").unwrap(), input)].into()).unwrap();
        let root = Identity::Unix { uid: 0 };
        assert_eq!(
            fields(&decide(
                asking.clone(),
                root.clone(),
                ProjectId::default(),
                &policy(Limits::DEFAULT)
            )),
            ["image"]
        );
        let access = Access::of_users([0]).unwrap();
        let both =
            Policy::new(access, [ImageKind::Host, ImageKind::Tree], Limits::DEFAULT).unwrap();
        let decision = decide(asking, root, ProjectId::default(), &both);
        assert!(matches!(decision, Decision::Admit(_)));
    }

    #[test]
    fn a_policy_that_denies_everything_is_a_mistake() {
        assert_eq!(
            Policy::new(Access::nobody(), [ImageKind::Host], Limits::DEFAULT),
            Err(crate::PolicyError::NobodyAllowed)
        );
        assert_eq!(
            Policy::new(Access::of_users([0]).unwrap(), [], Limits::DEFAULT),
            Err(crate::PolicyError::NoImage)
        );
    }

    proptest! {
        #[test]
        fn nothing_beyond_a_cap_is_ever_admitted(uid in 0..2000u32, pids in 1..65_536u64, wall in 1..86_400u64) {
            let limits = with(|f| { f.pids = pids; f.wall_seconds = wall; });
            let decision = decide(spec(limits), Identity::Unix { uid }, ProjectId::default(), &policy(Limits::DEFAULT));
            let within = limits.within(&Limits::DEFAULT).is_ok();
            let listed = uid == 0 || uid == 1000;
            prop_assert_eq!(matches!(decision, Decision::Admit(_)), within && listed);
        }
    }
}
