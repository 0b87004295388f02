use belljar_core::{Invalid, ProjectId};
use belljar_policy::{Access, Identity, Principals, Right, Rights};
use serde::Deserialize;

/// Root's user id.
const ROOT: u32 = 0;

/// `[[project]]`: a project and who may do what with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    /// 1 to 63 characters of `[a-z0-9-]`; the instance name of its blobs.
    name: String,
    /// Whoever is not named may do nothing with it.
    #[serde(default)]
    member: Vec<Member>,
    /// Other projects: builds of this one may use what builds of these have left. Nobody sees anything else by this.
    #[serde(default)]
    artifacts_of: Vec<String>,
}

/// `[[project.member]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    /// `unix:uid=N`, `spiffe://domain/path`, `spiffe://domain/path/*` for all below it, or `x509:SUBJECT`.
    principal: String,
    /// Of `submit`, `cancel`, `read` and `administer`, at least one.
    rights: Vec<String>,
}

/// Puts together who may do what. `allowed_uids`, and root, may do everything with the project `default`,
/// which may have further members.
pub(super) fn access(allowed_uids: &[u32], projects: &[Project]) -> Result<Access, Invalid> {
    let mut uids = allowed_uids.to_vec();
    uids.push(ROOT);
    uids.sort_unstable();
    uids.dedup();
    let mut local: Vec<_> = uids
        .into_iter()
        .map(|uid| (Principals::One(Identity::Unix { uid }), Rights::ALL))
        .collect();
    let mut access = Access::nobody();
    for (index, project) in (0_usize..).zip(projects) {
        let field = format!("project[{index}]");
        let name =
            ProjectId::new(project.name.as_str()).map_err(|e| e.within(format!("{field}.name")))?;
        let mut members = members(project).map_err(|e| e.within(&field))?;
        if name == ProjectId::default() {
            members.append(&mut local);
        }
        let added = access.add(name, members);
        added.map_err(|e| Invalid::field(field, e.to_string()))?;
    }
    if !local.is_empty() {
        let added = access.add(ProjectId::default(), local);
        added.map_err(|e| Invalid::field("allowed_uids", e.to_string()))?;
    }
    // At last, when all of them are known.
    for (index, project) in (0_usize..).zip(projects) {
        lend(&mut access, project)
            .map_err(|e| e.within(format!("project[{index}].artifacts_of")))?;
    }
    Ok(access)
}

fn lend(access: &mut Access, project: &Project) -> Result<(), Invalid> {
    let name = ProjectId::new(project.name.as_str())?;
    let lenders = (0_usize..)
        .zip(&project.artifacts_of)
        .map(|(index, lender)| {
            let lender = ProjectId::new(lender.as_str());
            lender.map_err(|e| e.within(format!("[{index}]")))
        });
    let lenders = lenders.collect::<Result<Vec<_>, _>>()?;
    let lent = access.lend(&name, lenders);
    lent.map_err(|e| Invalid::new(e.to_string()))
}

fn members(project: &Project) -> Result<Vec<(Principals, Rights)>, Invalid> {
    let member = |(index, member): (usize, &Member)| {
        let field = format!("member[{index}]");
        let principals = member.principal.parse::<Principals>();
        let principals = principals.map_err(|e| e.within(format!("{field}.principal")))?;
        let rights: Result<Vec<Right>, Invalid> = member
            .rights
            .iter()
            .map(|name| Right::named(name))
            .collect();
        let rights = rights.map_err(|e| e.within(format!("{field}.rights")))?;
        if (1..rights.len()).any(|at| rights[..at].contains(&rights[at])) {
            let why = "one right is named twice";
            return Err(Invalid::field(format!("{field}.rights"), why));
        }
        Ok((principals, rights.into_iter().collect()))
    };
    (0_usize..).zip(&project.member).map(member).collect()
}
