use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use belljar_core::{ObjectId, Outcome};
use belljar_tests::{Instance, TreeOf};

use crate::hostile::assert_objects_are_whole;
use crate::{log, on, run, with};

/// Says what each link of `LINKS` names and what is read there.
const READ: &str = r#"
for link in $LINKS; do
  echo "$link -> $(readlink "$link")"
  if test -e "$link"; then echo "there: $(cat "$link")"; else echo "nothing there"; fi
done
"#;

#[test]
fn links_out_of_a_tree_are_kept_and_lead_nowhere_but_inside_the_sandbox() {
    let instance = Instance::started();
    let client = instance.client();
    // On the host everybody may read and write it; no sandbox shows it.
    // In a directory of a name that the sandbox has, too.
    let host = tempfile::tempdir_in("/tmp").unwrap();
    let file = host.path().join("file");
    fs::write(&file, "of the host\n").unwrap();
    fs::set_permissions(host.path(), Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let file = file.to_str().unwrap();
    let climbing = format!("../../../../../..{file}");
    let through = format!("/proc/self/root{file}");
    let shown = [
        ("absolute", file),
        ("climbing", &climbing),
        ("through-proc", &through),
        ("of-init", &format!("/proc/1/root{file}")),
        ("shadow", "/etc/shadow"),
        ("climbing-shadow", "../../../etc/shadow"),
        ("passwd", "../../../../../etc/passwd"),
        ("objects", "/objects"),
        ("sibling", "../deps/x/kept"),
    ];
    let tree = |tree: TreeOf| shown.iter().fold(tree, |tree, (at, to)| tree.link(at, to));
    let source = tree(TreeOf::default()).upload(&client);
    let deps = tree(TreeOf::default().file("kept", "of the input\n")).upload(&client);
    // Where the sandbox has directories of its own, the image's links are hidden.
    let places = ["tmp", "build", "deps", "dev", "home", "opt"];
    let image = TreeOf::root_file_system().with_programs(&["readlink"]);
    let there = host.path().to_str().unwrap();
    let image = places.iter().fold(image, |image, at| image.link(at, there));
    let image = image.upload(&client);

    let names = shown.map(|(name, _)| name);
    let below = names.map(|name| format!("/deps/x/{name}"));
    let links = [&names.map(str::to_owned)[..], &below[..]].concat();
    let script = format!(
        "set -u; LINKS='{}'; {READ}
        for link in $LINKS; do
          (echo changed > \"$link\") 2>/dev/null && echo \"WRITTEN: $link\"
        done
        for place in {}; do test -e /$place/file && echo SHOWN; done
        mkdir -p {} && echo 'of the sandbox' > absolute && cat {file} climbing through-proc > out",
        links.join(" "),
        places.join(" "),
        there
    );
    for (number, on_image) in [false, true].into_iter().enumerate() {
        let mut spec = client.spec(&[], &[&script], &["out"]);
        spec.source = source;
        let spec = with(spec, &[("x", deps)]);
        let spec = if on_image { on(spec, image) } else { spec };
        let build = run(&client, &format!("r{number}"), &spec);
        let log = log(&instance, &build);
        assert_eq!(build.outcome, Some(Outcome::Succeeded), "{log}");
        for (name, target) in shown {
            assert!(
                log.contains(&format!("{name} -> {target}\n")),
                "{name}: {log}"
            );
        }
        for bad in ["of the host", "WRITTEN", "SHOWN"] {
            assert!(!log.contains(bad), "{log}");
        }
        // What is shown is read through a link: the sandbox's own list of users, the other input's file.
        let users = "passwd\nthere: root:x:0:0:root:/:/usr/sbin/nologin\nbuild:x:1000:";
        assert_eq!(log.matches(users).count(), 2, "{log}");
        let kept = "sibling -> ../deps/x/kept\nthere: of the input\n";
        assert!(log.contains(kept), "{log}");
        assert_eq!(log.matches("\nthere: ").count(), 3, "{log}");
        assert_eq!(fs::read_to_string(file).unwrap(), "of the host\n");
        assert_objects_are_whole(&instance);
        let out = ObjectId::of("of the sandbox\n".repeat(3).as_bytes());
        assert!(client.read(out).is_ok());
    }
}
