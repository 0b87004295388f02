//! What is asked of `InputService`, and what it answers.

use belljar_core::{Dropped, Input, ObjectId, Platform, Recipe, Unpack};

use crate::{DerivedTree, ImagePull, PulledImage, v1};

#[test]
fn recipes_survive_the_wire() {
    for recipe in [
        Recipe::Tar {
            archive: ObjectId::of(b"archive"),
        },
        Recipe::Fetched {
            content: ObjectId::of(b"content"),
            unpack: Unpack::tar(1).unwrap(),
        },
        Recipe::Fetched {
            content: ObjectId::of(b"content"),
            unpack: Unpack::file("tool", true).unwrap(),
        },
        Recipe::Fetched {
            content: ObjectId::of(b"content"),
            unpack: Unpack::zip(2).unwrap(),
        },
        Recipe::Oci {
            index: ObjectId::of(b"index"),
            platform: Platform::LinuxArm64,
        },
        Recipe::CargoLock {
            lock: ObjectId::of(b"lock"),
            packages: ObjectId::of(b"packages"),
        },
        Recipe::NpmLock {
            lock: ObjectId::of(b"lock"),
            packages: ObjectId::of(b"packages"),
        },
    ] {
        let request = v1::DeriveTreeRequest::try_from(&recipe).unwrap();
        assert_eq!(Recipe::try_from(request), Ok(recipe));
    }
}

#[test]
fn that_an_image_was_pulled_no_caller_can_say() {
    let pulled = Recipe::Pulled {
        repository: "r.example/c".parse().unwrap(),
        image: ObjectId::of(b"index"),
        platform: Platform::LinuxAmd64,
    };
    let refused = v1::DeriveTreeRequest::try_from(&pulled).unwrap_err();
    assert_eq!(refused.field, "recipe");
}

#[test]
fn pulls_survive_the_wire_or_are_refused_by_field() {
    let pull = ImagePull {
        reference: "r.example:5000/team/c:12".parse().unwrap(),
        platform: Platform::LinuxArm64,
    };
    let request = v1::PullImageRequest::from(&pull);
    assert_eq!(ImagePull::try_from(request.clone()), Ok(pull));
    for (reference, platform, field) in [
        ("c:12", "linux/amd64", "reference"),
        ("r.example/c:12", "linux/mips", "platform"),
    ] {
        let request = v1::PullImageRequest {
            reference: reference.to_owned(),
            platform: platform.to_owned(),
            ..request.clone()
        };
        assert_eq!(ImagePull::try_from(request).unwrap_err().field, field);
    }
    let pulled = PulledImage {
        derived: derived(),
        image: ObjectId::of(b"index"),
        pulled_bytes: 1 << 33,
    };
    let response = v1::PullImageResponse::from(&pulled);
    assert_eq!(PulledImage::try_from(response), Ok(pulled));
}

#[test]
fn bad_recipes_are_refused_by_field() {
    use v1::derive_tree_request::{CargoLock, NpmLock, Oci, Recipe as Wire, Tar};
    let index_of = |content: &[u8]| Some(ObjectId::of(content).into());
    let index = index_of(b"");
    let bad_digest = Some(v1::Digest {
        hash: "x".to_owned(),
        size_bytes: 1,
    });
    let platform = "linux/amd64".to_owned();
    let cases = [
        (None, "recipe"),
        (Some(Wire::Tar(Tar { archive: None })), "tar.archive"),
        (
            Some(Wire::Tar(Tar {
                archive: bad_digest.clone(),
            })),
            "tar.archive.hash",
        ),
        (
            Some(Wire::Oci(Oci {
                index: bad_digest,
                platform,
            })),
            "oci.index.hash",
        ),
        (
            Some(Wire::Oci(Oci {
                index,
                platform: "linux".to_owned(),
            })),
            "oci.platform",
        ),
        (
            Some(Wire::CargoLock(CargoLock {
                lock: index_of(b"lock"),
                packages: None,
            })),
            "cargo_lock.packages",
        ),
        (
            Some(Wire::NpmLock(NpmLock {
                lock: None,
                packages: index_of(b"packages"),
            })),
            "npm_lock.lock",
        ),
    ];
    for (recipe, field) in cases {
        let refused = Recipe::try_from(v1::DeriveTreeRequest {
            recipe,
            ..Default::default()
        });
        assert_eq!(refused.unwrap_err().field, field);
    }
}

fn derived() -> DerivedTree {
    DerivedTree {
        input: Input {
            tree: ObjectId::of(b""),
            derivation: Some(ObjectId::of(b"record")),
        },
        entries: 7,
        bytes: 1 << 40,
        dropped: [(Dropped::Owners, 3), (Dropped::SpecialFiles, 1)].into(),
    }
}

#[test]
fn a_derived_tree_survives_the_wire() {
    let derived = derived();
    let response = v1::DeriveTreeResponse::from(&derived);
    assert_eq!(DerivedTree::try_from(response.clone()), Ok(derived));
    let mut twice = response;
    let again = twice.dropped[0].clone();
    twice.dropped.push(again);
    assert_eq!(
        DerivedTree::try_from(twice).unwrap_err().field,
        "dropped[2]"
    );
}
