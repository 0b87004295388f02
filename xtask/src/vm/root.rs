//! The machine's root file system: Debian with systemd, made once and kept in the user's cache, under the number
//! of its recipe.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use siphasher::sip::SipHasher13;

use super::cache::Cache;
use crate::{debian, shell};

/// The oldest Debian whose kernel is the supported floor (6.12).
const SUITE: &str = "trixie";
/// What is in it beside the essential packages: the kernel, systemd, and what the suites call.
const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "gcc",
    "libc6-dev",
    "openssl",
    "procps",
    "python3",
];
/// What is left out of its packages: nobody reads it there.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];
/// How long making it may take, in seconds: an archive that hangs must not hang the checks.
const PATIENCE: &str = "1200";
/// Size of the file system; the file has holes where nothing is.
const SIZE: &str = "4G";
/// The machine's identity. With one, it does not take its start for the first.
const MACHINE_ID: &str = "be11a700be11a700be11a700be11a700\n";

/// Runs what the payload disk brings, and writes what it leaves to the results disk. The disks are found
/// by their serial numbers (`machine.rs`).
const RUNNER: &str = r#"#!/bin/sh
set -u
mkdir -p /payload /results
tar -C /payload -xf /dev/disk/by-id/virtio-payload || echo "the payload cannot be unpacked"
cd /payload && ./run /results
echo $? > /results/status
journalctl --boot --no-pager > /results/journal.txt 2>&1
tar -C /results -cf /dev/disk/by-id/virtio-results .
sync
"#;
const UNIT: &str = "[Unit]
Description=What the payload disk brings
After=multi-user.target dev-disk-by\\x2did-virtio\\x2dpayload.device dev-disk-by\\x2did-virtio\\x2dresults.device
Requires=dev-disk-by\\x2did-virtio\\x2dpayload.device dev-disk-by\\x2did-virtio\\x2dresults.device
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/payload
# Tests have their bombs killed in cgroups below; the machine goes on.
OOMPolicy=continue
StandardInput=null
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0

[Install]
WantedBy=graphical.target
";
/// Holds a quota of CPU as long as the machine runs. Linux patches its own code when the first quota comes and when the
/// last one goes (`cfs_bandwidth_usage_inc`), which each build would do; QEMU 7.2's emulator with several threads was
/// seen to run into half of such a patch, and the machine panicked with `Oops: int3` in `__set_next_task_fair`.
const QUOTA: &str = "[Unit]
Description=A quota of CPU that stays

[Service]
ExecStart=/usr/bin/sleep infinity
CPUQuota=50%

[Install]
WantedBy=multi-user.target
";
/// Units that wait for somebody, or do in the background what would only disturb.
const MASKED: &[&str] = &[
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-firstboot.service",
];

/// What the machine is started from.
pub(super) struct Root {
    /// The file system, as a disk.
    pub(super) disk: PathBuf,
    /// Debian's kernel. It needs no initial RAM disk: NVMe and ext4 are built in.
    pub(super) kernel: PathBuf,
}

impl Root {
    fn below(folder: &Path) -> Self {
        Self {
            disk: folder.join("root.img"),
            kernel: folder.join("vmlinuz"),
        }
    }

    /// The one that an earlier run made by the same recipe, or a new one.
    pub(super) fn provide(cache: &Cache) -> Result<Self> {
        let name = format!("root-{:016x}", recipe());
        Ok(Self::below(&cache.provide(&name, make)?))
    }
}

/// A number of everything that decides what is in it, but for the versions of the packages. Nobody is kept from making
/// two recipes of one number: this is a name in a cache.
fn recipe() -> u64 {
    let lists = [PACKAGES, LEFT_OUT, MASKED].map(|list| list.join(" "));
    let texts = [SUITE, SIZE, MACHINE_ID, RUNNER, UNIT, QUOTA];
    let all = [lists.join("\n"), texts.join("\n")].join("\n");
    SipHasher13::new().hash(all.as_bytes())
}

fn make(folder: &Path) -> Result<()> {
    let mirror = debian::mirror()?;
    eprintln!("making a root file system: Debian {SUITE} from {mirror}");
    let tree = folder.join("tree");
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=30", PATIENCE, "mmdebstrap"])
        // Read by the script that would make an initial RAM disk.
        .env("INITRD", "No")
        .args(["--mode=root", "--variant=minbase", "--quiet"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg(SUITE)
        .arg(&tree)
        .arg(&mirror);
    shell::run(&mut command).context("making a root file system")?;
    furnish(&tree)?;
    let root = Root::below(folder);
    std::fs::copy(only(&tree.join("boot"), "vmlinuz-")?, &root.kernel).context("the kernel")?;
    shell::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .arg(&tree)
            .arg(&root.disk)
            .arg(SIZE),
    )?;
    std::fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())
}

/// Adds what runs the payload.
fn furnish(tree: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let link = |path: String, target: &str| {
        let path = tree.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        // A package may have put one there.
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).with_context(|| path.display().to_string())
    };
    write("usr/local/sbin/payload", RUNNER)?;
    let runner = tree.join("usr/local/sbin/payload");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&runner, executable).context("the runner's mode")?;
    write("etc/systemd/system/payload.service", UNIT)?;
    link(
        "etc/systemd/system/graphical.target.wants/payload.service".to_owned(),
        "/etc/systemd/system/payload.service",
    )?;
    write("etc/systemd/system/quota.service", QUOTA)?;
    link(
        "etc/systemd/system/multi-user.target.wants/quota.service".to_owned(),
        "/etc/systemd/system/quota.service",
    )?;
    for unit in MASKED {
        link(format!("etc/systemd/system/{unit}"), "/dev/null")?;
    }
    write("etc/hostname", "vm\n")?;
    write("etc/hosts", "127.0.0.1 localhost vm\n")?;
    write("etc/fstab", "")?;
    write("etc/machine-id", MACHINE_ID)?;
    // What systemd does only where /usr is newer than these, it need not do.
    write("etc/.updated", "")?;
    write("var/.updated", "")
}

/// The one file in a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry.with_context(|| folder.display().to_string())?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    ensure!(
        found.len() == 1,
        "{} files {prefix}* in {}, and one is due",
        found.len(),
        folder.display()
    );
    Ok(found.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_due() {
        let folder = tempfile::tempdir().unwrap();
        assert!(only(folder.path(), "vmlinuz-").is_err());
        std::fs::write(folder.path().join("vmlinuz-1"), "").unwrap();
        assert!(
            only(folder.path(), "vmlinuz-")
                .unwrap()
                .ends_with("vmlinuz-1")
        );
        std::fs::write(folder.path().join("vmlinuz-2"), "").unwrap();
        assert!(only(folder.path(), "vmlinuz-").is_err());
    }
}
