//! Tasks that belong to somebody: named in the log, and aborted when their owner is gone. The only place
//! that starts one, beside the engine's driver.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_stream::Stream;
use tracing::Instrument as _;

/// A running task; dropping it aborts it.
#[derive(Debug)]
pub(crate) struct Task {
    _set: JoinSet<()>,
}

/// Starts `work` under the name `name`.
pub(crate) fn start(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Task {
    let mut set = JoinSet::new();
    set.spawn(work.instrument(tracing::info_span!("task", name)));
    Task { _set: set }
}

/// What work on a thread that may block came to. Such work is cancelled only while the daemon ends: that is no
/// failure of whatever a build needed, and whoever waits for it ends with the daemon.
pub(crate) async fn finished<T>(work: JoinHandle<T>) -> Result<T, JoinError> {
    match work.await {
        Err(error) if error.is_cancelled() => std::future::pending().await,
        done => done,
    }
}

/// A stream of what a task sends. The task ends with the stream.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    receiver: mpsc::Receiver<T>,
    _task: Task,
}

/// Starts a task that feeds a stream; at most `bound` items wait to be taken.
pub(crate) fn feed<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    bound: usize,
    work: impl FnOnce(mpsc::Sender<T>) -> F,
) -> Feed<T> {
    let (sender, receiver) = mpsc::channel(bound);
    Feed {
        receiver,
        _task: start(name, work(sender)),
    }
}

impl<T> Stream for Feed<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.receiver.poll_recv(context)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
