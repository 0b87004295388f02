//! The virtual machine: QEMU without KVM, which not every host can nest, and without a network.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::root::Root;
use crate::shell;

/// Lines with this before them are for the person who waits; all others only matter when something fails.
pub(super) const SAID: &str = "belljar-vm: ";
/// What it leaves at the top of its results when it has come to its end.
pub(super) const REPORT: &str = "report.json";
/// The journal of the machine, which it leaves beside it.
pub(super) const JOURNAL: &str = "journal.txt";
/// How much of the console is shown then.
const CONSOLE_LINES: usize = 120;
/// Room for what the machine leaves: a report, its journal, output of what failed.
const RESULTS_BYTES: u64 = 64 << 20;

/// Quiet but for what runs in it; and it has no neighbour that could measure its CPU's caches.
const KERNEL_OPTIONS: &str = "root=/dev/nvme0n1 rootwait rw console=ttyS0 panic=-1 quiet loglevel=3 \
     systemd.show_status=0 mitigations=off";

/// A process that is ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself, or there is nothing better to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a machine ended.
pub(super) enum End {
    /// It has left its report.
    Done,
    /// It stopped before that. The end of its console and of its journal, if it left one, were shown.
    Stopped,
    /// It stopped before it had begun with the tests: nothing of Belljar had run. The end of its console was shown.
    Silent,
}

/// Boot it with a payload, wait until it has turned itself off, and unpack what it left into `results`.
pub(super) fn run(root: &Root, payload: &Path, results: &Path, patience: Duration) -> Result<End> {
    let disk = results.join("results.img");
    let made = File::create(&disk).with_context(|| disk.display().to_string())?;
    made.set_len(RESULTS_BYTES).context("room for results")?;
    let mut command = qemu(root, payload, &disk);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", shell::shown(&command)))?;
    let mut machine = Running(child);
    let console = machine.0.stdout.take().context("the console")?;
    let (console, spoke) = watch(console, patience)?;
    let status = machine
        .0
        .wait()
        .context("waiting for the virtual machine")?;
    ensure!(status.success(), "the virtual machine ended with {status}");
    if !spoke {
        console.show("console");
        return Ok(End::Silent);
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(results).arg("-xf").arg(&disk);
    shell::run(&mut tar).context("the virtual machine left no results")?;
    std::fs::remove_file(&disk).with_context(|| disk.display().to_string())?;
    // A kernel that panics turns the machine off, and QEMU ends as if all were well.
    if results.join(REPORT).is_file() {
        return Ok(End::Done);
    }
    console.show("console");
    if let Ok(journal) = File::open(results.join(JOURNAL)) {
        let mut last = Last::default();
        lines(journal).for_each(|line| last.push(line));
        last.show("journal");
    }
    Ok(End::Stopped)
}

/// The last lines of a console.
#[derive(Debug, Default)]
struct Last(VecDeque<String>);

impl Last {
    fn push(&mut self, line: String) {
        if self.0.len() == CONSOLE_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    fn show(&self, what: &str) {
        eprintln!("--- the end of the {what}");
        self.0.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("---");
    }
}

/// Whatever can be read of it.
fn lines(text: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(text).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Shows what is for people, until the console is closed. Gives its end, and whether there was anything for people.
fn watch(console: impl Read + Send + 'static, patience: Duration) -> Result<(Last, bool)> {
    let (send, lines) = mpsc::channel();
    // It ends with the console.
    std::thread::spawn(move || {
        for line in self::lines(console) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + patience;
    let mut last = Last::default();
    let mut spoke = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if let Some((_, said)) = line.split_once(SAID) {
                    eprintln!("   {said}");
                    spoke = true;
                }
                last.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((last, spoke)),
            Err(RecvTimeoutError::Timeout) => {
                last.show("console");
                bail!(
                    "the virtual machine was not done after {}",
                    shell::human(patience)
                );
            }
        }
    }
}

/// The command that is the machine: with two CPUs, and dead with us.
fn qemu(root: &Root, payload: &Path, results: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        // cx16: with it, the emulator of QEMU 7.2 breaks the slab allocator of Debian's kernels.
        .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,-cx16"])
        .args(["-machine", "q35", "-smp", "2", "-m", "3072"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .arg("-kernel")
        .arg(&root.kernel)
        .arg("-append")
        .arg(KERNEL_OPTIONS)
        .args(["-device", "virtio-rng-pci"]);
    // What the machine writes to its root goes into a temporary file, so the next one finds it as it was.
    // NVMe is what Debian's kernel can mount its root from without an initial RAM disk.
    for (name, file, how, device) in [
        ("root", root.disk.as_path(), "snapshot=on", "nvme"),
        ("payload", payload, "read-only=on", "virtio-blk-pci"),
        ("results", results, "read-only=off", "virtio-blk-pci"),
    ] {
        // QEMU's own escape for a comma in a value.
        let file = file.display().to_string().replace(',', ",,");
        command
            .arg("-drive")
            .arg(format!(
                "if=none,id={name},format=raw,cache=unsafe,{how},file={file}"
            ))
            .arg("-device")
            .arg(format!("{device},drive={name},serial={name}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_says_nothing_is_told_from_one_that_has_begun() {
        let patience = Duration::from_secs(9);
        let (last, spoke) = watch(&b"starting\npanic\n"[..], patience).unwrap();
        assert_eq!(
            (last.0.back().map(String::as_str), spoke),
            (Some("panic"), false)
        );
        let begun = &b"noise belljar-vm: begun\r\npanic\n"[..];
        let (last, spoke) = watch(begun, patience).unwrap();
        assert_eq!(
            (last.0.back().map(String::as_str), spoke),
            (Some("panic"), true)
        );
    }

    #[test]
    fn a_machine_that_does_not_end_is_not_waited_for() {
        let (reader, writer) = std::io::pipe().unwrap();
        let late = watch(reader, Duration::from_millis(20)).unwrap_err();
        assert!(late.to_string().contains("was not done after"), "{late}");
        drop(writer);
    }
}
