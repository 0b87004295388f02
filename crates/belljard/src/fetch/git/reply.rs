//! What a server says, line by line (gitprotocol-common(5), gitprotocol-v2(5)). It reads what it is given and nothing else.

use gix_packetline::PacketLineRef;
use gix_packetline::decode::{Stream, streaming};

use super::Trouble;

/// Most lines of an answer before the pack.
const LINES: usize = 64;

/// One pkt-line.
#[derive(Debug, PartialEq, Eq)]
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

/// What a server says that it can.
#[derive(Debug, Default)]
pub(super) struct Advertisement {
    begun: bool,
    all: Vec<String>,
}

/// An answer with a pack in it.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Lines before the pack.
    before: usize,
    place: Place,
}

/// How far an answer with a pack was read.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    Within,
    Behind,
}

/// What a line of such an answer brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Nothing of the pack.
    Nothing,
    /// From here on the pack comes.
    Begin,
    /// A piece of the pack.
    Piece(&'a [u8]),
    /// All of it has come, and the answer has ended.
    End,
}

/// The first line, and how many bytes it has, if it is complete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Line, usize)>, Trouble> {
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

impl Advertisement {
    /// Takes one line; says whether it was the last.
    pub(super) fn take(&mut self, line: &Line) -> Result<bool, Trouble> {
        match line {
            Line::Data(line) => {
                let line = text(line);
                if let Some(why) = line.strip_prefix("ERR ") {
                    return Err(said(why.as_bytes()));
                }
                if self.begun {
                    self.all.push(line);
                } else if line == "version 2" {
                    self.begun = true;
                } else if line != "# service=git-upload-pack" {
                    return Err(Trouble::lasting(
                        "it does not speak version 2 of git's protocol, and no other is spoken here",
                    ));
                }
                Ok(false)
            }
            // Without a beginning: after the line with the service.
            Line::Flush => Ok(self.begun),
            Line::Delimiter | Line::End => Err(odd()),
        }
    }

    /// Refuses a server that cannot do what is asked of it. Gives whether it says by which digest it names objects.
    pub(super) fn says_format(&self) -> Result<bool, Trouble> {
        let value = |name: &str| {
            let mut all = self.all.iter();
            all.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let can = value("fetch").unwrap_or_default();
        if !can.split(' ').any(|word| word == "shallow") {
            return Err(Trouble::lasting(
                "it cannot give a commit without its history, and that is not fetched",
            ));
        }
        let format = value("object-format");
        if format.is_some_and(|format| format != "sha1") {
            return Err(Trouble::refused(
                "it names objects otherwise than by SHA-1; such repositories are not fetched from",
            ));
        }
        Ok(format.is_some())
    }
}

impl Packed {
    /// Takes one line.
    pub(super) fn take<'a>(&mut self, line: &'a Line) -> Result<Part<'a>, Trouble> {
        match self.place {
            Place::Before => self.before(line),
            Place::Within => self.within(line),
            Place::Behind if *line == Line::End => Ok(Part::End),
            Place::Behind => Err(odd()),
        }
    }

    fn before(&mut self, line: &Line) -> Result<Part<'static>, Trouble> {
        match line {
            Line::Data(line) => {
                let line = text(line);
                if let Some(why) = line.strip_prefix("ERR ") {
                    return Err(said(why.as_bytes()));
                }
                if line == "packfile" {
                    self.place = Place::Within;
                    return Ok(Part::Begin);
                }
            }
            Line::Delimiter => {}
            Line::Flush | Line::End => {
                return Err(Trouble::lasting("it gives no pack with the commit"));
            }
        }
        self.before += 1;
        match self.before < LINES {
            true => Ok(Part::Nothing),
            false => Err(odd()),
        }
    }

    fn within<'a>(&mut self, line: &'a Line) -> Result<Part<'a>, Trouble> {
        match line {
            Line::Data(line) => match line.split_first() {
                Some((1, piece)) => Ok(Part::Piece(piece)),
                // How far it is.
                Some((2, _)) => Ok(Part::Nothing),
                Some((3, why)) => Err(said(why)),
                _ => Err(odd()),
            },
            Line::Flush => {
                self.place = Place::Behind;
                Ok(Part::Nothing)
            }
            Line::Delimiter => Err(odd()),
            Line::End => Err(Trouble::passing("the answer broke off before its end")),
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// What a server says of why there is nothing.
fn said(why: &[u8]) -> Trouble {
    let why: String = text(why).trim_end().chars().take(200).collect();
    Trouble::lasting(format!("it says: {}", why.escape_debug()))
}

fn odd() -> Trouble {
    Trouble::lasting("its answer is not what git's protocol has")
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
