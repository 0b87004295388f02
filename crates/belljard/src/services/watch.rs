//! One `WatchBuild` stream: changes of the build, and its log as it grows.

use std::collections::VecDeque;
use std::time::Duration;

use belljar_core::{AttemptId, bounds};
use belljar_engine::Follow;
use belljar_engine::life::Stage;
use belljar_engine::queue::Record;
use belljar_plan::store::StepMark;
use belljar_wire::v1;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::Status;
use v1::watch_build_response::Event;

use super::{View, internal};
use crate::peers::{LogFile, Logs};

/// How soon a growing log is looked at again while somebody watches.
const LOOK: Duration = Duration::from_millis(25);
/// The same for one that has been silent: each look that finds nothing doubles the pause up to this. Looks take CPU
/// time that the build could have.
const SILENT: Duration = Duration::from_millis(200);

pub(super) type Sender = mpsc::Sender<Result<v1::WatchBuildResponse, Status>>;

/// What a watcher has seen before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// States up to this sequence number.
    pub(super) sequence: u64,
    /// This many bytes of the log of the attempt with this number.
    pub(super) log: Option<(u32, u64)>,
}

/// The stream has ended: the watcher is gone, or was told why.
struct Over;

/// Tells everything until the build has ended.
pub(super) async fn tell(
    mut follow: Follow,
    view: View,
    logs: Logs,
    mut seen: Seen,
    sender: Sender,
) {
    let mut tail = Tail {
        logs,
        start: seen.log,
        attempt: None,
        file: None,
        offset: 0,
        marks: None,
        marks_read: 0,
        marked: VecDeque::new(),
        sender,
    };
    let mut pause = LOOK;
    loop {
        let told = (tail.offset, tail.marks_read);
        let step = tokio::select! {
            record = follow.next() => match record {
                Some(record) => tell_state(&mut tail, &view, &mut seen, &record).await,
                None => return,
            },
            () = sleep(pause), if tail.attempt.is_some() => tail.catch_up().await,
            () = tail.sender.closed() => return,
        };
        if step.is_err() {
            return;
        }
        pause = match told == (tail.offset, tail.marks_read) {
            true => (pause * 2).min(SILENT),
            false => LOOK,
        };
    }
}

async fn tell_state(
    tail: &mut Tail,
    view: &View,
    seen: &mut Seen,
    record: &Record,
) -> Result<(), Over> {
    let build = &record.build;
    // What an attempt wrote is told before that it is over.
    if tail.attempt.is_some() && tail.attempt != build.attempt {
        tail.catch_up().await?;
    }
    if tail.attempt.is_none() {
        tail.earlier(build.attempt.as_ref()).await?;
    }
    tail.turn_to(build.attempt.as_ref());
    let ended = build.outcome().is_some();
    if ended
        || matches!(
            build.stage,
            Stage::Attesting { .. } | Stage::Publishing { .. }
        )
    {
        tail.catch_up().await?;
    }
    if !ended && build.sequence <= seen.sequence {
        return Ok(());
    }
    match view.build(record).await {
        Ok(build) => tail.send(Event::Build(build)).await?,
        Err(status) => {
            let _ = tail.sender.send(Err(status)).await;
            return Err(Over);
        }
    }
    // A change may come both with the first look and as news.
    seen.sequence = build.sequence;
    if ended { Err(Over) } else { Ok(()) }
}

/// Follows the log of the current attempt.
struct Tail {
    logs: Logs,
    /// Where the watcher wants to go on.
    start: Option<(u32, u64)>,
    attempt: Option<AttemptId>,
    file: Option<LogFile>,
    offset: u64,
    /// Where steps begin: the file, how much of it was read, and what of that was not told yet.
    marks: Option<LogFile>,
    marks_read: u64,
    marked: VecDeque<StepMark>,
    sender: Sender,
}

fn number(attempt: &AttemptId) -> i32 {
    i32::try_from(attempt.number()).unwrap_or(i32::MAX)
}

impl Tail {
    fn turn_to(&mut self, attempt: Option<&AttemptId>) {
        if self.attempt.as_ref() == attempt {
            return;
        }
        self.attempt = attempt.cloned();
        self.file = None;
        self.marks = None;
        self.marks_read = 0;
        self.marked.clear();
        let start = self
            .start
            .filter(|(number, _)| attempt.is_some_and(|attempt| attempt.number() == *number));
        self.offset = start.map_or(0, |(_, offset)| offset);
    }

    /// Tells the rest of earlier attempts' logs to a watcher who had not seen their ends: the daemon may have
    /// been restarted in between.
    async fn earlier(&mut self, current: Option<&AttemptId>) -> Result<(), Over> {
        let (Some(current), Some((first, _))) = (current, self.start) else {
            return Ok(());
        };
        for number in first..current.number() {
            if let Ok(attempt) = AttemptId::new(current.build().clone(), number) {
                self.turn_to(Some(&attempt));
                self.catch_up().await?;
            }
        }
        Ok(())
    }

    /// Tells what the log holds by now, and where steps begin in it.
    async fn catch_up(&mut self) -> Result<(), Over> {
        let Some(attempt) = self.attempt.clone() else {
            return Ok(());
        };
        if self.file.is_none() {
            match self.logs.open(&attempt).await {
                Ok(file) => self.file = file,
                Err(error) => return self.fail(&error).await,
            }
        }
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        loop {
            let mut data = match file.read(self.offset, bounds::LOG_CHUNK_BYTES).await {
                Ok(data) => data,
                Err(error) => return self.fail(&error).await,
            };
            let over = data.is_empty();
            // In this order: a mark is there before the first byte that comes after it.
            if let Err(error) = self.read_marks(&attempt).await {
                return self.fail(&error).await;
            }
            let end = self.offset + data.len() as u64;
            while let Some(mark) = self.marked.pop_front_if(|mark| mark.offset <= end) {
                let before = usize::try_from(mark.offset.saturating_sub(self.offset));
                let rest = data.split_off(before.unwrap_or(usize::MAX).min(data.len()));
                self.chunk(&attempt, std::mem::replace(&mut data, rest))
                    .await?;
                let step_started = v1::StepStarted {
                    attempt: number(&attempt),
                    step: i32::try_from(mark.step).unwrap_or(i32::MAX),
                    log_offset: i64::try_from(mark.offset).unwrap_or(i64::MAX),
                };
                self.send(Event::StepStarted(step_started)).await?;
            }
            self.chunk(&attempt, data).await?;
            if over {
                return Ok(());
            }
        }
    }

    async fn chunk(&mut self, attempt: &AttemptId, data: Vec<u8>) -> Result<(), Over> {
        if data.is_empty() {
            return Ok(());
        }
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        self.offset += data.len() as u64;
        let attempt = number(attempt);
        self.send(Event::LogChunk(v1::LogChunk {
            attempt,
            offset,
            data,
        }))
        .await
    }

    async fn read_marks(&mut self, attempt: &AttemptId) -> std::io::Result<()> {
        if self.marks.is_none() {
            self.marks = self.logs.marks(attempt).await?;
        }
        let Some(file) = &self.marks else {
            return Ok(());
        };
        let lines = file.read(self.marks_read, bounds::LOG_CHUNK_BYTES).await?;
        let (marks, read) = StepMark::parse(&lines).map_err(std::io::Error::other)?;
        self.marks_read += read as u64;
        self.marked.extend(marks);
        Ok(())
    }

    async fn fail(&self, error: &std::io::Error) -> Result<(), Over> {
        let _ = self
            .sender
            .send(Err(internal("the build's log could not be read", error)))
            .await;
        Err(Over)
    }

    async fn send(&self, event: Event) -> Result<(), Over> {
        let message = v1::WatchBuildResponse { event: Some(event) };
        self.sender.send(Ok(message)).await.map_err(|_| Over)
    }
}
