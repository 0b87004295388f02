//! The spawner with the whole containment list.

use std::process::ExitCode;

fn main() -> ExitCode {
    belljar_spawner::main(belljar_spawner::STEPS)
}
