//! `bench stage`: trees of 10,000 and 100,000 small files made ready for a build, against hard-linking and
//! copying the same objects file by file in the same run. They are linked and copied from a second place, as laid
//! out as the store's: a link changes what it is made from (its time of change), and the store would read that again.
//!
//! Belljar's side goes through the spawner's socket, from `Stage` sent to `Staged` received: the store has
//! seen the tree, and mounts, overlay and scratch space are there. *Seen before* means that the tree has an
//! image and is mounted; *new* that its objects are in the store, and nothing else of it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use belljar_core::{ObjectId, RelPath};
use belljar_tree::Leaf;

use super::processes::State;
use super::sandbox::Client;
use super::stats::{Samples, timed};
use super::{Args, Row};
use crate::shell;

/// Files in one directory.
const WIDTH: usize = 100;
/// How often the slow contenders run, at most: by a tree's size.
const SLOW_RUNS: u16 = 10;
const SLOW_RUNS_LARGE: u16 = 3;

/// A tree whose objects are in the store.
struct Tree {
    files: Vec<(RelPath, ObjectId)>,
    root: ObjectId,
    store: Store,
}

/// Where the store's objects lie, and whose they are.
#[derive(Clone)]
struct Store {
    objects: PathBuf,
    /// The same for who links and copies.
    beside: PathBuf,
    owner: (u32, u32),
}

/// Both sizes.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    ensure!(
        !args.peers_only,
        "its contenders link and copy Belljar's own objects"
    );
    let state = State::lay_out(args.programs.as_deref())?;
    let store = Store {
        objects: state.path().join("store/objects/sha256"),
        beside: state.path().join("objects-by-file"),
        owner: state.ids("store")?,
    };
    let small = Tree::put(&store, 10_000)?;
    let large = Tree::put(&store, 100_000)?;
    // Else the first image to be made durable would wait for all of it.
    shell::run(&mut Command::new("sync"))?;
    // Dropped before the state is, in reverse order.
    let _running = state.start(&["store", "spawner"])?;
    // One client for all: each counts its attempts from the first on, and the spawner knows an attempt once.
    let mut client = Client::start(&state)?;
    let mut rows = Vec::new();
    for (tree, slow, bars) in [
        (small, SLOW_RUNS, Bars::of(1.0, Some(0.02), 0.5)),
        (large, SLOW_RUNS_LARGE, Bars::of(1.5, None, 0.25)),
    ] {
        rows.extend(contest(
            args.runs(),
            slow,
            &state,
            &mut client,
            &tree,
            &bars,
        )?);
    }
    Ok(rows)
}

/// What was promised.
struct Bars {
    seen_ms: f64,
    seen_ratio: Option<f64>,
    new_ratio: f64,
}

impl Bars {
    fn of(seen_ms: f64, seen_ratio: Option<f64>, new_ratio: f64) -> Self {
        Self {
            seen_ms,
            seen_ratio,
            new_ratio,
        }
    }
}

fn contest(
    runs: u16,
    slow: u16,
    state: &State,
    client: &mut Client,
    tree: &Tree,
    bars: &Bars,
) -> Result<Vec<Row>> {
    let place = state.path().join("store-by-file");
    let (mut seen, mut new, mut links, mut copies) = (vec![], vec![], vec![], vec![]);
    // One lap of each before the first counted one fills the caches.
    client.stage(tree.root)?;
    for lap in 0..=slow.min(runs) {
        let linked = tree.lay_out(&place, |from, to| fs::hard_link(from, to))?;
        let staged = client.stage(tree.varied(usize::from(lap))?)?;
        if lap > 0 {
            links.push(linked);
            new.push(staged);
        }
        for _ in 0..runs.div_ceil(slow.min(runs)) {
            seen.push(client.stage(tree.root)?);
        }
    }
    // A copy takes long enough to be seen by one.
    copies.push(tree.lay_out(&place, |from, to| fs::copy(from, to).map(drop))?);
    let all = [seen, new, links, copies].map(Samples::new);
    let [seen, new, links, copies] = all;
    Ok(rows(
        tree.files.len(),
        bars,
        [&seen?, &new?, &links?, &copies?],
    ))
}

fn rows(files: usize, bars: &Bars, [seen, new, links, copies]: [&Samples; 4]) -> Vec<Row> {
    let row = |metric: &str, value: f64, unit, bar: Option<f64>, how: String| Row {
        bar,
        holds: bar.map(|bar| value <= bar),
        ..Row::measured(format!("{files} files, {metric}"), value, unit, how)
    };
    let times =
        |samples: &Samples| format!("p50 of {}; Stage sent to Staged received", samples.count());
    let by_file = |samples: &Samples| format!("p50 of {}, objects in the cache", samples.count());
    let [seen_ms, new_ms, links_ms, copies_ms] =
        [seen, new, links, copies].map(|samples| samples.percentile(50));
    let of_links = || "of the hard links above".to_owned();
    vec![
        row("hard links", links_ms, "ms", None, by_file(links)),
        row("copies", copies_ms, "ms", None, by_file(copies)),
        row(
            "seen before",
            seen_ms,
            "ms",
            Some(bars.seen_ms),
            times(seen),
        ),
        row(
            "seen before, p99",
            seen.percentile(99),
            "ms",
            None,
            times(seen),
        ),
        row("new", new_ms, "ms", None, times(new)),
        row(
            "seen before / hard links",
            seen_ms / links_ms,
            "×",
            bars.seen_ratio,
            of_links(),
        ),
        row(
            "new / hard links",
            new_ms / links_ms,
            "×",
            Some(bars.new_ratio),
            of_links(),
        ),
        row(
            "new / copies",
            new_ms / copies_ms,
            "×",
            None,
            "of the copies above".to_owned(),
        ),
    ]
}

impl Tree {
    /// Puts `count` small files, all different, into the store, which must not run: by itself that would
    /// make each of them durable, which is not what is measured.
    fn put(store: &Store, count: usize) -> Result<Self> {
        let mut files = Vec::with_capacity(count);
        for number in 0..count {
            let object = store.put(format!("small file {number} of {count}\n").as_bytes())?;
            let (outer, inner) = (number / (WIDTH * WIDTH), number / WIDTH % WIDTH);
            let path = RelPath::new(format!("d{outer}/d{inner}/f{number}"))?;
            files.push((path, object));
        }
        let mut tree = Self {
            files,
            root: ObjectId::of(b""),
            store: store.clone(),
        };
        tree.root = tree.directories(None)?;
        Ok(tree)
    }

    /// The tree with one more file in it, so that nobody has seen it.
    fn varied(&self, number: usize) -> Result<ObjectId> {
        let path = RelPath::new(format!("another{number}"))?;
        self.directories(Some((path, self.files[number].1)))
    }

    fn directories(&self, more: Option<(RelPath, ObjectId)>) -> Result<ObjectId> {
        let leaf = |(path, object): (RelPath, ObjectId)| {
            let executable = false;
            (path, Leaf::File { object, executable })
        };
        let built = belljar_tree::build(self.files.iter().cloned().chain(more).map(leaf))?;
        for (_, bytes) in &built.directories {
            self.store.put(bytes)?;
        }
        Ok(built.root)
    }

    /// Makes the tree file by file below `place`, and removes it again. Only the first is timed.
    fn lay_out(
        &self,
        place: &Path,
        make: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<Duration> {
        let time = timed(|| {
            let mut last = PathBuf::new();
            for (path, object) in &self.files {
                let to = place.join(path.as_str());
                if let Some(parent) = to.parent().filter(|parent| *parent != last) {
                    fs::create_dir_all(parent)?;
                    parent.clone_into(&mut last);
                }
                make(&path_in(&self.store.beside, *object), &to)
                    .with_context(|| format!("making {}", to.display()))?;
            }
            Ok(())
        })?;
        fs::remove_dir_all(place).context("removing what was made")?;
        Ok(time)
    }
}

fn path_in(objects: &Path, object: ObjectId) -> PathBuf {
    let hex = object.digest.to_hex();
    objects.join(&hex[..2]).join(&hex[2..])
}

impl Store {
    /// An object as the store itself leaves it, but not durable; and beside it for its peers.
    fn put(&self, content: &[u8]) -> Result<ObjectId> {
        let object = ObjectId::of(content);
        for objects in [&self.objects, &self.beside] {
            let path = path_in(objects, object);
            if path.exists() {
                continue;
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, content)?;
            chown(&path, Some(self.owner.0), Some(self.owner.1))?;
            let verified = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let file = fs::File::options().write(true).open(&path)?;
            file.set_modified(verified)?;
            file.set_permissions(fs::Permissions::from_mode(0o440))?;
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_held_against_their_bars() {
        let samples = |millis: u64| Samples::new(vec![Duration::from_millis(millis)]).unwrap();
        let (seen, new, links, copies) = (samples(2), samples(30), samples(100), samples(1000));
        let bars = Bars::of(1.0, Some(0.02), 0.5);
        let rows = rows(10, &bars, [&seen, &new, &links, &copies]);
        let held: Vec<_> = rows.iter().map(|row| (row.value, row.holds)).collect();
        assert_eq!(
            held,
            [
                (100.0, None),
                (1000.0, None),
                (2.0, Some(false)),
                (2.0, None),
                (30.0, None),
                (0.02, Some(true)),
                (0.3, Some(true)),
                (0.03, None),
            ]
        );
    }
}
