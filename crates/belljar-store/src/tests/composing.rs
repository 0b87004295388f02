//! Images out of what was collected.

use super::*;
use belljar_core::{BaseImage, ImageConfig, ImageOutput, Input, Platform};
use belljar_plan::ImageRecord;
use belljar_plan::store::{ImageOrder, Refusal};

fn order(base: BaseImage) -> Box<ImageOrder> {
    Box::new(ImageOrder {
        output: ImageOutput {
            base,
            root: None,
            config: ImageConfig::default(),
        },
        epoch: 7,
    })
}

/// A connection on which the outputs `d` may come, of which an image on this base becomes.
fn composing(rig: &Rig, base: BaseImage) -> Peer {
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let Request::Collect {
        outputs,
        limit_bytes,
        limit_entries,
        ..
    } = collect(&["d"])
    else {
        unreachable!()
    };
    let request = Request::Collect {
        outputs,
        limit_bytes,
        limit_entries,
        image: Some(order(base)),
    };
    assert_eq!(peer.reply(&request), Answer::CollectReady);
    peer
}

fn directory(path: &str) -> Collected {
    let path = RelPath::new(path).unwrap();
    Collected::Directory { path }
}

fn send(peer: &Peer, path: &str, content: &[u8]) {
    peer.tell(&Collected::File {
        path: RelPath::new(path).unwrap(),
        executable: false,
        size: content.len() as u64,
    });
    peer.data(content);
    peer.tell(&Collected::FileEnd);
}

/// What comes before the end.
fn image(peer: &mut Peer) -> (usize, Option<ImageRecord>) {
    let (mut entries, mut image) = (0, None);
    loop {
        match peer.answer() {
            Answer::Output { .. } => entries += 1,
            Answer::Image(made) => image = Some(*made),
            Answer::CollectDone => return (entries, image),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_image_becomes_of_what_was_collected_and_all_of_it_is_kept() {
    let rig = Rig::new();
    let mut peer = composing(&rig, BaseImage::Scratch(Platform::LinuxAmd64));
    peer.tell(&directory("d"));
    let large = vec![4; 200_000];
    send(&peer, "d/large", &large);
    send(&peer, "d/small", b"x");
    peer.tell(&Collected::End);
    let (entries, image) = image(&mut peer);
    let image = image.unwrap();
    assert_eq!((entries, image.layers.len(), image.base), (3, 1, None));
    for object in image.objects() {
        assert_eq!(rig.content(object).len() as u64, object.size);
    }
    let layer = rig.content(image.layers[0].object);
    let mut archive = tar::Archive::new(&layer[..]);
    let entry = archive.entries().unwrap().nth(1).unwrap();
    let mut content = Vec::new();
    entry.unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, large);
    let manifest = String::from_utf8(rig.content(image.manifest)).unwrap();
    for named in [image.config, image.layers[0].object] {
        assert!(manifest.contains(&named.digest.to_hex()), "{manifest}");
    }
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true },
        "the connection goes on"
    );
}

#[test]
fn what_no_layer_can_have_is_refused_with_the_outputs() {
    let rig = Rig::new();
    let mut peer = composing(&rig, BaseImage::Scratch(Platform::LinuxAmd64));
    peer.tell(&directory("d"));
    send(&peer, "d/.wh.x", b"");
    peer.tell(&Collected::End);
    match peer.answer() {
        Answer::OutputsRefused {
            why: Refusal::Entry { why },
        } => assert!(why.contains("`d/.wh.x`"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_base_whose_record_the_store_has_not_made_is_no_base() {
    let rig = Rig::new();
    // It is there, and is no record.
    let record = rig.tree("b", b"b");
    let tree = rig.tree("a", b"a");
    let derivation = Some(record);
    let mut peer = composing(&rig, BaseImage::Image(Input { tree, derivation }));
    peer.tell(&directory("d"));
    send(&peer, "d/x", b"x");
    peer.tell(&Collected::End);
    match peer.answer() {
        Answer::Failed { class, why } => {
            assert_eq!(class, Failure::Missing);
            assert!(why.contains("no record of a derivation"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_that_the_disk_has_no_room_for_is_the_stores_trouble() {
    // Enough for the output, and not for a layer of it.
    let rig = Rig::with_capacity(300_000);
    let mut peer = composing(&rig, BaseImage::Scratch(Platform::LinuxAmd64));
    peer.tell(&directory("d"));
    send(&peer, "d/x", &vec![7; 200_000]);
    peer.tell(&Collected::End);
    match peer.answer() {
        Answer::Failed { class, .. } => assert_eq!(class, Failure::Full),
        other => panic!("{other:?}"),
    }
}
