//! A daemon to ask, for as long as one command needs it.

use std::time::Duration;

use belljar_core::ProjectId;

use crate::cli::Whom;
use crate::client::Client;
use crate::embedded::Purpose;
use crate::error::Error;
use crate::signals::Signals;
use crate::target::Target;
use crate::terminal::Terminal;

/// Between two looks at whether other runs still use our processes.
const OTHERS: Duration = Duration::from_millis(100);

/// A connection, and what goes with it.
pub(crate) struct Session<'a> {
    /// Connected to the daemon.
    pub(crate) client: Client,
    /// Whose it is.
    pub(crate) target: &'a Target,
    /// A person's wish to stop.
    pub(crate) signals: &'a mut Signals,
    /// Where a person is told what happens.
    pub(crate) terminal: &'a mut Terminal,
}

/// Has `work` done with the daemon `target`, for `project` if one is named; processes of our own end afterwards,
/// unless another run uses them. To be called from the main thread, see [`crate::embedded::Embedded::start`].
///
/// # Errors
/// When the daemon cannot be reached, and what `work` says.
pub(crate) fn with<T>(
    target: Target,
    project: Option<&ProjectId>,
    terminal: &mut Terminal,
    work: impl AsyncFnOnce(&mut Session<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Error::Process("start the runtime", e))?;
    let (done, alone) = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|e| Error::Process("listen for signals", e))?;
        let address = target.address();
        let connected = tokio::select! {
            connected = Client::connect(&address, project) => connected.map_err(Error::from),
            () = signals.next() => Err(Error::Stopped),
        };
        let done = match connected {
            Ok(client) => {
                let mut session = Session {
                    client,
                    target: &target,
                    signals: &mut signals,
                    terminal: &mut *terminal,
                };
                work(&mut session).await
            }
            Err(error) => Err(error),
        };
        Ok::<_, Error>((done, alone(&target, &mut signals, terminal).await))
    })?;
    // In this order: no other run can begin to use what is just ending.
    drop(target);
    drop(alone);
    done
}

/// Has one question asked: of a daemon that runs, else of processes of our own that build nothing. A signal
/// ends it.
///
/// # Errors
/// As [`with`].
pub(crate) fn ask<T>(
    whom: &Whom,
    terminal: &mut Terminal,
    question: impl AsyncFnOnce(&Client, &mut Terminal) -> Result<T, Error>,
) -> Result<T, Error> {
    let target = Target::find_or_start(whom, Purpose::Ask)?;
    with(
        target,
        whom.project.as_ref(),
        terminal,
        async |session: &mut Session<'_>| {
            let (client, terminal) = (session.client.clone(), &mut *session.terminal);
            tokio::select! {
                answer = question(&client, terminal) => answer,
                () = session.signals.next() => Err(Error::Stopped),
            }
        },
    )
}

/// Waits until no other run uses processes of our own, or a signal comes. What is given keeps others out.
async fn alone(
    target: &Target,
    signals: &mut Signals,
    terminal: &mut Terminal,
) -> Option<std::fs::File> {
    let Target::Own(embedded) = target else {
        return None;
    };
    let mut told = false;
    loop {
        // Without the lock the processes end all the same: somebody else's build is then found again at the next start.
        if let Some(lock) = embedded.is_alone().ok()? {
            return Some(lock);
        }
        if !std::mem::replace(&mut told, true) {
            terminal.note("another `belljar run` uses these processes; waiting for it to end (interrupt not to)");
        }
        tokio::select! {
            () = tokio::time::sleep(OTHERS) => {}
            () = signals.next() => return None,
        }
    }
}
