use std::io::{self, Read};

use belljar_core::{Hasher, ObjectId};

/// Reads an object and verifies it on the way: the end is reached only if everything before it had the
/// object's digest and size. Otherwise the last read fails with `InvalidData`, so what was read must
/// not be used before the end was seen.
pub struct VerifyingRead<R> {
    inner: R,
    object: ObjectId,
    verdict: Verdict,
}

enum Verdict {
    /// None yet.
    Open {
        hasher: Hasher,
        left: u64,
    },
    Good,
    Damaged,
}

/// Tells of every piece that is read.
struct Told<'a, R> {
    inner: R,
    told: &'a mut dyn FnMut(usize),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.told)(count);
        Ok(count)
    }
}

/// Whether what is read to its end is `object`. `told` hears of every piece, and may keep the next one waiting.
pub(crate) fn is_whole(
    content: impl Read,
    object: ObjectId,
    told: &mut dyn FnMut(usize),
) -> io::Result<bool> {
    let inner = Told {
        inner: content,
        told,
    };
    match io::copy(&mut VerifyingRead::new(inner, object), &mut io::sink()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error),
    }
}

impl<R: Read> VerifyingRead<R> {
    /// Reads from `inner` what should be `object`.
    pub fn new(inner: R, object: ObjectId) -> Self {
        Self {
            inner,
            object,
            verdict: Verdict::Open {
                hasher: Hasher::new(),
                left: object.size,
            },
        }
    }
}

impl<R: Read> Read for VerifyingRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let damaged = || {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the object is damaged",
            ))
        };
        // A verdict is final: whatever goes wrong on the way to one leaves the bad one.
        match std::mem::replace(&mut self.verdict, Verdict::Damaged) {
            Verdict::Damaged => damaged(),
            Verdict::Good => {
                self.verdict = Verdict::Good;
                Ok(0)
            }
            Verdict::Open { mut hasher, left } => {
                let count = match self.inner.read(buffer) {
                    Err(error) => {
                        // Reading may be tried again after an error of the system (EINTR).
                        self.verdict = Verdict::Open { hasher, left };
                        return Err(error);
                    }
                    Ok(0) if left == 0 && hasher.clone().finish() == self.object.digest => {
                        self.verdict = Verdict::Good;
                        return Ok(0);
                    }
                    Ok(0) => return damaged(),
                    Ok(count) => count,
                };
                let Some(left) = left.checked_sub(count as u64) else {
                    return damaged();
                };
                hasher.update(&buffer[..count]);
                self.verdict = Verdict::Open { hasher, left };
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], object: ObjectId) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        VerifyingRead::new(content, object).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn only_the_object_itself_reaches_the_end() {
        let object = ObjectId::of(b"content");
        assert_eq!(read(b"content", object).unwrap(), b"content");
        for bad in [&b"contend"[..], b"conten", b"content!", b""] {
            let error = read(bad, object).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
        assert_eq!(read(b"", ObjectId::of(b"")).unwrap(), b"");
    }

    #[test]
    fn a_bad_verdict_stays() {
        let mut reader = VerifyingRead::new(&b"contend"[..], ObjectId::of(b"content"));
        let mut bytes = Vec::new();
        assert!(reader.read_to_end(&mut bytes).is_err());
        assert!(reader.read(&mut [0; 4]).is_err());
    }
}
