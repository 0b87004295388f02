use std::str::FromStr;

use belljar_core::{Invalid, ProjectId, Repository, bounds};

/// A registry that images may be pulled from: which of its images, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRule {
    host: String,
    repositories: Vec<RepositoryPattern>,
    /// Those that may be pushed to, too.
    push: Vec<RepositoryPattern>,
    projects: Option<Vec<ProjectId>>,
}

/// What is done with a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Images come from there.
    Pull,
    /// Images go there.
    Push,
}

/// Repositories of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryPattern {
    /// Every one.
    Any,
    /// The one of this name.
    One(String),
    /// Every one whose name begins so, with a slash after it.
    Below(String),
}

/// The registries that images may be pulled from, each with what else is known of it. None named is none allowed.
#[derive(Clone, Debug)]
pub struct Registries<T>(Vec<(RegistryRule, T)>);

impl RegistryRule {
    /// A rule for the registry that references name by `host`, with a port if it is not 443: for repositories of these
    /// patterns, and all projects or these.
    ///
    /// # Errors
    /// When the host is none, nothing could be pulled, or a list is too long.
    pub fn new(
        host: &str,
        repositories: Vec<RepositoryPattern>,
        projects: Option<Vec<ProjectId>>,
    ) -> Result<Self, Invalid> {
        // As it stands in references, so that both are the same text.
        let named = format!("{host}/x").parse::<Repository>();
        if !named.is_ok_and(|named| named.registry() == host) {
            return Err(Invalid::field(
                "host",
                format!(
                    "`{}` is no host as references name it: a name with a dot in it in lower case, or an address, and a port if it is not 443",
                    host.escape_debug()
                ),
            ));
        }
        let lists = [
            ("repositories", Some(repositories.len())),
            ("projects", projects.as_ref().map(Vec::len)),
        ];
        for (field, length) in lists {
            match length {
                Some(0) => {
                    let why = "nothing could be pulled; leave it out for all";
                    return Err(Invalid::field(field, why));
                }
                Some(length) if length > bounds::FETCH_RULES => {
                    let most = bounds::FETCH_RULES;
                    let why = format!("{length} entries; {most} are allowed");
                    return Err(Invalid::field(field, why));
                }
                _ => {}
            }
        }
        Ok(Self {
            host: host.to_owned(),
            repositories,
            push: Vec::new(),
            projects,
        })
    }

    /// The same, where images may be pushed to these repositories, whether or not they may be pulled from there.
    ///
    /// # Errors
    /// When there are too many.
    pub fn with_push(self, push: Vec<RepositoryPattern>) -> Result<Self, Invalid> {
        if push.len() > bounds::FETCH_RULES {
            let (length, most) = (push.len(), bounds::FETCH_RULES);
            let why = format!("{length} entries; {most} are allowed");
            return Err(Invalid::field("push", why));
        }
        Ok(Self { push, ..self })
    }

    /// The host, as references name it.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn is_for(&self, project: &ProjectId) -> bool {
        let projects = self.projects.as_ref();
        projects.is_none_or(|projects| projects.contains(project))
    }

    /// Whether somebody could mean the one as well as the other.
    fn meets(&self, other: &Self) -> bool {
        let shared = match (&self.projects, &other.projects) {
            (Some(projects), Some(_)) => projects.iter().any(|project| other.is_for(project)),
            _ => true,
        };
        shared && self.host == other.host
    }

    fn allows(&self, project: &ProjectId, repository: &Repository, way: Way) -> Result<(), String> {
        let (host, name) = (&self.host, repository.name());
        let (patterns, setting) = match way {
            Way::Pull => (&self.repositories, "repositories"),
            Way::Push => (&self.push, "push"),
        };
        let verb = way.in_words();
        if !patterns.iter().any(|pattern| pattern.matches(name)) {
            return Err(format!(
                "the operator does not allow to {verb} `{host}`, as for `{name}`: it is not among `{setting}` of its [[fetch.registry]] in belljard.toml"
            ));
        }
        if !self.is_for(project) {
            return Err(format!(
                "the operator does not allow the project `{project}` to {verb} `{host}`: it is not among `projects` of its [[fetch.registry]] in belljard.toml"
            ));
        }
        Ok(())
    }
}

impl Way {
    fn in_words(self) -> &'static str {
        match self {
            Self::Pull => "pull from",
            Self::Push => "push to",
        }
    }
}

impl RepositoryPattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == name,
            Self::Below(start) => name
                .strip_prefix(start.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')),
        }
    }
}

impl<T> Default for Registries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Registries<T> {
    /// Takes them if there are not too many, and none twice for one project.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(all: Vec<(RegistryRule, T)>) -> Result<Self, Invalid> {
        if all.len() > bounds::REGISTRIES {
            let (given, most) = (all.len(), bounds::REGISTRIES);
            let why = format!("{given} registries; {most} are allowed");
            return Err(Invalid::field("registry", why));
        }
        for (index, (rule, _)) in all.iter().enumerate() {
            if all[..index].iter().any(|(other, _)| other.meets(rule)) {
                let field = format!("registry[{index}].host");
                let why = "was given already; once more it can be for other projects, if each says by `projects` for which";
                return Err(Invalid::field(field, why));
            }
        }
        Ok(Self(all))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(RegistryRule, T)> {
        self.0.iter()
    }

    /// The same registries, with something else known of each.
    ///
    /// # Errors
    /// The first that `map` gives.
    pub fn try_map<U, E>(&self, map: impl Fn(&T) -> Result<U, E>) -> Result<Registries<U>, E> {
        let all = self.0.iter();
        let mapped = all.map(|(rule, known)| Ok((rule.clone(), map(known)?)));
        Ok(Registries(mapped.collect::<Result<_, E>>()?))
    }

    /// What is known of the registry of this repository, if the project may go this way.
    ///
    /// # Errors
    /// Says what is not allowed, and by which setting it would be.
    pub fn decide(
        &self,
        project: &ProjectId,
        repository: &Repository,
        way: Way,
    ) -> Result<&T, String> {
        let host = repository.registry();
        let mut of_host = self.0.iter().filter(|(rule, _)| rule.host == host);
        let own = of_host.clone().find(|(rule, _)| rule.is_for(project));
        let (rule, known) = own.or_else(|| of_host.next()).ok_or_else(|| {
            format!(
                "the operator does not allow to {} `{host}`: no [[fetch.registry]] in belljard.toml (embedded: [[registry]] in fetch.toml of the state directory) has it as `host`",
                way.in_words()
            )
        })?;
        rule.allows(project, repository, way)?;
        Ok(known)
    }
}

impl FromStr for RepositoryPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, below) = match text.strip_suffix("/*") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let whole = format!("r.example/{name}").parse::<Repository>();
        match whole.is_ok_and(|whole| whole.name() == name) {
            true if below => Ok(Self::Below(name.to_owned())),
            true => Ok(Self::One(name.to_owned())),
            false => Err(Invalid::new(format!(
                "`{}` is no repository; write its name without the host, `name/*` for all below it, or `*`",
                text.escape_debug()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, repositories: &[&str], projects: Option<&[&str]>) -> RegistryRule {
        let repositories = repositories.iter().map(|text| text.parse().unwrap());
        let project = |name: &&str| ProjectId::new(*name).unwrap();
        let projects = projects.map(|names| names.iter().map(project).collect());
        RegistryRule::new(host, repositories.collect(), projects).unwrap()
    }

    #[test]
    fn only_what_is_named_is_pulled_and_only_for_whom() {
        let all = Registries::new(vec![
            (rule("r.example", &["team/*", "c"], None), 1),
            (rule("r.example:5000", &["*"], Some(&["web"])), 2),
        ])
        .unwrap();
        for (repository, project, due) in [
            ("r.example/team/c", "web", Ok(&1)),
            ("r.example/team/a/b", "other", Ok(&1)),
            ("r.example/c", "web", Ok(&1)),
            ("r.example/team", "web", Err("`repositories`")),
            ("r.example/teams/c", "web", Err("`repositories`")),
            ("r.example/c/d", "web", Err("`repositories`")),
            ("r.example:5000/any/thing", "web", Ok(&2)),
            ("r.example:5000/any/thing", "other", Err("`projects`")),
            (
                "r.example:5001/c",
                "web",
                Err("does not allow to pull from `r.example:5001`"),
            ),
            ("x.r.example/c", "web", Err("does not allow to pull from")),
        ] {
            let project = ProjectId::new(project).unwrap();
            let found = all.decide(&project, &repository.parse().unwrap(), Way::Pull);
            match due {
                Ok(known) => assert_eq!(found, Ok(known), "{repository}"),
                Err(due) => assert!(found.unwrap_err().contains(due), "{repository}"),
            }
        }
        let none = Registries::<u8>::default();
        let project = ProjectId::new("web").unwrap();
        assert!(
            none.decide(&project, &"r.example/c".parse().unwrap(), Way::Pull)
                .is_err()
        );
    }

    #[test]
    fn nothing_is_pushed_but_to_where_it_may_be() {
        let push = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let with = rule("r.example", &["c"], Some(&["web"]));
        let with = with.with_push(push(&["out/*"])).unwrap();
        let all = Registries::new(vec![(with, 1), (rule("s.example", &["*"], None), 2)]).unwrap();
        for (repository, project, due) in [
            ("r.example/out/app", "web", None),
            ("r.example/out/app", "other", Some("`projects`")),
            ("r.example/c", "web", Some("`push`")),
            ("r.example/out", "web", Some("`push`")),
            ("s.example/c", "web", Some("`push`")),
            (
                "t.example/c",
                "web",
                Some("does not allow to push to `t.example`"),
            ),
        ] {
            let (project, repository) = (
                ProjectId::new(project).unwrap(),
                repository.parse().unwrap(),
            );
            match (all.decide(&project, &repository, Way::Push), due) {
                (Ok(known), None) => assert_eq!(*known, 1),
                (Err(why), Some(due)) => assert!(why.contains(due), "{repository}: {why}"),
                (found, due) => panic!("{repository}: {found:?}, {due:?}"),
            }
        }
        // And to push is not to pull.
        let (web, out) = (
            ProjectId::new("web").unwrap(),
            "r.example/out/app".parse().unwrap(),
        );
        assert!(all.decide(&web, &out, Way::Pull).is_err());
        let many = vec![RepositoryPattern::Any; bounds::FETCH_RULES + 1];
        assert_eq!(
            rule("r.example", &["*"], None)
                .with_push(many)
                .unwrap_err()
                .field,
            "push"
        );
    }

    #[test]
    fn each_project_may_have_its_own_part_of_a_registry() {
        let with = |projects: &[&str], push: &str| {
            let rule = rule("r.example", &["*"], Some(projects));
            rule.with_push(vec![push.parse().unwrap()]).unwrap()
        };
        let all = vec![
            (with(&["web", "docs"], "web/*"), 1),
            (with(&["app"], "app/*"), 2),
        ];
        let all = Registries::new(all).unwrap();
        for (project, repository, due) in [
            ("web", "web/x", Ok(&1)),
            ("docs", "web/x", Ok(&1)),
            ("app", "app/x", Ok(&2)),
            ("web", "app/x", Err("`push`")),
            ("app", "web/x", Err("`push`")),
            ("else", "web/x", Err("`projects`")),
        ] {
            let (project, repository) = (
                ProjectId::new(project).unwrap(),
                format!("r.example/{repository}").parse().unwrap(),
            );
            match (all.decide(&project, &repository, Way::Push), due) {
                (Err(why), Err(due)) => assert!(why.contains(due), "{repository}: {why}"),
                (found, due) => assert_eq!(found.map_err(|_| ""), due, "{project}: {repository}"),
            }
        }
        // Of two that one project could mean nobody knows which.
        for projects in [Some(&["web", "app"][..]), None] {
            let all = vec![
                (with(&["app"], "app/*"), 1),
                (rule("s.example", &["*"], None), 2),
                (rule("r.example", &["*"], projects), 3),
            ];
            let refused = Registries::new(all).unwrap_err();
            assert_eq!(refused.field, "registry[2].host");
        }
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        for host in [
            "",
            "r",
            "R.example",
            "r.example:443",
            "https://r.example",
            "r.example/x",
        ] {
            let refused = RegistryRule::new(host, vec![RepositoryPattern::Any], None).unwrap_err();
            assert_eq!(refused.field, "host", "{host}");
        }
        for text in ["", "/*", "**", "a/**", "*/a", "A", "r.example/a:1", "a//b"] {
            assert!(text.parse::<RepositoryPattern>().is_err(), "{text}");
        }
        assert!(RegistryRule::new("r.example", vec![], None).is_err());
        let any = || vec![RepositoryPattern::Any];
        assert!(RegistryRule::new("r.example", any(), Some(vec![])).is_err());
        let twice = vec![
            (rule("r.example", &["*"], None), ()),
            (rule("r.example", &["c"], None), ()),
        ];
        assert_eq!(
            Registries::new(twice).unwrap_err().field,
            "registry[1].host"
        );
        let many =
            (0..=bounds::REGISTRIES).map(|n| (rule(&format!("r{n}.example"), &["*"], None), ()));
        assert!(Registries::new(many.collect()).is_err());
    }
}
