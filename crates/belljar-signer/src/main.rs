//! The key-holding process: recomputes and signs statements

fn main() {}
