//! Compiles `proto/` with a protobuf compiler written in Rust: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 6] = [
    "belljar/v1/build.proto",
    "belljar/v1/build_service.proto",
    "belljar/v1/image_service.proto",
    "belljar/v1/input_service.proto",
    "belljar/v1/evidence_service.proto",
    "belljar/v1/store_service.proto",
];

const BYTE_STREAM: &str = "google/bytestream/bytestream.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    for file in FILES.into_iter().chain([BYTE_STREAM]) {
        // The one way to tell cargo what a build script reads.
        #[allow(clippy::print_stdout)]
        {
            println!("cargo::rerun-if-changed={}", root.join(file).display());
        }
    }
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("belljar.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Sorted by name, so that the first bad variable is always the same one.
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    tonic_prost_build::configure()
        // Content stays where it came in.
        .bytes(".")
        .build_client(false)
        .emit_rerun_if_changed(false)
        .compile_fds(protox::compile([BYTE_STREAM], [&root])?)?;
    Ok(())
}
