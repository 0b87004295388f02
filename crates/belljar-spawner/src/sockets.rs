//! What the sockets of a build may hold in the kernel.
//!
//! Answers of netlink, errors and time stamps wait in a socket's receive buffer without being counted by any
//! cgroup (seen on Linux 6.18: 4 GiB in the sockets of a build that used 33 MiB). So sockets count themselves,
//! each with all that may wait in it: a filter keeps builds from asking for larger buffers than by default.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// What a message may have beyond the buffer that it still found room in, in bytes.
const BEYOND: u64 = 64 * 1024;

/// The sockets in the network namespace of one sandbox.
#[derive(Debug)]
pub struct Sockets {
    /// Of that namespace, whoever reads it, and also when nobody is in it any more.
    count: File,
    /// The most that one may hold, in bytes.
    each: u64,
}

impl Sockets {
    /// Those of the network namespace that the process `pid` is in.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let buffer = number(fs::read_to_string("/proc/sys/net/core/rmem_default")?.trim())?;
        Ok(Self {
            count: File::open(format!("/proc/{pid}/net/sockstat"))?,
            each: buffer + BEYOND,
        })
    }

    /// The most that all of them may hold by now, in bytes.
    ///
    /// # Errors
    /// When it cannot be read how many there are.
    pub fn held(&self) -> io::Result<u64> {
        // The first line is all that is needed.
        let mut buffer = [0; 64];
        let length = self.count.read_at(&mut buffer, 0)?;
        Ok(used(&buffer[..length])?.saturating_mul(self.each))
    }
}

/// How many sockets are in use, by `/proc/net/sockstat`.
fn used(text: &[u8]) -> io::Result<u64> {
    let first = text.split(|byte| *byte == b'\n').next();
    let first = first.and_then(|line| str::from_utf8(line).ok());
    let figure = first.and_then(|line| line.strip_prefix("sockets: used "));
    number(figure.unwrap_or_default())
}

fn number(text: &str) -> io::Result<u64> {
    let unreadable = |_| io::Error::other(format!("`{text}` in /proc is not a number"));
    text.parse().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        assert_eq!(
            used(b"sockets: used 12\nTCP: inuse 1 orphan 0\n").unwrap(),
            12
        );
        assert!(used(b"TCP: inuse 1\n").is_err());
        assert!(used(b"").is_err());
    }

    #[test]
    fn sockets_of_this_process_count() {
        let sockets = Sockets::of(std::process::id()).unwrap();
        let more: Vec<_> = (0..50)
            .map(|_| std::os::unix::net::UnixDatagram::unbound().unwrap())
            .collect();
        assert!(sockets.held().unwrap() >= more.len() as u64 * sockets.each);
    }
}
