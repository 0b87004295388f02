use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use belljar_core::{AttemptId, Hasher, ObjectId, bounds};
use belljar_plan::store::Failure;

use crate::failed::Failed;

/// belljard, of the same group, reads logs while they grow.
const LOG_MODE: u32 = 0o640;

/// A log that is being read from its pipe, by a thread of its own. The thread ends when no process has
/// the pipe open for writing any more, which is at the latest when the build's sandbox is gone.
#[derive(Debug)]
pub(crate) struct OpenLog(JoinHandle<io::Result<KeptLog>>);

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
    /// Called once, when there is more.
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
        E: FnOnce() + Send + 'static,
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
        let work = Work {
            pipe,
            file,
            directory: sink.directory,
            limit: sink.limit,
            hasher: Hasher::new(),
            kept: 0,
            failure: None,
        };
        let (exceeded, held) = (sink.exceeded, sink.held);
        let thread = std::thread::Builder::new().name(format!("log-{attempt}"));
        let body = move || {
            let _held = held;
            work.run(exceeded)
        };
        match thread.spawn(body) {
            Ok(handle) => Ok(Self(handle)),
            Err(error) => {
                // An empty log would be in the way of trying again. The first error is the one to tell.
                let _ = std::fs::remove_file(&path);
                Err(Failed::internal("starting a thread for the log", &error))
            }
        }
    }

    /// Waits for the end of the pipe; the log is durable then.
    pub(crate) fn finish(self) -> Result<KeptLog, Failed> {
        match self.0.join() {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => Err(failed("keeping the log", &error)),
            Err(_) => Err(Failed {
                class: Failure::Internal,
                why: "the thread that read the log has panicked".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
impl OpenLog {
    /// Reads `pipe` into a file that is there already.
    pub(crate) fn start_into(pipe: OwnedFd, file: File, directory: &Path) -> Self {
        let work = Work {
            pipe: File::from(pipe),
            file,
            directory: directory.to_owned(),
            limit: u64::MAX,
            hasher: Hasher::new(),
            kept: 0,
            failure: None,
        };
        Self(std::thread::spawn(move || work.run(|| ())))
    }
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
    file: File,
    directory: PathBuf,
    limit: u64,
    hasher: Hasher,
    kept: u64,
    failure: Option<io::Error>,
}

impl Work {
    fn run(mut self, exceeded: impl FnOnce()) -> io::Result<KeptLog> {
        let mut exceeded = Some(exceeded);
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            let count = match self.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX);
            self.keep(&buffer[..count.min(room)]);
            if count > room
                && let Some(exceeded) = exceeded.take()
            {
                exceeded();
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
