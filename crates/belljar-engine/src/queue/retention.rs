//! Which builds are kept with what they left, and which things are pinned.

use belljar_core::{BuildId, Digest, ProjectId, Timestamp, bounds};
use rusqlite::{OptionalExtension as _, Row, params};

use super::database::{Database, database, integer};
use super::{QueueError, Record};
use crate::life::Evidence;

/// Something that stays until it is unpinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its number: never used again.
    pub number: u64,
    /// To which project it belongs.
    pub project: ProjectId,
    /// What stays.
    pub target: Target,
    /// Why, in its maker's words.
    pub reason: String,
    /// The principal who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

/// What can be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A build, with its inputs, its outputs and its evidence.
    Build(BuildId),
    /// A tree, with all that is in it.
    Tree(belljar_core::ObjectId),
    /// One object.
    Object(belljar_core::ObjectId),
}

/// Why nothing was pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no such build in that project.
    #[error("there is no such build")]
    NoBuild,
    /// What it left is not kept any more.
    #[error("what the build left was given up already")]
    Released,
    /// There are too many pins.
    #[error(
        "there are {} pins already; remove one that is not needed any more",
        bounds::PINS
    )]
    TooMany,
    /// The database.
    #[error("the pin could not be written")]
    Queue(#[from] QueueError),
}

impl From<crate::writer::Undone> for PinError {
    fn from(undone: crate::writer::Undone) -> Self {
        Self::Queue(undone.into())
    }
}

impl Target {
    fn kind(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Tree(_) => "tree",
            Self::Object(_) => "object",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Build(id) => id.to_string(),
            Self::Tree(object) | Self::Object(object) => {
                format!("{}/{}", object.digest.to_hex(), object.size)
            }
        }
    }

    fn parse(kind: &str, name: &str) -> Result<Self, String> {
        let object = || {
            let (hex, size) = name.split_once('/').ok_or("no size")?;
            Ok::<_, String>(belljar_core::ObjectId {
                digest: Digest::from_hex(hex).map_err(|e| e.to_string())?,
                size: size.parse().map_err(|_| "no size".to_owned())?,
            })
        };
        match kind {
            "build" => Ok(Self::Build(BuildId::new(name).map_err(|e| e.to_string())?)),
            "tree" => object().map(Self::Tree),
            "object" => object().map(Self::Object),
            other => Err(format!("pins of `{other}` are not known")),
        }
    }
}

impl Database {
    /// Builds that are kept, after a position, the oldest first.
    pub(super) fn kept(
        &mut self,
        after: i64,
        most: usize,
    ) -> Result<Vec<(i64, bool, Record)>, QueueError> {
        let sql =
            "SELECT position, id, indexed FROM builds WHERE position > ?1 AND released IS NULL
                   ORDER BY position LIMIT ?2";
        let most = integer(u64::try_from(most).unwrap_or(u64::MAX));
        let rows: Vec<(i64, String, bool)> = {
            let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
            let rows = statement.query_map(params![after, most], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            });
            rows.and_then(Iterator::collect).map_err(database)?
        };
        let mut kept = Vec::new();
        for (position, id, indexed) in rows {
            let damaged = |what: String| QueueError::Damaged {
                id: id.clone(),
                what,
            };
            let build = BuildId::new(id.as_str()).map_err(|e| damaged(e.to_string()))?;
            let record = self.get(&build)?;
            let record = record.ok_or_else(|| damaged("it is gone".to_owned()))?;
            kept.push((position, indexed, record));
        }
        Ok(kept)
    }

    /// Artifacts of builds that are kept, with the `Tree` messages of directories, and evidence of those that are not. The
    /// root of a directory's tree is there only if somebody was given it, and goes with all that is below it when nobody needs that.
    pub(super) fn kept_objects(&mut self) -> Result<Vec<Digest>, QueueError> {
        let sql = "SELECT digest FROM artifacts JOIN builds USING (position) WHERE released IS NULL AND directory != 1
                   UNION SELECT digest FROM evidence";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        let rows = statement.query_map(params![], |row| row.get::<_, [u8; 32]>(0));
        let rows = rows.and_then(|rows| {
            rows.map(|row| row.map(Digest::from_bytes))
                .collect::<rusqlite::Result<_>>()
        });
        rows.map_err(database)
    }

    /// Gives up what these builds left but their evidence, except of those that are pinned or have not ended. Gives how
    /// many.
    pub(super) fn release(&mut self, ids: &[BuildId], now: Timestamp) -> Result<u64, QueueError> {
        let sql =
            "UPDATE builds SET released = ?2 WHERE id = ?1 AND stage = 'ended' AND released IS NULL
                   AND NOT EXISTS (SELECT 1 FROM pins WHERE kind = 'build' AND name = ?1)";
        let mut released = 0;
        for id in ids {
            let values = params![id.as_str(), integer(now.as_millis())];
            let statement = self.connection.prepare_cached(sql);
            let changed = statement.and_then(|mut statement| statement.execute(values));
            if changed.map_err(database)? == 0 {
                continue;
            }
            released += 1;
            let evidence = self.get(id)?.and_then(|record| record.build.evidence);
            for digest in evidence.iter().flat_map(lasting) {
                let sql = "INSERT OR IGNORE INTO evidence (digest) VALUES (?1)";
                let statement = self.connection.prepare_cached(sql);
                let noted =
                    statement.and_then(|mut noted| noted.execute(params![digest.as_bytes()]));
                noted.map_err(database)?;
            }
        }
        Ok(released)
    }

    /// When what a build left was given up, if it was.
    pub(super) fn released(&mut self, id: &BuildId) -> Result<Option<Timestamp>, QueueError> {
        let sql = "SELECT released FROM builds WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        let row = statement.query_row(params![id.as_str()], |row| row.get::<_, Option<i64>>(0));
        let released = row.optional().map_err(database)?.flatten();
        Ok(released.map(|at| Timestamp::from_millis(u64::try_from(at).unwrap_or(0))))
    }

    pub(super) fn pin(&mut self, pin: &Pin) -> Result<Pin, PinError> {
        let (kind, name) = (pin.target.kind(), pin.target.name());
        let there = self
            .pins()?
            .into_iter()
            .find(|there| there.project == pin.project && there.target == pin.target);
        if let Some(there) = there {
            return Ok(there);
        }
        if self.pins()?.len() >= bounds::PINS {
            return Err(PinError::TooMany);
        }
        if let Target::Build(id) = &pin.target {
            let record = self.get(id)?;
            let project = record.map(|record| record.submission.project.clone());
            if project.as_ref() != Some(&pin.project) {
                return Err(PinError::NoBuild);
            }
            if self.released(id)?.is_some() {
                return Err(PinError::Released);
            }
        }
        let sql = "INSERT INTO pins (project, kind, name, reason, created_by, created)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING number";
        let values = params![
            pin.project.as_str(),
            kind,
            name,
            pin.reason,
            pin.created_by,
            integer(pin.created.as_millis())
        ];
        let number = self
            .connection
            .query_row(sql, values, |row| row.get::<_, i64>(0));
        let number = number.map_err(database)?;
        Ok(Pin {
            number: u64::try_from(number).unwrap_or(0),
            ..pin.clone()
        })
    }

    /// Removes a pin; gives it if there was one.
    pub(super) fn unpin(&mut self, number: u64) -> Result<Option<Pin>, QueueError> {
        let there = self.pins()?.into_iter().find(|pin| pin.number == number);
        let sql = "DELETE FROM pins WHERE number = ?1";
        let removed = self.connection.execute(sql, params![integer(number)]);
        removed.map_err(database)?;
        Ok(there)
    }

    /// All pins, in the order of their making.
    pub(super) fn pins(&mut self) -> Result<Vec<Pin>, QueueError> {
        let sql = "SELECT number, project, kind, name, reason, created_by, created FROM pins ORDER BY number";
        let mut statement = self.connection.prepare_cached(sql).map_err(database)?;
        let rows = statement.query_map(params![], raw).map_err(database)?;
        rows.map(|row| row.map_err(database).and_then(RawPin::parse))
            .collect()
    }
}

/// What stays of the evidence of a build that is given up: what others check its artifacts by, wherever these are.
fn lasting(evidence: &Evidence) -> impl Iterator<Item = Digest> {
    let bundle = evidence.bundle.as_ref().map(|bundle| bundle.object);
    let sometimes = [evidence.receipt, evidence.receipt_bundle, bundle]
        .into_iter()
        .flatten();
    [evidence.spec, evidence.plan, evidence.audit_trail]
        .into_iter()
        .chain(sometimes)
        .map(|object| object.digest)
}

struct RawPin {
    number: i64,
    project: String,
    kind: String,
    name: String,
    reason: String,
    created_by: String,
    created: i64,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawPin> {
    Ok(RawPin {
        number: row.get(0)?,
        project: row.get(1)?,
        kind: row.get(2)?,
        name: row.get(3)?,
        reason: row.get(4)?,
        created_by: row.get(5)?,
        created: row.get(6)?,
    })
}

impl RawPin {
    fn parse(self) -> Result<Pin, QueueError> {
        let damaged = |what: String| QueueError::Damaged {
            id: format!("pins/{}", self.number),
            what,
        };
        let project = ProjectId::new(self.project).map_err(|e| damaged(e.to_string()))?;
        let target = Target::parse(&self.kind, &self.name).map_err(damaged)?;
        Ok(Pin {
            number: u64::try_from(self.number).unwrap_or(0),
            project,
            target,
            reason: self.reason,
            created_by: self.created_by,
            created: Timestamp::from_millis(u64::try_from(self.created).unwrap_or(0)),
        })
    }
}
