//! Which builds there are: by what is known of them, and by the digests of their artifacts.

use belljar_core::{BuildId, Digest, ProjectId, RequestId, Timestamp, bounds};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};

use super::database::{Database, database, integer};
use super::{Left, QueueError};
use crate::life::{Build, Stage};

/// Which builds, and which part of the list of them. The newest come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What must hold of each.
    pub conditions: Vec<Condition>,
    /// Only what was accepted before the build at this place: [`Page::next`] of the page before.
    pub before: Option<u64>,
    /// How many at the most.
    pub most: usize,
}

/// What must hold of a build. `is` false: must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Where it stands: a [`Stage::name`].
    Stage {
        /// Must, or must not.
        is: bool,
        /// The name.
        name: &'static str,
    },
    /// It has ended, and so, or not so: an outcome's kind.
    Outcome {
        /// Must, or must not.
        is: bool,
        /// The kind.
        kind: &'static str,
    },
    /// Who submitted it.
    Submitter {
        /// Must, or must not.
        is: bool,
        /// The principal.
        principal: String,
    },
    /// The client's own name for the submission.
    RequestId {
        /// Must, or must not.
        is: bool,
        /// The name.
        request_id: String,
    },
    /// It was accepted at this time or later.
    AcceptedFrom(Timestamp),
    /// It was accepted before this time.
    AcceptedBefore(Timestamp),
    /// It belongs to one of these projects.
    OfProjects(Vec<ProjectId>),
    /// One of its artifacts has this content.
    Artifact(Digest),
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The builds, the newest first.
    pub builds: Vec<Listed>,
    /// Where to go on ([`Query::before`]), if anything may follow: a page may be short of what was asked for, or
    /// empty, since only [`LIST_SCAN`](belljar_core::bounds::LIST_SCAN) builds are looked at for it.
    pub next: Option<u64>,
}

/// What a list tells of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its place in the order of acceptance, for [`Query::before`].
    pub position: u64,
    /// Where it stands.
    pub build: Build,
    /// The client's own name for the submission.
    pub request_id: RequestId,
    /// The principal who submitted it.
    pub submitter: String,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// When it was accepted.
    pub accepted: Timestamp,
}

impl Condition {
    /// In SQL with one parameter, and that parameter.
    fn sql(&self) -> (&'static str, Value) {
        match self {
            Self::Stage { is: true, name } => ("stage = ?", text(name)),
            Self::Stage { is: false, name } => ("stage != ?", text(name)),
            Self::Outcome { is: true, kind } => ("outcome = ?", text(kind)),
            // Before the end there is none, and SQL finds that neither equal nor unequal.
            Self::Outcome { is: false, kind } => ("outcome != ?", text(kind)),
            Self::Submitter {
                is: true,
                principal,
            } => ("submitter = ?", text(principal)),
            Self::Submitter {
                is: false,
                principal,
            } => ("submitter != ?", text(principal)),
            Self::RequestId {
                is: true,
                request_id,
            } => ("request_id = ?", text(request_id)),
            Self::RequestId {
                is: false,
                request_id,
            } => ("request_id != ?", text(request_id)),
            Self::AcceptedFrom(time) => ("accepted >= ?", integer(time.as_millis()).into()),
            Self::AcceptedBefore(time) => ("accepted < ?", integer(time.as_millis()).into()),
            Self::OfProjects(projects) => {
                // Ids of projects have no character that JSON would escape.
                let ids: Vec<String> = projects.iter().map(|id| format!("\"{id}\"")).collect();
                (
                    "project IN (SELECT value FROM json_each(?))",
                    text(&format!("[{}]", ids.join(","))),
                )
            }
            Self::Artifact(digest) => (
                "position IN (SELECT position FROM artifacts WHERE digest = ? AND directory < 2)",
                Value::Blob(digest.as_bytes().to_vec()),
            ),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The part of all builds that is looked at one after the other, the newest first, by an index.
struct Walk {
    /// Where, and what must hold there.
    sql: &'static str,
    value: Option<Value>,
}

impl Walk {
    /// The one that promises to lead to what is asked for with the fewest looks.
    fn of(conditions: &[Condition]) -> Self {
        let walks = conditions.iter().filter_map(Self::by);
        let best = walks.min_by_key(|(rank, _)| *rank);
        best.map_or(
            Self {
                sql: "builds WHERE TRUE",
                value: None,
            },
            |(_, walk)| walk,
        )
    }

    /// The one by this condition, and how far behind others it comes.
    fn by(condition: &Condition) -> Option<(usize, Self)> {
        let (rank, sql, value) = match condition {
            Condition::Artifact(digest) => (
                0,
                "artifacts WHERE digest = ? AND directory < 2",
                Value::Blob(digest.as_bytes().to_vec()),
            ),
            Condition::RequestId {
                is: true,
                request_id,
            } => (
                1,
                "builds INDEXED BY builds_by_request WHERE request_id = ?",
                text(request_id),
            ),
            // Few have not ended: they are bounded in number.
            Condition::Stage { is: true, name } if *name != "ended" => (
                2,
                "builds INDEXED BY builds_by_stage WHERE stage = ?",
                text(name),
            ),
            Condition::OfProjects(projects) => match &projects[..] {
                [only] => (
                    3,
                    "builds INDEXED BY builds_by_project WHERE project = ?",
                    text(only.as_str()),
                ),
                _ => return None,
            },
            Condition::Submitter {
                is: true,
                principal,
            } => (
                4,
                "builds INDEXED BY builds_by_submitter WHERE submitter = ?",
                text(principal),
            ),
            Condition::Outcome { is: true, kind } => (
                5,
                "builds INDEXED BY builds_by_outcome WHERE outcome = ?",
                text(kind),
            ),
            _ => return None,
        };
        let value = Some(value);
        Some((rank, Self { sql, value }))
    }

    /// Places, and the parameters for that.
    fn places(self, query: &Query) -> (String, Vec<Value>) {
        let sql = format!(
            "SELECT position FROM {} AND position < ? ORDER BY position DESC LIMIT {}",
            self.sql,
            bounds::LIST_SCAN
        );
        let mut values: Vec<Value> = self.value.into_iter().collect();
        values.push(query.before.map_or(i64::MAX, integer).into());
        (sql, values)
    }
}

impl Database {
    pub(super) fn list(&mut self, query: &Query) -> Result<Page, QueueError> {
        let (places, parameters) = Walk::of(&query.conditions).places(query);
        // The order of a CROSS JOIN is the order of the loops: nothing is looked at but these places.
        let mut sql = format!(
            "WITH places (at) AS MATERIALIZED ({places}) \
             SELECT position, id, submitter, request_id, accepted, state, project \
             FROM places CROSS JOIN builds ON position = at WHERE TRUE"
        );
        let mut values = parameters.clone();
        for condition in &query.conditions {
            let (clause, value) = condition.sql();
            sql.push_str(" AND ");
            sql.push_str(clause);
            values.push(value);
        }
        sql.push_str(" ORDER BY at DESC LIMIT ?");
        // One more than is asked for tells whether more follow.
        let most = u64::try_from(query.most).unwrap_or(u64::MAX);
        values.push(integer(most.saturating_add(1)).into());
        let mut statement = self.connection.prepare_cached(&sql).map_err(database)?;
        let rows = statement
            .query_map(params_from_iter(values), raw)
            .map_err(database)?;
        let mut builds = rows
            .map(|row| row.map_err(database).and_then(Raw::parse))
            .collect::<Result<Vec<_>, _>>()?;
        let next = if builds.len() > query.most {
            builds.truncate(query.most);
            builds.last().map(|last| last.position)
        } else {
            self.end_of(&places, parameters)?
        };
        Ok(Page { builds, next })
    }

    /// The last of these places, if there were as many as are looked at.
    fn end_of(&self, places: &str, parameters: Vec<Value>) -> Result<Option<u64>, QueueError> {
        let sql = format!("SELECT count(*), min(position) FROM ({places})");
        let (count, last): (i64, Option<i64>) = self
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
                statement.query_row(params_from_iter(parameters), row)
            })
            .map_err(database)?;
        let all = usize::try_from(count) == Ok(bounds::LIST_SCAN);
        Ok(last.filter(|_| all).and_then(|at| u64::try_from(at).ok()))
    }

    /// Notes the digests of a build's artifacts. May be done again.
    pub(super) fn index(&mut self, id: &BuildId, left: &Left) -> Result<(), QueueError> {
        let position: i64 = self
            .connection
            .prepare_cached("UPDATE builds SET indexed = 1 WHERE id = ?1 RETURNING position")
            .and_then(|mut statement| statement.query_row(params![id.as_str()], |row| row.get(0)))
            .map_err(database)?;
        let sql =
            "INSERT OR IGNORE INTO artifacts (digest, position, directory) VALUES (?1, ?2, ?3)";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        // What is also a file's content is kept as that.
        let files = left.files.iter().map(|digest| (digest, FILE));
        let trees = left.trees.iter().map(|digest| (digest, TREE));
        let directories = left.directories.iter().map(|digest| (digest, DIRECTORY));
        for (digest, directory) in files.chain(trees).chain(directories) {
            statement
                .execute(params![digest.as_bytes(), position, directory])
                .map_err(database)?;
        }
        Ok(())
    }

    /// The first build after a place that succeeded and whose artifacts are not noted.
    pub(super) fn unindexed(&mut self, after: u64) -> Result<Option<Listed>, QueueError> {
        let sql = "SELECT position, id, submitter, request_id, accepted, state, project FROM builds \
                   WHERE indexed = 0 AND outcome = 'succeeded' AND position > ?1 \
                   ORDER BY position LIMIT 1";
        let row = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([integer(after)], raw).optional())
            .map_err(database)?;
        row.map(Raw::parse).transpose()
    }
}

/// What is noted of an artifact as `directory`: a file's content,
const FILE: i64 = 0;
/// the root of a directory's tree,
const DIRECTORY: i64 = 1;
/// or, which is no artifact and only kept like one, the `Tree` message of that.
const TREE: i64 = 2;

/// A row before it was looked at.
struct Raw {
    position: i64,
    id: String,
    submitter: String,
    request_id: String,
    accepted: i64,
    state: String,
    project: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        position: row.get(0)?,
        id: row.get(1)?,
        submitter: row.get(2)?,
        request_id: row.get(3)?,
        accepted: row.get(4)?,
        state: row.get(5)?,
        project: row.get(6)?,
    })
}

impl Raw {
    fn parse(self) -> Result<Listed, QueueError> {
        let damaged = |what: String| QueueError::Damaged {
            id: self.id.clone(),
            what,
        };
        let number = |figure: i64| u64::try_from(figure).map_err(|e| damaged(e.to_string()));
        Ok(Listed {
            position: number(self.position)?,
            build: serde_json::from_str(&self.state).map_err(|e| damaged(e.to_string()))?,
            accepted: Timestamp::from_millis(number(self.accepted)?),
            request_id: RequestId::new(self.request_id.clone())
                .map_err(|e| damaged(e.to_string()))?,
            project: ProjectId::new(self.project.clone()).map_err(|e| damaged(e.to_string()))?,
            submitter: self.submitter,
        })
    }
}

impl Listed {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.build.stage, Stage::Ended { .. })
    }
}
