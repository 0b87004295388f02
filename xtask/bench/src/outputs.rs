//! `bench outputs`: what a build has left, on its way into the store, against one thread that does the same with files:
//! reads, hashes both ways, writes, and makes durable.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use belljar_core::{BuildSpec, Hasher, ObjectId, Outputs, RelPath, Script, Sha512Hasher, Steps};
use belljar_wire::BuildState;
use tempfile::TempDir;

use super::builds::{Client, event_loop, spec};
use super::memory::MIB;
use super::processes::State;
use super::stats::{Samples, timed};
use super::{Args, Row};
use xtask::shell;

/// Rounds of everything: each writes some GiB.
const ROUNDS: u16 = 3;
/// Many files: nearly as many as a build may leave.
const MANY: usize = 9_000;
/// Bytes of each.
const MANY_BYTES: usize = 100_000;
/// Bytes of the large one.
const LARGE_BYTES: usize = 1 << 30;
/// Files that are held in memory, as a build's are.
const MEMORY: &str = "/dev/shm";
/// What one read(2) asks for.
const PIECE: usize = 64 * 1024;

/// What builds leave: so many files of so many bytes.
#[derive(Clone, Copy)]
struct Left {
    files: usize,
    bytes: usize,
    /// Nothing but holes.
    sparse: bool,
}

const CASES: [Left; 3] = [
    Left {
        files: MANY,
        bytes: MANY_BYTES,
        sparse: false,
    },
    Left {
        files: 1,
        bytes: LARGE_BYTES,
        sparse: false,
    },
    Left {
        files: 1,
        bytes: LARGE_BYTES,
        sparse: true,
    },
];

/// What was seen of one case.
#[derive(Default)]
struct Seen {
    collecting: Vec<Duration>,
    alone: Vec<Duration>,
    /// Bytes on the store's disk for one build.
    occupied: u64,
}

/// Build and copy, in turns.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    if args.peers_only {
        bail!("one thread's work is measured in turns with Belljar: there is no peer alone");
    }
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is.
    let _running = state.start(&["store", "signer", "spawner", "belljard"])?;
    event_loop()?.block_on(async {
        let client = Client::connect(state.socket("belljard")).await?;
        let mut rows = Vec::new();
        for case in CASES {
            rows.extend(rows_of(case, &case.seen(&client, &state).await?)?);
        }
        Ok(rows)
    })
}

impl Left {
    async fn seen(self, client: &Client, state: &State) -> Result<Seen> {
        let from = self.files_in_memory()?;
        let objects = state.path().join("store");
        let mut seen = Seen::default();
        for round in 0..=ROUNDS {
            let before = occupied(&objects)?;
            let name = format!(
                "outputs-{}-{}-{}-{round}",
                self.files, self.bytes, self.sparse
            );
            let build = client.build(&name, &self.spec()?).await?;
            if seen.occupied == 0 {
                seen.occupied = occupied(&objects)?.saturating_sub(before);
            }
            let collecting = build.states.get(&BuildState::Collecting);
            let collecting = *collecting.context("nobody has seen it collect")?;
            let alone = timed(|| one_thread(from.path(), state.folder()))?;
            // The first lap fills the caches.
            if round > 0 {
                seen.collecting.push(collecting);
                seen.alone.push(alone);
            }
        }
        Ok(seen)
    }

    /// A build that leaves them. Its noise is the kernel's, and never seen before.
    fn spec(self) -> Result<BuildSpec> {
        let Self {
            files,
            bytes,
            sparse,
        } = self;
        let step = match (files, sparse) {
            (1, true) => format!("truncate -s {bytes} out"),
            (1, false) => format!("head -c {bytes} /dev/urandom > out"),
            _ => format!(
                "mkdir out; head -c {} /dev/urandom | split -b {bytes} -a 4 - out/",
                files * bytes
            ),
        };
        Ok(BuildSpec {
            run: Steps::new(vec![Script::new(step)?])?,
            outputs: Outputs::new(BTreeSet::from([RelPath::new("out")?]))?,
            ..spec(ObjectId::of(b""))?
        })
    }

    /// The same, for one thread without a build.
    fn files_in_memory(self) -> Result<TempDir> {
        let folder = tempfile::tempdir_in(MEMORY).context("a folder in memory")?;
        let mut noise = File::open("/dev/urandom").context("/dev/urandom")?;
        let mut content = vec![0; self.bytes];
        for number in 0..self.files {
            let mut file =
                File::create(folder.path().join(number.to_string())).context("a file")?;
            if self.sparse {
                file.set_len(self.bytes as u64).context("a sparse file")?;
            } else {
                noise.read_exact(&mut content).context("noise")?;
                file.write_all(&content).context("writing")?;
            }
        }
        Ok(folder)
    }

    fn name(self) -> String {
        match (self.files, self.sparse) {
            (1, true) => format!("a sparse file of {} MiB", self.bytes >> 20),
            (1, false) => format!("a file of {} MiB", self.bytes >> 20),
            (files, _) => format!("{files} files of {} KB", self.bytes / 1000),
        }
    }
}

/// Reads all files of a folder, hashes them both ways, writes them on a disk, and makes that durable, once, at the end.
fn one_thread(from: &Path, disk: &Path) -> Result<()> {
    let to = tempfile::tempdir_in(disk).context("a folder")?;
    let mut buffer = vec![0; PIECE];
    for entry in fs::read_dir(from).context("listing")? {
        let entry = entry.context("listing")?;
        let mut source = File::open(entry.path()).context("a file")?;
        let mut target = File::create(to.path().join(entry.file_name())).context("a file")?;
        let (mut sha256, mut sha512) = (Hasher::new(), Sha512Hasher::new());
        loop {
            let length = source.read(&mut buffer).context("reading")?;
            let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else {
                break;
            };
            sha256.update(piece);
            sha512.update(piece);
            target.write_all(piece).context("writing")?;
        }
        std::hint::black_box((sha256.finish(), sha512.finish()));
    }
    shell::read(Command::new("sync").arg("--file-system").arg(to.path())).map(drop)
}

/// Bytes that files below a folder take on the disk.
fn occupied(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.context("listing")?.path();
        let Ok(status) = path.symlink_metadata() else {
            // Gone meanwhile.
            continue;
        };
        bytes += match status.is_dir() {
            true => occupied(&path)?,
            false => status.blocks() * 512,
        };
    }
    Ok(bytes)
}

fn rows_of(case: Left, seen: &Seen) -> Result<Vec<Row>> {
    let median =
        |times: &[Duration]| Ok::<_, anyhow::Error>(Samples::new(times.to_vec())?.percentile(50));
    let (collecting, alone) = (median(&seen.collecting)?, median(&seen.alone)?);
    ensure!(alone > 0.0, "a thread took no time");
    let name = case.name();
    let how = |what: &str| format!("{what}; median of {} rounds, in turns", seen.alone.len());
    let occupied = seen.occupied as f64 / MIB;
    Ok(vec![
        Row::measured(
            format!("outputs, {name}"),
            collecting,
            "ms",
            how("from the end of the steps until all is durable and the receipt is written"),
        ),
        Row::measured(
            format!("one thread, {name}"),
            alone,
            "ms",
            how("read from memory, SHA-256 and SHA-512, written, one syncfs"),
        ),
        Row::measured(
            format!("the one / the other, {name}"),
            collecting / alone,
            "×",
            how("median / median"),
        ),
        Row::measured(
            format!("on the disk, {name}"),
            occupied,
            "MiB",
            "what the store takes more after the first build",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_was_left_and_how_the_two_compare() {
        let seen = Seen {
            collecting: [3, 1, 2].map(Duration::from_millis).to_vec(),
            alone: [4, 8, 6].map(Duration::from_millis).to_vec(),
            occupied: 3 << 20,
        };
        let rows = rows_of(CASES[0], &seen).unwrap();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.metric.as_str(), row.value))
            .collect();
        assert_eq!(
            told,
            [
                ("outputs, 9000 files of 100 KB", 2.0),
                ("one thread, 9000 files of 100 KB", 6.0),
                ("the one / the other, 9000 files of 100 KB", 2.0 / 6.0),
                ("on the disk, 9000 files of 100 KB", 3.0),
            ]
        );
    }
}
