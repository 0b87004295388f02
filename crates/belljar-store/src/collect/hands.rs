use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use belljar_cas::{Batch, BlobSink, PendingBlob, WriteError};
use belljar_core::{ObjectId, Sha512Digest, Sha512Hasher, bounds};

use super::Rejected;
use crate::failed::Failed;

/// What a file was found to be.
pub(crate) type Hashed = (ObjectId, Sha512Digest);

/// Threads that hash and write files of one collection, each of them whole files. There is one more when all that there
/// are have enough to do, up to [`bounds::OUTPUT_HANDS`].
pub(crate) struct Hands<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    sink: &'env dyn BlobSink,
    hands: Vec<Hand<'scope>>,
    most: usize,
    /// Which of them has the file that has begun.
    open: Option<usize>,
}

struct Hand<'scope> {
    orders: SyncSender<Order>,
    thread: ScopedJoinHandle<'scope, Result<Vec<(usize, Hashed)>, WriteError>>,
}

enum Order {
    /// Of the file whose end comes next.
    Piece(Vec<u8>),
    /// The end of the file with this number.
    End(usize),
    /// Whatever has come is wanted.
    Keep,
}

/// What one thread is at.
struct Work<'a> {
    sink: &'a dyn BlobSink,
    file: Option<(Box<dyn PendingBlob>, Sha512Hasher)>,
    /// Complete files that are not durable yet. Made before the first of them is begun.
    batch: Option<Batch>,
    done: Vec<(usize, Hashed)>,
}

impl<'scope, 'env> Hands<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, sink: &'env dyn BlobSink) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            scope,
            sink,
            hands: Vec::new(),
            most: processors.min(bounds::OUTPUT_HANDS),
            open: None,
        }
    }

    /// Takes a piece of the file whose end comes next.
    pub(crate) fn piece(&mut self, piece: &[u8]) -> Result<(), Rejected> {
        self.give(Order::Piece(piece.to_vec()))
    }

    /// The file that has come is complete, and has this number.
    pub(crate) fn end_file(&mut self, number: usize) -> Result<(), Rejected> {
        self.give(Order::End(number))?;
        self.open = None;
        Ok(())
    }

    /// Makes all files durable. Gives what each of them is, by its number: there are so many.
    pub(crate) fn keep(self, files: usize) -> Result<Vec<Hashed>, Rejected> {
        for hand in &self.hands {
            // One that has failed says so below.
            let _ = hand.orders.send(Order::Keep);
        }
        let mut all: Vec<Option<Hashed>> = vec![None; files];
        for hand in self.hands {
            for (number, hashed) in hand.end()? {
                if let Some(place) = all.get_mut(number) {
                    *place = Some(hashed);
                }
            }
        }
        let all: Option<Vec<Hashed>> = all.into_iter().collect();
        all.ok_or_else(|| Rejected::Failed(Failed::refused("a file has not come to its end")))
    }

    fn give(&mut self, order: Order) -> Result<(), Rejected> {
        if let Some(open) = self.open {
            return self.wait_for(open, order);
        }
        let mut order = order;
        for (at, hand) in self.hands.iter().enumerate() {
            match hand.orders.try_send(order) {
                Ok(()) => {
                    self.open = Some(at);
                    return Ok(());
                }
                Err(TrySendError::Full(back)) => order = back,
                Err(TrySendError::Disconnected(_)) => return Err(self.failed(at)),
            }
        }
        if self.hands.len() < self.most {
            self.start()?;
        }
        // The last one: either new, or as good as any.
        let last = self.hands.len().saturating_sub(1);
        self.open = Some(last);
        self.wait_for(last, order)
    }

    fn wait_for(&mut self, at: usize, order: Order) -> Result<(), Rejected> {
        match self.hands.get(at).map(|hand| hand.orders.send(order)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failed(at)),
        }
    }

    fn start(&mut self) -> Result<(), Rejected> {
        let (orders, received) = sync_channel(bounds::OUTPUT_PIECES_WAITING);
        let work = Work {
            sink: self.sink,
            file: None,
            batch: None,
            done: Vec::new(),
        };
        let thread = thread::Builder::new().name("outputs".to_owned());
        let thread = thread.spawn_scoped(self.scope, move || work.run(&received));
        let thread = thread.map_err(|error| {
            Rejected::Failed(Failed::internal("starting a thread for outputs", &error))
        })?;
        self.hands.push(Hand { orders, thread });
        Ok(())
    }

    /// Why one of them takes nothing more.
    fn failed(&mut self, at: usize) -> Rejected {
        self.open = None;
        let ended = match at < self.hands.len() {
            true => self.hands.swap_remove(at).end(),
            false => Ok(Vec::new()),
        };
        let why = "a thread for outputs has ended";
        ended
            .err()
            .unwrap_or_else(|| Rejected::Failed(Failed::refused(why)))
    }
}

impl Hand<'_> {
    fn end(self) -> Result<Vec<(usize, Hashed)>, Rejected> {
        drop(self.orders);
        let panicked = |_| Rejected::Failed(Failed::refused("a thread for outputs has stopped"));
        let done = self.thread.join().map_err(panicked)?;
        done.map_err(|error| Rejected::Failed(error.into()))
    }
}

impl Work<'_> {
    /// Does what it is told, to the end. Where that does not come, nobody wants what there is.
    fn run(mut self, orders: &Receiver<Order>) -> Result<Vec<(usize, Hashed)>, WriteError> {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Piece(piece) => {
                    let (blob, sha512) = self.file()?;
                    blob.write(&piece)?;
                    sha512.update(&piece);
                }
                Order::End(number) => self.end_file(number)?,
                Order::Keep => {
                    if let Some(batch) = self.batch.take() {
                        self.sink.keep(batch)?;
                    }
                    return Ok(self.done);
                }
            }
        }
        Ok(Vec::new())
    }

    /// The file that has begun; with its first piece, or its end, it does.
    fn file(&mut self) -> Result<&mut (Box<dyn PendingBlob>, Sha512Hasher), WriteError> {
        if self.batch.is_none() {
            self.batch = Some(self.sink.batch()?);
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => (self.sink.begin(None)?, Sha512Hasher::new()),
        };
        Ok(self.file.insert(file))
    }

    fn end_file(&mut self, number: usize) -> Result<(), WriteError> {
        self.file()?;
        let (Some((blob, sha512)), Some(mut batch)) = (self.file.take(), self.batch.take()) else {
            return Ok(());
        };
        let object = blob.finish_into(&mut batch)?;
        if batch.is_full() {
            self.sink.keep(batch)?;
        } else {
            self.batch = Some(batch);
        }
        self.done.push((number, (object, sha512.finish())));
        Ok(())
    }
}
