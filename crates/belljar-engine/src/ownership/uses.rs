//! When what projects have was last used, and how it is taken from them when it goes.

use belljar_core::{Digest, ProjectId};
use rusqlite::params;

use super::OwnershipError;
use super::database::{Reader, Writer, integer, number};

impl Writer {
    /// Notes that a project was told to have these.
    pub(super) fn touch(
        &mut self,
        project: &ProjectId,
        digests: &[Digest],
        now: u64,
    ) -> Result<(), OwnershipError> {
        let connection = self.connection();
        let Some(number) = number(connection, project)? else {
            return Ok(());
        };
        for sql in [
            "UPDATE objects SET used = max(used, ?3) WHERE project = ?1 AND digest = ?2",
            "UPDATE trees SET used = max(used, ?3) WHERE project = ?1 AND digest = ?2",
        ] {
            let mut statement = connection.prepare_cached(sql)?;
            for digest in digests {
                statement.execute(params![number, digest.as_bytes(), integer(now)])?;
            }
        }
        Ok(())
    }

    /// Takes objects, and trees with these roots, from every project, but not those that one has used at
    /// `before` or later. Gives those that no project has any more.
    pub(super) fn forget(
        &mut self,
        digests: Vec<Digest>,
        before: u64,
    ) -> Result<Vec<Digest>, OwnershipError> {
        let connection = self.connection();
        let mut projects = connection.prepare_cached("SELECT number FROM projects")?;
        let projects = projects.query_map([], |row| row.get::<_, i64>(0))?;
        let projects = projects.collect::<rusqlite::Result<Vec<_>>>()?;
        let used = [
            "SELECT 1 FROM objects WHERE project = ?1 AND digest = ?2 AND used >= ?3",
            "SELECT 1 FROM trees WHERE project = ?1 AND digest = ?2 AND used >= ?3",
        ];
        let gone = [
            "DELETE FROM objects WHERE project = ?1 AND digest = ?2",
            "DELETE FROM trees WHERE project = ?1 AND digest = ?2",
        ];
        let mut free = Vec::new();
        for digest in digests {
            let mut is_used = false;
            for project in &projects {
                for sql in used {
                    let mut statement = connection.prepare_cached(sql)?;
                    let values = params![project, digest.as_bytes(), integer(before)];
                    is_used |= statement.exists(values)?;
                }
            }
            if is_used {
                continue;
            }
            for project in &projects {
                for sql in gone {
                    let mut statement = connection.prepare_cached(sql)?;
                    statement.execute(params![project, digest.as_bytes()])?;
                }
            }
            free.push(digest);
        }
        Ok(free)
    }
}

impl Reader {
    /// Those of these that a project has and was last told so before `before`.
    pub(super) fn stale(
        &self,
        project: &ProjectId,
        digests: &[Digest],
        before: u64,
    ) -> Result<Vec<Digest>, OwnershipError> {
        let connection = self.connection();
        let Some(number) = number(connection, project)? else {
            return Ok(Vec::new());
        };
        let mut stale = Vec::new();
        for sql in [
            "SELECT 1 FROM objects WHERE project = ?1 AND digest = ?2 AND used < ?3",
            "SELECT 1 FROM trees WHERE project = ?1 AND digest = ?2 AND used < ?3",
        ] {
            let mut statement = connection.prepare_cached(sql)?;
            for digest in digests {
                if statement.exists(params![number, digest.as_bytes(), integer(before)])? {
                    stale.push(*digest);
                }
            }
        }
        Ok(stale)
    }

    /// Trees that were used at `since` or later, and when last.
    pub(super) fn trees(&self, since: u64) -> Result<Vec<(Digest, u64)>, OwnershipError> {
        let mut found = Vec::new();
        self.each(
            "SELECT digest, max(used) FROM trees WHERE used >= ?1 GROUP BY digest",
            since,
            |digest, used| found.push((digest, used)),
        )?;
        Ok(found)
    }

    /// Tells when each object was last used, once for each project that has it.
    pub(super) fn objects(&self, tell: impl FnMut(Digest, u64)) -> Result<(), OwnershipError> {
        self.each("SELECT digest, used FROM objects WHERE used >= ?1", 0, tell)
    }

    fn each(
        &self,
        sql: &str,
        since: u64,
        mut tell: impl FnMut(Digest, u64),
    ) -> Result<(), OwnershipError> {
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![integer(since)])?;
        while let Some(row) = rows.next()? {
            let used = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            tell(Digest::from_bytes(row.get(0)?), used);
        }
        Ok(())
    }
}
