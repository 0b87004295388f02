//! A build's log, kept byte for byte while it comes.

use std::io::SeekFrom;

use belljar_core::{Hasher, Limits, ObjectId};
use belljar_wire::v1;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// The log of the latest attempt, in a file if it is to be kept.
pub(crate) struct Log {
    file: Option<File>,
    attempt: i32,
    bytes: u64,
    hasher: Hasher,
    gap: bool,
}

/// Why a log could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file does not take it.
    #[error("cannot write the build's log")]
    Write(#[from] std::io::Error),
    /// More came than the build may write.
    #[error("the daemon sent more log than the build's limit of {0} bytes")]
    TooLong(u64),
}

impl Log {
    /// A log that is kept in `file`, which is empty.
    pub(crate) fn new(file: std::fs::File) -> Self {
        Self {
            file: Some(File::from_std(file)),
            ..Self::passing()
        }
    }

    /// A log that is shown while it comes, and not kept.
    pub(crate) fn passing() -> Self {
        Self {
            file: None,
            attempt: 0,
            bytes: 0,
            hasher: Hasher::new(),
            gap: false,
        }
    }

    /// Bytes of the latest attempt's log.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where to go on after a broken connection.
    pub(crate) fn position(&self) -> Option<v1::LogPosition> {
        (self.attempt > 0).then(|| v1::LogPosition {
            attempt: self.attempt,
            // Below the limit of a log, see `Limits::CEILING`.
            offset: i64::try_from(self.bytes).unwrap_or(i64::MAX),
        })
    }

    /// Keeps a piece. A new attempt's log takes the place of the one before. False for a piece that is here
    /// already or belongs to an earlier attempt.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn take(
        &mut self,
        chunk: &v1::LogChunk,
        limits: &Limits,
    ) -> Result<bool, Error> {
        if chunk.attempt > self.attempt {
            if let Some(file) = &mut self.file {
                file.set_len(0).await?;
                file.seek(SeekFrom::Start(0)).await?;
            }
            (self.attempt, self.bytes, self.hasher, self.gap) =
                (chunk.attempt, 0, Hasher::new(), false);
        }
        let offset = u64::try_from(chunk.offset).unwrap_or(0);
        if chunk.attempt < self.attempt || offset < self.bytes {
            return Ok(false);
        }
        self.gap |= offset > self.bytes;
        self.bytes = offset + chunk.data.len() as u64;
        let most = limits.get().log_bytes;
        if self.bytes > most {
            return Err(Error::TooLong(most));
        }
        self.hasher.update(&chunk.data);
        if let Some(file) = &mut self.file {
            file.write_all(&chunk.data).await?;
        }
        Ok(true)
    }

    /// Everything was sent: what the log is, if it is complete.
    ///
    /// # Errors
    /// When the file does not take the rest.
    pub(crate) async fn finish(mut self) -> Result<Option<ObjectId>, Error> {
        if let Some(file) = &mut self.file {
            file.flush().await?;
        }
        let object = ObjectId {
            digest: self.hasher.finish(),
            size: self.bytes,
        };
        Ok((!self.gap).then_some(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn chunk(attempt: i32, offset: i64, data: &str) -> v1::LogChunk {
        v1::LogChunk {
            attempt,
            offset,
            data: data.into(),
        }
    }

    fn after(chunks: &[v1::LogChunk]) -> (String, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut file = tempfile::tempfile().unwrap();
            let mut log = Log::new(file.try_clone().unwrap());
            for chunk in chunks {
                log.take(chunk, &Limits::DEFAULT).await.unwrap();
            }
            let object = log.finish().await.unwrap();
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            if let Some(object) = object {
                assert_eq!(object, ObjectId::of(text.as_bytes()));
            }
            (text, object.is_some())
        })
    }

    #[test]
    fn pieces_are_kept_once_and_gaps_are_noticed() {
        assert_eq!(after(&[]), (String::new(), true));
        assert_eq!(
            after(&[chunk(1, 0, "ab"), chunk(1, 2, "c")]),
            ("abc".to_owned(), true)
        );
        assert_eq!(
            after(&[chunk(1, 0, "ab"), chunk(1, 0, "ab"), chunk(1, 2, "c")]),
            ("abc".to_owned(), true)
        );
        assert_eq!(
            after(&[chunk(1, 0, "ab"), chunk(1, 5, "c")]),
            ("abc".to_owned(), false)
        );
    }

    #[test]
    fn the_last_attempt_is_what_counts() {
        let chunks = [
            chunk(1, 0, "long text"),
            chunk(2, 0, "ab"),
            chunk(1, 9, "late"),
            chunk(2, 2, "c"),
        ];
        assert_eq!(after(&chunks), ("abc".to_owned(), true));
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut figures = *Limits::DEFAULT.get();
            figures.log_bytes = 3;
            let limits = Limits::new(figures).unwrap();
            let mut log = Log::new(tempfile::tempfile().unwrap());
            assert!(log.take(&chunk(1, 0, "abc"), &limits).await.is_ok());
            assert!(matches!(
                log.take(&chunk(1, 3, "d"), &limits).await,
                Err(Error::TooLong(3))
            ));
            assert!(matches!(
                log.take(&chunk(1, i64::MAX, "d"), &limits).await,
                Err(Error::TooLong(3))
            ));
        });
    }
}
