use belljar_core::{Invalid, Limits, PartialLimits};

use crate::numbers::{signed, unsigned};
use crate::v1;

impl TryFrom<v1::Limits> for Limits {
    type Error = Invalid;

    fn try_from(limits: v1::Limits) -> Result<Self, Invalid> {
        // Destructured, so that a new field cannot be forgotten here.
        let v1::Limits {
            wall_seconds,
            cpu_millis,
            memory_bytes,
            pids,
            scratch_bytes,
            scratch_inodes,
            log_bytes,
            output_bytes,
            output_entries,
            cpu_seconds,
            grace_seconds,
        } = limits;
        let figure = |field, asked: Option<i64>| {
            asked
                .map(|figure| unsigned::<u64>(field, figure))
                .transpose()
        };
        let asked = PartialLimits {
            wall_seconds: figure("wall_seconds", wall_seconds)?,
            cpu_millis: figure("cpu_millis", cpu_millis)?,
            cpu_seconds: figure("cpu_seconds", cpu_seconds)?,
            memory_bytes: figure("memory_bytes", memory_bytes)?,
            pids: figure("pids", pids)?,
            scratch_bytes: figure("scratch_bytes", scratch_bytes)?,
            scratch_inodes: figure("scratch_inodes", scratch_inodes)?,
            log_bytes: figure("log_bytes", log_bytes)?,
            output_bytes: figure("output_bytes", output_bytes)?,
            output_entries: figure("output_entries", output_entries)?,
            grace_seconds: figure("grace_seconds", grace_seconds)?,
        };
        asked.over(&Self::DEFAULT)
    }
}

impl From<&Limits> for v1::Limits {
    fn from(limits: &Limits) -> Self {
        let figures = limits.get();
        Self {
            wall_seconds: Some(signed(figures.wall_seconds)),
            cpu_millis: Some(signed(figures.cpu_millis)),
            memory_bytes: Some(signed(figures.memory_bytes)),
            pids: Some(signed(figures.pids)),
            scratch_bytes: Some(signed(figures.scratch_bytes)),
            scratch_inodes: Some(signed(figures.scratch_inodes)),
            log_bytes: Some(signed(figures.log_bytes)),
            output_bytes: Some(signed(figures.output_bytes)),
            output_entries: Some(signed(figures.output_entries)),
            cpu_seconds: Some(signed(figures.cpu_seconds)),
            grace_seconds: Some(signed(figures.grace_seconds)),
        }
    }
}

/// What was asked for, completed by an operator's defaults.
pub fn with_defaults(asked: Option<v1::Limits>, defaults: &Limits) -> v1::Limits {
    let (asked, default) = (asked.unwrap_or_default(), v1::Limits::from(defaults));
    v1::Limits {
        wall_seconds: asked.wall_seconds.or(default.wall_seconds),
        cpu_millis: asked.cpu_millis.or(default.cpu_millis),
        memory_bytes: asked.memory_bytes.or(default.memory_bytes),
        pids: asked.pids.or(default.pids),
        scratch_bytes: asked.scratch_bytes.or(default.scratch_bytes),
        scratch_inodes: asked.scratch_inodes.or(default.scratch_inodes),
        log_bytes: asked.log_bytes.or(default.log_bytes),
        output_bytes: asked.output_bytes.or(default.output_bytes),
        output_entries: asked.output_entries.or(default.output_entries),
        cpu_seconds: asked.cpu_seconds.or(default.cpu_seconds),
        grace_seconds: asked.grace_seconds.or(default.grace_seconds),
    }
}
