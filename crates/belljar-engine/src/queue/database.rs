use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belljar_core::{
    BuildId, BuildSpec, ObjectId, Outcome, ProjectId, RequestId, Timestamp, bounds,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};

use super::layout::{self, Found, LAYOUT};
use super::{QueueError, Record, Submission, SubmitError, Submitted};
use crate::life::Build;
use crate::writer::Transactional;

const COLUMNS: &str = "id, project, submitter, authenticated_by, request_id, spec, accepted, state";

/// Why a queue could not be opened. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{}: the queue is in use by another process; only one belljard may run on one state directory", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A database, but not Belljar's.
    #[error("{}: not a queue of Belljar; move the file away or name another state directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Of a version of Belljar that is not this one's.
    #[error("{}: the queue has layout {found}, this belljard knows layout {LAYOUT}; use the version that wrote it", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout.
        found: i32,
    },
    /// Damaged, or no database at all.
    #[error("{}: the queue is damaged ({what}); restore it from a backup, or move it away to begin with an empty queue", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It could not be opened or made.
    #[error("{}: the queue cannot be opened; the directory must exist and belong to belljard's user", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Its thread could not be started.
    #[error("the queue's thread cannot be started")]
    Thread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The open database. Only its own thread touches it.
pub(super) struct Database {
    pub(super) connection: Connection,
    /// Builds that have not ended.
    unended: u64,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let classify = |source| classify(path, source);
        let connection = Connection::open(path).map_err(classify)?;
        let layout = match layout::prepare(&connection).map_err(classify)? {
            Found::Ours(layout) => layout,
            Found::Foreign => {
                return Err(OpenError::Foreign {
                    path: path.to_owned(),
                });
            }
            Found::Layout(found) => {
                let path = path.to_owned();
                return Err(OpenError::Layout { path, found });
            }
        };
        let verdict: String = connection
            .pragma_query_value(None, "quick_check", |row| row.get(0))
            .map_err(classify)?;
        if verdict != "ok" {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                what: verdict,
            });
        }
        layout::migrate(&connection, layout).map_err(classify)?;
        let unended = count(&connection).map_err(classify)?;
        Ok(Self {
            connection,
            unended,
        })
    }

    pub(super) fn submit(
        &mut self,
        record: Record,
        canonical: &[u8],
    ) -> Result<Submitted, SubmitError> {
        let Submission {
            request_id,
            project,
            submitter,
            authenticated_by,
            accepted,
            ..
        } = &*record.submission;
        let known = self.one(
            "WHERE project = ?1 AND submitter = ?2 AND request_id = ?3",
            params![project.as_str(), submitter, request_id.as_str()],
        )?;
        if let Some(known) = known {
            return match known.submission.spec_object == record.submission.spec_object {
                true => Ok(Submitted::Known(known)),
                false => Err(SubmitError::OtherBody),
            };
        }
        if self.unended >= bounds::QUEUED_BUILDS as u64 {
            return Err(SubmitError::Full);
        }
        let sql = "INSERT INTO builds (id, project, submitter, authenticated_by, request_id, spec, accepted, stage,
                   sequence, updated, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let build = &record.build;
        let values = params![
            build.id.as_str(),
            project.as_str(),
            submitter,
            authenticated_by,
            request_id.as_str(),
            canonical,
            integer(accepted.as_millis()),
            build.stage.name(),
            integer(build.sequence),
            integer(build.updated.as_millis()),
            encode(build)?,
        ];
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(database)?;
        self.unended += 1;
        Ok(Submitted::New(record))
    }

    pub(super) fn advance(&mut self, from: u64, after: &Build) -> Result<(), QueueError> {
        let sql =
            "UPDATE builds SET stage = ?3, sequence = ?4, updated = ?5, state = ?6, outcome = ?7
                   WHERE id = ?1 AND sequence = ?2 AND stage != 'ended'";
        let values = params![
            after.id.as_str(),
            integer(from),
            after.stage.name(),
            integer(after.sequence),
            integer(after.updated.as_millis()),
            encode(after)?,
            after.outcome().map(Outcome::kind),
        ];
        let changed = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(database)?;
        if changed != 1 {
            return Err(QueueError::Conflict(after.id.clone()));
        }
        if after.outcome().is_some() {
            self.unended = self.unended.saturating_sub(1);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, id: &BuildId) -> Result<Option<Record>, QueueError> {
        self.one("WHERE id = ?1", params![id.as_str()])
    }

    pub(super) fn waiting(&mut self) -> Result<Vec<BuildId>, QueueError> {
        let sql = "SELECT id FROM builds WHERE stage = 'queued' ORDER BY position";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        let rows = statement
            .query_map(params![], |row| row.get::<_, String>(0))
            .map_err(database)?;
        rows.map(|row| {
            let id = row.map_err(database)?;
            BuildId::new(id.as_str()).map_err(|e| QueueError::Damaged {
                id,
                what: e.to_string(),
            })
        })
        .collect()
    }

    /// The first build after this position of which something was published.
    pub(super) fn next_published(
        &mut self,
        after: i64,
    ) -> Result<Option<(i64, Record)>, QueueError> {
        let sql = "SELECT position FROM builds
                   WHERE position > ?1 AND json_extract(state, '$.evidence') IS NOT NULL ORDER BY position LIMIT 1";
        let position = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let row = statement.query_row(params![after], |row| row.get::<_, i64>(0));
                row.optional()
            })
            .map_err(database)?;
        let Some(position) = position else {
            return Ok(None);
        };
        let record = self.one("WHERE position = ?1", params![position])?;
        Ok(record.map(|record| (position, record)))
    }

    pub(super) fn in_flight(&mut self) -> Result<Vec<Record>, QueueError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM builds WHERE stage NOT IN ('queued', 'ended') ORDER BY position"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(database)?;
        let rows = statement.query_map(params![], raw).map_err(database)?;
        rows.map(|row| row.map_err(database).and_then(Raw::parse))
            .collect()
    }

    fn one(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<Option<Record>, QueueError> {
        let sql = format!("SELECT {COLUMNS} FROM builds {condition}");
        let mut statement = self.connection.prepare_cached(&sql).map_err(database)?;
        let row = statement
            .query_row(values, raw)
            .optional()
            .map_err(database)?;
        row.map(Raw::parse).transpose()
    }
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count = connection.query_row(
        "SELECT count(*) FROM builds WHERE stage != 'ended'",
        [],
        |row| row.get::<_, i64>(0),
    )?;
    Ok(u64::try_from(count).unwrap_or_default())
}

fn classify(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
            path,
            what: source.to_string(),
        },
        _ => OpenError::Open { path, source },
    }
}

impl Transactional for Database {
    fn begin(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    fn roll_back(&mut self) {
        // SQLite may have rolled back already; then this fails, and there is nothing to do.
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "no transaction to roll back");
        }
        match count(&self.connection) {
            Ok(unended) => self.unended = unended,
            Err(error) => tracing::error!(%error, "the queue could not be counted"),
        }
    }
}

/// A row before it was looked at.
struct Raw {
    id: String,
    project: String,
    submitter: String,
    authenticated_by: String,
    request_id: String,
    spec: Vec<u8>,
    accepted: i64,
    state: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        project: row.get(1)?,
        submitter: row.get(2)?,
        authenticated_by: row.get(3)?,
        request_id: row.get(4)?,
        spec: row.get(5)?,
        accepted: row.get(6)?,
        state: row.get(7)?,
    })
}

impl Raw {
    fn parse(self) -> Result<Record, QueueError> {
        let damaged = |what: String| QueueError::Damaged {
            id: self.id.clone(),
            what,
        };
        let build: Build = serde_json::from_str(&self.state).map_err(|e| damaged(e.to_string()))?;
        if build.id.as_str() != self.id {
            return Err(damaged("its state is another build's".to_owned()));
        }
        let spec = BuildSpec::from_canonical(&self.spec).map_err(|e| damaged(e.to_string()))?;
        let request_id =
            RequestId::new(self.request_id.clone()).map_err(|e| damaged(e.to_string()))?;
        let project = ProjectId::new(self.project.clone()).map_err(|e| damaged(e.to_string()))?;
        let accepted = u64::try_from(self.accepted).map_err(|e| damaged(e.to_string()))?;
        Ok(Record {
            build,
            submission: Arc::new(Submission {
                request_id,
                project,
                submitter: self.submitter,
                authenticated_by: self.authenticated_by,
                spec_object: ObjectId::of(&self.spec),
                spec,
                accepted: Timestamp::from_millis(accepted),
            }),
        })
    }
}

fn encode(build: &Build) -> Result<String, QueueError> {
    serde_json::to_string(build).map_err(|e| QueueError::Damaged {
        id: build.id.to_string(),
        what: e.to_string(),
    })
}

pub(super) fn database(error: rusqlite::Error) -> QueueError {
    QueueError::Database(Arc::new(error))
}

/// SQLite's integers are signed; times and counters stay far below.
pub(super) fn integer(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
