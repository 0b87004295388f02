use std::collections::BTreeMap;

use belljar_core::{Invalid, ProjectId, bounds};
use belljar_engine::garbage::{Keeping, Retention};
use serde::Deserialize;

/// `[store]`: what is kept, and when the rest goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    /// How long an object stays that nothing leads to, in seconds after its project was told that it is there:
    /// at least 1.
    lease_seconds: u64,
    /// When so many percent of the store's file system are used, what nobody needs is removed.
    high_percent: u8,
    /// Until no more than so many percent are used.
    low_percent: u8,
    /// How often it is looked, in seconds: 1 to 86,400.
    every_seconds: u64,
    /// How long builds are kept with what they left.
    retention: Written,
    /// The same for single projects, by their names.
    project: BTreeMap<String, Written>,
}

/// How long builds are kept. What is left out has no limit; none may be 0.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Most builds of a project.
    builds: Option<u64>,
    /// Longest time after the end, in seconds.
    seconds: Option<u64>,
    /// Most bytes of a project's artifacts and logs.
    bytes: Option<u64>,
}

/// `[store]`, looked at.
#[derive(Clone, Debug)]
pub(crate) struct StoreKeeping {
    pub(crate) keeping: Keeping,
    pub(crate) high_percent: u8,
    pub(crate) low_percent: u8,
    pub(crate) every_seconds: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            lease_seconds: bounds::LEASE_SECONDS,
            high_percent: 85,
            low_percent: 70,
            every_seconds: 60,
            retention: Written {
                seconds: Some(bounds::RETENTION_SECONDS),
                ..Written::default()
            },
            project: BTreeMap::new(),
        }
    }
}

impl Store {
    pub(super) fn keeping(self) -> Result<StoreKeeping, Invalid> {
        if !(1..=100).contains(&self.high_percent) {
            let why = format!("{} is not between 1 and 100", self.high_percent);
            return Err(Invalid::field("high_percent", why));
        }
        if self.low_percent > self.high_percent {
            let why = format!("{} is more than high_percent", self.low_percent);
            return Err(Invalid::field("low_percent", why));
        }
        if self.lease_seconds == 0 {
            let why = "must not be 0: who is told that something is there needs time to name it";
            return Err(Invalid::field("lease_seconds", why));
        }
        if !(1..=86_400).contains(&self.every_seconds) {
            let why = format!("{} is not between 1 and 86400", self.every_seconds);
            return Err(Invalid::field("every_seconds", why));
        }
        let named = |(name, written): (String, Written)| {
            let field = format!("project.{name}");
            let project = ProjectId::new(name).map_err(|e| e.within("project"))?;
            Ok((project, written.retention().map_err(|e| e.within(field))?))
        };
        let projects = self.project.into_iter().map(named);
        let retention = self.retention.retention();
        Ok(StoreKeeping {
            keeping: Keeping {
                retention: retention.map_err(|e| e.within("retention"))?,
                projects: projects.collect::<Result<_, Invalid>>()?,
                lease: self.lease_seconds,
            },
            high_percent: self.high_percent,
            low_percent: self.low_percent,
            every_seconds: self.every_seconds,
        })
    }
}

impl Written {
    fn retention(self) -> Result<Retention, Invalid> {
        for (field, most) in [
            ("builds", self.builds),
            ("seconds", self.seconds),
            ("bytes", self.bytes),
        ] {
            if most == Some(0) {
                let why = "must not be 0; what is left out has no limit";
                return Err(Invalid::field(field, why));
            }
        }
        Ok(Retention {
            builds: self.builds,
            seconds: self.seconds,
            bytes: self.bytes,
        })
    }
}
