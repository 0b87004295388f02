//! Steps of init that put its file system together.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use belljar_plan::{BUILD_ID, HOME, HOSTNAME, INPUTS_DIR, USER, WORKDIR};
use belljar_sys::files::{self, Kind};
use belljar_sys::forbidden::UNCOVERED_FILE;
use belljar_sys::mount::{self, Attributes};

use crate::init::Init;
use crate::rootfs::{HostPath, RootFs};
use crate::staging;

const READ_ONLY: Attributes = Attributes {
    read_only: true,
    devices: false,
    no_exec: false,
};
const MASK: Attributes = Attributes {
    read_only: true,
    devices: false,
    no_exec: true,
};

/// Device nodes of the host that every build has.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// An empty directory: what masks a directory, and the upper layer of what has no other.
const EMPTY: &str = ".masked/directory";
/// Where a directory of the host is looked into for something in it.
const AT_HAND: &str = ".masked/at-hand";

/// What is masked in `/proc`, where it is there: the kernel's settings, and what tells of the host, of others'
/// work on it, or of keys. Init's own directory too: it shows the spawner's command line, with paths of the host.
const MASKED_DIRECTORIES: &[&str] = &[
    "1",
    "sys",
    "pressure",
    "acpi",
    "bus",
    "irq",
    "driver",
    "fs",
    "scsi",
    "dynamic_debug",
];
const MASKED_FILES: &[&str] = &[
    "cmdline",
    "kallsyms",
    "keys",
    "key-users",
    "config.gz",
    "cgroups",
    "diskstats",
    "interrupts",
    "kcore",
    "kmsg",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "sysrq-trigger",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "locks",
    "modules",
    "partitions",
    "schedstat",
    "softirqs",
    "swaps",
    "vmallocinfo",
    "slabinfo",
    "pagetypeinfo",
    "iomem",
    "ioports",
];

pub(super) fn root(init: &mut Init<'_>) -> io::Result<()> {
    mount::make_all_private()?;
    let options = [
        ("size", Some("4m")),
        ("nr_inodes", Some("1k")),
        ("mode", Some("755")),
    ];
    let new_root = init.places.root();
    mount::attach(
        mount::make("tmpfs", &options, Attributes::default())?,
        &new_root,
    )?;
    init.own(&new_root)?;
    for path in [
        "etc",
        "tmp",
        "home",
        "home/build",
        "build",
        "proc",
        "dev",
        "var",
        "run",
        ".masked",
        EMPTY,
        AT_HAND,
    ] {
        init.directory(path)?;
    }
    symlink("/tmp", new_root.join("var/tmp"))?;
    init.file(".masked/file", "", 0o000)?;
    init.file(
        UNCOVERED_FILE.trim_start_matches('/'),
        "no Landlock rule covers this file\n",
        0o444,
    )?;
    identity_files(init)?;
    for (name, _) in init.plan.inputs.iter() {
        init.parents(&init.inside(Path::new(INPUTS_DIR)).join(name.as_str()))?;
        init.directory(&format!("{}/{name}", INPUTS_DIR.trim_start_matches('/')))?;
    }
    match init.rootfs {
        RootFs::Host(host) => {
            for path in host.paths() {
                host_path(init, path)
                    .map_err(|e| io::Error::new(e.kind(), format!("{path:?}: {e}")))?;
            }
            Ok(())
        }
        RootFs::Tree(_) => over_image(init),
    }
}

/// Lays what was made so far over the image. The overlay is this sandbox's alone, and nothing in it can be
/// written: it has no layer that could be.
fn over_image(init: &Init<'_>) -> io::Result<()> {
    // A self-probe tries to write there, and its absence would prove nothing.
    init.directory("usr")?;
    let layers = [init.places.root(), init.places.image()];
    let options = init.places.overlay(&layers)?;
    let over = staging::overlay(&options, READ_ONLY)?;
    mount::attach(over, &init.places.root())
}

/// What programs look up about users and hosts, without anything of the real host in it.
fn identity_files(init: &Init<'_>) -> io::Result<()> {
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{BUILD_ID}:{BUILD_ID}:build:{HOME}:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    init.file("etc/passwd", &passwd, 0o444)?;
    init.file(
        "etc/group",
        &format!("root:x:0:\n{USER}:x:{BUILD_ID}:\nnogroup:x:65534:\n"),
        0o444,
    )?;
    init.file(
        "etc/hosts",
        &format!("127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n"),
        0o444,
    )?;
    init.file("etc/hostname", &format!("{HOSTNAME}\n"), 0o444)?;
    init.file(
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
        0o444,
    )
}

/// A listed path of the host.
fn host_path(init: &Init<'_>, path: &HostPath) -> io::Result<()> {
    let owners = Some(init.host_owners.as_fd());
    match path {
        HostPath::Directory(source) => {
            let target = init.inside(source);
            init.parents(&target)?;
            DirBuilder::new().mode(0o755).create(&target)?;
            own_view(init, source, &target, READ_ONLY, owners)
        }
        HostPath::File(source) => {
            let target = init.inside(source);
            init.parents(&target)?;
            fs::write(&target, "")?;
            let (Some(parent), Some(name)) = (source.parent(), source.file_name()) else {
                return Err(io::Error::other("it has no name"));
            };
            let at_hand = init.inside(&Path::new("/").join(AT_HAND));
            own_view(init, parent, &at_hand, READ_ONLY, owners)?;
            let clone = mount::clone_tree(&at_hand.join(name), false)?;
            mount::attach(clone, &target)?;
            mount::detach(&at_hand)
        }
        HostPath::Symlink(at, target) => {
            let at = init.inside(at);
            init.parents(&at)?;
            symlink(target, at)
        }
    }
}

/// Mounts a directory of the host at `target`, which `attributes` hold read-only, under an overlay of its own: on
/// the host's own inodes a build could hold locks, and see by inotify what the host and other builds open.
///
/// With `owners`, what host root owns appears as inside 0's. What others own is nobody's inside: above all,
/// host user 1000 is not the build.
fn own_view(
    init: &Init<'_>,
    source: &Path,
    target: &Path,
    attributes: Attributes,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let clone = mount::clone_tree(source, false)?;
    mount::set_attributes(clone.as_fd(), READ_ONLY, owners, false)?;
    mount::attach(clone, target)?;
    let layers = [init.inside(&Path::new("/").join(EMPTY)), target.to_owned()];
    let over = staging::overlay(&init.places.plain_overlay(&layers)?, attributes)?;
    // The overlay holds its layers by mounts of its own.
    mount::detach(target)?;
    mount::attach(over, target)
}

pub(super) fn devices(init: &mut Init<'_>) -> io::Result<()> {
    let options = [
        ("size", Some("64k")),
        ("nr_inodes", Some("64")),
        ("mode", Some("755")),
    ];
    let no_exec = Attributes {
        no_exec: true,
        ..Attributes::default()
    };
    let dev = init.inside(Path::new("/dev"));
    mount::attach(mount::make("tmpfs", &options, no_exec)?, &dev)?;
    init.own(&dev)?;
    device_nodes(init, &dev)?;
    init.directory("dev/shm")?;
    init.directory("dev/pts")?;
    // Every devpts mount is an instance of its own since Linux 4.7.
    let options = [
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("max", Some("256")),
    ];
    let terminals = Attributes {
        read_only: false,
        devices: true,
        no_exec: true,
    };
    let pts = mount::make("devpts", &options, terminals)?;
    mount::attach(pts, &dev.join("pts"))?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

/// The host's device nodes, as inodes of the sandbox's own: whoever may write to a node may also set its times.
fn device_nodes(init: &Init<'_>, dev: &Path) -> io::Result<()> {
    let at_hand = init.inside(&Path::new("/").join(AT_HAND));
    let device = Attributes {
        read_only: true,
        devices: true,
        no_exec: true,
    };
    own_view(init, Path::new("/dev"), &at_hand, device, None)?;
    for name in DEVICES {
        init.file(&format!("dev/{name}"), "", 0o000)?;
        let clone = mount::clone_tree(&at_hand.join(name), false)?;
        if files::kind(clone.as_fd())? != Kind::Device {
            // Something is mounted over it, which an overlay does not see.
            return Err(io::Error::other(format!(
                "/dev/{name} of the host is no device node"
            )));
        }
        mount::attach(clone, &dev.join(name))?;
    }
    mount::detach(&at_hand)
}

pub(super) fn work_space(init: &mut Init<'_>) -> io::Result<()> {
    let no_exec = Attributes {
        no_exec: true,
        ..Attributes::default()
    };
    let places = init.places;
    for (source, target, attributes) in [
        (places.merged(), WORKDIR, Attributes::default()),
        (places.scratch("tmp"), "/tmp", Attributes::default()),
        (places.scratch("home"), HOME, Attributes::default()),
        (places.scratch("shm"), "/dev/shm", no_exec),
    ] {
        let clone = mount::clone_tree(&source, false)?;
        mount::set_attributes(clone.as_fd(), attributes, None, false)?;
        mount::attach(clone, &init.inside(Path::new(target)))?;
    }
    for (name, _) in init.plan.inputs.iter() {
        let clone = mount::clone_tree(&places.input(name), false)?;
        mount::set_attributes(clone.as_fd(), READ_ONLY, None, false)?;
        let target = Path::new(INPUTS_DIR).join(name.as_str());
        mount::attach(clone, &init.inside(&target))?;
    }
    Ok(())
}

pub(super) fn proc(init: &mut Init<'_>) -> io::Result<()> {
    let proc = init.inside(Path::new("/proc"));
    let no_exec = Attributes {
        no_exec: true,
        ..Attributes::default()
    };
    let mounted = mount::make("proc", &[], no_exec)?;
    mount::attach(mounted.as_fd(), &proc)?;
    for (names, mask) in [(MASKED_DIRECTORIES, EMPTY), (MASKED_FILES, ".masked/file")] {
        for name in names {
            let target = proc.join(name);
            if !target.exists() {
                continue;
            }
            let clone = mount::clone_tree(&init.inside(Path::new(mask)), false)?;
            mount::set_attributes(clone.as_fd(), MASK, None, false)?;
            mount::attach(clone, &target)?;
        }
    }
    mount::set_attributes(mounted.as_fd(), MASK, None, false)
}

pub(super) fn pivot(init: &mut Init<'_>) -> io::Result<()> {
    std::env::set_current_dir(init.places.root())?;
    mount::pivot_here()?;
    for path in ["/dev", "/"] {
        let opened = mount::location(Path::new(path))?;
        let no_exec = path == "/dev";
        mount::set_attributes(
            opened.as_fd(),
            Attributes {
                no_exec,
                ..READ_ONLY
            },
            None,
            false,
        )?;
    }
    Ok(())
}

impl Init<'_> {
    /// Where a path of the sandbox lies before the pivot.
    fn inside(&self, path: &Path) -> PathBuf {
        self.places
            .root()
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.ids.image), Some(self.ids.image))
    }

    fn directory(&self, path: &str) -> io::Result<()> {
        let path = self.inside(Path::new(path));
        DirBuilder::new().mode(0o755).create(&path)?;
        self.own(&path)
    }

    fn file(&self, path: &str, content: &str, mode: u32) -> io::Result<()> {
        let path = self.inside(Path::new(path));
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        self.own(&path)
    }

    /// Makes the directories above `path` that are not there yet.
    fn parents(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if parent.exists() {
            return Ok(());
        }
        self.parents(parent)?;
        DirBuilder::new().mode(0o755).create(parent)?;
        self.own(parent)
    }
}
