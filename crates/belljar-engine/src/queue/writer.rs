use std::io;
use std::sync::Arc;
use std::thread;

use belljar_core::bounds;
use tokio::sync::{mpsc, oneshot};

use super::QueueError;
use super::database::Database;

/// What the thread does with the database, and how it answers once it knows whether that was committed.
/// Without a transaction to do it in, it only answers.
type Job = Box<dyn FnOnce(Option<&mut Database>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), QueueError>) + Send>;

/// Reaches the thread.
#[derive(Clone, Debug)]
pub(super) struct Handle(mpsc::Sender<Job>);

/// Starts the thread that owns `database` until the last [`Handle`] is gone.
pub(super) fn start(mut database: Database) -> io::Result<Handle> {
    let (sender, mut receiver) = mpsc::channel::<Job>(bounds::QUEUE_REQUESTS);
    thread::Builder::new()
        .name("queue".to_owned())
        .spawn(move || {
            while let Some(first) = receiver.blocking_recv() {
                let mut jobs = vec![first];
                while jobs.len() < bounds::QUEUE_REQUESTS
                    && let Ok(job) = receiver.try_recv()
                {
                    jobs.push(job);
                }
                run(&mut database, jobs);
            }
        })?;
    Ok(Handle(sender))
}

/// Does `jobs` in one transaction, and only then answers.
fn run(database: &mut Database, jobs: Vec<Job>) {
    let begun = database.begin();
    let answers: Vec<Answer> = jobs
        .into_iter()
        .map(|job| job(begun.is_ok().then_some(&mut *database)))
        .collect();
    let committed = begun.and_then(|()| database.commit()).map_err(Arc::new);
    if let Err(error) = &committed {
        tracing::error!(%error, "the queue could not be written");
        database.roll_back();
    }
    for answer in answers {
        answer(committed.clone().map_err(QueueError::Database));
    }
}

impl Handle {
    /// Has the thread do `job`; answered when its changes are durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Database) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            let result = database.map_or(Err(QueueError::Closed), job);
            // A caller who no longer waits misses nothing but the answer.
            Box::new(move |committed| drop(sender.send(committed.and(result))))
        });
        self.0.send(job).await.map_err(|_| QueueError::Closed)?;
        receiver.await.map_err(|_| QueueError::Closed)?
    }
}
