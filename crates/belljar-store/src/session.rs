use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use belljar_cas::{BlobSink, BlobSource, Custody, Images};
use belljar_core::{AttemptId, Derivation, Limits, ObjectId, Outputs};
use belljar_plan::ConfinedStep;
use belljar_plan::store::{Answer, Failure, ImageOrder, Request, StagedTree};

use crate::asking::Asking;
use crate::channel::{Broken, Channel};
use crate::collect::{self, collect};
use crate::compose::Composer;
use crate::config::Role;
use crate::derive::Derivations;
use crate::failed::Failed;
use crate::lease::{Lease, Leases};
use crate::log::{KeptLog, LogSink, OpenLog};
use crate::many::put_many;
use crate::partial::Partials;
use crate::put::put;
use crate::receive::receive;
use crate::refused::Refused;
use crate::scrub::Scrubber;
use crate::server::Slot;
use crate::stage::Staged;
use crate::upload::{Asked as AskedUpload, upload};

/// What all connections share.
pub(crate) struct Store {
    pub(crate) source: Box<dyn BlobSource>,
    /// For what builds leave that run, and their evidence.
    pub(crate) sink: Box<dyn BlobSink>,
    /// For what callers bring: not when only the reserve is left.
    pub(crate) intake: Box<dyn BlobSink>,
    pub(crate) custody: Box<dyn Custody>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) scrubber: Scrubber,
    /// Where all of it lies.
    pub(crate) root: PathBuf,
    /// Bytes that are kept free for builds that run.
    pub(crate) reserve: u64,
    /// How long an object stays that was given, in seconds.
    pub(crate) grace: u64,
    pub(crate) partials: Arc<Partials>,
    pub(crate) images: Images,
    /// Where logs lie.
    pub(crate) logs: PathBuf,
    pub(crate) derivations: Derivations,
    pub(crate) refused: Arc<Refused>,
    /// How this process has confined itself.
    pub(crate) confined: Vec<ConfinedStep>,
}

/// One connection and what it has asked for so far.
pub(crate) struct Session {
    store: Arc<Store>,
    role: Role,
    channel: Channel,
    slot: Arc<Slot>,
    attempt: Option<Attempt>,
}

/// The attempt that a connection belongs to since it was staged.
struct Attempt {
    id: AttemptId,
    /// What it uses stays.
    _lease: Lease,
    staged: Staged,
    log: Log,
    collected: bool,
}

enum Log {
    None,
    Open(OpenLog),
    Finished,
}

type Asked = (Request, Option<OwnedFd>);

impl Session {
    pub(crate) fn new(store: Arc<Store>, role: Role, channel: Channel, slot: Arc<Slot>) -> Self {
        Self {
            store,
            role,
            channel,
            slot,
            attempt: None,
        }
    }

    /// Serves the connection until it closes or breaks.
    pub(crate) fn run(mut self) {
        match self.converse() {
            Ok(()) | Err(Broken::Closed) => {}
            Err(Broken::Io(error)) => {
                tracing::warn!(role = ?self.role, %error, "a connection broke")
            }
            Err(Broken::Refused(failed)) => {
                // The other end may be gone already; then nobody needs to be told.
                let _ = self.channel.answer(&failed.into());
            }
        }
    }

    fn converse(&mut self) -> Result<(), Broken> {
        let mut next = None;
        loop {
            let asked = match next.take() {
                Some(asked) => asked,
                None => match self.channel.request()? {
                    Some(asked) => asked,
                    None => return Ok(()),
                },
            };
            self.refuse_by_role(&asked)?;
            next = self.serve(asked)?;
        }
    }

    /// A peer that asks what it may never ask is not what it seems, or not well; it is cut off.
    fn refuse_by_role(&self, (request, descriptor): &Asked) -> Result<(), Broken> {
        if Store::is_clients(request) != (self.role == Role::Client) {
            return Err(Broken::Refused(Failed::refused(
                "this peer may not ask that",
            )));
        }
        match (descriptor, request) {
            (None, _) | (Some(_), Request::OpenLog { .. }) => Ok(()),
            (Some(_), _) => Err(Broken::Refused(Failed::refused(
                "a descriptor came with a request that takes none",
            ))),
        }
    }

    /// Serves one request. A request that came in the place of outputs is returned to be served next.
    fn serve(&mut self, (request, descriptor): Asked) -> Result<Option<Asked>, Broken> {
        let result = match request {
            request if Store::is_clients(&request) => return self.take(request).map(|()| None),
            Request::Derivation { record } => match self.derivation(record) {
                Ok(bytes) => {
                    self.channel.answer(&Answer::Derivation {})?;
                    self.channel.content(&bytes)?;
                    return Ok(None);
                }
                Err(failed) => Err(failed),
            },
            Request::Collect {
                outputs,
                limit_bytes,
                limit_entries,
                image,
            } => {
                let limits = collect::Limits {
                    bytes: limit_bytes,
                    entries: limit_entries,
                };
                match self.begin_collection(limits) {
                    Ok(()) => return self.collect(outputs, limits, image),
                    Err(failed) => Err(failed),
                }
            }
            Request::Stage { attempt, trees } => self.stage(attempt, trees),
            Request::OpenLog { limit_bytes } => match self.open_log(limit_bytes, descriptor) {
                Ok(answered) => {
                    self.channel.answer(&Answer::LogOpen)?;
                    drop(answered);
                    return Ok(None);
                }
                Err(failed) => Err(failed),
            },
            Request::MarkLog { step } => self.mark_log(step),
            Request::FinishLog => self.finish_log()?,
            Request::VerifyInputs => self.verify_inputs(),
            _ => Err(Failed::refused("that is no request of the spawner")),
        };
        self.channel.answer(&result.unwrap_or_else(Answer::from))?;
        Ok(None)
    }

    /// Serves one request of a client.
    fn take(&mut self, request: Request) -> Result<(), Broken> {
        let (sink, partials) = (&*self.store.intake, &self.store.partials);
        match request {
            // belljard's own: evidence and logs.
            Request::Put { object } => put(&mut self.channel, &*self.store.sink, object),
            Request::PutMany { blobs } => put_many(&mut self.channel, sink, blobs),
            Request::Receive { digest, most_bytes } => {
                receive(&mut self.channel, sink, digest, most_bytes)
            }
            Request::Upload {
                key,
                sender,
                blob,
                offset,
            } => {
                let asked = AskedUpload {
                    key,
                    sender,
                    blob,
                    offset,
                };
                upload(&mut self.channel, sink, partials, asked)
            }
            Request::Uploaded { key, blob } => self.channel.answer(&Answer::Upload {
                committed: partials.committed(key, blob),
                open: false,
            }),
            Request::Confinement {} => self.channel.answer(&Answer::Confinement {
                steps: self.store.confined.clone(),
            }),
            Request::Derive { recipe } => {
                let (store, source) = (&self.store, &*self.store.source);
                let mut asking = Asking::new(&mut self.channel);
                let aside = |object| store.put_aside(object);
                let derivations = &store.derivations;
                let answer = derivations.answer(source, sink, recipe, &mut asking, aside);
                asking.end(&answer)
            }
            other => {
                let answer = self.store.keep_up(other).unwrap_or_else(|failed| {
                    tracing::warn!(why = failed.why, "nothing was removed");
                    failed.into()
                });
                self.channel.answer(&answer)
            }
        }
    }

    fn derivation(&self, record: ObjectId) -> Result<Vec<u8>, Failed> {
        self.store.derivations.record(&*self.store.source, record)
    }

    /// Whether `record` is this store's own record of what it made `tree` from. One that a caller has uploaded
    /// is none.
    fn vouch(&self, record: ObjectId, tree: ObjectId) -> Result<(), Failed> {
        let foreign = |failed: Failed| Failed {
            why: format!("derivation: {}. hint: leave it out", failed.why),
            ..failed
        };
        let bytes = self.derivation(record).map_err(foreign)?;
        let made = Derivation::from_canonical(&bytes)
            .map_err(|e| Failed::internal("reading a record of a derivation", &e))?;
        if made.tree != tree {
            return Err(Failed {
                class: Failure::Content,
                why: format!(
                    "derivation: the record {record} is about the tree {}, not about {tree}",
                    made.tree
                ),
            });
        }
        Ok(())
    }

    fn stage(&mut self, id: AttemptId, trees: Vec<StagedTree>) -> Result<Answer, Failed> {
        if let Some(attempt) = &self.attempt {
            return Err(Failed::refused(format!(
                "this connection belongs to the attempt {}",
                attempt.id
            )));
        }
        for tree in &trees {
            if let Some(record) = tree.derivation {
                self.vouch(record, tree.tree)?;
            }
        }
        let images = trees.iter().map(StagedTree::image).collect();
        let lease = self.store.leases.hold(&id, images);
        let staged = Staged::prepare(&self.store, trees)?;
        let (entries, bytes) = (staged.entries, staged.bytes);
        tracing::info!(attempt = %id, entries, bytes, made = staged.made, "inputs staged");
        self.attempt = Some(Attempt {
            id,
            _lease: lease,
            staged,
            log: Log::None,
            collected: false,
        });
        Ok(Answer::Staged { entries, bytes })
    }

    /// The log may tell that it is exceeded when what is returned was dropped: not before its opening was
    /// answered.
    fn open_log(
        &mut self,
        limit: u64,
        pipe: Option<OwnedFd>,
    ) -> Result<mpsc::Sender<Infallible>, Failed> {
        let sender = self
            .channel
            .sender()
            .map_err(|e| Failed::internal("making a second handle", &e))?;
        let slot = Arc::clone(&self.slot);
        let directory = self.store.logs.clone();
        let attempt = self.attempt()?;
        if !matches!(attempt.log, Log::None) {
            return Err(Failed::refused("this attempt has a log already"));
        }
        let most = Limits::CEILING.get().log_bytes;
        if limit == 0 || limit > most {
            return Err(Failed::refused(format!(
                "a log limit of {limit} bytes; between 1 and {most} is allowed"
            )));
        }
        let Some(pipe) = pipe else {
            return Err(Failed::refused("no descriptor came with the request"));
        };
        let (answered, waiting) = mpsc::channel();
        let exceeded = move |written| {
            let Err(_dropped) = waiting.recv();
            if sender.answer(&Answer::LogExceeded { written }).is_err() {
                tracing::warn!("nobody could be told that a log is too long");
            }
        };
        let sink = LogSink {
            directory,
            limit,
            exceeded,
            held: slot,
        };
        attempt.log = Log::Open(OpenLog::start(sink, &attempt.id, pipe)?);
        Ok(answered)
    }

    fn mark_log(&mut self, step: u32) -> Result<Answer, Failed> {
        match &mut self.attempt()?.log {
            Log::Open(log) => log.mark(step).map(Answer::LogMarked),
            _ => Err(Failed::refused("no log is open")),
        }
    }

    fn finish_log(&mut self) -> Result<Result<Answer, Failed>, Broken> {
        let attempt = match self.attempt() {
            Ok(attempt) => attempt,
            Err(failed) => return Ok(Err(failed)),
        };
        let log = match std::mem::replace(&mut attempt.log, Log::Finished) {
            Log::Open(log) => log,
            other => {
                attempt.log = other;
                return Ok(Err(Failed::refused("no log is open")));
            }
        };
        match log.finish(self.channel.as_fd()) {
            Some(result) => Ok(result
                .map(|KeptLog { object, truncated }| Answer::LogFinished { object, truncated })),
            None => Err(Broken::Closed),
        }
    }

    fn verify_inputs(&mut self) -> Result<Answer, Failed> {
        let store = Arc::clone(&self.store);
        let unchanged = self.attempt()?.staged.are_unchanged(&store)?;
        if !unchanged {
            let why = "a staged tree was changed while the build ran";
            store.refused.note("the build", "inputs", why);
        }
        Ok(Answer::Inputs { unchanged })
    }

    /// An attempt has one collection. The collector holds this very connection: it must not be able to
    /// begin another with other outputs.
    fn begin_collection(&mut self, limits: collect::Limits) -> Result<(), Failed> {
        limits.check()?;
        let attempt = self.attempt()?;
        if attempt.collected {
            return Err(Failed::refused(
                "the outputs of this attempt were collected already",
            ));
        }
        attempt.collected = true;
        Ok(())
    }

    fn collect(
        &mut self,
        outputs: Outputs,
        limits: collect::Limits,
        image: Option<Box<ImageOrder>>,
    ) -> Result<Option<Asked>, Broken> {
        self.channel.answer(&Answer::CollectReady)?;
        let composer = image.map(|order| Composer::of(&self.store, *order));
        let sink = &*self.store.sink;
        let staged = self.attempt.iter_mut().map(|attempt| &mut attempt.staged);
        let all_read = || staged.for_each(|staged| staged.begin_look(&self.store));
        let channel = &mut self.channel;
        collect(channel, sink, outputs, limits, composer, all_read)
    }

    fn attempt(&mut self) -> Result<&mut Attempt, Failed> {
        self.attempt
            .as_mut()
            .ok_or_else(|| Failed::refused("nothing was staged on this connection"))
    }
}
