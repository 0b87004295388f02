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
    /// CPU time of all processes together, in seconds.
    pub cpu_seconds: u64,
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
    /// How long processes may go on after SIGTERM, when the wall-clock limit was reached or somebody has
    /// cancelled; then they are killed. In seconds.
    pub grace_seconds: u64,
}

/// Some of the figures: what one level of the configuration or a manifest says, to be completed by the
/// next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartialLimits {
    /// See [`Unchecked::wall_seconds`].
    pub wall_seconds: Option<u64>,
    /// See [`Unchecked::cpu_millis`].
    pub cpu_millis: Option<u64>,
    /// See [`Unchecked::cpu_seconds`].
    pub cpu_seconds: Option<u64>,
    /// See [`Unchecked::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// See [`Unchecked::pids`].
    pub pids: Option<u64>,
    /// See [`Unchecked::scratch_bytes`].
    pub scratch_bytes: Option<u64>,
    /// See [`Unchecked::scratch_inodes`].
    pub scratch_inodes: Option<u64>,
    /// See [`Unchecked::log_bytes`].
    pub log_bytes: Option<u64>,
    /// See [`Unchecked::output_bytes`].
    pub output_bytes: Option<u64>,
    /// See [`Unchecked::output_entries`].
    pub output_entries: Option<u64>,
    /// See [`Unchecked::grace_seconds`].
    pub grace_seconds: Option<u64>,
}

impl Limits {
    /// What a specification gets that asks for nothing.
    pub const DEFAULT: Self = Self(Unchecked {
        wall_seconds: 3600,
        cpu_millis: 2000,
        cpu_seconds: 24 * 3600,
        memory_bytes: 4 << 30,
        pids: 1024,
        scratch_bytes: 4 << 30,
        scratch_inodes: 1_000_000,
        log_bytes: 64 << 20,
        output_bytes: 4 << 30,
        output_entries: 10_000,
        grace_seconds: 10,
    });

    /// The most that any specification may ask for, whatever the operator allows.
    pub const CEILING: Self = Self(Unchecked {
        wall_seconds: 24 * 3600,
        cpu_millis: 256_000,
        cpu_seconds: 256 * 24 * 3600,
        memory_bytes: 1 << 40,
        pids: 65_536,
        scratch_bytes: 1 << 40,
        scratch_inodes: 100_000_000,
        log_bytes: 1 << 30,
        output_bytes: 64 << 30,
        output_entries: 10_000,
        grace_seconds: 300,
    });

    /// The least that a sandbox can be made with and a shell can run in: less would fail for no fault of the host.
    pub const FLOOR: Self = Self(Unchecked {
        wall_seconds: 1,
        // A quota of one millisecond in each tenth of a second, the kernel's least.
        cpu_millis: 10,
        cpu_seconds: 1,
        memory_bytes: 8 << 20,
        pids: 4,
        scratch_bytes: 64 << 10,
        // The directories that a sandbox has before its build has any.
        scratch_inodes: 16,
        log_bytes: 1,
        output_bytes: 1,
        output_entries: 1,
        grace_seconds: 1,
    });

    /// Takes `figures` if each lies between the floor and the ceiling.
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

    /// These limits, if each lies between the floor and its entry in `ceiling`.
    ///
    /// # Errors
    /// Names the first figure that does not, with both numbers.
    pub fn within(self, ceiling: &Self) -> Result<Self, Invalid> {
        let bounds = Self::FLOOR.0.named().into_iter().zip(ceiling.0.named());
        for ((name, asked), ((_, least), (_, most))) in self.0.named().into_iter().zip(bounds) {
            let why = match asked {
                0 => "zero is not a limit; leave it out for the default".to_owned(),
                _ if asked > most => format!("{asked} is beyond the cap of {most}"),
                _ if asked < least => {
                    format!("{asked} is too little for any build; at least {least}")
                }
                _ => continue,
            };
            return Err(Invalid::field(name, why));
        }
        Ok(self)
    }

    /// These limits, each lowered to its entry in `ceiling`.
    #[must_use]
    pub fn lowered_to(&self, ceiling: &Self) -> Self {
        let (own, most) = (&self.0, &ceiling.0);
        Self(Unchecked {
            wall_seconds: own.wall_seconds.min(most.wall_seconds),
            cpu_millis: own.cpu_millis.min(most.cpu_millis),
            cpu_seconds: own.cpu_seconds.min(most.cpu_seconds),
            memory_bytes: own.memory_bytes.min(most.memory_bytes),
            pids: own.pids.min(most.pids),
            scratch_bytes: own.scratch_bytes.min(most.scratch_bytes),
            scratch_inodes: own.scratch_inodes.min(most.scratch_inodes),
            log_bytes: own.log_bytes.min(most.log_bytes),
            output_bytes: own.output_bytes.min(most.output_bytes),
            output_entries: own.output_entries.min(most.output_entries),
            grace_seconds: own.grace_seconds.min(most.grace_seconds),
        })
    }
}

impl PartialLimits {
    /// The figures that are there, and those of `base` for the rest.
    ///
    /// # Errors
    /// As [`Limits::new`].
    pub fn over(&self, base: &Limits) -> Result<Limits, Invalid> {
        let base = base.get();
        Limits::new(Unchecked {
            wall_seconds: self.wall_seconds.unwrap_or(base.wall_seconds),
            cpu_millis: self.cpu_millis.unwrap_or(base.cpu_millis),
            cpu_seconds: self.cpu_seconds.unwrap_or(base.cpu_seconds),
            memory_bytes: self.memory_bytes.unwrap_or(base.memory_bytes),
            pids: self.pids.unwrap_or(base.pids),
            scratch_bytes: self.scratch_bytes.unwrap_or(base.scratch_bytes),
            scratch_inodes: self.scratch_inodes.unwrap_or(base.scratch_inodes),
            log_bytes: self.log_bytes.unwrap_or(base.log_bytes),
            output_bytes: self.output_bytes.unwrap_or(base.output_bytes),
            output_entries: self.output_entries.unwrap_or(base.output_entries),
            grace_seconds: self.grace_seconds.unwrap_or(base.grace_seconds),
        })
    }

    /// The figure called `name`.
    pub fn figure(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "wall_seconds" => &mut self.wall_seconds,
            "cpu_millis" => &mut self.cpu_millis,
            "cpu_seconds" => &mut self.cpu_seconds,
            "memory_bytes" => &mut self.memory_bytes,
            "pids" => &mut self.pids,
            "scratch_bytes" => &mut self.scratch_bytes,
            "scratch_inodes" => &mut self.scratch_inodes,
            "log_bytes" => &mut self.log_bytes,
            "output_bytes" => &mut self.output_bytes,
            "output_entries" => &mut self.output_entries,
            "grace_seconds" => &mut self.grace_seconds,
            _ => return None,
        })
    }
}

impl Unchecked {
    /// Every figure with its field name, in order of declaration.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("wall_seconds", self.wall_seconds),
            ("cpu_millis", self.cpu_millis),
            ("cpu_seconds", self.cpu_seconds),
            ("memory_bytes", self.memory_bytes),
            ("pids", self.pids),
            ("scratch_bytes", self.scratch_bytes),
            ("scratch_inodes", self.scratch_inodes),
            ("log_bytes", self.log_bytes),
            ("output_bytes", self.output_bytes),
            ("output_entries", self.output_entries),
            ("grace_seconds", self.grace_seconds),
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
    fn too_little_and_beyond_the_cap_are_refused_by_name() {
        let with = |change: fn(&mut Unchecked)| {
            let mut figures = *Limits::DEFAULT.get();
            change(&mut figures);
            Limits::new(figures).map_err(|e| e.field)
        };
        assert_eq!(with(|_| ()), Ok(Limits::DEFAULT));
        assert_eq!(with(|f| f.pids = 0), Err("pids".into()));
        assert_eq!(
            with(|f| f.scratch_inodes = 15),
            Err("scratch_inodes".into())
        );
        assert_eq!(
            with(|f| f.scratch_inodes = 16)
                .unwrap()
                .get()
                .scratch_inodes,
            16
        );
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
    fn every_figure_can_be_given_by_itself() {
        for (index, (name, figure)) in Limits::DEFAULT.get().named().into_iter().enumerate() {
            let mut partial = PartialLimits::default();
            *partial.figure(name).unwrap() = Some(figure - 1);
            let named = partial.over(&Limits::DEFAULT).unwrap().get().named();
            assert_eq!(named[index], (name, figure - 1));
            let others = named.iter().zip(Limits::DEFAULT.get().named());
            assert_eq!(others.filter(|(one, other)| *one != other).count(), 1);
            *partial.figure(name).unwrap() = Some(0);
            assert_eq!(partial.over(&Limits::DEFAULT).unwrap_err().field, name);
        }
        assert_eq!(PartialLimits::default().figure("colour"), None);
    }

    #[test]
    fn a_default_is_lowered_to_the_cap() {
        let caps = PartialLimits {
            pids: Some(64),
            ..PartialLimits::default()
        };
        let caps = caps.over(&Limits::CEILING).unwrap();
        let lowered = Limits::DEFAULT.lowered_to(&caps);
        assert_eq!(lowered.get().pids, 64);
        assert_eq!(
            Limits::DEFAULT.lowered_to(&Limits::CEILING),
            Limits::DEFAULT
        );
        assert!(lowered.within(&caps).is_ok());
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
