//! Trees out of archives and images. An unpacker, a disposable process, reads the hostile bytes and says
//! what it finds; here it is taken apart from what cannot be, put together, kept, and recorded.

mod assembly;
mod customer;
mod feed;
mod heard;
mod keeper;
mod names;
mod nursery;
mod places;
mod records;
mod spool;
mod stopped;
mod unpacker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use belljar_cas::{BlobSink, BlobSource, Room};
use belljar_core::{Derivation, Dropped, Fact, ObjectId, Recipe, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::Answer;
use belljar_plan::unpack::{Said, Told};
use belljar_sys::seqpacket::Connection;

use crate::failed::Failed;
use assembly::{Assembled, Assembly};
pub(crate) use customer::Customer;
use feed::{Fed, Feed};
use keeper::Keeper;
use names::Names;
use places::Places;
use spool::Spool;

#[cfg(test)]
pub(crate) use nursery::Unpacker;
pub(crate) use nursery::{Nursery, Unpackers};
pub(crate) use records::Records;
use stopped::{Stopped, ended_early, foreign, not_read, too_long, untrue};
#[cfg(test)]
pub(crate) use unpacker::work;

/// How often the clock is looked at while nothing comes.
const LOOK: Duration = Duration::from_secs(1);

/// What derivations need beside objects.
pub(crate) struct Derivations {
    unpackers: Box<dyn Unpackers>,
    records: Records,
    /// Where content waits until it is known to be wanted.
    tmp: PathBuf,
    /// What is left to builds that run.
    room: Room,
    places: Places,
}

impl Derivations {
    pub(crate) fn new(
        unpackers: Box<dyn Unpackers>,
        records: Records,
        tmp: PathBuf,
        room: Room,
    ) -> Self {
        Self {
            unpackers,
            records,
            tmp,
            room,
            places: Places::default(),
        }
    }

    /// The encoding of a record that was made here.
    pub(crate) fn record(
        &self,
        source: &dyn BlobSource,
        record: ObjectId,
    ) -> Result<Vec<u8>, Failed> {
        self.records.read(source, record)
    }

    /// Makes a tree. When this returns one, tree and record are durable.
    fn derive(
        &self,
        source: &dyn BlobSource,
        sink: &dyn BlobSink,
        recipe: Recipe,
        customer: &mut dyn Customer,
    ) -> Result<(ObjectId, Derivation), Stopped> {
        let _place = self.places.take().ok_or(Stopped::Busy)?;
        let unpacker = self
            .unpackers
            .start()
            .map_err(|e| Failed::internal("starting an unpacker", &e))?;
        let mut work = Work {
            source,
            customer,
            connection: &unpacker.connection,
            deadline: Instant::now() + Duration::from_secs(bounds::DERIVATION_SECONDS),
            looked: Instant::now(),
            assembly: Assembly::default(),
            spool: Spool::new(&self.tmp, self.room.clone())?,
            names: Names::of(&recipe),
            feed: None,
            from: BTreeSet::new(),
            packed: 0,
            unpacked: 0,
            dropped: BTreeMap::new(),
            facts: Vec::new(),
            fact_bytes: 0,
        };
        let heard = work.listen(&recipe);
        if heard.is_err() {
            // It may still hold the pipe that it was to read.
            unpacker.kill();
        }
        // A damaged object is the better explanation of what an unpacker says about its content.
        let fed = work.feed.take().map(Feed::finish).transpose()?;
        heard?;
        if fed.is_some_and(|fed| fed != Fed::Whole) {
            return Err(not_read().into());
        }
        work.keep(sink, &self.records, recipe)
    }

    /// Makes a tree for a customer, out of what may be read for it, and tells what came of it. An object that turns out damaged
    /// is given to `aside`.
    pub(crate) fn answer(
        &self,
        source: &dyn BlobSource,
        sink: &dyn BlobSink,
        recipe: Recipe,
        customer: &mut dyn Customer,
        aside: impl FnOnce(ObjectId),
    ) -> Answer {
        match self.derive(source, sink, recipe, customer) {
            Ok((derivation, record)) => {
                tracing::info!(tree = %record.tree, record = %derivation, entries = record.entries, bytes = record.bytes, "a tree was made");
                Answer::Derived {
                    tree: record.tree,
                    derivation,
                    entries: record.entries,
                    bytes: record.bytes,
                    dropped: record.dropped,
                }
            }
            Err(stopped) => {
                if let Stopped::Damaged(object, _) = stopped {
                    aside(object);
                }
                stopped.into()
            }
        }
    }
}

/// One derivation.
struct Work<'a> {
    source: &'a dyn BlobSource,
    customer: &'a mut dyn Customer,
    connection: &'a Connection,
    deadline: Instant,
    looked: Instant,
    assembly: Assembly,
    spool: Spool,
    /// What git calls what came, if it is about commits.
    names: Option<Names>,
    /// The object that is being read.
    feed: Option<Feed>,
    from: BTreeSet<ObjectId>,
    /// Bytes of everything that was read.
    packed: u64,
    /// Content bytes that came.
    unpacked: u64,
    dropped: BTreeMap<Dropped, u64>,
    facts: Vec<Fact>,
    fact_bytes: usize,
}

impl Work<'_> {
    /// Gives the order, and hears the unpacker to its end.
    fn listen(&mut self, recipe: &Recipe) -> Result<(), Stopped> {
        let broken = |e: io::Error| Failed::internal("speaking with an unpacker", &e);
        self.connection.set_timeout(Some(LOOK)).map_err(broken)?;
        let recipe = recipe.clone();
        self.tell(&Told::Unpack { recipe }, None)?;
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        loop {
            let length = self.receive(&mut buffer)?;
            match frame::parse(&buffer[..length]).map_err(foreign)? {
                Frame::Data(piece) => self.piece(piece)?,
                Frame::Control(rest) => match frame::decode(rest).map_err(foreign)? {
                    Said::End {} => return Ok(()),
                    Said::Refused { why } => return Err(Stopped::Refused(why)),
                    Said::Need { object } => self.give(object)?,
                    Said::Dropped { what, count } => self.left_out(what, count)?,
                    Said::Fact { fact } => self.fact(fact, rest.len())?,
                    said => self.entry(said)?,
                },
            }
        }
    }

    /// Whether it is worth to go on: looked at now and then.
    fn look(&mut self) -> Result<(), Failed> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        if self.looked > self.deadline {
            return Err(too_long());
        }
        match self.customer.is_there() {
            true => Ok(()),
            false => Err(Failed::refused("who wanted the tree is gone")),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Failed> {
        loop {
            self.look()?;
            match self.connection.receive(buffer) {
                Ok(Some(received)) => return Ok(received.length),
                Ok(None) => return Err(ended_early()),
                // It had not read all that it was told.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(ended_early()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Failed::internal("hearing an unpacker", &error)),
            }
        }
    }

    fn tell(&self, told: &Told, descriptor: Option<OwnedFd>) -> Result<(), Failed> {
        let message = frame::encode(told)?;
        let sent = match descriptor {
            None => self.connection.send(&message),
            Some(descriptor) => self.connection.send_with(&message, descriptor.as_fd()),
        };
        sent.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ended_early(),
            _ => Failed::internal("speaking with an unpacker", &e),
        })
    }

    /// Begins to feed an object.
    fn give(&mut self, object: ObjectId) -> Result<(), Stopped> {
        if let Some(before) = self.feed.take()
            && before.finish()? != Fed::Whole
        {
            return Err(not_read().into());
        }
        // In this order: what may not be read is not looked for.
        if !self.customer.may(object)? || !self.source.contains(object).map_err(Failed::from)? {
            self.tell(&Told::Missing {}, None)?;
            return Err(Stopped::Lacks(object));
        }
        if self.from.insert(object) {
            // Once, however often it is read.
            self.packed = self.packed.saturating_add(object.size);
        }
        if self.from.len() > bounds::DERIVATION_OBJECTS {
            return Err(Stopped::Refused(format!(
                "more than {} objects are needed",
                bounds::DERIVATION_OBJECTS
            )));
        }
        let (feed, pipe) = Feed::start(self.source, object)?;
        self.feed = Some(feed);
        Ok(self.tell(&Told::Content {}, Some(pipe))?)
    }

    /// Makes everything durable: content, directories, the record, and last the mark that says whose
    /// record it is.
    fn keep(
        mut self,
        sink: &dyn BlobSink,
        records: &Records,
        recipe: Recipe,
    ) -> Result<(ObjectId, Derivation), Stopped> {
        let Assembled {
            built,
            objects,
            entries,
            bytes,
        } = std::mem::take(&mut self.assembly)
            .finish()
            .map_err(Stopped::Refused)?;
        if let Some(names) = self.names.take() {
            names.finish().map_err(untrue)?;
        }
        let mut keeper = Keeper::new(sink)?;
        for object in objects {
            self.look()?;
            // What is there and belongs to nobody may be about to go; given now, it stays as long as the new objects do.
            if !sink.give_again(object).map_err(Failed::from)? {
                let spool = &self.spool;
                keeper.put(object, |blob| spool.copy(object, blob))?;
            }
        }
        for (object, encoded) in &built.directories {
            if !sink.give_again(*object).map_err(Failed::from)? {
                keeper.put(*object, |blob| Ok(blob.write(encoded)?))?;
            }
        }
        let record = Derivation {
            schema: Derivation::SCHEMA.to_owned(),
            recipe,
            from: self.from,
            tree: built.root,
            entries,
            bytes,
            dropped: self.dropped,
            facts: self.facts,
        };
        let encoded = record.canonical().map_err(Failed::from)?;
        let object = ObjectId::of(&encoded);
        // Always written, also where everything else was there before: what is made durable with it is all.
        keeper.put(object, |blob| Ok(blob.write(&encoded)?))?;
        keeper.finish()?;
        records
            .mark(object)
            .map_err(|e| Failed::internal("marking a record", &e))?;
        Ok((object, record))
    }
}
