use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use belljar_core::ObjectId;

use crate::failure::is_unreadable;
use crate::{BlobSource, HeldObject, ReadError};

/// Who is told of an object. It may be told of the same one many times, and must not keep who reads waiting.
type Report = Arc<dyn Fn(ObjectId) + Send + Sync>;

/// Reads from another source, and reports each object that turns out damaged when it is read, or that the disk does not
/// give: so that whoever owns the objects can put it aside.
pub struct Reporting<S> {
    inner: S,
    report: Report,
}

struct ReportingRead {
    inner: Box<dyn Read + Send>,
    object: ObjectId,
    report: Report,
}

impl<S> Reporting<S> {
    /// Reads from `inner`.
    pub fn new(inner: S, report: impl Fn(ObjectId) + Send + Sync + 'static) -> Self {
        let report = Arc::new(report);
        Self { inner, report }
    }

    fn noted<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        match &read {
            Err(ReadError::Size { object, .. }) => (self.report)(*object),
            Err(ReadError::Io { object, source }) if is_unreadable(source) => {
                (self.report)(*object);
            }
            _ => {}
        }
        read
    }
}

impl<S: BlobSource> BlobSource for Reporting<S> {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        self.noted(self.inner.read(object))
    }

    fn read_verified(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        let inner = self.noted(self.inner.read_verified(object))?;
        let report = Arc::clone(&self.report);
        Ok(Box::new(ReportingRead {
            inner,
            object,
            report,
        }))
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        self.inner.contains(object)
    }

    fn verify(&self, object: ObjectId) -> Result<bool, ReadError> {
        let whole = self.noted(self.inner.verify(object));
        if matches!(whole, Ok(false)) {
            (self.report)(object);
        }
        whole
    }

    fn are_whole(&self, objects: &[ObjectId]) -> bool {
        self.inner.are_whole(objects)
    }

    fn hold(&self, objects: &[ObjectId]) -> Option<Vec<HeldObject>> {
        self.inner.hold(objects)
    }

    fn are_as_held(&self, held: &[HeldObject]) -> bool {
        self.inner.are_as_held(held)
    }
}

impl Read for ReportingRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        if let Err(error) = &read
            && (error.kind() == io::ErrorKind::InvalidData || is_unreadable(error))
        {
            (self.report)(self.object);
        }
        read
    }
}

impl<S> fmt::Debug for Reporting<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reporting").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What it gives for every object.
    enum Gives {
        Content(&'static [u8]),
        Error(i32),
        Size,
        Nothing,
    }

    impl Read for Gives {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self {
                Self::Content(content) => content.read(buffer),
                Self::Error(code) => Err(io::Error::from_raw_os_error(*code)),
                Self::Size | Self::Nothing => Ok(0),
            }
        }
    }

    struct Source(Gives);

    impl BlobSource for Source {
        fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
            match self.0 {
                Gives::Content(content) => Ok(Box::new(Gives::Content(content))),
                Gives::Error(code) => Ok(Box::new(Gives::Error(code))),
                Gives::Size => Err(ReadError::Size { object, found: 1 }),
                Gives::Nothing => Err(ReadError::Missing(object)),
            }
        }

        fn contains(&self, _: ObjectId) -> Result<bool, ReadError> {
            Ok(true)
        }
    }

    /// How many times the object was reported, and what came of reading it.
    fn reported(gives: Gives) -> (usize, bool) {
        let object = ObjectId::of(b"content");
        let told = Arc::new(Mutex::new(Vec::new()));
        let source = Reporting::new(Source(gives), {
            let told = told.clone();
            move |object| told.lock().unwrap().push(object)
        });
        let mut content = Vec::new();
        let read = source.read_verified(object).is_ok_and(|mut reader| {
            let read = reader.read_to_end(&mut content);
            read.is_ok() && content == b"content"
        });
        let told = told.lock().unwrap();
        assert!(told.iter().all(|told| *told == object));
        (told.len(), read)
    }

    #[test]
    fn what_is_damaged_or_not_given_is_reported_and_nothing_else() {
        const EIO: i32 = 5;
        const EMFILE: i32 = 24;
        assert_eq!(reported(Gives::Content(b"content")), (0, true));
        assert_eq!(reported(Gives::Content(b"contend")), (1, false));
        assert_eq!(reported(Gives::Content(b"conten")), (1, false));
        assert_eq!(reported(Gives::Error(EIO)), (1, false));
        assert_eq!(reported(Gives::Size), (1, false));
        assert_eq!(reported(Gives::Nothing), (0, false));
        assert_eq!(reported(Gives::Error(EMFILE)), (0, false));
    }
}
