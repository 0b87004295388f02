use belljar_engine::queue::{Condition, Record};
use belljar_policy::Identity;
use belljar_wire::Problem;

/// What somebody wants to do with a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// See it, its log, its artifacts and its evidence.
    Read,
    /// Ask for its end.
    Cancel,
}

/// Who may do what with which build: every handler asks here, for one build or for a list. Today there is one
/// trust domain per daemon: whom the gate lets in has every right to every build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access;

impl Access {
    /// The build that was found under `name`, if the caller has this right to it. One that the caller may not
    /// even see is told no otherwise than one that does not exist.
    pub(crate) fn record(
        self,
        caller: Identity,
        right: Right,
        name: &str,
        found: Option<Record>,
    ) -> Result<Record, Problem> {
        tracing::debug!(%caller, ?right, name, "asked for a build");
        found.ok_or_else(|| Problem::not_found(name))
    }

    /// What must hold of a build so that the caller may see it in a list, beside what was asked for.
    pub(crate) fn narrow(self, _caller: Identity, asked: Vec<Condition>) -> Vec<Condition> {
        asked
    }
}
