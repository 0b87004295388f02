//! Who has left an artifact.

use belljar_core::{BuildId, Digest, ProjectId, bounds};
use rusqlite::params;

use super::database::{Database, database, integer};
use super::{Queue, QueueError, Record};

/// Whose artifact is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The project of the builds that are asked about.
    pub project: ProjectId,
    /// The digest of a regular file, or of an outermost directory's tree.
    pub artifact: Digest,
    /// Only this build.
    pub build: Option<BuildId>,
    /// Only builds about which this key has signed: its OpenSSH fingerprint.
    pub key_id: Option<String>,
}

/// Those of a part of the builds with an artifact that are asked for, and where to go on, if anywhere.
pub(super) type Part = (Vec<BuildId>, Option<i64>);

impl Queue {
    /// The builds that succeeded and left what is wanted, in the order in which they were accepted,
    /// [`bounds::PRODUCERS`] at the most.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn producers(&self, wanted: &Wanted) -> Result<Vec<Record>, QueueError> {
        let (mut after, mut ids) = (Some(0), Vec::new());
        while let Some(from) = after.filter(|_| ids.len() < bounds::PRODUCERS) {
            let wanted = wanted.clone();
            let part = self
                .0
                .call(move |database| database.producers(&wanted, from));
            let (found, next) = part.await?;
            ids.extend(found);
            after = next;
        }
        ids.truncate(bounds::PRODUCERS);
        let mut records = Vec::new();
        for id in ids {
            records.extend(self.get(&id).await?);
        }
        Ok(records)
    }
}

impl Database {
    /// As [`Queue::producers`], of at most [`bounds::LIST_SCAN`] builds with this artifact after a place.
    pub(super) fn producers(&mut self, wanted: &Wanted, after: i64) -> Result<Part, QueueError> {
        let sql = "WITH places (at) AS MATERIALIZED (
                       SELECT position FROM artifacts WHERE digest = ?1 AND directory < 2 AND position > ?2
                       ORDER BY position LIMIT ?3
                   )
                   SELECT at, id, project = ?4 AND outcome IS 'succeeded' AND (?5 IS NULL OR id = ?5)
                       AND (?6 IS NULL OR json_extract(state, '$.evidence.bundle.key_id') IS ?6)
                   FROM places CROSS JOIN builds ON position = at ORDER BY at";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        let values = params![
            wanted.artifact.as_bytes(),
            after,
            integer(bounds::LIST_SCAN as u64),
            wanted.project.as_str(),
            wanted.build.as_ref().map(BuildId::as_str),
            wanted.key_id,
        ];
        let rows = statement
            .query_map(values, |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, bool>(2)?,
                ))
            })
            .map_err(database)?;
        let (mut found, mut looked, mut last) = (Vec::new(), 0, after);
        for row in rows {
            let (at, id, due) = row.map_err(database)?;
            looked += 1;
            last = at;
            if due {
                let parsed = BuildId::new(id.as_str());
                found.push(parsed.map_err(|e| QueueError::Damaged {
                    id,
                    what: e.to_string(),
                })?);
            }
            if found.len() == bounds::PRODUCERS {
                break;
            }
        }
        Ok((found, (looked == bounds::LIST_SCAN).then_some(last)))
    }
}
