use serde::{Deserialize, Serialize};

use crate::Invalid;

/// What one attempt may use. Every figure is at least one and at most its entry in [`Limits::CEILING`];
/// what is not asked for is as in [`Limits::DEFAULT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Limits(Unchecked);

/// The figures before they were looked at; also the plain form of [`Limits`] for reading and building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unchecked {
    /// Wall-clock time of all steps together, in seconds.
    pub wall_seconds: u64,
    /// CPU bandwidth, in thousandths of one CPU.
    pub cpu_millis: u64,
    /// Memory with page cache and scratch space held in memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub pids: u64,
    /// Scratch space: everything that the build writes, in bytes.
    pub scratch_bytes: u64,
    /// Scratch space: files, directories and links that the build makes.
    pub scratch_inodes: u64,
    /// Standard output and standard error together, in bytes.
    pub log_bytes: u64,
    /// All outputs together, in bytes.
    pub output_bytes: u64,
    /// Files, directories and links in all outputs together.
    pub output_entries: u64,
}

impl Limits {
    /// What a specification gets that asks for nothing.
    pub const DEFAULT: Self = Self(Unchecked {
        wall_seconds: 3600,
        cpu_millis: 2000,
        memory_bytes: 4 << 30,
        pids: 1024,
        scratch_bytes: 4 << 30,
        scratch_inodes: 1_000_000,
        log_bytes: 64 << 20,
        output_bytes: 4 << 30,
        output_entries: 10_000,
    });

    /// The most that any specification may ask for, whatever the operator allows.
    pub const CEILING: Self = Self(Unchecked {
        wall_seconds: 24 * 3600,
        cpu_millis: 256_000,
        memory_bytes: 1 << 40,
        pids: 65_536,
        scratch_bytes: 1 << 40,
        scratch_inodes: 100_000_000,
        log_bytes: 1 << 30,
        output_bytes: 64 << 30,
        output_entries: 10_000,
    });

    /// Takes `figures` if each lies between one and the ceiling.
    ///
    /// # Errors
    /// Names the first figure that does not.
    pub fn new(figures: Unchecked) -> Result<Self, Invalid> {
        Self(figures).within(&Self::CEILING)
    }

    /// The figures.
    pub fn get(&self) -> &Unchecked {
        &self.0
    }

    /// These limits, if each lies between one and its entry in `ceiling`.
    ///
    /// # Errors
    /// Names the first figure that does not, with both numbers.
    pub fn within(self, ceiling: &Self) -> Result<Self, Invalid> {
        for ((name, asked), (_, most)) in self.0.named().into_iter().zip(ceiling.0.named()) {
            if asked == 0 {
                return Err(Invalid::field(
                    name,
                    "zero is not a limit; leave it out for the default",
                ));
            }
            if asked > most {
                return Err(Invalid::field(
                    name,
                    format!("{asked} is beyond the cap of {most}"),
                ));
            }
        }
        Ok(self)
    }
}

impl Unchecked {
    /// Every figure with its field name, in order of declaration.
    pub fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("wall_seconds", self.wall_seconds),
            ("cpu_millis", self.cpu_millis),
            ("memory_bytes", self.memory_bytes),
            ("pids", self.pids),
            ("scratch_bytes", self.scratch_bytes),
            ("scratch_inodes", self.scratch_inodes),
            ("log_bytes", self.log_bytes),
            ("output_bytes", self.output_bytes),
            ("output_entries", self.output_entries),
        ]
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<Unchecked> for Limits {
    type Error = Invalid;

    fn try_from(figures: Unchecked) -> Result<Self, Invalid> {
        Self::new(figures)
    }
}

impl From<Limits> for Unchecked {
    fn from(limits: Limits) -> Self {
        limits.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_beyond_the_cap_are_refused_by_name() {
        let with = |change: fn(&mut Unchecked)| {
            let mut figures = *Limits::DEFAULT.get();
            change(&mut figures);
            Limits::new(figures).map_err(|e| e.field)
        };
        assert_eq!(with(|_| ()), Ok(Limits::DEFAULT));
        assert_eq!(with(|f| f.pids = 0), Err("pids".into()));
        assert_eq!(
            with(|f| f.wall_seconds = 86_401),
            Err("wall_seconds".into())
        );
        assert_eq!(
            with(|f| f.output_entries = u64::MAX),
            Err("output_entries".into())
        );
    }

    #[test]
    fn every_figure_survives_json_numbers() {
        // RFC 8785 numbers are IEEE 754 doubles: integers beyond 2^53 would be rounded.
        assert!(
            Limits::CEILING
                .get()
                .named()
                .iter()
                .all(|(_, figure)| *figure < 1 << 53)
        );
    }
}
