use belljar_audit::FetchTry;

use super::Trouble;
use super::reply::{Line, parse};
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
