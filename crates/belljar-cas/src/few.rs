use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use belljar_core::bounds;

/// Counts what is put aside because the disk does not give it. A disk that gives nothing any more has not damaged all that
/// is on it: what is more than [`bounds::UNREAD_FILES`] stays where it is.
#[derive(Debug, Default)]
pub(crate) struct Few(Mutex<Option<Count>>);

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    files: usize,
}

/// For how long they count.
const SPAN: Duration = Duration::from_secs(bounds::UNREAD_SECONDS);

impl Few {
    /// Counts one more.
    ///
    /// # Errors
    /// When there are too many of late.
    pub(crate) fn take(&self) -> io::Result<()> {
        // Every change is whole before anything can panic.
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let late = count.filter(|count| count.since.elapsed() < SPAN);
        let Count { since, files } = late.unwrap_or_else(|| Count {
            since: Instant::now(),
            files: 0,
        });
        if files >= bounds::UNREAD_FILES {
            return Err(io::Error::other(format!(
                "the disk does not give it; it stays, since {files} others were put aside for that of late. hint: look at \
                 the disk"
            )));
        }
        let files = files + 1;
        *count = Some(Count { since, files });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_few_are_put_aside() {
        let few = Few::default();
        for _ in 0..bounds::UNREAD_FILES {
            few.take().unwrap();
        }
        let error = few.take().unwrap_err();
        assert!(error.to_string().contains("look at the disk"), "{error}");
        // Not for ever.
        let long = Instant::now().checked_sub(SPAN);
        if let (Some(count), Some(long)) = (few.0.lock().unwrap().as_mut(), long) {
            count.since = long;
        }
        assert_eq!(few.take().is_ok(), long.is_some());
    }
}
