//! The daemon: configuration, composition and gRPC services

fn main() {}
