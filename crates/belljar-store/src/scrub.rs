use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use belljar_cas::Finding;
use belljar_core::Timestamp;
use belljar_plan::store::Scrub;

use self::pace::Pace;
pub(crate) use self::pace::{Clock, System};
use crate::failed::chain;
use crate::session::Store;

mod pace;

/// Reads all objects and images now and then, at a bounded rate, and puts those aside that are damaged.
pub(crate) struct Scrubber {
    state: Mutex<State>,
    wanted: Condvar,
    /// Bytes a second.
    rate: u64,
    /// How long after the end of one reading the next begins; none: only when it is asked for.
    every: Option<Duration>,
    clock: Box<dyn Clock>,
}

#[derive(Default)]
struct State {
    wanted: bool,
    told: Scrub,
}

/// Below the store's root: an empty file, written when all objects were read.
const FINISHED: &str = "scrubbed";

impl Scrubber {
    pub(crate) fn new(rate: u64, every: Option<Duration>, clock: Box<dyn Clock>) -> Self {
        Self {
            state: Mutex::default(),
            wanted: Condvar::new(),
            rate,
            every,
            clock,
        }
    }

    /// Asks for a reading, unless one is under way.
    pub(crate) fn begin(&self) -> Scrub {
        let mut state = self.lock();
        if !state.told.running {
            state.wanted = true;
            state.told = Scrub {
                running: true,
                started: Some(now()),
                finished: state.told.finished,
                ..Scrub::default()
            };
            self.wanted.notify_all();
        }
        state.told
    }

    /// How it fares.
    pub(crate) fn told(&self) -> Scrub {
        self.lock().told
    }

    /// A thread of its own that reads whenever it is asked for or due.
    pub(crate) fn start(store: Arc<Store>) -> std::io::Result<()> {
        let forever = move || loop {
            store.scrubber.wait(&store.root.join(FINISHED));
            store.scrubber.read_all(&store);
        };
        let thread = std::thread::Builder::new().name("scrub".to_owned());
        thread.spawn(forever).map(drop)
    }

    /// Waits until it is asked for, or due after what `finished` says.
    fn wait(&self, finished: &Path) {
        let idle = |state: &mut State| !state.wanted;
        let state = self.lock();
        match self.every {
            None => {
                let state = self.wanted.wait_while(state, idle);
                state.unwrap_or_else(PoisonError::into_inner).wanted = false;
            }
            Some(every) => {
                let left = every.saturating_sub(since(finished));
                let waited = self.wanted.wait_timeout_while(state, left, idle);
                let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                state.wanted = false;
                drop(state);
            }
        }
        let _under_way = self.begin();
        self.lock().wanted = false;
    }

    fn read_all(&self, store: &Store) {
        let mut pace = Pace::new(self.rate, &*self.clock);
        self.read_objects(store, &mut pace);
        self.read_images(store, &mut pace);
        if let Err(error) = std::fs::write(store.root.join(FINISHED), b"") {
            // Then it is due earlier than it need be.
            tracing::warn!(%error, "the end of reading all objects was not noted");
        }
        let mut state = self.lock();
        state.told.running = false;
        state.told.finished = Some(now());
        let Scrub {
            objects,
            bytes,
            damaged,
            unread,
            ..
        } = state.told;
        tracing::info!(objects, bytes, damaged, unread, "all objects were read");
    }

    fn read_objects(&self, store: &Store, pace: &mut Pace<'_>) {
        for prefix in 0..=u8::MAX {
            let found = match store.custody.of_prefix(prefix) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, prefix, "objects cannot be listed");
                    self.lock().told.unread += 1;
                    continue;
                }
            };
            for object in found {
                let digest = object.digest;
                // Holes cost the disk nothing.
                let mut given = usize::try_from(object.bytes).unwrap_or(usize::MAX);
                let finding = store.examine(digest, &mut |bytes| {
                    pace.read(bytes.min(given));
                    given = given.saturating_sub(bytes);
                });
                self.note(&digest, finding.map_err(|e| chain(&e)));
            }
        }
    }

    /// What a build mounts is read as well: nothing of it is looked at when it is used again.
    fn read_images(&self, store: &Store, pace: &mut Pace<'_>) {
        let names = match store.images.names() {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(%error, "images cannot be listed");
                self.lock().told.unread += 1;
                return;
            }
        };
        for name in names {
            let finding = store.examine_image(&name, &mut |bytes| pace.read(bytes));
            self.note(&name, finding.map_err(|e| chain(&e)));
        }
    }

    fn note(&self, what: &dyn Display, finding: Result<Finding, String>) {
        let mut state = self.lock();
        match finding {
            Ok(Finding::Absent) => {}
            Ok(Finding::Whole { size }) => {
                state.told.objects += 1;
                state.told.bytes += size;
            }
            Ok(Finding::Damaged { size, .. } | Finding::Unread { size, .. }) => {
                state.told.objects += 1;
                state.told.bytes += size;
                state.told.damaged += 1;
            }
            Err(error) => {
                tracing::error!(%what, error, "it cannot be read");
                state.told.unread += 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long ago that file was written. One that is not there is written now: a new store has nothing to read.
fn since(finished: &Path) -> Duration {
    let written = std::fs::metadata(finished).and_then(|status| status.modified());
    match written {
        Ok(written) => written.elapsed().unwrap_or_default(),
        Err(_) => {
            let _ = std::fs::write(finished, b"");
            Duration::ZERO
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
