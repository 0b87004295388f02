use belljar_audit::FetchTry;
use gix_packetline::PacketLineRef;
use gix_packetline::decode::{Stream, streaming};

use super::Trouble;
use crate::fetch::download::Pace;
use crate::fetch::http::Answer;

/// The pkt-lines of an answer (gitprotocol-common(5)), one after the other.
pub(super) struct Lines<'a> {
    answer: Answer,
    pace: Pace,
    /// What has come, and how much of it was read.
    buffer: Vec<u8>,
    read: usize,
    most: u64,
    told: &'a mut FetchTry,
}

/// One of them.
pub(super) enum Line {
    /// What stands in it.
    Data(Vec<u8>),
    /// `0001`.
    Delimiter,
    /// `0000`.
    Flush,
    /// The answer has ended.
    End,
}

impl<'a> Lines<'a> {
    /// Of an answer that may have so many bytes.
    pub(super) fn new(answer: Answer, most: u64, told: &'a mut FetchTry) -> Self {
        Self {
            answer,
            pace: Pace::default(),
            buffer: Vec::new(),
            read: 0,
            most,
            told,
        }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Line, Trouble> {
        loop {
            if let Some((line, consumed)) = parse(&self.buffer[self.read..])? {
                self.read += consumed;
                return Ok(line);
            }
            // Once for all lines that came together, however short they are.
            self.buffer.drain(..self.read);
            self.read = 0;
            match self.pace.piece(&mut self.answer).await? {
                Some(piece) => {
                    let came = self.told.bytes.saturating_add(piece.len() as u64);
                    self.told.bytes = came;
                    if came > self.most {
                        let most = self.most;
                        let why = format!("more comes than the {most} bytes that it may have");
                        return Err(Trouble::refused(why));
                    }
                    self.buffer.extend_from_slice(&piece);
                }
                None if self.buffer.is_empty() => return Ok(Line::End),
                None => return Err(Trouble::passing("the answer broke off within a line")),
            }
        }
    }
}

/// The first line, and how many bytes it has, if it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(Line, usize)>, Trouble> {
    let parsed = streaming(bytes).map_err(|_| {
        Trouble::lasting("it does not speak git's protocol: what comes is not made of pkt-lines")
    })?;
    let Stream::Complete {
        line,
        bytes_consumed,
    } = parsed
    else {
        return Ok(None);
    };
    let line = match line {
        PacketLineRef::Data(data) => Line::Data(data.to_vec()),
        PacketLineRef::Delimiter => Line::Delimiter,
        PacketLineRef::Flush => Line::Flush,
        PacketLineRef::ResponseEnd => {
            return Err(Trouble::lasting("it ends its answer in the middle"));
        }
    };
    Ok(Some((line, bytes_consumed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_taken_apart_and_nothing_else_is() {
        for (bytes, due) in [
            (&b"0009done\nmore"[..], Some((Some(&b"done\n"[..]), 9))),
            (b"0000", Some((None, 4))),
            (b"0001", Some((None, 4))),
            (b"0009don", None),
            (b"000", None),
            (b"", None),
        ] {
            let found = parse(bytes).unwrap();
            let found = found.as_ref().map(|(line, consumed)| match line {
                Line::Data(data) => (Some(&data[..]), *consumed),
                _ => (None, *consumed),
            });
            assert_eq!(found, due, "{bytes:?}");
        }
        for bad in [
            &b"0002"[..],
            b"0003",
            b"0004",
            b"zzzz",
            b"ffff",
            b"fff1",
            b"-001",
            b"00\xff0",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, consumed))) = parse(&bytes) {
                prop_assert!(consumed >= 4 && consumed <= bytes.len());
            }
        }
    }
}
