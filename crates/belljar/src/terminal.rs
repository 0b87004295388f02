//! Everything that a person sees, and the one door to standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Writes for people to standard error: phases, notes, the build's log. Colour and the taming of control
/// characters are for terminals only; what is redirected gets the log's bytes as they are.
pub(crate) struct Terminal {
    tame: Option<Tamer>,
    colour: bool,
    began: Instant,
    mid_line: bool,
}

impl Terminal {
    /// Looks at what standard error is, and at the variable `NO_COLOR` (no-color.org).
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            tame: terminal.then(Tamer::default),
            colour: terminal && !no_colour && !dumb,
            began: Instant::now(),
            mid_line: false,
        }
    }

    /// One line about where things stand, with the time since the start.
    pub(crate) fn phase(&mut self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        let line = if self.colour {
            format!(
                "\u{1b}[2m{seconds:7.2}s\u{1b}[0m \u{1b}[1m{}\u{1b}[0m",
                line(text)
            )
        } else {
            format!("{seconds:7.2}s {}", line(text))
        };
        self.line(&line);
    }

    /// One line that a person should not overlook.
    pub(crate) fn note(&mut self, text: &str) {
        let mark = if self.colour {
            "\u{1b}[33mnote:\u{1b}[0m"
        } else {
            "note:"
        };
        self.line(&format!("{mark} {}", line(text)));
    }

    /// The line above what a step of the build writes.
    pub(crate) fn heading(&mut self, text: &str) {
        let text = tame(text).replace('\n', " ");
        if self.colour {
            self.line(&format!("\u{1b}[1m── {text}\u{1b}[0m"));
        } else {
            self.line(&format!("── {text}"));
        }
    }

    /// The end of a command that failed: one block, however many lines it has.
    pub(crate) fn error(&mut self, text: &str) {
        let mark = if self.colour {
            "\u{1b}[31merror:\u{1b}[0m"
        } else {
            "error:"
        };
        self.line(&format!("{mark} {}", block(text)));
    }

    /// More about an error, below it.
    pub(crate) fn detail(&mut self, text: &str) {
        self.line(&format!("  {}", block(text)));
    }

    /// A piece of the build's log.
    pub(crate) fn log(&mut self, bytes: &[u8]) {
        let shown = match &mut self.tame {
            Some(tamer) => tamer.take(bytes).into_bytes(),
            None => bytes.to_vec(),
        };
        if let Some(last) = shown.last() {
            self.mid_line = *last != b'\n';
        }
        // Standard error may be closed: then nobody listens, and the build goes on all the same.
        let _ = io::stderr().lock().write_all(&shown);
    }

    fn line(&mut self, line: &str) {
        let start = if std::mem::take(&mut self.mid_line) {
            "\n"
        } else {
            ""
        };
        let _ = writeln!(io::stderr().lock(), "{start}{line}");
    }
}

/// Writes a command's result to standard output, harmless for a terminal. JSON passes as it is: see [`escaped`].
///
/// # Errors
/// When standard output does not take it.
pub(crate) fn result(text: &str) -> io::Result<()> {
    own(&tame(text))
}

/// Writes text to standard output in which nothing is anybody else's.
///
/// # Errors
/// When standard output does not take it.
pub(crate) fn own(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes bytes that nobody vouches for to standard output: as they are, unless it is a terminal.
pub(crate) struct Bytes {
    tame: Option<Tamer>,
}

impl Bytes {
    /// Looks at what standard output is.
    pub(crate) fn new() -> Self {
        Self {
            tame: io::stdout().is_terminal().then(Tamer::default),
        }
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match &mut self.tame {
            Some(tamer) => out.write_all(tamer.take(bytes).as_bytes())?,
            None => out.write_all(bytes)?,
        }
        out.flush()
    }
}

/// Makes bytes that nobody vouches for harmless for a terminal: invalid UTF-8, control characters but
/// line feed and tab, and characters that reorder or hide text are shown as what they are. A carriage
/// return becomes a line feed, so that no line overwrites another.
#[derive(Default)]
struct Tamer {
    /// The beginning of a character whose rest has not come yet: at most three bytes.
    partial: Vec<u8>,
    after_return: bool,
}

impl Tamer {
    fn take(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut shown = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for c in chunk.valid().chars() {
                self.show(c, &mut shown);
            }
            let invalid = chunk.invalid();
            let at_end = chunks.peek().is_none() && invalid.len() < 4;
            if at_end && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                shown.push(char::REPLACEMENT_CHARACTER);
                self.after_return = false;
            }
        }
        shown
    }

    fn show(&mut self, c: char, shown: &mut String) {
        let after_return = std::mem::replace(&mut self.after_return, c == '\r');
        match c {
            '\n' if after_return => {}
            '\r' => shown.push('\n'),
            '\n' | '\t' => shown.push(c),
            _ => shown.push(harmless(c)),
        }
    }
}

/// Text from elsewhere, harmless for a terminal.
pub(crate) fn tame(text: &str) -> String {
    let harmless = |c| match c {
        '\n' => c,
        '\t' => ' ',
        other => harmless(other),
    };
    text.chars().map(harmless).collect()
}

/// The same JSON, in which no terminal finds anything to act on. Outside of strings JSON has no such characters, and
/// in strings serde_json has escaped those that JSON demands (RFC 8259, section 7); the others are by this.
pub(crate) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || harmless(c) == c {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

/// Text from elsewhere in which no line can be taken for one of ours: all but the first are marked.
fn block(text: &str) -> String {
    tame(text).replace('\n', "\n  | ")
}

/// Text from elsewhere that has to stay in its line: else it could go on as lines that nobody else has said.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// The character itself, or a picture of it if a terminal would act on it.
fn harmless(c: char) -> char {
    match c {
        // Control Pictures stand in the order of the control characters (The Unicode Standard, U+2400).
        '\0'..='\u{1f}' => {
            char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        '\u{7f}' => '\u{2421}',
        // C1 controls; marks, embeddings, overrides and isolates of the bidirectional algorithm (UAX 9); line
        // and paragraph separators; annotations; tags; and what else is not seen (Default_Ignorable_Code_Point,
        // The Unicode Standard 5.21) but the selectors by which pictures have colours.
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_in_a_log() {
        let mut tamer = Tamer::default();
        assert_eq!(
            tamer.take(b"\x1b[2J\x1b]0;title\x07ok\n"),
            "␛[2J␛]0;title␇ok\n"
        );
        assert_eq!(tamer.take("\u{9b}31m".as_bytes()), "\u{fffd}31m");
        assert_eq!(tamer.take("a\u{202e}b".as_bytes()), "a\u{fffd}b");
        assert_eq!(tamer.take(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn returns_become_lines_and_windows_line_ends_stay_one() {
        let mut tamer = Tamer::default();
        assert_eq!(tamer.take(b"10%\r20%\r\ndone"), "10%\n20%\ndone");
        assert_eq!(tamer.take(b"x\r"), "x\n");
        assert_eq!(tamer.take(b"\ny"), "y");
    }

    #[test]
    fn characters_may_be_cut_between_pieces() {
        let text = "grün ✔ 𝄞".as_bytes();
        for cut in 0..=text.len() {
            let mut tamer = Tamer::default();
            let shown = tamer.take(&text[..cut]) + &tamer.take(&text[cut..]);
            assert_eq!(shown.as_bytes(), text, "cut at {cut}");
        }
    }

    #[test]
    fn text_from_elsewhere_keeps_its_lines_only() {
        assert_eq!(tame("a\tb\n\u{1b}[2Jc\r"), "a b\n␛[2Jc␍");
        assert_eq!(line("a\tb\n\u{1b}[2Jc\r"), "a␉b␊␛[2Jc␍");
    }

    /// What no terminal may get: C0 but the line feed, DEL, C1, what orders text anew or hides it, separators.
    fn forbidden() -> impl Iterator<Item = char> {
        let controls = ('\0'..='\u{9f}').filter(|c| c.is_control() && *c != '\n');
        let separators = '\u{2028}'..='\u{2029}';
        let bidi = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter();
        let bidi = bidi
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}');
        let hidden = [
            '\u{ad}',
            '\u{115f}',
            '\u{200b}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{1d173}',
            '\u{e0041}',
        ];
        controls.chain(separators).chain(bidi).chain(hidden)
    }

    #[test]
    fn no_forbidden_character_passes_by_any_door() {
        for c in forbidden() {
            let text = format!("a{c}b");
            let mut tamer = Tamer::default();
            for shown in [tame(&text), line(&text), block(&text)] {
                assert!(!shown.contains(c), "{}", c.escape_unicode());
            }
            let logged = c == '\t' || !tamer.take(text.as_bytes()).contains(c);
            assert!(logged, "{}", c.escape_unicode());
        }
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let all: String = forbidden().chain("\n\"\\ grün ✔ 𝄞".chars()).collect();
        let value = serde_json::json!({ &all: [all, 1.5, null, true] });
        for text in [
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let escaped = escaped(&text);
            assert!(
                !escaped.contains(|c| forbidden().any(|bad| bad == c)),
                "{escaped}"
            );
            let same: serde_json::Value = serde_json::from_str(&escaped).unwrap();
            assert_eq!(same, value);
            assert!(
                escaped.contains("\\u202e") && escaped.contains("\\udb40\\udc41"),
                "{escaped}"
            );
            assert!(escaped.contains("grün ✔ 𝄞"), "{escaped}");
            // What is printed is what was escaped.
            assert_eq!(tame(&escaped), escaped);
        }
    }

    #[test]
    fn an_error_of_many_lines_is_one_block() {
        assert_eq!(
            block("no such tree\n  hint: do as I say\r\nbuilds/x succeeded"),
            "no such tree\n  |   hint: do as I say␍\n  | builds/x succeeded"
        );
    }

    #[test]
    fn a_piece_of_a_character_is_not_kept_for_ever() {
        let mut tamer = Tamer::default();
        for _ in 0..10 {
            tamer.take(b"\xf0");
            assert!(tamer.partial.len() <= 3);
        }
    }
}
