//! Trees that are staged while objects go.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use belljar_cas::{Custody, Finding, Found, ReadError, Removal};
use belljar_core::Digest;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A moment that one thread tells another of.
struct Moment(Mutex<Sender<()>>, Mutex<Receiver<()>>);

impl Moment {
    fn new() -> Arc<Self> {
        let (sender, receiver) = channel();
        Arc::new(Self(Mutex::new(sender), Mutex::new(receiver)))
    }

    fn has_come(&self) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(()).unwrap();
    }

    fn wait(&self) {
        let receiver = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv_timeout(LONG).unwrap();
    }
}

/// Objects of which somebody is told what is done with them.
struct Watched {
    memory: Memory,
    damages: AtomicU64,
    reading: Box<dyn Fn(ObjectId) + Send + Sync>,
    removing: Box<dyn Fn(Digest) + Send + Sync>,
    put_aside: Box<dyn Fn() + Send + Sync>,
}

impl Watched {
    fn new(memory: &Memory) -> Self {
        Self {
            memory: memory.clone(),
            damages: AtomicU64::new(0),
            reading: Box::new(|_| {}),
            removing: Box::new(|_| {}),
            put_aside: Box::new(|| {}),
        }
    }
}

impl BlobSource for Watched {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        (self.reading)(object);
        self.memory.read(object)
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        self.memory.contains(object)
    }
}

impl Custody for Watched {
    fn remove(&self, digest: Digest, before: u64) -> io::Result<Removal> {
        (self.removing)(digest);
        self.memory.remove(digest, before)
    }

    /// As objects on disk have it: what is put aside is counted before it is gone.
    fn examine(&self, digest: Digest, told: &mut dyn FnMut(usize)) -> Result<Finding, ReadError> {
        self.damages.fetch_add(1, Ordering::SeqCst);
        let finding = self.memory.examine(digest, told)?;
        (self.put_aside)();
        Ok(finding)
    }

    fn damages(&self) -> u64 {
        self.damages.load(Ordering::SeqCst)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn of_prefix(&self, prefix: u8) -> io::Result<Vec<Found>> {
        self.memory.of_prefix(prefix)
    }
}

#[test]
fn a_tree_whose_image_is_made_while_objects_go_has_all_of_them_or_is_not_staged() {
    let mut rig = Rig::new();
    let tree = rig.tree("used", b"used");
    let (file, other) = (ObjectId::of(b"used"), rig.memory.put(b"other"));
    let (begun, going, looked) = (Moment::new(), Moment::new(), Moment::new());
    let looks = AtomicUsize::new(0);
    let source = Watched {
        reading: {
            let (begun, going, looked) = (begun.clone(), going.clone(), looked.clone());
            Box::new(move |object| {
                if object == tree && looks.load(Ordering::SeqCst) == 0 {
                    // It is held, and there is no image yet.
                    begun.has_come();
                    going.wait();
                }
                // The second time is when the image is there.
                if object == file && looks.fetch_add(1, Ordering::SeqCst) == 1 {
                    looked.has_come();
                }
            })
        },
        ..Watched::new(&rig.memory)
    };
    let custody = Watched {
        removing: Box::new(move |digest| {
            if digest == other.digest {
                going.has_come();
                looked.wait();
            }
        }),
        ..Watched::new(&rig.memory)
    };
    let store = Arc::get_mut(&mut rig.store).unwrap();
    (store.source, store.custody) = (Box::new(source), Box::new(custody));
    let mut spawner = rig.connect(Role::Spawner);
    spawner.ask(&stage(1, tree));
    begun.wait();
    let mut client = rig.connect(Role::Client);
    let removed = client.reply(&Request::Remove {
        objects: vec![other.digest, file.digest],
        before: u64::MAX,
    });
    let staged = spawner.answer();
    match removed {
        Answer::Removed { removed: 2, .. } => {}
        other => panic!("{other:?}"),
    }
    match staged {
        Answer::Failed { class, .. } => assert_eq!(class, Failure::Missing),
        other => panic!("{other:?} without {file}"),
    }
}

#[test]
fn a_tree_of_which_an_object_is_just_being_put_aside_is_not_staged_as_known() {
    let mut rig = Rig::new();
    let tree = rig.tree("used", b"used");
    let file = ObjectId::of(b"used");
    let (aside, staged) = (Moment::new(), Moment::new());
    let custody = Watched {
        put_aside: {
            let (aside, staged) = (aside.clone(), staged.clone());
            Box::new(move || {
                aside.has_come();
                staged.wait();
            })
        },
        ..Watched::new(&rig.memory)
    };
    Arc::get_mut(&mut rig.store).unwrap().custody = Box::new(custody);
    rig.staged(1, tree).close();
    rig.memory.put_as(file, b"uSed");
    let store = Arc::clone(&rig.store);
    let examining = std::thread::spawn(move || store.put_aside(file));
    aside.wait();
    let mut spawner = rig.connect(Role::Spawner);
    let answer = spawner.reply(&stage(2, tree));
    staged.has_come();
    examining.join().unwrap();
    match answer {
        Answer::Failed { class, .. } => assert_eq!(class, Failure::Missing),
        other => panic!("{other:?} without {file}"),
    }
}
