//! What the signer makes of a chain of receipts that somebody with root's rights has changed behind the spawner's
//! back. belljard has no such rights (see `disk`), and is what would have its use of it.

use std::fs;
use std::path::PathBuf;

use belljar_tests::Part;

use super::scene::{Scene, Told, attest, spec};
use super::{Row, SIGNER, row};

fn build(scene: &mut Scene) -> String {
    scene.build(&spec("echo x > out"))
}

fn sign(scene: &Scene, attempt: &str) -> Told {
    scene.tell(Part::Signer, &attest(attempt, &spec("echo x > out")))
}

fn is_signed(told: &Told) -> bool {
    matches!(told, Told::Answer(answer) if answer["kind"] == "attested")
}

fn receipts(scene: &Scene) -> PathBuf {
    scene.instance.state().join("receipts")
}

/// Gives `one` the name `other`, and the other way round.
fn exchange(scene: &Scene, one: &str, other: &str) {
    let path = |name: &str| receipts(scene).join(format!("{name}.json"));
    fs::rename(path(one), path("aside")).unwrap();
    if path(other).exists() {
        fs::rename(path(other), path(one)).unwrap();
    }
    fs::rename(path("aside"), path(other)).unwrap();
}

/// Has the last of three builds signed while the receipt of the second has another one's name.
fn while_the_second_is(scene: &mut Scene, other: impl FnOnce(&str) -> String) -> Told {
    let (first, second, third) = (build(scene), build(scene), build(scene));
    let other = other(&first);
    exchange(scene, &second, &other);
    let told = sign(scene, &third);
    assert!(scene.bundle(&third).is_none(), "{told:?}");
    exchange(scene, &other, &second);
    // As it was, it is a chain again.
    assert!(is_signed(&sign(scene, &third)));
    told
}

/// Has the directory of receipts be what it was before the last build that was signed, and one built and signed
/// after that.
fn set_back(scene: &mut Scene) -> Told {
    let head = receipts(scene).join("head.json");
    let earlier = build(scene);
    let before = fs::read(&head).unwrap();
    let last = build(scene);
    assert!(is_signed(&sign(scene, &earlier)) && is_signed(&sign(scene, &last)));
    scene.instance.end_part(Part::Spawner);
    fs::write(&head, before).unwrap();
    fs::remove_file(receipts(scene).join(format!("{last}.json"))).unwrap();
    scene.instance.start_part(Part::Spawner);
    scene.spawner = scene.connect(Part::Spawner);
    let again = build(scene);
    let told = sign(scene, &again);
    assert!(scene.bundle(&again).is_none(), "{told:?}");
    begin_anew(scene);
    told
}

/// As the README has it, "When the chain of receipts is broken".
fn begin_anew(scene: &mut Scene) {
    for part in [Part::Spawner, Part::Signer] {
        scene.instance.end_part(part);
    }
    for file in ["receipts/head.json", "evidence/receipts.seen"] {
        let path = scene.instance.state().join(file);
        fs::rename(&path, path.with_extension("broken")).unwrap();
    }
    for part in [Part::Signer, Part::Spawner] {
        scene.instance.start_part(part);
    }
    scene.spawner = scene.connect(Part::Spawner);
}

pub(super) const ROWS: &[Row] = &[
    row(
        "a receipt taken away by somebody else, before what comes after it is signed",
        SIGNER,
        "from which the chain goes on",
        |scene| while_the_second_is(scene, |_| "nowhere".to_owned()),
    ),
    row(
        "receipts that somebody else has put into each other's places",
        SIGNER,
        "is not the one that the next in the chain names",
        |scene| while_the_second_is(scene, str::to_owned),
    ),
    row(
        "receipts that somebody else has set back to an earlier state, to be written and signed once more",
        SIGNER,
        "another receipt was seen",
        set_back,
    ),
];
