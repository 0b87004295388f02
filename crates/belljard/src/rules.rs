//! Who may do what, now: `belljard.toml` says it, and is read again when somebody asks for that.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use belljar_policy::{Identity, Policy};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::config::{Config, ConfigError};
use crate::tasks::{self, Task};

/// The policy in force. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Rules(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    current: watch::Sender<Arc<Policy>>,
    /// Why what the file says now is not in force, if it is not.
    error: Mutex<Option<String>>,
}

impl Rules {
    /// What was read from `file`.
    pub(crate) fn new(file: PathBuf, policy: Policy) -> Self {
        Self(Arc::new(Inner {
            file,
            current: watch::Sender::new(Arc::new(policy)),
            error: Mutex::default(),
        }))
    }

    /// What is in force now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.0.current.borrow().clone()
    }

    /// Whether this one is a member of any project.
    pub(crate) fn knows(&self, identity: &Identity) -> bool {
        !self.policy().grants(identity).is_empty()
    }

    /// Why the file as it is now is not in force, if it is not.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.0.error.lock();
        error.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again on SIGHUP, until the task is dropped.
    pub(crate) fn follow(&self) -> io::Result<Task> {
        let mut hangup = signal(SignalKind::hangup())?;
        let this = self.clone();
        Ok(tasks::start("rules", async move {
            while hangup.recv().await.is_some() {
                let reading = this.clone();
                if let Err(error) = spawn_blocking(move || reading.reload()).await {
                    tracing::error!(%error, "the configuration could not be looked at");
                }
            }
        }))
    }

    /// Puts into force who may do what by the file as it is now; what cannot be used leaves in force what was.
    /// Everything else in the file counts from the next start on.
    pub(crate) fn reload(&self) {
        let error = match self.read() {
            Ok(policy) => {
                let changed = self.0.current.send_if_modified(|current| {
                    let changed = **current != policy;
                    *current = Arc::new(policy);
                    changed
                });
                tracing::info!(changed, "SIGHUP: who may do what was read again");
                None
            }
            Err(error) => {
                let error = tasks::chain(&error);
                let what = "the new configuration cannot be used; what was stays in force";
                tracing::error!(error, "{what}");
                Some(error)
            }
        };
        let mut last = self.0.error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = error;
    }

    fn read(&self) -> Result<Policy, ConfigError> {
        let path = self.0.file.clone();
        let access = Config::load(&path)?.policy.access().clone();
        let policy = self.policy().with(access);
        policy.map_err(|source| ConfigError::Policy { path, source })
    }

    /// Comes when `identity` has lost a right that it had since this was called. What has begun while it had
    /// that must end then.
    pub(crate) fn revoked(
        &self,
        identity: Arc<Identity>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.0.current.subscribe();
        let mut had = changes.borrow_and_update().grants(&identity);
        async move {
            while changes.changed().await.is_ok() {
                let has = changes.borrow_and_update().grants(&identity);
                if !has.include(&had) {
                    return;
                }
                had = has;
            }
            // The daemon ends, and everything with it.
            std::future::pending().await
        }
    }
}
