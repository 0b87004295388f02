//! Which builds there are: by what is known of them, and by the digests of their artifacts.

use belljar_core::{BuildId, Digest, ProjectId, RequestId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};

use super::QueueError;
use super::database::{Database, database, integer};
use crate::life::{Build, Stage};

/// Which builds, and which part of the list of them. The newest come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What must hold of each.
    pub conditions: Vec<Condition>,
    /// Only what was accepted before the build at this place, see [`Page::next`].
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
    /// Whether more follow.
    pub more: bool,
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
                "position IN (SELECT position FROM artifacts WHERE digest = ?)",
                Value::Blob(digest.as_bytes().to_vec()),
            ),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

impl Database {
    pub(super) fn list(&mut self, query: &Query) -> Result<Page, QueueError> {
        let mut sql =
            "SELECT position, id, submitter, request_id, accepted, state, project FROM builds \
                       WHERE position < ?"
                .to_owned();
        let mut values = vec![Value::Integer(query.before.map_or(i64::MAX, integer))];
        for condition in &query.conditions {
            let (clause, value) = condition.sql();
            sql.push_str(" AND ");
            sql.push_str(clause);
            values.push(value);
        }
        sql.push_str(" ORDER BY position DESC LIMIT ?");
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
        let more = builds.len() > query.most;
        builds.truncate(query.most);
        Ok(Page { builds, more })
    }

    /// Notes the digests of a build's artifacts. May be done again.
    pub(super) fn index(&mut self, id: &BuildId, digests: &[Digest]) -> Result<(), QueueError> {
        let position: i64 = self
            .connection
            .prepare_cached("UPDATE builds SET indexed = 1 WHERE id = ?1 RETURNING position")
            .and_then(|mut statement| statement.query_row(params![id.as_str()], |row| row.get(0)))
            .map_err(database)?;
        let sql = "INSERT OR IGNORE INTO artifacts (digest, position) VALUES (?1, ?2)";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        for digest in digests {
            statement
                .execute(params![digest.as_bytes(), position])
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
