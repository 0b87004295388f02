use std::io::Write;
use std::os::fd::AsFd;

use belljar_core::{ObjectId, Recipe, Unpack};
use belljar_plan::frame::{self, Frame};
use belljar_plan::unpack::{Said, Told};
use belljar_sys::seqpacket::Connection;

#[allow(dead_code, unused_imports, reason = "the store uses more of it")]
#[path = "../../crates/belljar-store/src/derive/unpacker/mod.rs"]
mod unpacker;

/// What fits a pipe, so that nobody has to write while the other reads.
pub(crate) const MOST: usize = 60_000;

/// An archive, of tar, plain or compressed, or ZIP, as an unpacker reads it: it says what it finds, or refuses.
pub fn archive(bytes: &[u8]) {
    if bytes.len() > MOST {
        return;
    }
    let archive = ObjectId::of(bytes);
    let recipe = match bytes.starts_with(b"PK") {
        true => Recipe::Fetched {
            content: archive,
            unpack: Unpack::zip(0).expect("few components"),
        },
        false => Recipe::Tar { archive },
    };
    unpack(recipe, bytes);
}

/// Has an unpacker carry out a recipe of these bytes, which have to fit a pipe.
pub(crate) fn unpack(recipe: Recipe, bytes: &[u8]) {
    let content = ObjectId::of(bytes);
    carry_out(recipe, |object| {
        assert_eq!(object, content);
        bytes
    });
}

/// Has an unpacker carry out a recipe. What it needs is given to it, if that fits a pipe. Says whether it came to the end.
pub(crate) fn carry_out<'a>(recipe: Recipe, mut give: impl FnMut(ObjectId) -> &'a [u8]) -> bool {
    let (store, theirs) = Connection::pair().expect("a pair");
    let work = std::thread::spawn(move || unpacker::work(&theirs));
    tell(&store, &Told::Unpack { recipe });
    let mut buffer = vec![0; belljar_core::bounds::FRAME_BYTES];
    let mut done = false;
    while let Ok(Some(received)) = store.receive(&mut buffer) {
        let message = frame::parse(&buffer[..received.length]).expect("a frame");
        let Frame::Control(rest) = message else {
            continue;
        };
        match frame::decode(rest).expect("what an unpacker may say") {
            Said::Need { object } => {
                let (reading, mut writing) = std::io::pipe().expect("a pipe");
                writing.write_all(give(object)).expect("it fits");
                let content = frame::encode(&Told::Content {}).expect("a frame");
                // Whoever has stopped meanwhile does not listen.
                let _ = store.send_with(&content, reading.as_fd());
            }
            Said::End {} => {
                done = true;
                break;
            }
            Said::Refused { .. } => break,
            _ => {}
        }
    }
    drop(store);
    let ended = work.join().expect("an unpacker never panics");
    assert!(
        ended.is_ok(),
        "what cannot be unpacked is refused: {ended:?}"
    );
    done
}

fn tell(store: &Connection, told: &Told) {
    let message = frame::encode(told).expect("a frame");
    store.send(&message).expect("somebody listens");
}
