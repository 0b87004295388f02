use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use belljar_tests::{Instance, Part, Project, wait_for};
use serde_json::json;

/// A step that tells when it runs and takes long enough to be interrupted.
const SLOW: &str = "echo begun; sleep 1; echo done > out";

/// Processes of builds: everything in a cgroup of one of this instance's builds.
fn sandboxed(instance: &Instance) -> Vec<u32> {
    let trails = std::fs::read_dir(instance.state().join("daemon/audit")).unwrap();
    let builds: Vec<_> = trails
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        builds.iter().any(|build| groups.contains(build))
    })
    .collect()
}

#[test]
fn belljard_killed_in_mid_build_begins_it_anew() {
    let mut instance = Instance::started();
    let project = Project::script(SLOW);
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    let first = sandboxed(&instance);
    assert!(!first.is_empty());
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let run = instance.finish(running);
    run.assert_succeeded();
    assert_eq!(run.json["attempt"], 2, "{run}");
    assert_eq!(run.file("out"), b"done\n");
    assert_eq!(run.log, "begun\n", "the log is the second attempt's alone");
    let left = sandboxed(&instance);
    assert!(
        !left.iter().any(|pid| first.contains(pid)),
        "{left:?} of {first:?}"
    );
    let trail = instance.trail(&run);
    assert!(trail.contains("recover"), "{trail}");
    // What comes after is not disturbed.
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn a_queue_outlives_belljard() {
    let mut instance = Instance::started();
    let client = instance.client();
    let spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let builds: Vec<_> = (0..8)
        .map(|n| client.submit(&format!("r{n}"), &spec).unwrap().id)
        .collect();
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = instance.client();
    for (n, build) in builds.iter().enumerate() {
        let ended = client.until(build, |build| build.outcome.is_some());
        assert_eq!(
            ended.outcome,
            Some(belljar_core::Outcome::Succeeded),
            "{ended:?}"
        );
        assert_eq!(client.submit(&format!("r{n}"), &spec).unwrap().id, *build);
    }
}

#[test]
fn the_spawner_killed_in_mid_build_takes_its_sandboxes_along() {
    let mut instance = Instance::started();
    let project = Project::script(SLOW);
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    let first = sandboxed(&instance);
    assert!(!first.is_empty());
    instance.kill_part(Part::Spawner);
    wait_for(
        "the sandbox dies with its spawner",
        Duration::from_secs(5),
        || sandboxed(&instance).is_empty().then_some(()),
    );
    instance.start_part(Part::Spawner);
    let run = instance.finish(running);
    run.assert_succeeded();
    assert_eq!(run.json["attempt"], 2, "{run}");
    assert_eq!(run.file("out"), b"done\n");
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn the_store_killed_in_mid_build_costs_an_attempt() {
    let mut instance = Instance::started();
    let project = Project::script(SLOW);
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    instance.kill_part(Part::Store);
    instance.start_part(Part::Store);
    let run = instance.finish(running);
    run.assert_succeeded();
    assert_eq!(run.json["attempt"], 2, "{run}");
    assert_eq!(run.file("out"), b"done\n");
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn a_store_that_is_away_for_long_costs_nobody_more_than_one_attempt() {
    let mut instance = Instance::started();
    let client = instance.client();
    let slow = client.spec(
        &[("in", "0")],
        &["echo begun; sleep 1; cp in out"],
        &["out"],
    );
    let quick = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let first = client.submit("first", &slow).unwrap().id;
    instance.wait_until_logged("begun");
    instance.kill_part(Part::Store);
    let requeued = |build: &belljar_wire::BuildRecord| {
        build.state == belljar_wire::BuildState::Queued && build.attempt == 1
    };
    client.until(&first, requeued);
    let more: Vec<_> = (0..4)
        .map(|n| client.submit(&format!("m{n}"), &quick).unwrap().id)
        .collect();
    // Longer than three attempts last, with the pauses between them.
    std::thread::sleep(Duration::from_secs(8));
    instance.start_part(Part::Store);
    for build in more.iter().chain([&first]) {
        let ended = client.until(build, |build| build.outcome.is_some());
        let succeeded = Some(belljar_core::Outcome::Succeeded);
        assert_eq!(ended.outcome, succeeded, "{ended:?}");
        assert!(ended.attempt <= 2, "{ended:?}");
    }
}

#[test]
fn the_signer_away_for_a_while_delays_a_build() {
    let mut instance = Instance::started();
    let project = Project::script(SLOW);
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    instance.kill_part(Part::Signer);
    std::thread::sleep(Duration::from_millis(1500));
    instance.start_part(Part::Signer);
    let run = instance.finish(running);
    run.assert_succeeded();
    assert_eq!(run.json["attempt"], 1, "{run}");
    assert!(run.has("out.sigstore.json"));
}

#[test]
fn everything_killed_in_mid_build_is_cleared_away_by_the_next_start() {
    let mut instance = Instance::started();
    let project = Project::script("echo begun; sleep 1000");
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    running.kill();
    for part in Part::ALL {
        instance.kill_part(part);
    }
    wait_for(
        "the sandbox dies with its spawner",
        Duration::from_secs(5),
        || sandboxed(&instance).is_empty().then_some(()),
    );
    // The embedded way of starting, on what is left.
    let run = instance.run(&Project::script("echo fine > out"));
    run.assert_succeeded();
    assert_eq!(run.outcome(), &json!({"kind": "succeeded"}));
}

/// A v1 memory cgroup below the one of this process, to start something in. Where systemd has the cgroups there is
/// none of v1, and it starts each spawner in a cgroup of its own anyway.
struct Elsewhere(Option<PathBuf>);

impl Elsewhere {
    fn new() -> Self {
        let places = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = places.lines().find_map(|line| line.split_once(":memory:/"));
        Self(own.map(|(_, own)| {
            let name = format!("elsewhere-{}", std::process::id());
            let place = Path::new("/sys/fs/cgroup/memory").join(own).join(name);
            std::fs::create_dir(&place).unwrap();
            place
        }))
    }

    /// The same command, started there.
    fn start(&self, command: Command) -> Command {
        let Some(place) = &self.0 else { return command };
        let mut there = Command::new("sh");
        there
            .args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""])
            .arg(place)
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        let set = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        there.envs(set);
        there
    }

    /// Cgroups that were made there.
    fn inside(&self) -> Vec<PathBuf> {
        let entries = self
            .0
            .iter()
            .flat_map(|place| std::fs::read_dir(place).unwrap());
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            let _ = std::fs::remove_dir(place);
        }
    }
}

#[test]
fn what_was_killed_elsewhere_in_the_cgroup_tree_is_cleared_away_by_the_next_start() {
    let elsewhere = Elsewhere::new();
    let mut instance = Instance::new();
    let project = Project::script("echo begun; sleep 1000");
    let running = instance.begin_by(elsewhere.start(instance.command("run")), &project);
    instance.wait_until_logged("begun");
    let made = elsewhere.inside();
    assert_eq!(made.len(), usize::from(elsewhere.0.is_some()), "{made:?}");
    running.kill();
    wait_for("its processes end", Duration::from_secs(20), || {
        sandboxed(&instance).is_empty().then_some(())
    });
    // From the own place, and for the same user ids or others.
    let run = instance.run(&Project::script("echo fine > out"));
    run.assert_succeeded();
    assert_eq!(elsewhere.inside(), [] as [PathBuf; 0]);
}
