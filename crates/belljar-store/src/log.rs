use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use belljar_core::{AttemptId, Hasher, ObjectId, bounds, canonical_json};
use belljar_plan::store::{Failure, StepMark};
use belljar_sys::poll::{self, Event, Interest};

use crate::failed::Failed;

/// belljard, of the same group, reads logs while they grow.
const LOG_MODE: u32 = 0o640;

/// A log that is being read from its pipe, by a thread of its own. The thread ends when no process has
/// the pipe open for writing any more, or when this is dropped.
#[derive(Debug)]
pub(crate) struct OpenLog {
    thread: JoinHandle<io::Result<KeptLog>>,
    /// Hangs up when the thread has ended.
    ended: PipeReader,
    /// The thread ends when this is dropped.
    _go_on: PipeWriter,
    /// The pipe again, to see what waits in it.
    pipe: File,
    counted: Arc<Counted>,
    limit: u64,
    /// Where the marks are written.
    marks: PathBuf,
    marked: u32,
}

/// How many bytes were read from a pipe. Reading and counting are one action to whoever holds the lock.
#[derive(Debug, Default)]
struct Counted(Mutex<u64>);

impl Counted {
    fn lock(&self) -> MutexGuard<'_, u64> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptLog {
    pub(crate) object: ObjectId,
    pub(crate) truncated: bool,
}

/// Where a log goes.
pub(crate) struct LogSink<E, H> {
    /// In which it becomes `<attempt>.log`.
    pub(crate) directory: PathBuf,
    /// Most bytes to keep.
    pub(crate) limit: u64,
    /// Called once, when there is more, with what has come by then.
    pub(crate) exceeded: E,
    /// Dropped when the thread ends.
    pub(crate) held: H,
}

impl OpenLog {
    /// Begins to read `pipe`, the log of `attempt`.
    pub(crate) fn start<E, H>(
        sink: LogSink<E, H>,
        attempt: &AttemptId,
        pipe: OwnedFd,
    ) -> Result<Self, Failed>
    where
        E: FnOnce(u64) + Send + 'static,
        H: Send + 'static,
    {
        let pipe = File::from(pipe);
        let kind = pipe
            .metadata()
            .map_err(|e| Failed::internal("looking at the log pipe", &e))?
            .file_type();
        if !kind.is_fifo() {
            return Err(Failed::refused("what came with the request is not a pipe"));
        }
        let path = sink.directory.join(format!("{attempt}.log"));
        let file = create(&path)?;
        let marks = sink.directory.join(format!("{attempt}.steps"));
        let started = Self::read(pipe, file, sink, marks);
        if started.is_err() {
            // An empty log would be in the way of trying again. The first error is the one to tell.
            let _ = std::fs::remove_file(&path);
        }
        started
    }

    /// Begins to read `pipe` into `file`.
    pub(crate) fn read<E, H>(
        pipe: File,
        file: File,
        sink: LogSink<E, H>,
        marks: PathBuf,
    ) -> Result<Self, Failed>
    where
        E: FnOnce(u64) + Send + 'static,
        H: Send + 'static,
    {
        // Of this end only: those who write wait, as they are used to.
        poll::never_wait(pipe.as_fd()).map_err(|e| Failed::internal("preparing the pipe", &e))?;
        let no_pipe = |e| Failed::internal("making a pipe", &e);
        let (ended, ending) = io::pipe().map_err(no_pipe)?;
        let (stop, go_on) = io::pipe().map_err(no_pipe)?;
        let again = pipe
            .try_clone()
            .map_err(|e| Failed::internal("making a second handle", &e))?;
        let (counted, limit) = (Arc::new(Counted::default()), sink.limit);
        let work = Work {
            pipe,
            counted: Arc::clone(&counted),
            stop,
            file,
            directory: sink.directory,
            limit: sink.limit,
            hasher: Hasher::new(),
            kept: 0,
            failure: None,
        };
        let body = move || {
            let _held = (sink.held, ending);
            work.run(sink.exceeded)
        };
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(body);
        Ok(Self {
            thread: thread.map_err(|e| Failed::internal("starting a thread for the log", &e))?,
            ended,
            _go_on: go_on,
            pipe: again,
            counted,
            limit,
            marks,
            marked: 0,
        })
    }

    /// Notes where the next step begins: behind all that is in the log or waits in the pipe by now. Whoever
    /// writes meanwhile does so before or after this moment; what a step wrote before it ended is in the
    /// pipe already. Readers of the log see the mark before any byte that comes after the answer to this.
    pub(crate) fn mark(&mut self, step: u32) -> Result<StepMark, Failed> {
        if step != self.marked || step as usize >= bounds::STEPS {
            return Err(Failed::refused(format!(
                "step {} is the next to be marked",
                self.marked
            )));
        }
        let offset = match step {
            // Before the first one nobody has written.
            0 => 0,
            _ => {
                let counted = self.counted.lock();
                let waiting = poll::readable_bytes(self.pipe.as_fd())
                    .map_err(|e| Failed::internal("looking into the log pipe", &e))?;
                (*counted + waiting).min(self.limit)
            }
        };
        let mark = StepMark { step, offset };
        let mut line = canonical_json(&mark).map_err(|e| Failed::internal("writing a mark", &e))?;
        line.push(b'\n');
        append(&self.marks, &line, step == 0).map_err(|e| failed("keeping a mark", &e))?;
        self.marked += 1;
        Ok(mark)
    }

    /// Waits for the end of the pipe; the log is durable then. None when `peer` hangs up before.
    pub(crate) fn finish(self, peer: BorrowedFd<'_>) -> Option<Result<KeptLog, Failed>> {
        let interests = [
            Interest {
                descriptor: self.ended.as_fd(),
                event: Event::Readable,
            },
            Interest {
                descriptor: peer,
                // Nothing of this kind ever comes over such a socket: only its hanging up counts.
                event: Event::Priority,
            },
        ];
        loop {
            match poll::wait(&interests, None).as_deref() {
                Ok([true, _]) => break,
                Ok([_, true]) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(Failed::internal("waiting for the log", error))),
            }
        }
        Some(match self.thread.join() {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => Err(failed("keeping the log", &error)),
            Err(_) => Err(Failed {
                class: Failure::Internal,
                why: "the thread that read the log has panicked".to_owned(),
            }),
        })
    }
}

fn append(path: &Path, line: &[u8], first: bool) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(first)
        .mode(LOG_MODE)
        .open(path)?;
    if first {
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(LOG_MODE))?;
    }
    file.write_all(line)
}

fn create(path: &Path) -> Result<File, Failed> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(LOG_MODE)
        .open(path)
    {
        // Whatever the umask is.
        Ok(file) => match file.set_permissions(Permissions::from_mode(LOG_MODE)) {
            Ok(()) => Ok(file),
            Err(error) => Err(failed("making the log", &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failed::refused("this attempt has a log already"))
        }
        Err(error) => Err(failed("making the log", &error)),
    }
}

fn failed(doing: &str, error: &io::Error) -> Failed {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let class = if full {
        Failure::Full
    } else {
        Failure::Internal
    };
    Failed {
        class,
        ..Failed::internal(doing, error)
    }
}

struct Work {
    pipe: File,
    counted: Arc<Counted>,
    stop: PipeReader,
    file: File,
    directory: PathBuf,
    limit: u64,
    hasher: Hasher,
    kept: u64,
    failure: Option<io::Error>,
}

impl Work {
    fn run(mut self, exceeded: impl FnOnce(u64)) -> io::Result<KeptLog> {
        let mut exceeded = Some(exceeded);
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            if !self.wait()? {
                return Err(io::Error::other("nobody wants the log any more"));
            }
            let count = match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), Interrupted | WouldBlock) => continue,
                Err(error) => return Err(error),
            };
            let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX);
            self.keep(&buffer[..count.min(room)]);
            if count > room
                && let Some(exceeded) = exceeded.take()
            {
                exceeded(*self.counted.lock());
            }
        }
        match self.failure {
            Some(error) => Err(error),
            None => {
                self.file.sync_all()?;
                File::open(&self.directory)?.sync_all()?;
                Ok(KeptLog {
                    object: ObjectId {
                        digest: self.hasher.finish(),
                        size: self.kept,
                    },
                    truncated: exceeded.is_none(),
                })
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut counted = self.counted.lock();
        // Nobody else reads, so what was seen to be there still is. Before Linux 6.15 that can be nothing: a write that
        // could not take anything from its writer leaves a place without bytes. The pipe does not wait then.
        let count = self.pipe.read(buffer)?;
        *counted += count as u64;
        Ok(count)
    }

    /// Waits for something to read; false when nobody wants it.
    fn wait(&self) -> io::Result<bool> {
        let readable = |descriptor| Interest {
            descriptor,
            event: Event::Readable,
        };
        let interests = [readable(self.pipe.as_fd()), readable(self.stop.as_fd())];
        loop {
            match *poll::wait(&interests, None)? {
                [_, true] => return Ok(false),
                [true, _] => return Ok(true),
                _ => {}
            }
        }
    }

    /// After a failure nothing more is kept, but the pipe is still read: a full disk must not look to the
    /// build like a reader that hangs.
    fn keep(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.hasher.update(bytes);
                self.kept += bytes.len() as u64;
            }
            Err(error) => self.failure = Some(error),
        }
    }
}
