//! One thread that alone writes a database. Changes that arrive together share a commit, and nobody is
//! answered before it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use belljar_core::bounds;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// Keeps what SQLite needs beside a database (sqlite.org, "Temporary Files Used By SQLite") in memory: for files of its own
/// choice belljard is confined too well, and a savepoint that touches more than a few pages would fail for want of one.
pub(crate) fn without_temporary_files(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// A database that can do several things at once, all or nothing.
pub(crate) trait Transactional: Send + 'static {
    /// Begins a transaction.
    fn begin(&mut self) -> rusqlite::Result<()>;
    /// Makes it durable.
    fn commit(&mut self) -> rusqlite::Result<()>;
    /// Undoes it.
    fn roll_back(&mut self);
}

/// Why nothing was done.
#[derive(Clone, Debug)]
pub(crate) enum Undone {
    /// The thread has ended.
    Closed,
    /// The database refused; nothing was changed.
    Database(Arc<rusqlite::Error>),
}

/// What the thread does with the database, and how it answers once it knows whether that was committed.
/// Without a transaction to do it in, it only answers.
type Job<D> = Box<dyn FnOnce(Option<&mut D>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Undone>) + Send>;

/// Reaches the thread.
pub(crate) struct Handle<D>(mpsc::Sender<Job<D>>);

/// Starts the thread that owns `database` until the last [`Handle`] is gone.
pub(crate) fn start<D: Transactional>(name: &str, mut database: D) -> io::Result<Handle<D>> {
    let (sender, mut receiver) = mpsc::channel::<Job<D>>(bounds::QUEUE_REQUESTS);
    thread::Builder::new()
        .name(name.to_owned())
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
fn run<D: Transactional>(database: &mut D, jobs: Vec<Job<D>>) {
    let begun = database.begin();
    let answers: Vec<Answer> = jobs
        .into_iter()
        .map(|job| job(begun.is_ok().then_some(&mut *database)))
        .collect();
    let committed = begun.and_then(|()| database.commit()).map_err(Arc::new);
    if let Err(error) = &committed {
        let name = thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(%error, name, "a database could not be written");
        database.roll_back();
    }
    for answer in answers {
        answer(committed.clone().map_err(Undone::Database));
    }
}

impl<D: Transactional> Handle<D> {
    /// Has the thread do `job`; answered when its changes are durable.
    pub(crate) async fn call<T, E>(
        &self,
        job: impl FnOnce(&mut D) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Undone> + Send + 'static,
    {
        self.call_then(job, |_| ()).await
    }

    /// The same, and what comes of it is done on the thread, before the answer: a caller may be gone at any moment,
    /// after which what is awaited here never comes to its end. Once the thread has the job, both are done.
    pub(crate) async fn call_then<T, E>(
        &self,
        job: impl FnOnce(&mut D) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&Result<T, E>) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Undone> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job<D> = Box::new(move |database| {
            let result = database.map_or(Err(Undone::Closed.into()), job);
            Box::new(move |committed| {
                let answer = committed.map_err(E::from).and(result);
                then(&answer);
                // A caller who no longer waits misses nothing but the answer.
                drop(sender.send(answer));
            })
        });
        self.0.send(job).await.map_err(|_| Undone::Closed)?;
        receiver.await.map_err(|_| Undone::Closed)?
    }
}

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D> fmt::Debug for Handle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}
