use std::fs;
use std::path::Path;
use std::time::Duration;

use belljar_core::ObjectId;
use belljar_tests::{Instance, Part};
use belljar_wire::Problem;

use crate::raw::{PIECE, Raw, messages, named, noise};

/// Long enough for everything that was sent to be taken.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

/// Every file in the store that is an object, or in the place where none may stay.
pub(crate) fn files(state: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![state.join("store/objects"), state.join("store/tmp")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.display().to_string());
            }
        }
    }
    names.sort();
    names
}

#[test]
fn an_upload_goes_on_after_a_cut_connection_and_is_one_only_when_it_is_whole() {
    let instance = Instance::started();
    let content = noise(1, 40 * PIECE + 7);
    let object = ObjectId::of(&content);
    let name = named("uploads/5c2f0d5e-0001/blobs", object);
    let before = files(instance.state());
    let begun = messages(&name, 0, &content[..25 * PIECE], false);
    Raw::connect(&instance).write_and_break(begun, SILENCE);
    let client = Raw::connect(&instance);
    let at = 25 * PIECE;
    client.until_committed(&name, i64::try_from(at).unwrap());
    assert!(!client.status(&name).complete);
    assert_eq!(files(instance.state()), before, "half of it is nowhere");
    let absent = client.read(named("blobs", object), 0).unwrap_err();
    assert_eq!(absent.code(), tonic::Code::NotFound);
    // Another uuid is another upload; and nobody else's guess at the offset is taken.
    let other = named("uploads/5c2f0d5e-0002/blobs", object);
    assert_eq!(client.status(&other).committed_size, 0);
    let wrong = messages(&name, at - 1, &content[at - 1..], true);
    let problem = Problem::from_status(&client.write(tokio_stream::iter(wrong)).unwrap_err());
    assert_eq!(problem.fields[0].field, "write_offset");
    assert!(problem.message.contains(&at.to_string()), "{problem:?}");
    let rest = messages(&name, at, &content[at..], true);
    let committed = client.write(tokio_stream::iter(rest)).unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
    let status = client.status(&name);
    assert_eq!((status.committed_size, status.complete), (committed, true));
    // What is there already is answered at once, whatever comes.
    let again = messages(&other, 0, &content[..PIECE], false);
    assert_eq!(client.write(tokio_stream::iter(again)).unwrap(), committed);
}

#[test]
fn an_upload_that_was_begun_plain_may_go_on_packed() {
    let instance = Instance::started();
    let content = noise(2, 20 * PIECE);
    let object = ObjectId::of(&content);
    let name = named("uploads/u/blobs", object);
    let begun = messages(&name, 0, &content[..7 * PIECE], false);
    Raw::connect(&instance).write_and_break(begun, SILENCE);
    let client = Raw::connect(&instance);
    client.until_committed(&name, i64::try_from(7 * PIECE).unwrap());
    // REAPI: the first offset counts unpacked bytes, the following ones add packed bytes to it.
    let packed = ::zstd::encode_all(&content[7 * PIECE..], 3).unwrap();
    let name = named("uploads/u/compressed-blobs/zstd", object);
    let rest = messages(&name, 7 * PIECE, &packed, true);
    let committed = client.write(tokio_stream::iter(rest)).unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
}

#[test]
fn packed_content_is_an_object_only_when_the_client_has_said_that_it_is_all() {
    let instance = Instance::started();
    let content = noise(6, 9 * PIECE + 5);
    let object = ObjectId::of(&content);
    let name = named("uploads/u/compressed-blobs/zstd", object);
    let before = files(instance.state());
    let packed = ::zstd::encode_all(&content[..], 1).unwrap();
    let all = messages(&name, 0, &packed, false);
    Raw::connect(&instance).write_and_break(all, SILENCE);
    assert_eq!(files(instance.state()), before, "it is no object yet");
    let client = Raw::connect(&instance);
    let at = content.len() - 1;
    client.until_committed(&name, i64::try_from(at).unwrap());
    assert!(!client.status(&name).complete);
    let rest = ::zstd::encode_all(&content[at..], 1).unwrap();
    let rest = messages(&name, at, &rest, true);
    let committed = client.write(tokio_stream::iter(rest)).unwrap();
    assert_eq!(committed, i64::try_from(content.len()).unwrap());
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
}

#[test]
fn content_that_turns_out_wrong_leaves_nothing_to_go_on_with() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    let content = noise(3, 4 * PIECE);
    let object = ObjectId::of(&content);
    let before = files(instance.state());
    let mut damaged = content.clone();
    damaged[9] ^= 1;
    let plain = named("uploads/u/blobs", object);
    let packed = named("uploads/u/compressed-blobs/zstd", object);
    let long = ::zstd::encode_all(&[&content[..], b"!"].concat()[..], 1).unwrap();
    let short = ::zstd::encode_all(&content[1..], 1).unwrap();
    for (name, bytes) in [
        (&plain, damaged),
        (&plain, content[1..].to_vec()),
        (&plain, [&content[..], b"!"].concat()),
        (&packed, long),
        (&packed, short),
        (&packed, content.clone()),
    ] {
        let error = client.write(tokio_stream::iter(messages(name, 0, &bytes, true)));
        let error = error.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error:?}");
        client.until_committed(name, 0);
    }
    assert_eq!(files(instance.state()), before);
    let good = messages(&plain, 0, &content, true);
    client.write(tokio_stream::iter(good)).unwrap();
}

#[test]
fn the_store_killed_in_mid_upload_leaves_nothing() {
    let mut instance = Instance::started();
    let content = noise(4, 30 * PIECE);
    let object = ObjectId::of(&content);
    let name = named("uploads/u/blobs", object);
    let before = files(instance.state());
    let begun = messages(&name, 0, &content[..20 * PIECE], false);
    Raw::connect(&instance).write_and_break(begun, SILENCE);
    let client = Raw::connect(&instance);
    client.until_committed(&name, i64::try_from(20 * PIECE).unwrap());
    instance.kill_part(Part::Store);
    assert_eq!(files(instance.state()), before);
    instance.start_part(Part::Store);
    assert_eq!(files(instance.state()), before);
    client.until_committed(&name, 0);
    let all = messages(&name, 0, &content, true);
    client.write(tokio_stream::iter(all)).unwrap();
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
}

#[test]
fn an_upload_survives_the_daemon_that_took_it() {
    let mut instance = Instance::started();
    let content = noise(5, 12 * PIECE);
    let object = ObjectId::of(&content);
    let name = named("uploads/u/blobs", object);
    let begun = messages(&name, 0, &content[..5 * PIECE], false);
    Raw::connect(&instance).write_and_break(begun, SILENCE);
    let at = i64::try_from(5 * PIECE).unwrap();
    Raw::connect(&instance).until_committed(&name, at);
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = Raw::connect(&instance);
    client.until_committed(&name, at);
    let rest = messages(&name, 5 * PIECE, &content[5 * PIECE..], true);
    client.write(tokio_stream::iter(rest)).unwrap();
    assert_eq!(client.read(named("blobs", object), 0).unwrap(), content);
}
