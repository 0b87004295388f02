use std::fs;

use belljar_core::{ObjectId, RelPath};
use belljar_tests::{BELLJARD_UID, Part, overwrite};
use belljar_tree::{Leaf, build};

use super::scene::{Scene, Told, spec};
use super::{By, Row, STORE, row};

/// A shell script as belljard's user, in the state directory.
fn script(scene: &mut Scene, script: &str) -> Told {
    let state = scene.instance.state().display().to_string();
    // The state's own directory is closed to others in tests; what lies below is not.
    let (code, said) = scene
        .instance
        .try_as(BELLJARD_UID, &format!("cd {state} && {script}"));
    Told::Said(code, said)
}

const DENIED: &str = "Permission denied";

/// A build that has a receipt.
fn built(scene: &mut Scene) -> String {
    scene.build(&spec("echo x > out"))
}

fn written_to(scene: &mut Scene, path: &str) -> Told {
    assert!(scene.instance.state().join(path).exists(), "{path}");
    script(scene, &format!("echo forged > {path}"))
}

/// Runs a build with a source file, and lets somebody with root's rights do something meanwhile, to tell
/// what is seen of it where the kernel cannot refuse. Gives what came of it.
fn meanwhile(scene: &mut Scene, act: impl FnOnce(&mut Scene, &str)) -> Told {
    let object = scene.keep(b"source\n");
    let file = Leaf::File {
        object,
        executable: false,
    };
    let built = build([(RelPath::new("source").unwrap(), file)]).unwrap();
    for (_, bytes) in &built.directories {
        scene.keep(bytes);
    }
    let mut spec = spec("cat source > out; echo begun; sleep 2");
    spec.source = built.root;
    let attempt = scene.launch(&spec);
    scene.instance.wait_until_logged("begun");
    act(scene, &attempt);
    scene.wait(&attempt);
    let collected = scene.collect(&attempt);
    scene.destroy(&attempt);
    Told::Answer(collected)
}

fn object_path(scene: &Scene, object: ObjectId) -> std::path::PathBuf {
    let hex = object.digest.to_hex();
    let path = format!("store/objects/sha256/{}/{}", &hex[..2], &hex[2..]);
    scene.instance.state().join(path)
}

pub(super) const ROWS: &[Row] = &[
    row("write a receipt", By::Kernel, DENIED, |scene| {
        script(
            scene,
            "echo forged > receipts/01jd8q6z8r4x7j2m5t9v0w3y6b-1.json",
        )
    }),
    row("change a receipt", By::Kernel, DENIED, |scene| {
        let attempt = built(scene);
        written_to(scene, &format!("receipts/{attempt}.json"))
    }),
    row(
        "change the order of receipts",
        By::Kernel,
        DENIED,
        |scene| {
            let (one, other) = (built(scene), built(scene));
            script(
                scene,
                &format!("mv receipts/{one}.json receipts/{other}.json"),
            )
        },
    ),
    row(
        "change which receipt is the newest",
        By::Kernel,
        DENIED,
        |scene| written_to(scene, "receipts/head.json"),
    ),
    row(
        "remove a receipt, to run the attempt again",
        By::Kernel,
        DENIED,
        |scene| {
            let attempt = built(scene);
            script(scene, &format!("rm -f receipts/{attempt}.json"))
        },
    ),
    row("write a bundle", By::Kernel, DENIED, |scene| {
        script(
            scene,
            "echo forged > evidence/01jd8q6z8r4x7j2m5t9v0w3y6b-1.sigstore.json",
        )
    }),
    row(
        "change what the signer has seen of the chain of receipts",
        By::Kernel,
        DENIED,
        |scene| written_to(scene, "evidence/receipts.seen"),
    ),
    row("replace the public key", By::Kernel, DENIED, |scene| {
        written_to(scene, "evidence/builder.pub")
    }),
    row("read the private key", By::Kernel, DENIED, |scene| {
        script(scene, "cat signer/key.pk8")
    }),
    row(
        "change what the spawner enforces",
        By::Kernel,
        DENIED,
        |scene| written_to(scene, "config/spawner.toml"),
    ),
    row(
        "change what statements claim",
        By::Kernel,
        DENIED,
        |scene| written_to(scene, "config/signer.toml"),
    ),
    row("write an object", By::Kernel, DENIED, |scene| {
        script(scene, "echo forged > store/objects/sha256/forged")
    }),
    row("change an object on disk", By::Kernel, DENIED, |scene| {
        let object = scene.keep(b"content");
        let path = object_path(scene, object);
        script(scene, &format!("echo forged > {}", path.display()))
    }),
    row("change an image on disk", By::Kernel, DENIED, |scene| {
        built(scene);
        let mut images = fs::read_dir(scene.instance.state().join("store/images")).unwrap();
        let image = images.next().unwrap().unwrap().path();
        script(scene, &format!("echo forged > {}", image.display()))
    }),
    row("change a log on disk", By::Kernel, DENIED, |scene| {
        let attempt = built(scene);
        written_to(scene, &format!("store/logs/{attempt}.log"))
    }),
    row(
        "have a record count as the store's own",
        By::Kernel,
        DENIED,
        |scene| script(scene, "echo > store/derivations/forged"),
    ),
    row(
        "listen in the spawner's place",
        By::Kernel,
        DENIED,
        |scene| script(scene, "rm -f run/spawner/spawner.sock"),
    ),
    row(
        "listen in the signer's place",
        By::Kernel,
        DENIED,
        |scene| script(scene, "rm -f run/signer/signer.sock"),
    ),
    row("end the spawner", By::Kernel, "not permitted", |scene| {
        killed(scene, Part::Spawner)
    }),
    row("end the signer", By::Kernel, "not permitted", |scene| {
        killed(scene, Part::Signer)
    }),
    row("read the signer's memory", By::Kernel, DENIED, |scene| {
        let pid = scene.instance.pid_of(Part::Signer);
        script(scene, &format!("cat /proc/{pid}/mem"))
    }),
    row(
        "a log swapped on disk by somebody else, to be published as the receipt's",
        STORE,
        "as announced",
        |scene| {
            let attempt = scene.build(&spec("echo true; echo x > out"));
            let receipt = scene
                .instance
                .state()
                .join(format!("receipts/{attempt}.json"));
            let receipt: serde_json::Value =
                serde_json::from_slice(&fs::read(receipt).unwrap()).unwrap();
            let object: ObjectId =
                serde_json::from_value(receipt["log"]["object"].clone()).unwrap();
            assert_eq!(object, ObjectId::of(b"true\n"));
            let path = scene
                .instance
                .state()
                .join(format!("store/logs/{attempt}.log"));
            overwrite(&path, b"lies\n");
            scene.put(object, &fs::read(path).unwrap())
        },
    ),
    row(
        "an object swapped on disk by somebody else, while a build reads it",
        STORE,
        "was changed while",
        |scene| {
            meanwhile(scene, |scene, _| {
                overwrite(&object_path(scene, ObjectId::of(b"source\n")), b"poison\n");
            })
        },
    ),
];

fn killed(scene: &mut Scene, part: Part) -> Told {
    let pid = scene.instance.pid_of(part);
    script(scene, &format!("kill -9 {pid}"))
}
