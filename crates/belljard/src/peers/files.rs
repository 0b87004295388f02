use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belljar_core::{AttemptId, BuildId};
use belljar_engine::ports::Trouble;
use belljar_sys::durable::{open_directory, open_regular};
use tokio::task::spawn_blocking;

use crate::tasks::finished;

/// Reads a whole file that another process left in `directory`, of at most `limit` bytes.
pub(super) async fn read(directory: &Path, name: String, limit: usize) -> Result<Vec<u8>, Trouble> {
    let directory = directory.to_owned();
    let read = spawn_blocking(move || {
        let shown = directory.join(&name);
        let trouble = |what: &str| Trouble(format!("{}: {what}", shown.display()));
        let read = || {
            let file = open_regular(open_directory(&directory)?, &name)?;
            let mut bytes = Vec::new();
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        let bytes = read().map_err(|e| trouble(&e.to_string()))?;
        match bytes.len() > limit {
            true => Err(trouble(&format!("more than {limit} bytes"))),
            false => Ok(bytes),
        }
    });
    let read = finished(read).await;
    read.unwrap_or_else(|error| Err(Trouble(error.to_string())))
}

/// The logs of attempts, as the store writes them.
#[derive(Clone, Debug)]
pub(crate) struct Logs(Arc<PathBuf>);

/// One attempt's log or what is known of its steps, or one build's audit trail, which may still grow.
#[derive(Clone, Debug)]
pub(crate) struct LogFile(Arc<File>);

/// The audit trails of builds, as the engine writes them.
#[derive(Clone, Debug)]
pub(crate) struct Trails(Arc<PathBuf>);

impl Logs {
    /// Those below the store's root.
    pub(crate) fn new(store_root: &Path) -> Self {
        Self(Arc::new(store_root.join(belljar_cas::LOGS)))
    }

    /// The log of `attempt`; none while there is none.
    pub(crate) async fn open(&self, attempt: &AttemptId) -> io::Result<Option<LogFile>> {
        open(self.0.clone(), format!("{attempt}.log")).await
    }

    /// Where in the log of `attempt` its steps begin (see `StepMark`); none while there is none.
    pub(crate) async fn marks(&self, attempt: &AttemptId) -> io::Result<Option<LogFile>> {
        open(self.0.clone(), format!("{attempt}.steps")).await
    }
}

impl Trails {
    /// Those in a directory of belljard's own.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(Arc::new(directory))
    }

    /// The trail of `build`; none while there is none.
    pub(crate) async fn open(&self, build: &BuildId) -> io::Result<Option<LogFile>> {
        open(self.0.clone(), format!("{build}.jsonl")).await
    }
}

async fn open(directory: Arc<PathBuf>, name: String) -> io::Result<Option<LogFile>> {
    let opened = spawn_blocking(
        move || match open_regular(open_directory(&directory)?, &name) {
            Ok(file) => Ok(Some(LogFile(Arc::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        },
    );
    opened.await?
}

impl LogFile {
    /// How many bytes it has now.
    pub(crate) async fn length(&self) -> io::Result<u64> {
        let file = self.0.clone();
        let length = spawn_blocking(move || Ok(file.metadata()?.len()));
        length.await?
    }

    /// At most `most` bytes from `offset`; none at the end as it is now, and however far beyond it.
    pub(crate) async fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let file = self.0.clone();
        let read = spawn_blocking(move || {
            // An offset that no file can have is an error of pread(2).
            let left = file.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; most.min(usize::try_from(left).unwrap_or(usize::MAX))];
            if bytes.is_empty() {
                return Ok(bytes);
            }
            let length = file.read_at(&mut bytes, offset)?;
            bytes.truncate(length);
            Ok(bytes)
        });
        read.await?
    }
}
