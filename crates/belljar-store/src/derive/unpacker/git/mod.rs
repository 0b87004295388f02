//! A commit of a git repository, out of packs: its tree, and those of its submodules. Every object that counts has the SHA-1
//! by which another one names it, up to the commit that the recipe names.

mod bases;
mod modules;
mod pack;
mod walk;

use std::collections::BTreeMap;

use belljar_core::{Fact, GitId, GitSubmodule, ObjectId, RelPath, bounds};
use belljar_plan::unpack::Said;

use super::outlet::{Outlet, Stop};
use pack::Pack;
use walk::{Count, Walk};

/// A commit that stands in a tree.
struct Link {
    commit: GitId,
    /// Where it can be had, by `.gitmodules`.
    url: Option<String>,
}

/// Says the tree of `commit`, with those of its submodules at their places.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    commit: GitId,
    pack: ObjectId,
    submodules: &[GitSubmodule],
) -> Result<(), Stop> {
    if submodules.len() > bounds::GIT_SUBMODULES {
        let most = bounds::GIT_SUBMODULES;
        let why = format!("has more than {most} submodules");
        return Err(Stop::Refused(why));
    }
    let mut all = All {
        outlet,
        count: Count::default(),
        links: BTreeMap::new(),
    };
    all.put(commit, pack, None, None)
        .map_err(|stop| stop.within(&format!("the pack of {commit}")))?;
    for GitSubmodule { path, commit, pack } in submodules {
        let named = |stop: Stop| stop.within(&format!("the submodule `{path}`"));
        let link = all.links.remove(path);
        let link = link.filter(|link| link.commit == *commit).ok_or_else(|| {
            named(Stop::Refused(format!(
                "is not named by any tree as {commit}"
            )))
        })?;
        all.put(*commit, *pack, Some(path), link.url)
            .map_err(named)?;
    }
    for (path, Link { commit, url }) in all.links {
        let fact = Fact::GitLink { path, commit, url };
        outlet.say(&Said::Fact { fact })?;
    }
    Ok(())
}

/// What was said of all packs.
struct All<'a, 'c> {
    outlet: &'a Outlet<'c>,
    count: Count,
    /// Commits that trees name and that were not put there.
    links: BTreeMap<RelPath, Link>,
}

impl All<'_, '_> {
    /// Says the tree of a commit at a place; none for the root.
    fn put(
        &mut self,
        commit: GitId,
        object: ObjectId,
        at: Option<&RelPath>,
        url: Option<String>,
    ) -> Result<(), Stop> {
        let content = self.outlet.need(object)?;
        let mut pack = Pack::read(content, object.size)?;
        let mut walk = Walk {
            outlet: self.outlet,
            pack: &mut pack,
            count: self.count,
            links: Vec::new(),
            modules: Vec::new(),
        };
        let tree = walk.commit(commit, at)?;
        self.count = walk.count;
        let urls = modules::urls(&walk.modules);
        for (path, commit) in walk.links {
            // What `.gitmodules` says is about paths below the root of its own tree.
            let own = match at {
                None => Some(path.clone()),
                Some(at) => path.below(at),
            };
            let url = own.and_then(|own| urls.get(own.as_str()).cloned());
            self.links.insert(path, Link { commit, url });
        }
        let fact = Fact::GitCommit {
            path: at.cloned(),
            commit,
            tree,
            pack: object,
            url,
        };
        Ok(self.outlet.say(&Said::Fact { fact })?)
    }
}
