use belljar_core::Image;

use crate::enforcement::expect;
use crate::{HOME, INPUTS_DIR, MountReport, Plan, Shortfall, WORKDIR};

/// Types of file systems of which a sandbox has an instance of its own. On any other it would share locks, events
/// and times with whoever else uses it.
const OWN: [&str; 4] = ["devpts", "overlay", "proc", "tmpfs"];

/// Compares the mounts of a sandbox with what `plan` demands.
pub(crate) fn check(mounts: &[MountReport], plan: &Plan, found: &mut Vec<Shortfall>) {
    let mut is = |holds: bool, text: &dyn Fn() -> String| expect(found, "mounts", holds, text);
    is(any(mounts, "/", |mount| has(mount, "ro")), &|| {
        "the root is not a read-only mount".to_owned()
    });
    is(any(mounts, WORKDIR, is_overlay), &|| {
        format!("{WORKDIR} is not an overlay of its own")
    });
    for (name, _) in plan.inputs.iter() {
        let place = format!("{INPUTS_DIR}/{name}");
        let due = any(mounts, &place, |mount| {
            has(mount, "ro") && is_overlay(mount)
        });
        is(due, &|| {
            format!("{place} is not a read-only overlay of its own")
        });
    }
    if let Image::Tree(_) = &plan.image {
        is(any(mounts, "/", is_overlay), &|| {
            "the root is not an overlay over the image".to_owned()
        });
        for mount in mounts {
            is(is_listed(&mount.target, plan), &|| {
                format!(
                    "{} is mounted, and is neither the image nor the sandbox's own",
                    mount.target
                )
            });
        }
    }
    for mount in mounts {
        is(has(mount, "nosuid"), &|| {
            format!("{} is mounted without nosuid", mount.target)
        });
        let device = mount.target.starts_with("/dev/");
        is(device || has(mount, "nodev"), &|| {
            format!("{} is mounted without nodev", mount.target)
        });
        is(OWN.contains(&mount.fs.as_str()), &|| {
            format!("{} shows a {} file system", mount.target, mount.fs)
        });
    }
}

fn any(mounts: &[MountReport], target: &str, due: impl Fn(&MountReport) -> bool) -> bool {
    mounts
        .iter()
        .any(|mount| mount.target == target && due(mount))
}

fn has(mount: &MountReport, option: &str) -> bool {
    mount.options.split(',').any(|found| found == option)
}

fn is_overlay(mount: &MountReport) -> bool {
    mount.fs == "overlay"
}

/// Every place where a sandbox on a tree has a mount: nothing of the host's files is among them.
fn is_listed(target: &str, plan: &Plan) -> bool {
    let own = ["/", WORKDIR, HOME, "/tmp", "/dev", "/proc"];
    let below = ["/dev/", "/proc/"];
    let input = target
        .strip_prefix(INPUTS_DIR)
        .and_then(|rest| rest.strip_prefix('/'));
    own.contains(&target)
        || below.iter().any(|place| target.starts_with(place))
        || input.is_some_and(|input| plan.inputs.iter().any(|(name, _)| name.as_str() == input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::spec;
    use belljar_core::{Input, InputName, Inputs, ObjectId};
    use std::collections::BTreeMap;

    fn mount(target: &str, fs: &str, options: &str) -> MountReport {
        MountReport {
            target: target.to_owned(),
            fs: fs.to_owned(),
            options: options.to_owned(),
        }
    }

    fn good() -> Vec<MountReport> {
        vec![
            mount("/", "overlay", "ro,nosuid,nodev"),
            mount("/build", "overlay", "rw,nosuid,nodev"),
            mount("/tmp", "tmpfs", "rw,nosuid,nodev"),
            mount("/dev/null", "overlay", "ro,nosuid"),
            mount("/proc", "proc", "ro,nosuid,nodev"),
            mount("/deps/cargo", "overlay", "ro,nosuid,nodev"),
        ]
    }

    fn shortfalls(mounts: &[MountReport], image: Image) -> Vec<String> {
        let mut spec = spec();
        let input = Input {
            tree: ObjectId::of(b"tree"),
            derivation: None,
        };
        spec.image = image;
        let name = InputName::new("cargo").unwrap();
        spec.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
        let mut found = Vec::new();
        check(mounts, &Plan::compile(&spec), &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_differs_from_the_plan_is_named() {
        let tree = Image::Tree(Input {
            tree: ObjectId::of(b"image"),
            derivation: None,
        });
        assert_eq!(shortfalls(&good(), tree), [""; 0]);
        assert_eq!(shortfalls(&good(), Image::Host), [""; 0]);
        type Change = fn(&mut Vec<MountReport>);
        let cases: [(Change, &str); 9] = [
            (
                |m| m[0].options = "rw,nosuid,nodev".into(),
                "root is not a read-only",
            ),
            (
                |m| m[0].fs = "tmpfs".into(),
                "not an overlay over the image",
            ),
            (|m| m[1].fs = "tmpfs".into(), "/build is not an overlay"),
            (
                |m| m[5].options = "rw,nosuid,nodev".into(),
                "/deps/cargo is not",
            ),
            (|m| m[5].target = "/deps/npm".into(), "/deps/npm is mounted"),
            (|m| m[2].target = "/usr".into(), "/usr is mounted"),
            (|m| m[2].options = "rw,nodev".into(), "without nosuid"),
            (|m| m[4].fs = "sysfs".into(), "sysfs"),
            (|m| m[3].fs = "devtmpfs".into(), "devtmpfs"),
        ];
        for (change, expected) in cases {
            let mut mounts = good();
            change(&mut mounts);
            let found = shortfalls(&mounts, tree);
            assert!(
                found.iter().any(|text| text.contains(expected)),
                "{expected}: {found:?}"
            );
        }
        let mut host = good();
        host[0].fs = "tmpfs".into();
        host[2].target = "/usr".into();
        assert_eq!(shortfalls(&host, Image::Host), [""; 0]);
    }
}
