//! The system calls that count, and their arguments.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::File;

/// Most bytes of a message that are looked at: its kind stands at its beginning, but for long paths.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Most parts of one write.
const PARTS: usize = 1024;

/// A process that is stopped at a call.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    memory: fs::File,
}

/// A call that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// openat(2) with a flag that makes a file.
    Open {
        /// The path; of the directory where the file gets no name.
        path: PathBuf,
        /// Whether it gets a name.
        named: bool,
        /// With which permission bits.
        mode: u32,
    },
    /// write(2) and its kin.
    Write {
        /// On which descriptor.
        descriptor: i32,
        /// Where, if not at its own position.
        offset: Option<u64>,
        /// Everything.
        bytes: Vec<u8>,
    },
    /// ftruncate(2).
    Truncate {
        /// On which descriptor.
        descriptor: i32,
        /// To which length.
        length: u64,
    },
    /// fsync(2), fdatasync(2).
    Sync {
        /// On which descriptor.
        descriptor: i32,
    },
    /// syncfs(2).
    SyncAll,
    /// fchmod(2), fchown(2), futimens(3).
    Attributes {
        /// On which descriptor.
        descriptor: i32,
    },
    /// mkdirat(2).
    Directory {
        /// Where.
        path: PathBuf,
        /// With which permission bits.
        mode: u32,
    },
    /// linkat(2).
    Link {
        /// From which path.
        from: PathBuf,
        /// To which.
        to: PathBuf,
    },
    /// renameat(2).
    Rename {
        /// From which path.
        from: PathBuf,
        /// To which.
        to: PathBuf,
    },
    /// unlinkat(2).
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// sendmsg(2), sendto(2).
    Send {
        /// The beginning of the message.
        bytes: Vec<u8>,
    },
    /// A new process, which is no thread.
    Clone,
    /// Mounts, namespaces, signals: in one word.
    Other(&'static str),
    /// A way to change files that nobody should take: what it does would not be seen here.
    Unseen(&'static str),
}

impl Stopped {
    /// The process with this id, which is traced.
    ///
    /// # Errors
    /// When its memory cannot be read.
    pub fn new(pid: i32) -> std::io::Result<Self> {
        let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
        Ok(Self { pid, memory })
    }

    /// What is asked of the kernel, if it counts.
    pub fn call(&self, number: i64, arguments: [u64; 6]) -> Option<Call> {
        let [a, b, c, d, ..] = arguments;
        let descriptor = low(a);
        Some(match number {
            libc::SYS_openat => return self.open(a, b, low(c), low(d)),
            libc::SYS_openat2 => return self.open2(a, b, c),
            libc::SYS_write => self.write(descriptor, None, self.read(b, c)),
            libc::SYS_pwrite64 => self.write(descriptor, Some(d), self.read(b, c)),
            libc::SYS_writev => self.write(descriptor, None, self.gather(b, c)),
            libc::SYS_pwritev | libc::SYS_pwritev2 => {
                self.write(descriptor, Some(d), self.gather(b, c))
            }
            libc::SYS_ftruncate => Call::Truncate {
                descriptor,
                length: b,
            },
            libc::SYS_fsync | libc::SYS_fdatasync => Call::Sync { descriptor },
            libc::SYS_syncfs => Call::SyncAll,
            libc::SYS_fchmod | libc::SYS_fchown => Call::Attributes { descriptor },
            libc::SYS_utimensat if b == 0 => Call::Attributes { descriptor },
            libc::SYS_mkdirat => Call::Directory {
                path: self.path(a, b)?,
                mode: u32::try_from(c).ok()?,
            },
            libc::SYS_linkat => Call::Link {
                from: self.path(a, b)?,
                to: self.path(c, d)?,
            },
            libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename {
                from: self.path(a, b)?,
                to: self.path(c, d)?,
            },
            libc::SYS_unlinkat => Call::Remove {
                path: self.path(a, b)?,
            },
            libc::SYS_sendto => Call::Send {
                bytes: self.read(b, c.min(MESSAGE_BYTES as u64)),
            },
            libc::SYS_sendmsg => Call::Send {
                bytes: self.message(b),
            },
            _ => {
                return self
                    .by_path(number, a, b)
                    .or_else(|| self.other(number, arguments));
            }
        })
    }

    /// The older calls, which take a path alone. Other architectures have none of these.
    #[cfg(target_arch = "x86_64")]
    fn by_path(&self, number: i64, a: u64, b: u64) -> Option<Call> {
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        let path = |at| self.path(here, at);
        Some(match number {
            libc::SYS_mkdir => Call::Directory {
                path: path(a)?,
                mode: u32::try_from(b).ok()?,
            },
            libc::SYS_open => return self.open(here, a, low(b), 0o600),
            libc::SYS_link => Call::Link {
                from: path(a)?,
                to: path(b)?,
            },
            libc::SYS_rename => Call::Rename {
                from: path(a)?,
                to: path(b)?,
            },
            libc::SYS_unlink | libc::SYS_rmdir => Call::Remove { path: path(a)? },
            libc::SYS_fork | libc::SYS_vfork => Call::Clone,
            libc::SYS_creat => Call::Unseen("creat"),
            _ => return None,
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn by_path(&self, _: i64, _: u64, _: u64) -> Option<Call> {
        None
    }

    fn other(&self, number: i64, arguments: [u64; 6]) -> Option<Call> {
        let a = arguments[0];
        let flags = match number {
            libc::SYS_clone => a,
            libc::SYS_clone3 => u64::from_ne_bytes(self.read(a, 8).try_into().ok()?),
            _ => 0,
        };
        let thread = low(flags) & libc::CLONE_THREAD != 0;
        Some(match number {
            libc::SYS_clone | libc::SYS_clone3 if thread => return None,
            libc::SYS_clone | libc::SYS_clone3 => Call::Clone,
            libc::SYS_unshare => Call::Other("namespace: unshare"),
            libc::SYS_setns => Call::Other("namespace: enter"),
            libc::SYS_mount => Call::Other("mount: change"),
            libc::SYS_move_mount => Call::Other("mount: attach"),
            libc::SYS_fsmount => Call::Other("mount: make"),
            libc::SYS_umount2 => Call::Other("mount: detach"),
            libc::SYS_pidfd_send_signal => Call::Other("process: signal"),
            libc::SYS_copy_file_range => Call::Unseen("copy_file_range"),
            libc::SYS_sendfile => Call::Unseen("sendfile"),
            libc::SYS_splice => Call::Unseen("splice"),
            libc::SYS_fallocate => Call::Unseen("fallocate"),
            libc::SYS_truncate => Call::Unseen("truncate"),
            libc::SYS_symlinkat => Call::Unseen("symlinkat"),
            libc::SYS_io_uring_setup => Call::Unseen("io_uring_setup"),
            libc::SYS_mmap if self.is_file_mapping(arguments) => Call::Unseen("mmap"),
            _ => return None,
        })
    }

    /// Whether a file is written to by memory, but SQLite's index of its log: that is made anew after a crash.
    fn is_file_mapping(&self, [_, _, protection, flags, descriptor, _]: [u64; 6]) -> bool {
        let has = |word: u64, flag: i32| low(word) & flag == flag;
        let writes = has(protection, libc::PROT_WRITE) && has(flags, libc::MAP_SHARED);
        let path = self.target(low(descriptor));
        let file =
            path.is_some_and(|path| path.is_file() && !path.to_string_lossy().ends_with("-shm"));
        writes && !has(flags, libc::MAP_ANONYMOUS) && file
    }

    fn open(&self, directory: u64, path: u64, flags: i32, mode: i32) -> Option<Call> {
        let unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        if !unnamed && flags & libc::O_CREAT == 0 {
            return None;
        }
        Some(Call::Open {
            path: self.path(directory, path)?,
            named: !unnamed,
            mode: u32::try_from(mode).unwrap_or_default(),
        })
    }

    fn open2(&self, directory: u64, path: u64, how: u64) -> Option<Call> {
        let how = self.read(how, 16);
        let word = |at: usize| Some(u64::from_ne_bytes(how.get(at..at + 8)?.try_into().ok()?));
        self.open(directory, path, low(word(0)?), low(word(8)?))
    }

    fn write(&self, descriptor: i32, offset: Option<u64>, bytes: Vec<u8>) -> Call {
        Call::Write {
            descriptor,
            offset,
            bytes,
        }
    }

    /// The first part of a message (struct msghdr).
    fn message(&self, header: u64) -> Vec<u8> {
        let header = self.read(header, 32);
        let word = |at: usize| {
            let bytes = header
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        let mut bytes = self.gather(word(16), word(24));
        bytes.truncate(MESSAGE_BYTES);
        bytes
    }

    /// All parts of a vector (struct iovec).
    fn gather(&self, vector: u64, count: u64) -> Vec<u8> {
        let count = usize::try_from(count).unwrap_or(PARTS).min(PARTS);
        let vector = self.read(vector, count as u64 * 16);
        let mut all = Vec::new();
        for part in vector.chunks_exact(16) {
            let (at, length) = part.split_at(8);
            let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
            all.extend(self.read(word(at), word(length)));
        }
        all
    }

    fn path(&self, directory: u64, path: u64) -> Option<PathBuf> {
        let mut bytes = Vec::new();
        // A page at a time: what is behind the string may not be there.
        while !bytes.contains(&0) && bytes.len() <= 4096 {
            let at = path + bytes.len() as u64;
            let more = self.read(at, 4096 - at % 4096);
            if more.is_empty() {
                return None;
            }
            bytes.extend(more);
        }
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let path = PathBuf::from(String::from_utf8_lossy(&bytes[..end]).into_owned());
        let unnamed = path.strip_prefix("/proc/self");
        if let Ok(rest) = unnamed {
            return fs::read_link(Path::new("/proc").join(self.pid.to_string()).join(rest)).ok();
        }
        match low(directory) {
            _ if path.is_absolute() => Some(path),
            libc::AT_FDCWD => Some(
                fs::read_link(format!("/proc/{}/cwd", self.pid))
                    .ok()?
                    .join(path),
            ),
            descriptor => Some(self.target(descriptor)?.join(path)),
        }
    }

    fn read(&self, at: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = self.memory.read_at(&mut bytes, at).unwrap_or_default();
        bytes.truncate(read);
        bytes
    }

    /// What a descriptor leads to.
    pub fn target(&self, descriptor: i32) -> Option<PathBuf> {
        fs::read_link(self.descriptor(descriptor)).ok()
    }

    /// Which file it is.
    pub fn file(&self, descriptor: i32) -> Option<(File, fs::Metadata)> {
        let status = fs::metadata(self.descriptor(descriptor)).ok()?;
        Some(((status.dev(), status.ino()), status))
    }

    /// Where it stands.
    pub fn position(&self, descriptor: i32) -> Option<u64> {
        let told = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.pid)).ok()?;
        let position = told.lines().find_map(|line| line.strip_prefix("pos:"));
        position?.trim().parse().ok()
    }

    /// Whether it writes at the end, wherever it stands.
    pub fn appends(&self, descriptor: i32) -> bool {
        let told = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.pid));
        let told = told.unwrap_or_default();
        let flags = told.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        flags.is_some_and(|flags| flags & libc::O_APPEND != 0)
    }

    fn descriptor(&self, descriptor: i32) -> String {
        format!("/proc/{}/fd/{descriptor}", self.pid)
    }
}

/// What an `int` among the arguments is.
fn low(argument: u64) -> i32 {
    let low = u32::try_from(argument & u64::from(u32::MAX));
    low.map_or(0, u32::cast_signed)
}
