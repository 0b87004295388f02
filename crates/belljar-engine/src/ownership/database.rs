use std::path::Path;
use std::time::Duration;

use belljar_core::{Blake3Digest, Digest, ProjectId, bounds};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Statement, params};

use super::OwnershipError;
use crate::writer::{Transactional, without_temporary_files};

/// `BJOW`, in the header of every index (sqlite.org, "application_id").
const APPLICATION_ID: i32 = 0x424a_4f57;
/// The layout below.
const LAYOUT: i32 = 3;

/// What makes layout 2 out of layout 1: nobody has noted when something was last used, so it was just now.
const FROM_1: &str = "
    ALTER TABLE objects ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE trees ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    UPDATE objects SET used = unixepoch();
    UPDATE trees SET used = unixepoch();
";

/// What makes layout 3 out of layout 2: nobody has named anything by BLAKE3.
const FROM_2: &str = "
    ALTER TABLE objects ADD COLUMN blake3 BLOB;
    CREATE INDEX objects_by_blake3 ON objects (project, blake3) WHERE blake3 IS NOT NULL;
";

// Digests are spread evenly: each table is one tree by project and digest, without a row id beside it. `used` is
// when the project was last told that it has it, in seconds since 1970, give or take a part of a lease. `blake3` is what
// the project itself has sent it as, if it was by that: the store has verified both then.
const TABLES: &str = "
    CREATE TABLE projects (
        number INTEGER PRIMARY KEY,
        id     TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE objects (
        project INTEGER NOT NULL REFERENCES projects (number),
        digest  BLOB NOT NULL,
        used    INTEGER NOT NULL,
        blake3  BLOB,
        PRIMARY KEY (project, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX objects_by_blake3 ON objects (project, blake3) WHERE blake3 IS NOT NULL;
    CREATE TABLE trees (
        project INTEGER NOT NULL REFERENCES projects (number),
        digest  BLOB NOT NULL,
        used    INTEGER NOT NULL,
        PRIMARY KEY (project, digest)
    ) STRICT, WITHOUT ROWID;
";

/// The connection that writes. Only its own thread touches it.
pub(super) struct Writer(Connection);

/// The connection that reads; it sees what was committed.
#[derive(Debug)]
pub(super) struct Reader(Connection);

impl Writer {
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }

    /// Also says whether the file was made just now.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), OwnershipError> {
        let failed = |source| OwnershipError::Open {
            path: path.to_owned(),
            source,
        };
        let connection = Connection::open(path).map_err(failed)?;
        let (application, layout, objects) = look(&connection).map_err(failed)?;
        let new = (application, layout, objects) == (0, 0, 0);
        let foreign = |what: String| OwnershipError::Foreign {
            path: path.to_owned(),
            what,
        };
        if !new && application != APPLICATION_ID {
            return Err(foreign(
                "not Belljar's index of objects by project".to_owned(),
            ));
        }
        if !new && !(1..=LAYOUT).contains(&layout) {
            return Err(foreign(format!(
                "the index of objects has layout {layout}, this belljard knows layout {LAYOUT}"
            )));
        }
        prepare(&connection, new, layout).map_err(failed)?;
        Ok((Self(connection), new))
    }

    pub(super) fn grant(
        &mut self,
        project: &ProjectId,
        objects: &[Digest],
        now: u64,
    ) -> Result<(), OwnershipError> {
        let sql = "INSERT INTO objects (project, digest, used) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET used = max(used, excluded.used)";
        self.insert(sql, project, objects, 1, |statement, number, digest| {
            statement.execute(params![number, digest.as_bytes(), integer(now)])
        })
    }

    pub(super) fn grant_named(
        &mut self,
        project: &ProjectId,
        objects: &[(Blake3Digest, Digest)],
        now: u64,
    ) -> Result<(), OwnershipError> {
        let sql = "INSERT INTO objects (project, digest, used, blake3) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET used = max(used, excluded.used), blake3 = excluded.blake3";
        self.insert(sql, project, objects, 2, |statement, number, object| {
            let (blake3, digest) = object;
            let (blake3, digest) = (blake3.as_bytes(), digest.as_bytes());
            statement.execute(params![number, digest, integer(now), blake3])
        })
    }

    pub(super) fn grant_tree(
        &mut self,
        project: &ProjectId,
        root: Digest,
        now: u64,
    ) -> Result<(), OwnershipError> {
        let sql = "INSERT INTO trees (project, digest, used) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET used = max(used, excluded.used)";
        self.insert(sql, project, &[root], 1, |statement, number, digest| {
            statement.execute(params![number, digest.as_bytes(), integer(now)])
        })
    }

    /// Inserts rows, of which each touches so many pages at the most.
    fn insert<T>(
        &mut self,
        sql: &str,
        project: &ProjectId,
        rows: &[T],
        pages: usize,
        execute: impl Fn(&mut Statement<'_>, i64, &T) -> rusqlite::Result<usize>,
    ) -> Result<(), OwnershipError> {
        // Several jobs share a transaction: what this one began must not stay if it fails in the middle. What would be
        // undone then, those pages, is in memory.
        for rows in rows.chunks(bounds::GRANTED_AT_ONCE / pages) {
            let savepoint = self.0.savepoint()?;
            savepoint
                .prepare_cached("INSERT OR IGNORE INTO projects (id) VALUES (?1)")?
                .execute(params![project.as_str()])?;
            if let Some(number) = number(&savepoint, project)? {
                let mut statement = savepoint.prepare_cached(sql)?;
                for row in rows {
                    execute(&mut statement, number, row)?;
                }
            }
            savepoint.commit()?;
        }
        Ok(())
    }
}

impl Transactional for Writer {
    fn begin(&mut self) -> rusqlite::Result<()> {
        self.0.execute_batch("BEGIN IMMEDIATE")
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        self.0.execute_batch("COMMIT")
    }

    fn roll_back(&mut self) {
        // SQLite may have rolled back already; then this fails, and there is nothing to do.
        if let Err(error) = self.0.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "no transaction to roll back");
        }
    }
}

impl Reader {
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }

    pub(super) fn open(path: &Path) -> Result<Self, OwnershipError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
            connection.busy_timeout(PATIENCE)?;
            without_temporary_files(&connection)?;
            Ok(connection)
        });
        opened.map(Self).map_err(|source| OwnershipError::Open {
            path: path.to_owned(),
            source,
        })
    }

    pub(super) fn owns(
        &self,
        project: &ProjectId,
        objects: &[Digest],
    ) -> Result<Vec<bool>, OwnershipError> {
        let sql = "SELECT 1 FROM objects WHERE project = ?1 AND digest = ?2";
        self.are_there(sql, project, objects)
    }

    pub(super) fn owns_tree(
        &self,
        project: &ProjectId,
        root: Digest,
    ) -> Result<bool, OwnershipError> {
        let sql = "SELECT 1 FROM trees WHERE project = ?1 AND digest = ?2";
        Ok(self.are_there(sql, project, &[root])?.contains(&true))
    }

    pub(super) fn by_blake3(
        &self,
        project: &ProjectId,
        digests: &[Blake3Digest],
    ) -> Result<Vec<Option<Digest>>, OwnershipError> {
        let snapshot = self.0.unchecked_transaction()?;
        let Some(number) = number(&snapshot, project)? else {
            return Ok(vec![None; digests.len()]);
        };
        let sql = "SELECT digest FROM objects WHERE project = ?1 AND blake3 = ?2";
        let mut statement = snapshot.prepare_cached(sql)?;
        let found = digests.iter().map(|digest| {
            let found = statement.query_row(params![number, digest.as_bytes()], |row| row.get(0));
            Ok(found.optional()?.map(Digest::from_bytes))
        });
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn are_there(
        &self,
        sql: &str,
        project: &ProjectId,
        digests: &[Digest],
    ) -> Result<Vec<bool>, OwnershipError> {
        // One snapshot, taken once, for all of them.
        let snapshot = self.0.unchecked_transaction()?;
        let Some(number) = number(&snapshot, project)? else {
            return Ok(vec![false; digests.len()]);
        };
        let mut statement = snapshot.prepare_cached(sql)?;
        let found = digests
            .iter()
            .map(|digest| statement.exists(params![number, digest.as_bytes()]));
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn number(
    connection: &Connection,
    project: &ProjectId,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT number FROM projects WHERE id = ?1")?
        .query_row(params![project.as_str()], |row| row.get(0))
        .optional()
}

fn look(connection: &Connection) -> rusqlite::Result<(i32, i32, i64)> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let objects =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok((pragma("application_id")?, pragma("user_version")?, objects))
}

fn prepare(connection: &Connection, new: bool, layout: i32) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    without_temporary_files(connection)?;
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let steps: &[&str] = match (new, layout) {
        (true, _) => &[TABLES],
        (false, 1) => &[FROM_1, FROM_2],
        (false, 2) => &[FROM_2],
        (false, _) => return Ok(()),
    };
    let steps = steps.concat();
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT"
    ))
}

/// SQLite's integers are signed; times stay far below.
pub(super) fn integer(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
