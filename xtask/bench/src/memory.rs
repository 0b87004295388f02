//! How much memory processes take beyond what they take at rest.

use std::fs;

use anyhow::{Context, Result};

use super::processes::Running;

/// Bytes of a mebibyte, as a figure.
pub(super) const MIB: f64 = 1_048_576.0;
/// Written to `/proc/PID/clear_refs`, it has the peak begin anew (proc_pid_clear_refs(5)).
const PEAK_ANEW: &str = "5";

/// Processes whose peak began anew when this was made.
pub(super) struct Memory(Vec<Process>);

struct Process {
    pid: u32,
    /// Bytes.
    rest: u64,
}

impl Memory {
    /// Of the processes of these short names, and of those that these have started and keep.
    pub(super) fn watch(running: &Running, names: &[&str]) -> Result<Self> {
        let mut all = Vec::new();
        for name in names {
            let pid = running.pid(name)?;
            all.push(Process::watch(pid)?);
            let file = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(&file).context(file)?;
            for child in children.split_ascii_whitespace() {
                all.push(Process::watch(child.parse().context("a child")?)?);
            }
        }
        Ok(Self(all))
    }

    /// The peaks since, beyond what was there at rest, all together; in bytes.
    pub(super) fn beyond_rest(&self) -> Result<f64> {
        let mut bytes = 0;
        for process in &self.0 {
            bytes += status(process.pid, "VmHWM")?.saturating_sub(process.rest);
        }
        // Far below what a float counts exactly.
        Ok(bytes as f64)
    }
}

impl Process {
    fn watch(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/clear_refs");
        fs::write(&file, PEAK_ANEW).context(file)?;
        let rest = status(pid, "VmRSS")?;
        Ok(Self { pid, rest })
    }
}

/// A line of `/proc/PID/status` (proc_pid_status(5)), which counts in kB; in bytes.
fn status(pid: u32, key: &str) -> Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    line(&text, key).with_context(|| format!("{file} has no {key}"))
}

fn line(text: &str, key: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kilobytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tcat\nVmHWM:\t    1832 kB\nVmRSS:\t 100 kB\n";
        assert_eq!(line(text, "VmHWM"), Some(1832 * 1024));
        assert_eq!(line(text, "VmRSS"), Some(100 * 1024));
        assert_eq!(line(text, "Vm"), None);
        assert_eq!(line(text, "VmSwap"), None);
    }

    #[test]
    fn a_peak_is_seen() {
        let own = Memory(vec![Process::watch(std::process::id()).unwrap()]);
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(own.beyond_rest().unwrap() > 63.0 * MIB, "{}", held.len());
    }
}
