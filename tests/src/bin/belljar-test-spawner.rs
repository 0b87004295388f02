//! The spawner without the containment steps that `BELLJAR_TEST_WITHOUT` names, separated by commas. It is
//! what the escape suite shows itself to be sensitive with; nothing in the product can leave a step out.

// Test code may stop at the first surprise.
#![allow(clippy::panic)]

use std::process::ExitCode;

use belljar_spawner::{STEPS, Step};

fn main() -> ExitCode {
    let without = std::env::var("BELLJAR_TEST_WITHOUT").unwrap_or_default();
    let without: Vec<&str> = without.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = without
        .iter()
        .find(|name| !STEPS.iter().any(|step| step.name == **name))
    {
        panic!("`{unknown}` is no step of the containment list");
    }
    let left: Vec<Step> = STEPS
        .iter()
        .copied()
        .filter(|step| !without.contains(&step.name))
        .collect();
    belljar_spawner::main(left.leak())
}
