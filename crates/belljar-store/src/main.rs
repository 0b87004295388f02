//! The process that owns objects, staged inputs and logs

fn main() {}
