use belljar_tests::{Instance, Project};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What whoever starts Belljar by hand may have open, before they raise it: such limits are low for the sake of programs that
/// know no more than 1024 (select(2)). Three quarters are for the files of trees that builds have used.
const FEW: u64 = 256;

#[test]
fn outputs_do_not_want_for_descriptors_while_the_files_of_a_tree_are_held() {
    let before = getrlimit(Resource::Nofile);
    assert!(before.maximum.is_none_or(|most| most >= 4096), "{before:?}");
    let few = Rlimit {
        current: Some(FEW),
        ..before
    };
    // What is started from here on has it from this process.
    setrlimit(Resource::Nofile, few).unwrap();
    let mut instance = Instance::started();
    let script = "mkdir out; for i in $(seq 300); do echo $i > out/$i; done";
    let project = Project::script(script);
    for number in 0..FEW * 2 / 3 {
        project.write(&format!("{number}"), number.to_string());
    }
    // By the end of the first, those are held.
    for _ in 0..2 {
        instance.run(&project).assert_succeeded();
    }
}
