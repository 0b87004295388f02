//! The harness itself: what it would overlook, no suite would notice.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_tests::{Instance, Part, Project};

/// A cgroup in the v2 hierarchy, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let top = unified.iter().find(|top| top.join("cgroup.procs").exists());
        let path = top.unwrap_or(&unified[1]).join(name);
        let made = fs::create_dir(&path);
        assert!(made.is_ok(), "{}: {made:?}", path.display());
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn nothing_is_found_where_nothing_is_left() {
    let mut instance = Instance::started();
    instance.run(&Project::script(": > out")).assert_succeeded();
    assert_eq!(instance.end(), Vec::<String>::new());
}

#[test]
fn whatever_is_left_is_found() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script(": > out"));
    run.assert_succeeded();
    let state = instance.state().to_owned();
    let attempt = run.attempt();
    let group = Group::new(&format!("belljar-test-{attempt}"));
    let mut sleeper = Command::new("sleep");
    // In a cgroup of a build, by its name started on the state directory.
    let mut sleeper = sleeper
        .arg0(state.join("sleep"))
        .arg("100")
        .spawn()
        .unwrap();
    fs::write(group.0.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    fs::write(state.join("store/tmp").join(&attempt), "").unwrap();

    let left = instance.end();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let pid = sleeper.id();
    let found = |begin: &str, end: &str| {
        left.iter()
            .any(|line| line.starts_with(begin) && line.contains(end))
    };
    assert!(found(&format!("process {pid}: "), "sleep 100"), "{left:?}");
    assert!(
        found(&format!("process {pid} ("), "in a cgroup of a build"),
        "{left:?}"
    );
    assert!(found("cgroup ", &attempt), "{left:?}");
    assert!(found("file ", &attempt), "{left:?}");
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_process_that_ended_by_itself_is_found() {
    let instance = Instance::started();
    let pid = instance.pid_of(Part::Store).to_string();
    let status = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    assert!(status.success());
    let left = instance.end();
    assert!(
        left.iter()
            .any(|line| line.starts_with("Store had ended before (signal: 9")),
        "{left:?}"
    );
}
