use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use belljar_core::{Invalid, ProjectId, bounds};

use crate::identity::path_of;
use crate::{Identity, Right, Rights};

/// Who may do what with which project. What is not listed is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    projects: BTreeSet<ProjectId>,
    exact: HashMap<Identity, BTreeMap<ProjectId, Rights>>,
    patterns: Vec<(Below, ProjectId, Rights)>,
    lenders: BTreeMap<ProjectId, BTreeSet<ProjectId>>,
}

/// What one principal may do, by project: never an empty set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<ProjectId, Rights>);

/// Names principals: one exactly, or by a trailing `/*` every SPIFFE id below a path, at any depth
/// (`spiffe://example.org/ci/*`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principals {
    /// This one.
    One(Identity),
    /// All of these.
    Below(Below),
}

/// A SPIFFE id with or without a path: what its pattern ends with `/*` after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Below(String);

/// Why something does not say who may do what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A project is there twice.
    #[error("the project `{0}` is there twice")]
    Twice(ProjectId),
    /// A principal is named twice in one project.
    #[error("project `{project}`: `{principal}` is named twice; put all its rights into one place")]
    MemberTwice {
        /// The project.
        project: ProjectId,
        /// The principal or pattern.
        principal: String,
    },
    /// A member has no right, and so is none.
    #[error("project `{project}`: `{principal}` has no right; name one, or remove it")]
    NoRight {
        /// The project.
        project: ProjectId,
        /// The principal or pattern.
        principal: String,
    },
    /// What a project is said to lend to itself.
    #[error("project `{0}`: it has its own artifacts anyway; remove it from the list")]
    LendsItself(ProjectId),
    /// Nobody knows who lends.
    #[error("project `{project}`: there is no project `{lender}` whose artifacts it could use")]
    NoLender {
        /// The project.
        project: ProjectId,
        /// The other one.
        lender: ProjectId,
    },
    /// A project is named twice.
    #[error("project `{project}`: `{lender}` is named twice")]
    LenderTwice {
        /// The project.
        project: ProjectId,
        /// The other one.
        lender: ProjectId,
    },
    /// Too many of them.
    #[error("{0}")]
    TooMany(String),
}

impl Access {
    /// Nobody may anything.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// These user ids may everything with the project `default`.
    ///
    /// # Errors
    /// When one is there twice, or there are too many.
    pub fn of_users(uids: impl IntoIterator<Item = u32>) -> Result<Self, AccessError> {
        let mut access = Self::nobody();
        let members = uids
            .into_iter()
            .map(|uid| (Principals::One(Identity::Unix { uid }), Rights::ALL));
        access.add(ProjectId::default(), members)?;
        Ok(access)
    }

    /// One more project and its members.
    ///
    /// # Errors
    /// When project or member are there already, a member has no right, or there are too many.
    pub fn add(
        &mut self,
        project: ProjectId,
        members: impl IntoIterator<Item = (Principals, Rights)>,
    ) -> Result<(), AccessError> {
        if self.projects.len() >= bounds::PROJECTS {
            let text = format!("more than {} projects", bounds::PROJECTS);
            return Err(AccessError::TooMany(text));
        }
        if !self.projects.insert(project.clone()) {
            return Err(AccessError::Twice(project));
        }
        let mut seen = BTreeSet::new();
        for (principals, rights) in members {
            let principal = principals.to_string();
            if rights.is_empty() {
                return Err(AccessError::NoRight { project, principal });
            }
            if !seen.insert(principals.clone()) {
                return Err(AccessError::MemberTwice { project, principal });
            }
            if seen.len() > bounds::PROJECT_MEMBERS {
                let most = bounds::PROJECT_MEMBERS;
                let text = format!("project `{project}`: more than {most} members");
                return Err(AccessError::TooMany(text));
            }
            match principals {
                Principals::One(identity) => {
                    let of = self.exact.entry(identity).or_default();
                    of.insert(project.clone(), rights);
                }
                Principals::Below(below) => self.patterns.push((below, project.clone(), rights)),
            }
        }
        Ok(())
    }

    /// Builds of `project` may use what builds of these others have left.
    ///
    /// # Errors
    /// When one of them is not known, is the project itself or named twice, or there are too many.
    pub fn lend(
        &mut self,
        project: &ProjectId,
        lenders: impl IntoIterator<Item = ProjectId>,
    ) -> Result<(), AccessError> {
        let mut set = BTreeSet::new();
        for lender in lenders {
            let project = project.clone();
            if lender == project {
                return Err(AccessError::LendsItself(project));
            }
            if !self.projects.contains(&lender) {
                return Err(AccessError::NoLender { project, lender });
            }
            if !set.insert(lender.clone()) {
                return Err(AccessError::LenderTwice { project, lender });
            }
            if set.len() > bounds::LENDERS {
                let most = bounds::LENDERS;
                let text = format!("project `{project}`: artifacts of more than {most} others");
                return Err(AccessError::TooMany(text));
            }
        }
        self.lenders.insert(project.clone(), set);
        Ok(())
    }

    /// The other projects whose artifacts builds of `project` may use, sorted.
    pub fn lenders(&self, project: &ProjectId) -> BTreeSet<ProjectId> {
        self.lenders.get(project).cloned().unwrap_or_default()
    }

    /// What `identity` may do: everything that any entry gives which names it.
    pub fn grants(&self, identity: &Identity) -> Grants {
        let mut grants = self.exact.get(identity).cloned().unwrap_or_default();
        let below = self
            .patterns
            .iter()
            .filter(|(below, ..)| below.names(identity));
        for (_, project, rights) in below {
            let held = grants.entry(project.clone()).or_default();
            *held = held.with(*rights);
        }
        Grants(grants)
    }

    /// Whether nobody may anything.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}

impl Grants {
    /// What may be done with this project.
    pub fn with(&self, project: &ProjectId) -> Rights {
        self.0.get(project).copied().unwrap_or(Rights::NONE)
    }

    /// The projects with which something may be done.
    pub fn projects(&self) -> impl ExactSizeIterator<Item = &ProjectId> {
        self.0.keys()
    }

    /// Whether any project gives this right.
    pub fn any(&self, right: Right) -> bool {
        self.0.values().any(|rights| rights.has(right))
    }

    /// Whether nothing may be done.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that `others` allow is allowed here, too.
    pub fn include(&self, others: &Self) -> bool {
        let missing = |(project, rights): (&ProjectId, &Rights)| {
            let held = self.with(project);
            Right::ALL
                .into_iter()
                .any(|right| rights.has(right) && !held.has(right))
        };
        !others.0.iter().any(missing)
    }
}

impl Below {
    fn names(&self, identity: &Identity) -> bool {
        // Neither side can hold `..`, so a path below is one by its text.
        matches!(identity, Identity::Spiffe(id)
            if id.as_str().strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/')))
    }
}

impl FromStr for Principals {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text
            .strip_suffix("/*")
            .filter(|_| text.starts_with("spiffe://"))
        {
            Some(above) => {
                path_of(above)?;
                Ok(Self::Below(Below(above.to_owned())))
            }
            None => text.parse().map(Self::One),
        }
    }
}

impl fmt::Display for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(identity) => identity.fmt(f),
            Self::Below(Below(above)) => write!(f, "{above}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> ProjectId {
        ProjectId::new(text).unwrap()
    }

    fn member(text: &str, rights: &[Right]) -> (Principals, Rights) {
        (text.parse().unwrap(), rights.iter().copied().collect())
    }

    fn grants(access: &Access, text: &str) -> Vec<(String, String)> {
        let grants = access.grants(&text.parse().unwrap());
        grants
            .projects()
            .map(|project| (project.to_string(), format!("{:?}", grants.with(project))))
            .collect()
    }

    #[test]
    fn only_what_is_listed_is_granted() {
        let mut access = Access::of_users([0, 1000]).unwrap();
        let web = [
            member("spiffe://td/web/*", &[Right::Read]),
            member("spiffe://td/web/ci", &[Right::Submit]),
            member("x509:CN=a", &[Right::Cancel]),
        ];
        access.add(project("web"), web).unwrap();
        access
            .add(
                project("all"),
                [member("spiffe://td/*", &[Right::Administer])],
            )
            .unwrap();
        for (who, due) in [
            ("unix:uid=0", vec![("default", Rights::ALL)]),
            ("unix:uid=1", vec![]),
            (
                "spiffe://td/web/ci",
                vec![
                    ("all", [Right::Administer].into_iter().collect()),
                    ("web", [Right::Submit, Right::Read].into_iter().collect()),
                ],
            ),
            (
                "spiffe://td/web/a/b",
                vec![
                    ("all", [Right::Administer].into_iter().collect()),
                    ("web", [Right::Read].into_iter().collect()),
                ],
            ),
            // The path itself is not below it, and neither is one that begins with the same letters.
            (
                "spiffe://td/web",
                vec![("all", [Right::Administer].into_iter().collect())],
            ),
            (
                "spiffe://td/webx/a",
                vec![("all", [Right::Administer].into_iter().collect())],
            ),
            ("spiffe://td.evil/web/ci", vec![]),
            ("spiffe://other/web/ci", vec![]),
            (
                "x509:CN=a",
                vec![("web", [Right::Cancel].into_iter().collect())],
            ),
            ("x509:CN=a,O=b", vec![]),
            ("x509:CN=spiffe://td/web/ci", vec![]),
        ] {
            let due: Vec<_> = due
                .into_iter()
                .map(|(project, rights): (&str, Rights)| {
                    (project.to_owned(), format!("{rights:?}"))
                })
                .collect();
            assert_eq!(grants(&access, who), due, "{who}");
        }
        assert!(
            !access
                .grants(&"unix:uid=0".parse().unwrap())
                .with(&project("web"))
                .has(Right::Read)
        );
    }

    #[test]
    fn artifacts_are_lent_by_name_only() {
        let mut access = Access::of_users([0]).unwrap();
        access.add(project("base"), []).unwrap();
        access.add(project("web"), []).unwrap();
        access.lend(&project("web"), [project("base")]).unwrap();
        assert_eq!(access.lenders(&project("web")), [project("base")].into());
        for other in ["base", "default", "else"] {
            assert!(access.lenders(&project(other)).is_empty(), "{other}");
        }
        let mut refused = |of: &[&str]| {
            let of = of.iter().map(|name| project(name));
            access.lend(&project("web"), of).unwrap_err().to_string()
        };
        assert!(refused(&["web"]).contains("its own artifacts anyway"));
        assert!(refused(&["other"]).contains("there is no project `other`"));
        assert!(refused(&["base", "base"]).contains("named twice"));
    }

    #[test]
    fn less_does_not_include_more() {
        let of = |entries: &[(&str, &[Right])]| {
            let mut access = Access::nobody();
            for (name, rights) in entries {
                let members = [member("unix:uid=1", rights)];
                access.add(project(name), members).unwrap();
            }
            access.grants(&Identity::Unix { uid: 1 })
        };
        let both = of(&[("a", &[Right::Read, Right::Cancel]), ("b", &[Right::Read])]);
        let one = of(&[("a", &[Right::Read, Right::Cancel])]);
        let less = of(&[("a", &[Right::Read]), ("b", &[Right::Read])]);
        let none = of(&[]);
        assert!(both.include(&both) && both.include(&one) && both.include(&less));
        assert!(both.include(&none) && none.include(&none));
        assert!(!one.include(&both) && !less.include(&one) && !none.include(&less));
    }

    #[test]
    fn what_says_something_twice_or_nothing_is_refused() {
        let read = &[Right::Read];
        let mut access = Access::nobody();
        access.add(project("a"), []).unwrap();
        assert_eq!(
            access.add(project("a"), []),
            Err(AccessError::Twice(project("a")))
        );
        let twice = [member("spiffe://td/*", read), member("spiffe://td/*", read)];
        assert!(matches!(
            access.add(project("b"), twice),
            Err(AccessError::MemberTwice { .. })
        ));
        assert!(matches!(
            access.add(project("c"), [member("unix:uid=1", &[])]),
            Err(AccessError::NoRight { .. })
        ));
        for bad in [
            "*",
            "/*",
            "spiffe://*",
            "spiffe://td/*/x",
            "spiffe://td/we*",
            "spiffe://td//*",
            "spiffe://td/../*",
            "unix:uid=*",
            "unix:*",
        ] {
            assert!(bad.parse::<Principals>().is_err(), "{bad}");
        }
        assert!("spiffe://td/a/*".parse::<Principals>().is_ok());
    }
}
