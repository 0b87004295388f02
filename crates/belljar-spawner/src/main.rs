//! The one privileged process: mounts, containment, observation, teardown

fn main() {}
