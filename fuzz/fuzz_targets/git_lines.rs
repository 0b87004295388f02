#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| belljar_fuzz::git_lines(bytes));

#[cfg(not(fuzzing))]
fn main() {}
