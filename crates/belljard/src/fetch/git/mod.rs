//! Commits of git repositories. This process never looks into a pack: the store's unpacker does, and a pack that it refuses
//! belongs to nobody.

mod lines;
mod protocol;
mod reply;

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::IpAddr;

use belljar_audit::{FetchTry, Found};
use belljar_cas::BlobSource;
use belljar_core::{
    Derivation, Fact, FetchDigest, FetchUrl, GitFetch, GitId, GitSubmodule, Input, InputName,
    Invalid, Mirrors, ObjectId, ProjectId, Recipe, RelPath, bounds, shown_url,
};
use belljar_engine::life::FetchReport;
use belljar_policy::{FetchRules, NO_FETCHES};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::flight::Wanted;
use super::{Deadline, Fetching, Trouble, looked};
use crate::tasks;

/// A commit whose pack is what it should be.
struct Checked {
    pack: ObjectId,
    /// Its tree, with an empty directory for each submodule.
    input: Input,
    links: Vec<Link>,
}

/// A commit that stands in the tree of another.
struct Link {
    path: RelPath,
    commit: GitId,
    url: Option<String>,
}

/// One fetch of a commit, with its submodules.
struct Visit<'a> {
    project: &'a ProjectId,
    name: &'a InputName,
    deadline: Deadline,
    /// How many submodules may yet be fetched for this attempt: of each is told in the build's trail.
    left: &'a mut usize,
    /// What is told of it, and of each submodule.
    reports: Vec<FetchReport>,
    /// Every pack that was looked at.
    packs: BTreeSet<ObjectId>,
}

impl Fetching {
    /// The tree of a commit.
    pub(super) async fn commit(
        &self,
        (project, name): (&ProjectId, &InputName),
        fetch: &GitFetch,
        deadline: Deadline,
        submodules: &mut usize,
    ) -> (Vec<FetchReport>, Result<Input, Trouble>) {
        let mut visit = Visit {
            project,
            name,
            deadline,
            left: submodules,
            reports: Vec::new(),
            packs: BTreeSet::new(),
        };
        let made = self.checkout(&mut visit, fetch).await;
        // The first is about the whole.
        if let Some(whole) = visit.reports.first_mut() {
            match (&made, &mut whole.found) {
                (Err(trouble), _) => whole.refused = Some(trouble.why.clone()),
                (Ok(input), Found::Present { tree, .. } | Found::Fetched { tree, .. }) => {
                    *tree = Some(input.tree);
                }
                (Ok(_), _) => {}
            }
        }
        (visit.reports, made)
    }

    async fn checkout(&self, visit: &mut Visit<'_>, fetch: &GitFetch) -> Result<Input, Trouble> {
        let (repositories, commit) = (&fetch.repositories, fetch.commit);
        let root = self.one_commit(visit, None, repositories, commit).await?;
        if !fetch.submodules || root.links.is_empty() {
            return Ok(root.input);
        }
        let (mut submodules, mut next) = (Vec::new(), VecDeque::new());
        next.push_back((None, repositories.clone(), root.links, 1));
        while let Some((at, above, links, depth)) = next.pop_front() {
            for link in links {
                let (path, mirrors) = placed(at.as_ref(), &above, &link)?;
                if depth > bounds::GIT_SUBMODULE_DEPTH || *visit.left == 0 {
                    let (all, depth) = (bounds::GIT_SUBMODULES, bounds::GIT_SUBMODULE_DEPTH);
                    return Err(Trouble::refused(format!(
                        "the submodule `{path}` is one too many: {all} may be fetched for a build, {depth} of them inside each other"
                    )));
                }
                *visit.left -= 1;
                let one = self.one_commit(visit, Some(&path), &mirrors, link.commit);
                let one = one.await.map_err(|trouble| Trouble {
                    why: format!("the submodule `{path}`: {}", trouble.why),
                    ..trouble
                })?;
                let (commit, pack) = (link.commit, one.pack);
                submodules.push(GitSubmodule {
                    path: path.clone(),
                    commit,
                    pack,
                });
                next.push_back((Some(path), mirrors, one.links, depth + 1));
            }
        }
        let recipe = Recipe::Git {
            commit,
            pack: root.pack,
            submodules,
        };
        let making = self.tree(visit.project, recipe, &visit.packs);
        let made = timeout_at(visit.deadline.at, making).await;
        made.unwrap_or_else(|_| Err(visit.deadline.late()))
    }

    /// One commit, without its submodules, from the first of the mirrors that gives what it should be.
    async fn one_commit(
        &self,
        visit: &mut Visit<'_>,
        submodule: Option<&RelPath>,
        mirrors: &Mirrors,
        commit: GitId,
    ) -> Result<Checked, Trouble> {
        let mut tries = Vec::new();
        let checked = self.of_mirrors(visit, mirrors, commit, &mut tries).await;
        let found = match &checked {
            Ok((one, present)) => {
                visit.packs.insert(one.pack);
                let (content, tree) = (one.pack, Some(one.input.tree));
                match present {
                    true => Found::Present { content, tree },
                    false => Found::Fetched { content, tree },
                }
            }
            Err(_) => Found::Nothing {},
        };
        visit.reports.push(FetchReport {
            name: visit.name.clone(),
            submodule: submodule.cloned(),
            digest: FetchDigest::GitCommit(commit),
            found,
            refused: checked.as_ref().err().map(|trouble| trouble.why.clone()),
            tries,
        });
        checked.map(|(one, _)| one)
    }

    /// The same, and whether the project had it before.
    async fn of_mirrors(
        &self,
        visit: &Visit<'_>,
        mirrors: &Mirrors,
        commit: GitId,
        tries: &mut Vec<FetchTry>,
    ) -> Result<(Checked, bool), Trouble> {
        let Some(open) = &self.open else {
            return Err(Trouble::refused(NO_FETCHES));
        };
        let key = (visit.project.clone(), commit);
        // Else a statement would name one that the operator does not let fetch from; trying says why it is refused.
        let may = mirrors.iter().any(|url| may_ask(&open.settings.rules, url));
        let known = super::lock(&self.packs).get(&key).copied();
        if let Some(pack) = known.filter(|_| may)
            && self
                .there(visit.project, vec![pack.digest])
                .await?
                .is_some()
        {
            let checked = self.checked(visit, commit, pack).await?;
            return Ok((checked, true));
        }
        let mut troubles = Vec::new();
        for url in mirrors.iter() {
            let (taken, told) = self.of_mirror(visit, url, commit).await;
            tries.extend(told);
            match taken {
                Ok(checked) => {
                    let mut packs = super::lock(&self.packs);
                    if packs.len() >= bounds::KNOWN_FETCHES {
                        packs.clear();
                    }
                    packs.insert(key, checked.pack);
                    return Ok((checked, false));
                }
                Err(trouble) => troubles.push((url.to_string(), trouble)),
            }
        }
        let none = || Trouble::refused("no URL is given");
        Err(Trouble::all(troubles).unwrap_or_else(none))
    }

    /// Takes a pack from one repository. It belongs to the project when it is what it should be.
    async fn of_mirror(
        &self,
        visit: &Visit<'_>,
        url: &FetchUrl,
        commit: GitId,
    ) -> (Result<Checked, Trouble>, Vec<FetchTry>) {
        let mut told = Vec::new();
        let (project, deadline) = (visit.project, visit.deadline);
        let wanted = Wanted::Commit(url.clone(), commit);
        let brought = self.brought(project, wanted, deadline, &mut told).await;
        let checked = match brought {
            Ok(pack) => match self.checked(visit, commit, pack).await {
                Ok(checked) => {
                    let granted = self.ownership.grant(project, vec![pack.digest]).await;
                    granted.map(|()| checked).map_err(Trouble::from)
                }
                Err(trouble) => Err(trouble),
            },
            Err(trouble) => Err(trouble),
        };
        if let (Err(trouble), Some(last)) = (&checked, told.last_mut()) {
            last.refused.get_or_insert_with(|| trouble.why.clone());
        }
        (checked, told)
    }

    /// Has the store make the tree of a commit out of a pack: whatever is in that, the commit is what it should be then.
    async fn checked(
        &self,
        visit: &Visit<'_>,
        commit: GitId,
        pack: ObjectId,
    ) -> Result<Checked, Trouble> {
        let recipe = Recipe::Git {
            commit,
            pack,
            submodules: Vec::new(),
        };
        let objects = BTreeSet::from([pack]);
        let making = self.tree(visit.project, recipe, &objects);
        let made = timeout_at(visit.deadline.at, making).await;
        let input = made.unwrap_or_else(|_| Err(visit.deadline.late()))?;
        let no_record = || Trouble::passing("the store has made a tree without a record");
        let record = input.derivation.ok_or_else(no_record)?;
        let objects = self.earlier.objects.clone();
        let reading = spawn_blocking(move || links(&*objects, record));
        Ok(Checked {
            pack,
            input,
            links: looked(reading.await)?.map_err(Trouble::passing)?,
        })
    }
}

/// Whether a repository may be asked, as far as its URL says it: a name may still lead to where nothing is fetched from.
fn may_ask(rules: &FetchRules, url: &FetchUrl) -> bool {
    let address = url.host().parse::<IpAddr>();
    let closed = address.is_ok_and(|address| rules.admits(address).is_err());
    rules.allows(url).is_ok() && !closed
}

/// Where a submodule stands in the whole, and where it can be had.
fn placed(
    at: Option<&RelPath>,
    above: &Mirrors,
    link: &Link,
) -> Result<(RelPath, Mirrors), Trouble> {
    let refused = |why: String| {
        let path = at.map_or_else(String::new, |at| format!("{at}/"));
        Trouble::refused(format!("the submodule `{path}{}`: {why}", link.path))
    };
    let path = match at {
        None => Ok(link.path.clone()),
        Some(at) => {
            let mut names = link.path.components();
            names.try_fold(at.clone(), |path, name| path.join(name))
        }
    };
    let path = path.map_err(|e: Invalid| refused(e.to_string()))?;
    let url = link.url.as_ref();
    let none = "`.gitmodules` does not say where it can be had";
    let url = url.ok_or_else(|| refused(none.to_owned()))?;
    let mirrors = above.submodule(url);
    let mirrors = mirrors.map_err(|e| {
        let url = shown_url(url);
        refused(format!("`{url}` of `.gitmodules`: {e}"))
    })?;
    Ok((path, mirrors))
}

/// The commits that a tree names, by the store's record.
fn links(objects: &dyn BlobSource, record: ObjectId) -> Result<Vec<Link>, String> {
    if record.size > bounds::DERIVATION_BYTES as u64 {
        return Err("the record of a tree is too large".to_owned());
    }
    let content = objects.read_verified(record);
    let mut content = content.map_err(|e| tasks::chain(&e))?;
    let mut bytes = Vec::new();
    let read = content.read_to_end(&mut bytes);
    read.map_err(|e| tasks::chain(&e))?;
    let record = Derivation::from_canonical(&bytes).map_err(|e| e.to_string())?;
    let links = record.facts.into_iter().filter_map(|fact| match fact {
        Fact::GitLink { path, commit, url } => Some(Link { path, commit, url }),
        _ => None,
    });
    Ok(links.collect())
}
