//! How the database is laid out, and how an older one becomes that.

use std::time::Duration;

use rusqlite::Connection;

use crate::writer::without_temporary_files;

/// `BJAR`, in the header of every queue (sqlite.org, "application_id").
const APPLICATION_ID: i32 = 0x424a_4152;
/// The layout that [`STEPS`] lead to.
pub(super) const LAYOUT: i32 = 5;

/// What makes layout n + 1 out of layout n; the first makes layout 1 out of nothing.
const STEPS: [&str; 5] = [
    "
    CREATE TABLE builds (
        position         INTEGER PRIMARY KEY AUTOINCREMENT,
        id               TEXT NOT NULL UNIQUE,
        submitter        TEXT NOT NULL,
        authenticated_by TEXT NOT NULL,
        request_id       TEXT NOT NULL,
        spec             BLOB NOT NULL,
        accepted         INTEGER NOT NULL,
        stage            TEXT NOT NULL,
        sequence         INTEGER NOT NULL,
        updated          INTEGER NOT NULL,
        state            TEXT NOT NULL,
        UNIQUE (submitter, request_id)
    ) STRICT;
    CREATE INDEX builds_by_stage ON builds (stage, position);
    ",
    // Builds by what a list can be filtered by, and by the digests of their artifacts. `indexed` says whether
    // a build's artifacts are in the table.
    "
    ALTER TABLE builds ADD COLUMN outcome TEXT;
    ALTER TABLE builds ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;
    UPDATE builds SET outcome = json_extract(state, '$.stage.outcome.kind') WHERE stage = 'ended';
    CREATE INDEX builds_by_outcome ON builds (outcome, position);
    CREATE INDEX builds_by_submitter ON builds (submitter, position);
    CREATE INDEX builds_by_request ON builds (request_id, position);
    CREATE INDEX builds_by_acceptance ON builds (accepted, position);
    CREATE INDEX builds_unindexed ON builds (position) WHERE indexed = 0 AND outcome = 'succeeded';
    CREATE TABLE artifacts (
        digest   BLOB NOT NULL,
        position INTEGER NOT NULL REFERENCES builds (position),
        PRIMARY KEY (digest, position)
    ) STRICT, WITHOUT ROWID;
    ",
    // Builds belong to projects; all that were there to the one of local users. A request id is unique within
    // project and submitter: a constraint cannot be changed, so the table is made anew.
    "
    CREATE TABLE builds_of_projects (
        position         INTEGER PRIMARY KEY AUTOINCREMENT,
        id               TEXT NOT NULL UNIQUE,
        project          TEXT NOT NULL,
        submitter        TEXT NOT NULL,
        authenticated_by TEXT NOT NULL,
        request_id       TEXT NOT NULL,
        spec             BLOB NOT NULL,
        accepted         INTEGER NOT NULL,
        stage            TEXT NOT NULL,
        sequence         INTEGER NOT NULL,
        updated          INTEGER NOT NULL,
        state            TEXT NOT NULL,
        outcome          TEXT,
        indexed          INTEGER NOT NULL DEFAULT 0,
        UNIQUE (project, submitter, request_id)
    ) STRICT;
    INSERT INTO builds_of_projects (position, id, project, submitter, authenticated_by, request_id, spec, accepted,
                                    stage, sequence, updated, state, outcome, indexed)
        SELECT position, id, 'default', submitter, authenticated_by, request_id, spec, accepted,
               stage, sequence, updated, state, outcome, indexed
        FROM builds ORDER BY position;
    DROP TABLE builds;
    ALTER TABLE builds_of_projects RENAME TO builds;
    CREATE INDEX builds_by_stage ON builds (stage, position);
    CREATE INDEX builds_by_outcome ON builds (outcome, position);
    CREATE INDEX builds_by_submitter ON builds (submitter, position);
    CREATE INDEX builds_by_request ON builds (request_id, position);
    CREATE INDEX builds_by_acceptance ON builds (accepted, position);
    CREATE INDEX builds_by_project ON builds (project, position);
    CREATE INDEX builds_unindexed ON builds (position) WHERE indexed = 0 AND outcome = 'succeeded';
    ",
    // What a build left is kept until it is released, its evidence for ever; what is pinned stays.
    "
    ALTER TABLE builds ADD COLUMN released INTEGER;
    CREATE INDEX builds_kept ON builds (position) WHERE released IS NULL;
    CREATE TABLE pins (
        number     INTEGER PRIMARY KEY AUTOINCREMENT,
        project    TEXT NOT NULL,
        kind       TEXT NOT NULL,
        name       TEXT NOT NULL,
        reason     TEXT NOT NULL,
        created_by TEXT NOT NULL,
        created    INTEGER NOT NULL,
        UNIQUE (project, kind, name)
    ) STRICT;
    CREATE INDEX pins_by_name ON pins (kind, name);
    CREATE TABLE evidence (
        digest BLOB PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
    ",
    // Directories that builds left are artifacts, too: all have to be noted anew. What is in one is kept as files are.
    "
    ALTER TABLE artifacts ADD COLUMN directory INTEGER NOT NULL DEFAULT 0;
    UPDATE builds SET indexed = 0 WHERE outcome = 'succeeded';
    ",
];

/// What a file turned out to be.
pub(super) enum Found {
    /// A queue of this or an earlier layout; a new file has layout 0.
    Ours(i32),
    /// Somebody else's database.
    Foreign,
    /// Of a layout that is not known here.
    Layout(i32),
}

/// Sets how the database is used, and looks what it is.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<Found> {
    // With an exclusive lock a second process is refused, and no shared memory file is needed.
    connection.busy_timeout(Duration::from_millis(500))?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    without_temporary_files(connection)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, layout) = (number("application_id")?, number("user_version")?);
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let new = (application, layout, objects) == (0, 0, 0);
    if !new && application != APPLICATION_ID {
        return Ok(Found::Foreign);
    }
    if !new && !(1..=LAYOUT).contains(&layout) {
        return Ok(Found::Layout(layout));
    }
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Takes the exclusive lock now rather than at the first submission.
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
    Ok(Found::Ours(layout))
}

/// Makes the current layout out of `found`, all or nothing.
pub(super) fn migrate(connection: &Connection, found: i32) -> rusqlite::Result<()> {
    if found == LAYOUT {
        return Ok(());
    }
    let done = usize::try_from(found).unwrap_or_default();
    let steps: String = STEPS.into_iter().skip(done).collect();
    // A table that others refer to is replaced: that must not count as removing what they refer to.
    let sql = format!(
        "PRAGMA foreign_keys = OFF; BEGIN EXCLUSIVE; {steps} PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {LAYOUT}; COMMIT; PRAGMA foreign_keys = ON"
    );
    let migrated = connection.execute_batch(&sql);
    match &migrated {
        Ok(()) if found > 0 => {
            tracing::info!(from = found, to = LAYOUT, "the queue has a new layout")
        }
        Ok(()) => {}
        // What began is undone: the file stays as it was.
        Err(_) => drop(connection.execute_batch("ROLLBACK")),
    }
    migrated
}
