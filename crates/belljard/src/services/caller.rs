use std::sync::Arc;

use belljar_core::{Invalid, ObjectId, ProjectId};
use belljar_engine::queue::{Condition, Record};
use belljar_policy::{Grants, Identity, Right};
use belljar_wire::{Filter, Membership, Problem, project_name};
use tonic::{Request, Status};

use super::list;
use crate::remote::{Door, Refusal};

/// Who calls, and what that one may do: every handler asks here, about a project, a build or a list.
///
/// What belongs to a project that the caller is no member of is told no otherwise than what does not exist.
/// Inside its projects a member is told which right is lacking.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    identity: Arc<Identity>,
    grants: Arc<Grants>,
    door: Door,
}

/// How many projects an error names.
const NAMED: usize = 10;

impl Caller {
    pub(super) fn new(identity: Arc<Identity>, grants: Grants, door: Door) -> Self {
        Self {
            identity,
            grants: Arc::new(grants),
            door,
        }
    }

    /// Who calls, as the gate noted it.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Problem::denied(["identity: nobody has looked who calls"]).into())
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The caller's projects, and what it may do with each.
    pub(super) fn memberships(&self) -> Vec<Membership> {
        let rights = |project: &ProjectId| {
            let held = self.grants.with(project);
            let names = Right::ALL.into_iter().filter(move |right| held.has(*right));
            names.map(|right| right.name().to_owned()).collect()
        };
        let membership = |project: &ProjectId| Membership {
            project: project.clone(),
            rights: rights(project),
        };
        self.grants.projects().map(membership).collect()
    }

    /// Whether the caller may administer the daemon.
    pub(super) fn administers(&self) -> bool {
        self.grants.any(Right::Administer)
    }

    /// That the caller may administer the daemon.
    pub(super) fn must_administer(&self) -> Result<(), Problem> {
        if self.administers() {
            return Ok(());
        }
        let what = "`administer` in any project";
        self.door.refused(Refusal::Right, &self.identity, &what);
        let why = format!(
            "identity: {} lacks the right {what}; the operator gives it in belljard.toml",
            self.identity
        );
        Err(Problem::denied([why.as_str()]))
    }

    /// Whether the caller may administer this project.
    pub(super) fn administers_project(&self, project: &ProjectId) -> bool {
        self.grants.with(project).has(Right::Administer)
    }

    /// The project that `named` is, or the caller's only one, if the caller has one of `rights` to it. `field`
    /// is where it was named.
    pub(super) fn project(
        &self,
        field: &str,
        named: Option<ProjectId>,
        rights: &[Right],
    ) -> Result<ProjectId, Problem> {
        let project = match named {
            Some(project) => project,
            None => self.only(field)?,
        };
        if self.grants.with(&project).is_empty() {
            let name = project_name(&project);
            self.door
                .refused(Refusal::OtherProject, &self.identity, &name);
            return Err(Problem::not_found(&name));
        }
        self.check(&project, rights)?;
        Ok(project)
    }

    fn only(&self, field: &str) -> Result<ProjectId, Problem> {
        let mut projects = self.grants.projects();
        match (projects.next(), projects.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => {
                let some = self.grants.projects().take(NAMED);
                let some: Vec<&str> = some.map(ProjectId::as_str).collect();
                let why = format!("missing; name one of your projects: {}", some.join(", "));
                Err(Problem::invalid(Invalid::field(field, why)))
            }
        }
    }

    /// The build that was found under `name`, if the caller has this right to it.
    pub(super) fn record(
        &self,
        right: Right,
        name: &str,
        found: Option<Record>,
    ) -> Result<Record, Problem> {
        let record = found.ok_or_else(|| Problem::not_found(name))?;
        let project = &record.submission.project;
        if self.grants.with(project).is_empty() {
            let what = format!("{name} of {}", project_name(project));
            self.door
                .refused(Refusal::OtherProject, &self.identity, &what);
            return Err(Problem::not_found(name));
        }
        self.check(project, &[right])?;
        Ok(record)
    }

    /// What must hold of a build that the caller asks for by `filter` and may see; none if there can be no such
    /// build, whatever there is.
    pub(super) fn narrow(&self, filter: &Filter) -> Option<Vec<Condition>> {
        let asked = filter.conditions().iter();
        let mut conditions: Vec<Condition> = asked.filter_map(list::condition).collect();
        conditions.push(self.seen(|project| {
            filter.conditions().iter().all(|condition| match condition {
                belljar_wire::Condition::Project { is, project: asked } => {
                    *is == (asked == project)
                }
                _ => true,
            })
        })?);
        Some(conditions)
    }

    /// That a build belongs to a project of which the caller may read, and for which `asked` holds.
    pub(super) fn seen(&self, asked: impl Fn(&ProjectId) -> bool) -> Option<Condition> {
        let may_read = |project: &&ProjectId| self.grants.with(project).has(Right::Read);
        let projects = self.grants.projects().filter(may_read);
        let projects: Vec<ProjectId> = projects.filter(|project| asked(project)).cloned().collect();
        // Otherwise all builds would be looked at.
        (!projects.is_empty()).then_some(Condition::OfProjects(projects))
    }

    /// Notes that the caller named an object that the store has, but not this project.
    pub(super) fn withheld(&self, project: &ProjectId, object: ObjectId) {
        let what = format!("{object}, which {} does not have", project_name(project));
        self.door.refused(Refusal::Blob, &self.identity, &what);
    }

    fn check(&self, project: &ProjectId, rights: &[Right]) -> Result<(), Problem> {
        let held = self.grants.with(project);
        if rights.iter().any(|right| held.has(*right)) {
            return Ok(());
        }
        let names = rights.iter().map(|right| format!("`{}`", right.name()));
        let lacking = names.collect::<Vec<_>>().join(" or ");
        let what = format!("{lacking} in {}", project_name(project));
        self.door.refused(Refusal::Right, &self.identity, &what);
        let why = format!(
            "identity: {} lacks the right {lacking} in the project `{project}`; the operator gives it in belljard.toml",
            self.identity
        );
        Err(Problem::denied([why.as_str()]))
    }
}
