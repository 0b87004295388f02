use std::fs;
use std::io::Read as _;
use std::time::{Duration, Instant};

use bazel_remote_apis::google::bytestream::WriteRequest;
use belljar_core::{Hasher, ObjectId, bounds};
use belljar_tests::{Instance, Part};
use tokio_stream::StreamExt as _;

use crate::raw::{Raw, messages, named, noise};

/// Bytes of the large blob, and how much more memory a process may need for it.
const LARGE: usize = 256 << 20;
const GROWTH: u64 = 32 << 20;
/// Bytes in one of its messages.
const MESSAGE: usize = 1 << 20;

#[test]
fn an_upload_that_drips_is_ended_and_can_be_gone_on_with() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    let content = noise(6, 1000);
    let name = named("uploads/u/blobs", ObjectId::of(&content));
    // A byte every second, for longer than anybody waits.
    let drips = content.clone().into_iter().enumerate().map({
        let name = name.clone();
        move |(at, byte)| WriteRequest {
            resource_name: name.clone(),
            write_offset: i64::try_from(at).unwrap(),
            finish_write: false,
            data: vec![byte],
        }
    });
    let begun = Instant::now();
    let error = client.runtime.block_on(async {
        let slow = tokio_stream::iter(drips).throttle(Duration::from_secs(1));
        client.streams.clone().write(slow).await.unwrap_err()
    });
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
    assert!(begun.elapsed() >= Duration::from_secs(bounds::PACE_SECONDS - 2));
    let status = client.status(&name);
    let at = usize::try_from(status.committed_size).unwrap();
    assert!(at > 0 && at < 1000, "{at}");
    let rest = messages(&name, at, &content[at..], true);
    assert_eq!(client.write(tokio_stream::iter(rest)).unwrap(), 1000);
}

/// The most memory that a process has had since this was last asked, in bytes (proc_pid_clear_refs(5)).
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    kib * 1024
}

#[test]
fn a_large_blob_passes_in_constant_memory() {
    let instance = Instance::started();
    let client = Raw::connect(&instance);
    let parts = [Part::Belljard, Part::Store].map(|part| instance.pid_of(part));
    let block = noise(7, MESSAGE);
    let mut hasher = Hasher::new();
    (0..LARGE / MESSAGE).for_each(|_| hasher.update(&block));
    let object = ObjectId {
        digest: hasher.finish(),
        size: LARGE as u64,
    };
    let rest = parts.map(|pid| {
        peak(pid);
        peak(pid)
    });
    let within = |what: &str| {
        for (pid, rest) in parts.iter().zip(rest) {
            let now = peak(*pid);
            assert!(now < rest + GROWTH, "{what}: {rest} bytes became {now}");
        }
    };
    let name = named("uploads/u/blobs", object);
    let upload = (0..LARGE / MESSAGE).map({
        let block = block.clone();
        move |at| WriteRequest {
            resource_name: if at == 0 { name.clone() } else { String::new() },
            write_offset: i64::try_from(at * MESSAGE).unwrap(),
            finish_write: (at + 1) * MESSAGE == LARGE,
            data: block.clone(),
        }
    });
    client.write(tokio_stream::iter(upload)).unwrap();
    within("uploading");
    // Packing is slow where nothing is optimised; a part is enough.
    let part = i64::try_from(LARGE - LARGE / 4).unwrap();
    for (kind, from, what) in [
        ("blobs", 0, "reading"),
        ("compressed-blobs/zstd", part, "packing"),
    ] {
        let mut bytes = 0;
        client
            .read_each(named(kind, object), from, |piece| bytes += piece.len())
            .unwrap();
        assert!(bytes >= LARGE / 256, "{what}: {bytes}");
        within(what);
    }
    // Two hundred million zeros that travel as a few kilobytes.
    let zeros = ::zstd::encode_all(std::io::repeat(0).take(LARGE as u64), 3).unwrap();
    let mut hasher = Hasher::new();
    let nothing = vec![0; MESSAGE];
    (0..LARGE / MESSAGE).for_each(|_| hasher.update(&nothing));
    let object = ObjectId {
        digest: hasher.finish(),
        size: LARGE as u64,
    };
    let name = named("uploads/u/compressed-blobs/zstd", object);
    client
        .write(tokio_stream::iter(messages(&name, 0, &zeros, true)))
        .unwrap();
    within("unpacking");
}
