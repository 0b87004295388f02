use std::time::Duration;

use belljar_core::ObjectId;
use belljar_tests::{Part, overwrite, wait_for};

use crate::{LEASE, counted, du, started, status, sweep};

/// What no other test has.
fn content(seed: &str) -> Vec<u8> {
    format!("named by BLAKE3, {seed}\n")
        .repeat(5000)
        .into_bytes()
}

#[test]
fn an_object_goes_with_all_its_names_and_comes_again_by_either() {
    let mut instance = started("", "");
    let client = instance.client();
    let [old, kept] = ["old", "kept"].map(content);
    for content in [&old, &kept] {
        client.send_by_blake3(content, content).unwrap();
    }
    let used = du(instance.state());
    client.put(&old);
    assert_eq!(du(instance.state()), used, "the same bytes are there once");
    let told = counted(&status(&mut instance));
    assert!(told.abs_diff(used) * 100 <= used, "{told} of {used}");
    std::thread::sleep(LEASE);
    // Who asks, by whichever name, has it for a while.
    assert_eq!(client.has_by_blake3(&[&kept]), [true]);
    sweep(&mut instance, &["--all"]);
    assert_eq!(client.has_by_blake3(&[&old, &kept]), [false, true]);
    assert_eq!(client.missing(&[ObjectId::of(&old)]).len(), 1);
    let gone = client.read_by_blake3(&old).unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound);
    let freed = used.saturating_sub(du(instance.state()));
    assert!(freed >= u64::try_from(old.len()).unwrap(), "{freed}");
    let (told, du) = (counted(&status(&mut instance)), du(instance.state()));
    assert!(told.abs_diff(du) * 100 <= du, "{told} of {du}");
    // It was taken from the project, with the name that this had given it.
    client.put(&old);
    assert_eq!(client.has_by_blake3(&[&old]), [false]);
    client.send_by_blake3(&old, &old).unwrap();
    assert_eq!(client.read_by_blake3(&old).unwrap(), old);
    for part in [Part::Store, Part::Belljard] {
        instance.kill_part(part);
        instance.start_part(part);
    }
    let client = instance.client();
    assert_eq!(client.has_by_blake3(&[&old, &kept]), [true, true]);
}

#[test]
fn an_object_that_has_rotted_is_served_by_none_of_its_names() {
    let mut instance = started("", "");
    let client = instance.client();
    let content = content("rot");
    client.send_by_blake3(&content, &content).unwrap();
    let object = ObjectId::of(&content);
    let store = instance.state().join("store");
    let mut damaged = content.clone();
    damaged[7] ^= 1;
    overwrite(&belljar_cas::path_of(&store, object.digest), &damaged);
    // It is verified also before anybody has found it damaged.
    assert!(client.read_by_blake3(&content).is_err());
    // Whoever reads it has it put aside.
    wait_for("the object put aside", Duration::from_secs(30), || {
        (client.missing(&[object]).len() == 1).then_some(())
    });
    assert_eq!(status(&mut instance)["quarantine"]["files"], 1);
    assert_eq!(client.has_by_blake3(&[&content]), [false]);
    let absent = client.read_by_blake3(&content).unwrap_err();
    assert_eq!(absent.code(), tonic::Code::NotFound);
    assert!(client.read(object).is_err());
    // Who has its content may give it again.
    client.send_by_blake3(&content, &content).unwrap();
    assert_eq!(client.read_by_blake3(&content).unwrap(), content);
    assert_eq!(client.read(object).unwrap(), content);
}
