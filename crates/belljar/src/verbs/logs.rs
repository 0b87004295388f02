use std::io;

use belljar_core::{BuildId, Invalid};
use belljar_wire::{build_name, v1};
use tokio::time::{Instant, sleep};

use super::print;
use crate::client::{self, Client};
use crate::error::Error;
use crate::patience::{PAUSE, RECONNECT};
use crate::report::LogPiece;
use crate::session;
use crate::terminal::{Bytes, Terminal};
use crate::watch::passing;
use crate::{cli, exit};

const DOING: &str = "reading the build's log";

/// `belljar logs`
///
/// # Errors
/// When the log cannot be read.
pub(crate) fn logs(arguments: &cli::Logs, terminal: &mut Terminal) -> Result<u8, Error> {
    session::ask(
        &arguments.ask.whom,
        terminal,
        async |client: &Client, terminal: &mut Terminal| {
            let mut reader = Reader {
                client,
                build: &arguments.build,
                attempt: arguments
                    .attempt
                    .map_or(Ok(0), i32::try_from)
                    .unwrap_or(i32::MAX),
                offset: 0,
            };
            let mut out = Out {
                json: arguments.ask.json,
                build: build_name(&arguments.build),
                bytes: Bytes::new(),
            };
            match reader.copy(&mut out, arguments, terminal).await {
                // Whoever reads has enough.
                Err(Error::Process(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Ok(exit::SUCCESS)
                }
                other => other.map(|()| exit::SUCCESS),
            }
        },
    )
}

/// Where reading stands.
struct Reader<'a> {
    client: &'a Client,
    build: &'a BuildId,
    /// 0 until it is known which.
    attempt: i32,
    offset: i64,
}

impl Reader<'_> {
    async fn copy(
        &mut self,
        out: &mut Out,
        arguments: &cli::Logs,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        loop {
            let piece = self.piece(arguments.follow, terminal).await?;
            if piece.attempt > 0 {
                self.attempt = piece.attempt;
            }
            if !piece.data.is_empty() {
                out.write(&piece)?;
                self.offset += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
                continue;
            }
            if !arguments.follow {
                return Ok(());
            }
            if piece.complete && !self.next_attempt(arguments, terminal).await? {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// The next piece. While a build is followed, a daemon that is lost may come back.
    async fn piece(
        &self,
        follow: bool,
        terminal: &mut Terminal,
    ) -> Result<v1::ReadLogResponse, Error> {
        let mut lost: Option<Instant> = None;
        loop {
            let request = v1::ReadLogRequest {
                name: build_name(self.build),
                attempt: self.attempt,
                offset: self.offset,
                limit: 0,
            };
            let status = match self.client.read_log(request).await {
                Ok(piece) if piece.offset == self.offset => return Ok(piece),
                Ok(_) => {
                    let other = Invalid::field("offset", "another piece than was asked for");
                    return Err(client::Error::answer(DOING, other).into());
                }
                Err(status) => status,
            };
            let since = *lost.get_or_insert_with(Instant::now);
            if !follow || !passing(&status) || since.elapsed() > RECONNECT {
                return Err(client::Error::call(DOING, &status).into());
            }
            if since.elapsed() < PAUSE {
                terminal.note("the daemon does not answer; trying again");
            }
            sleep(PAUSE).await;
        }
    }

    /// Turns to a later attempt, if there is one and none was named. False when nothing comes any more.
    async fn next_attempt(
        &mut self,
        arguments: &cli::Logs,
        terminal: &mut Terminal,
    ) -> Result<bool, Error> {
        if arguments.attempt.is_some() {
            return Ok(false);
        }
        let build = match self.client.get(self.build).await {
            Ok(build) => build,
            // It is looked for again with the next piece.
            Err(client::Error::Call { problem, .. })
                if problem.reason.code() == tonic::Code::Unavailable =>
            {
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        let current = i32::try_from(build.attempt).unwrap_or(i32::MAX);
        if current > self.attempt {
            if self.attempt > 0 {
                terminal.note(&format!("attempt {current} has begun; its log follows"));
            }
            (self.attempt, self.offset) = (current, 0);
            return Ok(true);
        }
        Ok(build.outcome.is_none())
    }
}

/// Where it goes.
struct Out {
    json: bool,
    build: String,
    bytes: Bytes,
}

impl Out {
    fn write(&mut self, piece: &v1::ReadLogResponse) -> Result<(), Error> {
        if !self.json {
            let written = self.bytes.write(&piece.data);
            return written.map_err(|e| Error::Process("write to standard output", e));
        }
        let mut offset = piece.offset;
        for line in piece.data.split_inclusive(|byte| *byte == b'\n') {
            let told = LogPiece::new(&self.build, piece.attempt, offset, line);
            print(&crate::json(&told, false)?)?;
            offset += i64::try_from(line.len()).unwrap_or(i64::MAX);
        }
        Ok(())
    }
}
