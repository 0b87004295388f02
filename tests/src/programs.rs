use std::path::{Path, PathBuf};

/// A program of the workspace, as cargo has built it beside the tests.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("the path of the test");
    let profile = test.parent().and_then(Path::parent);
    let path = profile.expect("a profile directory").join(name);
    assert!(
        path.is_file(),
        "{} is not there: build the programs first, by `cargo build --bins`",
        path.display()
    );
    path
}
