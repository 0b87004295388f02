//! Several threads that take outputs, and what happens in their middle.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::*;
use belljar_cas::{Batch, BlobSink, PendingBlob, WriteError};
use belljar_core::{BlobName, Sha512Digest};
use belljar_plan::{OutputEntry, OutputKind};
use proptest::prelude::*;

/// A disk that does not do what it is asked to for the time that is counted down to, by whichever thread, and counts what
/// is begun and not over.
#[derive(Clone)]
struct Failing {
    inner: Memory,
    left: Arc<AtomicI64>,
    open: Arc<AtomicUsize>,
}

struct FailingBlob {
    inner: Option<Box<dyn PendingBlob>>,
    disk: Failing,
}

impl Failing {
    fn ask(&self) -> Result<(), WriteError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(WriteError::Full(std::io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

impl BlobSink for Failing {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        self.ask()?;
        let inner = Some(self.inner.begin(expected)?);
        self.open.fetch_add(1, Ordering::SeqCst);
        let disk = self.clone();
        Ok(Box::new(FailingBlob { inner, disk }))
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        self.ask()?;
        self.inner.batch()
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        self.ask()?;
        self.inner.keep(batch)
    }

    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError> {
        self.inner.give_again(object)
    }
}

impl PendingBlob for FailingBlob {
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.disk.ask()?;
        self.inner.as_mut().unwrap().write(piece)
    }

    fn finish(mut self: Box<Self>) -> Result<ObjectId, WriteError> {
        self.inner.take().unwrap().finish()
    }

    fn finish_into(mut self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError> {
        self.disk.ask()?;
        self.inner.take().unwrap().finish_into(batch)
    }
}

impl Drop for FailingBlob {
    fn drop(&mut self) {
        self.disk.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection on which a directory `d` of any size may come, and has begun.
fn begun(rig: &Rig) -> Peer {
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let request = Request::Collect {
        outputs: outputs(&["d"]),
        limit_bytes: 1 << 30,
        limit_entries: 1000,
        image: None,
    };
    assert_eq!(peer.reply(&request), Answer::CollectReady);
    let path = RelPath::new("d").unwrap();
    peer.tell(&Collected::Directory { path });
    peer
}

fn name(number: usize) -> RelPath {
    RelPath::new(format!("d/{number:03}")).unwrap()
}

fn file(number: usize) -> Collected {
    Collected::File {
        path: name(number),
        executable: false,
        size: 0,
    }
}

#[test]
fn a_failure_in_any_thread_at_any_time_is_told_once_and_leaves_nothing_open() {
    /// More than the threads have waiting for them.
    const FILES: usize = 40;
    /// Their beginnings, ends, and pieces; there is one batch at least, to be begun and kept.
    const ASKED: usize = FILES * 2 + FILES / 2 * 3 + 2;
    for left in (0..ASKED).rev().step_by(2) {
        let mut rig = Rig::new();
        let disk = Failing {
            inner: rig.memory.clone(),
            left: Arc::new(AtomicI64::new(i64::try_from(left).unwrap())),
            open: Arc::default(),
        };
        Arc::get_mut(&mut rig.store).unwrap().sink = Box::new(disk.clone());
        let mut peer = begun(&rig);
        for number in 0..FILES {
            peer.tell(&file(number));
            peer.data(&vec![
                u8::try_from(number).unwrap();
                number % 2 * (2 * bounds::CHUNK_BYTES + 1)
            ]);
            peer.tell(&Collected::FileEnd);
        }
        peer.tell(&Collected::End);
        assert_eq!(peer.failure(), Failure::Full, "{left}");
        assert_eq!(disk.open.load(Ordering::SeqCst), 0, "{left}");
        assert_eq!(
            peer.reply(&Request::VerifyInputs),
            Answer::Inputs { unchanged: true },
            "{left}: it is told once, and the connection goes on"
        );
    }
}

/// What comes in the middle of a collection.
#[derive(Clone, Debug)]
enum Intruder {
    Nobody,
    Message(Collected),
    Content,
    Request,
    Closing,
}

fn intruder() -> impl Strategy<Value = Intruder> {
    let why = "none".to_owned();
    prop::sample::select(vec![
        Intruder::Nobody,
        Intruder::Message(Collected::End),
        Intruder::Message(Collected::FileEnd),
        Intruder::Message(Collected::Refused { why }),
        Intruder::Message(file(0)),
        Intruder::Content,
        Intruder::Request,
        Intruder::Closing,
    ])
}

fn content(number: usize, pieces: &[u16]) -> Vec<u8> {
    let length = pieces.iter().map(|length| usize::from(*length)).sum();
    vec![u8::try_from(number).unwrap(); length]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_in_the_middle_of_several_files_none_is_kept_in_part(
        files in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![3 => 0..4_u16, 1 => any::<u16>()], 0..8),
            1..80,
        ),
        intruder in intruder(),
        at in any::<prop::sample::Index>(),
    ) {
        let rig = Rig::new();
        let mut peer = begun(&rig);
        let before = rig.memory.ids();
        let mut messages = Vec::new();
        for (number, pieces) in files.iter().enumerate() {
            messages.push(control(&file(number)));
            for length in pieces {
                let mut data = vec![u8::try_from(number).unwrap(); usize::from(*length) + 1];
                data[0] = b'D';
                messages.push(data);
            }
            messages.push(control(&Collected::FileEnd));
        }
        let at = at.index(messages.len() + 1);
        let rest = messages.split_off(at);
        messages.iter().for_each(|message| peer.send(message));
        let mut goes_on = true;
        match &intruder {
            Intruder::Nobody => {}
            Intruder::Message(message) => {
                goes_on = !matches!(message, Collected::End | Collected::Refused { .. });
                peer.tell(message);
            }
            Intruder::Content => peer.data(b"from nowhere"),
            Intruder::Request => {
                goes_on = false;
                let answer = peer.reply(&Request::VerifyInputs);
                prop_assert_eq!(answer, Answer::Inputs { unchanged: true });
            }
            Intruder::Closing => {
                goes_on = false;
            }
        }
        if goes_on {
            rest.iter().for_each(|message| peer.send(message));
            peer.tell(&Collected::End);
        }
        let told = match intruder {
            Intruder::Request | Intruder::Closing => Vec::new(),
            _ => {
                let mut told = vec![peer.answer()];
                while matches!(told.last(), Some(Answer::Output { .. })) {
                    told.push(peer.answer());
                }
                prop_assert_eq!(
                    peer.reply(&Request::VerifyInputs),
                    Answer::Inputs { unchanged: true }
                );
                told
            }
        };
        peer.close();
        let whole: Vec<Vec<u8>> = files.iter().enumerate().map(|(n, f)| content(n, f)).collect();
        if !matches!(intruder, Intruder::Content) {
            // Content from nowhere may have come in a file.
            let whole: Vec<ObjectId> = whole.iter().map(|content| ObjectId::of(content)).collect();
            let is_due = |id: &ObjectId| before.contains(id) || whole.contains(id);
            prop_assert!(rig.memory.ids().iter().all(is_due));
        }
        if matches!(intruder, Intruder::Nobody) {
            prop_assert_eq!(told.len(), files.len() + 2);
            prop_assert_eq!(told.last(), Some(&Answer::CollectDone));
            for (number, (content, answer)) in whole.iter().zip(&told[1..]).enumerate() {
                let kind = OutputKind::File {
                    object: ObjectId::of(content),
                    sha512: Sha512Digest::of(content),
                    executable: false,
                };
                let entry = OutputEntry { path: name(number), kind };
                prop_assert_eq!(answer, &Answer::Output { entry });
                prop_assert_eq!(&rig.content(ObjectId::of(content)), content);
            }
        }
    }
}
