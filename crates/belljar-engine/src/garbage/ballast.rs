use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use belljar_core::bounds;
use tokio::task::spawn_blocking;

use super::{Goal, Report, SweepError, Sweeper};
use crate::ownership::OwnershipError;
use crate::ports::{Spawner, Upkeep};
use crate::queue::QueueError;

/// Room on the disk that nobody else has: what goes is noted before, and on a disk on which nothing more fits nothing could
/// go. A file of no use, which is removed then.
#[derive(Clone, Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// A file of this name, beside the databases that are written to while garbage is collected.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Takes the room, if it is not taken. Blocks on the disk.
    ///
    /// # Errors
    /// When it is not there; nothing is taken then.
    pub fn take(&self) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|status| status.len() == bounds::BALLAST_BYTES) {
            return Ok(());
        }
        let taken = File::create(&self.0).and_then(|file| write(&file));
        if taken.is_err() {
            // The first error is the one to tell.
            let _ = self.give();
        }
        taken
    }

    /// Gives it back. Blocks on the disk.
    ///
    /// # Errors
    /// What the system says; that there is none is fine.
    pub(super) fn give(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl SweepError {
    /// Whether one of the databases could not be written for want of room.
    pub fn is_full(&self) -> bool {
        let (Self::Queue(QueueError::Database(error))
        | Self::Ownership(OwnershipError::Database(error))) = self
        else {
            return false;
        };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }
}

impl<S: Spawner, U: Upkeep> Sweeper<S, U> {
    /// Gives up what is not to be kept any more, and removes what nobody needs, as far as `goal` asks for it.
    ///
    /// # Errors
    /// See [`SweepError`].
    pub async fn sweep(&self, goal: Goal) -> Result<Report, SweepError> {
        let _one = self.one.try_lock().map_err(|_| SweepError::Busy)?;
        let swept = match self.sweep_once(goal).await {
            Err(error) if error.is_full() => {
                // On a disk on which nothing more fits nothing goes either.
                tracing::warn!(%error, "garbage is collected once more, with some room");
                self.blocking(Ballast::give).await?;
                self.sweep_once(goal).await
            }
            other => other,
        };
        if swept.is_ok()
            && let Err(error) = self.blocking(Ballast::take).await
        {
            tracing::warn!(%error, "there is no room for the ballast");
        }
        swept
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Ballast) -> io::Result<()> + Send + 'static,
    ) -> Result<(), SweepError> {
        let ballast = self.ballast.clone();
        let done = spawn_blocking(move || work(&ballast)).await;
        done.map_err(|_| SweepError::Ended)?
            .map_err(SweepError::Store)
    }
}

/// Bytes that no file system packs.
fn write(mut file: &File) -> io::Result<()> {
    let (mut left, mut state) = (bounds::BALLAST_BYTES, 1_u64);
    while left > 0 {
        let mut piece = Vec::with_capacity(bounds::CHUNK_BYTES);
        while piece.len() < bounds::CHUNK_BYTES && (piece.len() as u64) < left {
            // Knuth's linear congruential generator.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            piece.push(state.to_be_bytes()[0]);
        }
        file.write_all(&piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_once_whole_or_not_at_all_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ballast");
        let ballast = Ballast::new(&path);
        ballast.take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bounds::BALLAST_BYTES);
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        ballast.take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
        // Half of one, which somebody left.
        fs::write(&path, b"half").unwrap();
        ballast.take().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), bounds::BALLAST_BYTES);
        ballast.give().unwrap();
        ballast.give().unwrap();
        assert!(!path.exists());
        assert!(Ballast::new(&path.join("none")).take().is_err());
    }
}
