//! What belljard, store and signer keep from themselves: should one of them be taken over, this is what is left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use belljar_sys::confine::STEPS;
use belljar_tests::{Instance, Part, program};
use serde_json::Value;

/// The processes that confine themselves, the spawner being the one that needs privileges.
const CONFINED: [Part; 3] = [Part::Belljard, Part::Store, Part::Signer];

/// Fields of a `status` file (proc_pid_status(5)).
fn status(directory: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(directory.join("status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_kernel_says_what_each_process_has_taken_from_itself() {
    let mut instance = Instance::started();
    for part in CONFINED {
        let process = Path::new("/proc").join(instance.pid_of(part).to_string());
        let uid = part.ids().0.to_string();
        let mut threads = 0;
        for thread in fs::read_dir(process.join("task")).unwrap() {
            let status = status(&thread.unwrap().path());
            let told = |name: &str| status.get(name).cloned().unwrap_or_default();
            assert_eq!(told("NoNewPrivs"), "1", "{part:?}");
            assert_eq!(told("Seccomp"), "2", "{part:?}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(told(set), "0000000000000000", "{part:?} {set}");
            }
            assert!(told("Uid").starts_with(&uid), "{part:?}");
            threads += 1;
        }
        assert!(threads > 0);
        // Of a process that is not dumpable, what lies in /proc is root's.
        assert_eq!(process.join("fd").metadata().unwrap().uid(), 0, "{part:?}");
        let locked = status(&process)["VmLck"].clone();
        let kilobytes: u64 = locked.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(kilobytes > 0, part == Part::Signer, "{part:?}: {locked}");
    }
    let told = instance.tell("doctor", &["--json"]);
    let report: Value = serde_json::from_str(&told.printed).unwrap();
    for part in CONFINED {
        let name = format!("process {}", part.executable());
        let layers = report["layers"].as_array().unwrap();
        let layer = layers.iter().find(|layer| layer["name"] == *name);
        let layer = layer.unwrap_or_else(|| panic!("{name}: {report:#}"));
        assert_eq!(layer["verdict"], "enforced", "{layer}");
        let found = layer["found"].as_str().unwrap();
        let steps: Vec<_> = found
            .split("; ")
            .filter_map(|s| s.split_once(": "))
            .collect();
        let names: Vec<_> = steps.iter().map(|(name, _)| *name).collect();
        let due: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names, due, "{found}");
    }
}

/// What a process says that confined itself without some steps, to a directory of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("own")).unwrap();
        Self(place)
    }

    fn without(&self, steps: &str) -> Command {
        let mut command = Command::new(program("belljar-test-confined"));
        command
            .env("BELLJAR_TEST_WITHOUT", steps)
            .args([self.0.path().join("own"), self.0.path().join("outside")]);
        command
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_confined_process_can_do_what_it_is_for_and_nothing_else() {
    let place = Place::new();
    let (refused, no_family) = (libc_eacces(), "97");
    let due = format!(
        "confined\ninside: done\noutside: {refused}\nprogram: 1\ndatagrams: {no_family}\nsome port: {no_family}\n"
    );
    assert_eq!(said(&mut place.without("")), due);
    // With a port of its own: that one, and nothing else of TCP.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let served = said(place.without("").arg(port));
    let tcp = format!("some port: {refused}\nconnect: {refused}\nits port: done\n");
    assert!(served.ends_with(&tcp), "{served}");
    // The control: nothing of it is refused to a process like this that is not confined.
    let all: Vec<_> = STEPS.iter().map(|step| step.name).collect();
    let free =
        "confined\ninside: done\noutside: done\nprogram: done\ndatagrams: done\nsome port: done\n";
    assert_eq!(said(&mut place.without(&all.join(","))), free);
}

/// EACCES: the files themselves are open to it, Landlock says no.
fn libc_eacces() -> i32 {
    rustix::io::Errno::ACCESS.raw_os_error()
}

#[test]
fn a_step_that_is_left_out_is_noticed() {
    let place = Place::new();
    // What then fails, and how; nothing where only the kernel's own account shows it (the test above).
    let rows = [
        ("one thread", None),
        (
            "not dumpable",
            Some("`read-back` failed: the kernel says: it is dumpable"),
        ),
        ("no new privileges", Some("`Landlock` failed")),
        (
            "capabilities",
            Some("`read-back` failed: the kernel says: it has capabilities"),
        ),
        ("memory", None),
        (
            "Landlock",
            Some("`self-probe` failed: it was possible to signal a process outside"),
        ),
        (
            "seccomp",
            Some("`self-probe` failed: it was possible to start a program"),
        ),
        ("self-probe", None),
        ("read-back", None),
    ];
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let due: Vec<_> = STEPS.iter().map(|step| step.name).collect();
    assert_eq!(names, due);
    for (step, words) in rows {
        let said = said(&mut place.without(step));
        match words {
            Some(words) => assert!(said.contains(words), "{step}: {said}"),
            None => assert!(said.starts_with("confined\n"), "{step}: {said}"),
        }
    }
    let threads = said(place.without("").env("BELLJAR_TEST_THREAD", "1"));
    assert!(
        threads.contains("`one thread` failed: there are more threads"),
        "{threads}"
    );
}
