use belljar_tests::{Instance, Project};

#[test]
fn two_builds_at_once_do_not_see_each_other() {
    let mut instance = Instance::started();
    // Each leaves marks wherever it can, waits long enough to overlap, and looks around.
    let script = |name: &str| {
        format!(
            "echo {name} > mark; echo {name} > /tmp/mark-{name}; echo {name} > $HOME/mark-{name} 2>/dev/null || :
             echo begun {name}; sleep 2
             cat mark; ls /tmp; ps -e -o pid= | wc -l; ls -d /proc/[0-9]* | wc -l; ipcs -m | grep -c 0x || :
             cp mark out"
        )
    };
    let projects = ["alpha", "beta"].map(|name| Project::script(&script(name)));
    let running = projects.each_ref().map(|project| instance.begin(project));
    instance.wait_until_logged("begun alpha");
    instance.wait_until_logged("begun beta");
    let runs = running.map(|running| instance.finish(running));
    for (run, (own, other)) in runs.iter().zip([("alpha", "beta"), ("beta", "alpha")]) {
        run.assert_succeeded();
        assert_eq!(run.file("out"), format!("{own}\n").as_bytes());
        assert!(run.log.contains(&format!("mark-{own}")), "{run}");
        assert!(!run.log.contains(other), "{run}");
    }
    let [one, two] = runs.each_ref().map(|run| {
        let time = |field: &str| run.json[field].as_str().unwrap().to_owned();
        (time("started"), time("ended"))
    });
    assert!(
        one.0 < two.1 && two.0 < one.1,
        "they overlapped: {one:?} {two:?}"
    );
    // Each has user ids of its own on the host.
    let uid = |run: &belljar_tests::Run| run.receipt()["enforcement"]["uids"][0].clone();
    assert!(uid(&runs[0]).is_u64());
    assert_ne!(uid(&runs[0]), uid(&runs[1]));
}

#[test]
fn nothing_of_a_build_is_there_for_the_next_one() {
    let mut instance = Instance::started();
    let first = Project::script("echo secret > left; echo secret > /tmp/left; : > out");
    instance.run(&first).assert_succeeded();
    let second = instance.run(&Project::script(
        "find / -xdev -name left 2>/dev/null | grep . && exit 1; ls -A /tmp | wc -l; : > out",
    ));
    second.assert_succeeded();
    assert_eq!(second.log, "0\n");
}

#[test]
fn two_commands_share_the_processes_of_one_state_directory() {
    let mut instance = Instance::new();
    let slow = Project::script("echo begun; sleep 1; echo slow > out");
    let quick = Project::script("echo quick > out");
    let running = instance.begin(&slow);
    instance.wait_until_logged("begun");
    let second = instance.run(&quick);
    let first = instance.finish(running);
    first.assert_succeeded();
    second.assert_succeeded();
    assert_eq!(second.file("out"), b"quick\n");
    // One key has signed both.
    assert_eq!(first.file("builder.pub"), second.file("builder.pub"));
    assert_eq!(first.json["daemon"]["embedded"], true);
}
