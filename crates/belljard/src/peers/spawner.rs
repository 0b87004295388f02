use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_core::{AttemptId, Digest, Outcome, bounds};
use belljar_engine::ports::{Spawner, SpawnerError, Taken, Trouble};
use belljar_plan::spawner::{Answer, Message, Operation, Request};
use belljar_plan::{HostReport, Plan, frame};
use tokio::sync::{mpsc, oneshot, watch};

use super::channel::{Buffer, Channel, ChannelError};
use super::files;
use crate::tasks::{self, Task};

/// How long to wait before the next try to connect.
const RECONNECT: Duration = Duration::from_millis(200);

/// Asks the spawner, over the one connection that a task keeps.
#[derive(Debug)]
pub(crate) struct SpawnerClient {
    questions: mpsc::Sender<Question>,
    shared: Arc<Shared>,
    receipts: PathBuf,
    _task: Task,
}

/// A request and whom to answer.
struct Question {
    operation: Operation,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Answer, SpawnerError>>;

/// How an attempt ended, once that is known.
type Exit = watch::Sender<Option<Result<Outcome, SpawnerError>>>;

/// What the connection's task and the askers share.
#[derive(Debug, Default)]
struct Shared {
    /// Attempts that were staged over this connection and not destroyed.
    exits: Mutex<HashMap<AttemptId, Exit>>,
    /// Requests without an answer yet.
    open: Mutex<HashMap<u64, Reply>>,
    /// Whether there is a connection.
    connected: AtomicBool,
}

impl SpawnerClient {
    /// Starts the task that keeps the connection to `socket`.
    pub(crate) fn start(socket: PathBuf, receipts: PathBuf) -> Self {
        let (questions, asked) = mpsc::channel(bounds::SPAWNER_REQUESTS);
        let shared = Arc::new(Shared::default());
        let task = tasks::start("spawner connection", keep(socket, asked, shared.clone()));
        Self {
            questions,
            shared,
            receipts,
            _task: task,
        }
    }

    /// Whether there is a connection now.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// What the host offers.
    pub(crate) async fn probe(&self) -> Result<HostReport, SpawnerError> {
        match self.ask(Operation::Probe).await? {
            Answer::Host(report) => Ok(report),
            other => Err(unfit(&other)),
        }
    }

    async fn ask(&self, operation: Operation) -> Result<Answer, SpawnerError> {
        let (reply, answer) = oneshot::channel();
        let question = Question { operation, reply };
        let lost = || SpawnerError::Lost("the daemon is shutting down".to_owned());
        self.questions.send(question).await.map_err(|_| lost())?;
        match answer.await.map_err(|_| lost())?? {
            Answer::Failed { outcome } => Err(SpawnerError::Failed(outcome)),
            answer => Ok(answer),
        }
    }

    async fn expect(&self, operation: Operation, due: Answer) -> Result<(), SpawnerError> {
        let answer = self.ask(operation).await?;
        if answer == due {
            Ok(())
        } else {
            Err(unfit(&answer))
        }
    }
}

fn unfit(answer: &Answer) -> SpawnerError {
    let why = format!("the spawner gave an answer that does not fit: {answer:?}");
    SpawnerError::Failed(Outcome::permanent("run", why))
}

impl Spawner for SpawnerClient {
    async fn stage(
        &self,
        attempt: &AttemptId,
        spec: Digest,
        plan: Plan,
    ) -> Result<(), SpawnerError> {
        // From now on, so that no end can be missed.
        lock(&self.shared.exits).insert(attempt.clone(), watch::Sender::new(None));
        let operation = Operation::Stage {
            attempt: attempt.clone(),
            spec,
            plan: Box::new(plan),
        };
        self.expect(operation, Answer::Staged).await
    }

    async fn launch(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
        let attempt = attempt.clone();
        self.expect(Operation::Launch { attempt }, Answer::Launched)
            .await
    }

    async fn exited(&self, attempt: &AttemptId) -> Result<Outcome, SpawnerError> {
        let lost = || SpawnerError::Lost("the attempt is not known on this connection".to_owned());
        let mut exit = lock(&self.shared.exits)
            .get(attempt)
            .map(watch::Sender::subscribe)
            .ok_or_else(lost)?;
        let known = exit.wait_for(Option::is_some).await.map_err(|_| lost())?;
        known.clone().unwrap_or_else(|| Err(lost()))
    }

    async fn kill(&self, attempt: &AttemptId, by: &str) -> Result<(), SpawnerError> {
        let operation = Operation::Kill {
            attempt: attempt.clone(),
            by: by.to_owned(),
        };
        self.expect(operation, Answer::Killing).await
    }

    async fn collect(&self, attempt: &AttemptId) -> Result<Taken, SpawnerError> {
        let attempt = attempt.clone();
        match self.ask(Operation::Collect { attempt }).await? {
            Answer::Collected { receipt, outcome } => Ok(Taken { receipt, outcome }),
            other => Err(unfit(&other)),
        }
    }

    async fn receipt(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        files::read(
            &self.receipts,
            format!("{attempt}.json"),
            bounds::RECEIPT_BYTES,
        )
        .await
    }

    async fn destroy(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
        let operation = Operation::Destroy {
            attempt: attempt.clone(),
        };
        self.expect(operation, Answer::Destroyed).await?;
        lock(&self.shared.exits).remove(attempt);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<AttemptId>, SpawnerError> {
        match self.ask(Operation::List).await? {
            Answer::Attempts { attempts } => Ok(attempts),
            other => Err(unfit(&other)),
        }
    }
}

/// Keeps a connection as long as anybody may ask. While there is none every question is answered with its
/// loss at once: whoever asked knows best whether to ask again.
async fn keep(socket: PathBuf, mut asked: mpsc::Receiver<Question>, shared: Arc<Shared>) {
    let mut told = false;
    loop {
        let why = match Channel::connect(&socket).await {
            Ok(channel) => {
                tracing::info!(socket = %socket.display(), "connected to the spawner");
                told = false;
                shared.connected.store(true, Ordering::Relaxed);
                let Some(error) = serve(channel, &mut asked, &shared).await else {
                    return;
                };
                format!(
                    "the connection to the spawner was lost: {}",
                    tasks::chain(&error)
                )
            }
            Err(error) => format!("the spawner cannot be reached: {}", tasks::chain(&error)),
        };
        if !told {
            tracing::warn!(why, "no spawner");
            told = true;
        }
        shared.lose(&why);
        let pause = tokio::time::sleep(RECONNECT);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                question = asked.recv() => match question {
                    Some(Question { reply, .. }) => drop(reply.send(Err(SpawnerError::Lost(why.clone())))),
                    None => return,
                },
            }
        }
    }
}

/// Sends questions and hands out answers until the connection fails; none when nobody can ask any more.
async fn serve(
    channel: Channel,
    asked: &mut mpsc::Receiver<Question>,
    shared: &Shared,
) -> Option<ChannelError> {
    // Both directions at once: neither process may wait for the other while its own buffer is full.
    let asking = async {
        let mut number = 0;
        while let Some(Question { operation, reply }) = asked.recv().await {
            number += 1;
            match frame::encode(&Request { number, operation }) {
                Ok(message) => {
                    lock(&shared.open).insert(number, reply);
                    if let Err(error) = channel.send(&message).await {
                        return Some(ChannelError::from(error));
                    }
                }
                Err(invalid) => {
                    let outcome = Outcome::permanent(
                        "stage",
                        format!("the spawner cannot be asked: {invalid}"),
                    );
                    drop(reply.send(Err(SpawnerError::Failed(outcome))));
                }
            }
        }
        None
    };
    let hearing = async {
        let mut buffer = Buffer::new();
        loop {
            match channel.hear(&mut buffer).await {
                Ok(message) => shared.hand_out(message),
                Err(error) => return Some(error),
            }
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = hearing => ended,
    }
}

impl Shared {
    fn hand_out(&self, message: Message) {
        match message {
            Message::Answer { number, answer } => match lock(&self.open).remove(&number) {
                // Who asked may have stopped waiting.
                Some(reply) => drop(reply.send(Ok(answer))),
                None => tracing::warn!(number, "an answer to no request"),
            },
            Message::Exited { attempt, outcome } => match lock(&self.exits).get(&attempt) {
                Some(exit) => drop(exit.send_replace(Some(Ok(outcome)))),
                None => tracing::warn!(%attempt, "the end of an attempt that is not known"),
            },
        }
    }

    /// Whatever was open will not be answered any more.
    fn lose(&self, why: &str) {
        self.connected.store(false, Ordering::Relaxed);
        let lost = || SpawnerError::Lost(why.to_owned());
        for (_, reply) in lock(&self.open).drain() {
            drop(reply.send(Err(lost())));
        }
        for (_, exit) in lock(&self.exits).drain() {
            exit.send_if_modified(|known| {
                let open = known.is_none();
                if open {
                    *known = Some(Err(lost()));
                }
                open
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
