use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use belljar_core::{Outcome, bounds};
use belljar_tests::{Instance, Part, TreeOf, wait_for};

use crate::{ended, log, on, run, submit, with};

/// Trees that the spawner has mounted.
fn mounted(instance: &Instance) -> usize {
    let spawner = instance.pid_of(Part::Spawner);
    let mounts = fs::read_to_string(format!("/proc/{spawner}/mountinfo")).unwrap();
    let erofs = mounts.lines().filter(|line| line.contains(" - erofs "));
    erofs.filter(|line| line.contains("/mnt/trees/")).count()
}

fn images(instance: &Instance) -> BTreeSet<(String, i64, i64)> {
    let all = fs::read_dir(instance.state().join("store/images")).unwrap();
    let told = all.map(|image| {
        let image = image.unwrap();
        let status = image.metadata().unwrap();
        let name = image.file_name().into_string().unwrap();
        (name, status.mtime(), status.mtime_nsec())
    });
    told.collect()
}

#[test]
fn trees_stay_mounted_within_a_bound_and_never_leave_under_a_build() {
    let instance = Instance::started();
    let client = instance.client();
    let slow = TreeOf::default()
        .file("f", "used all the time\n")
        .upload(&client);
    let script =
        "echo begun; while test ! -e /tmp/x; do cat /deps/x/f > /dev/null; sleep 0.1; done";
    let plain = client.spec(&[], &[script], &["out"]);
    let long = submit(&client, "long", &with(plain, &[("x", slow)]));
    client.until(&long.id, |build| log(&instance, build).contains("begun"));
    let names: Vec<_> = (0..bounds::INPUTS).map(|i| format!("i{i}")).collect();
    let rounds = bounds::MOUNTED_TREES / bounds::INPUTS + 2;
    for round in 0..rounds {
        let trees = names.iter().map(|name| {
            let content = format!("{round} {name}\n");
            (
                name.as_str(),
                TreeOf::default().file("f", content).upload(&client),
            )
        });
        let trees: Vec<_> = trees.collect();
        let spec = client.spec(&[], &["cat /deps/*/f > out"], &["out"]);
        let build = run(&client, &format!("r{round}"), &with(spec, &trees));
        let told = log(&instance, &build);
        assert_eq!(build.outcome, Some(Outcome::Succeeded), "{told}");
    }
    wait_for(
        "as many are mounted as may be",
        std::time::Duration::from_secs(20),
        || (mounted(&instance) <= bounds::MOUNTED_TREES).then_some(()),
    );
    assert!(rounds * bounds::INPUTS > bounds::MOUNTED_TREES);
    // It has read the same file all the time, although its tree was the one not asked for longest.
    let now = client.get(&long.id).unwrap();
    assert_eq!(now.outcome, None, "{}", log(&instance, &now));
    client.cancel(&long.id, "enough").unwrap();
    let told = format!("{:?}", ended(&client, &long).outcome);
    assert!(told.contains("Cancelled"), "{told}");
}

#[test]
fn images_outlive_every_process_and_are_made_once() {
    let mut instance = Instance::started();
    let client = instance.client();
    let image = TreeOf::root_file_system().upload(&client);
    let spec = client.spec(&[("in", "1")], &["cat in > out"], &["out"]);
    let spec = on(spec, image);
    assert_eq!(run(&client, "one", &spec).outcome, Some(Outcome::Succeeded));
    let before = images(&instance);
    assert!(
        before
            .iter()
            .any(|(name, ..)| name.contains(&image.digest.to_hex()))
    );
    for part in [Part::Spawner, Part::Store] {
        instance.kill_part(part);
        instance.start_part(part);
    }
    let build = run(&client, "two", &spec);
    assert_eq!(
        build.outcome,
        Some(Outcome::Succeeded),
        "{}",
        log(&instance, &build)
    );
    assert_eq!(images(&instance), before);
}
