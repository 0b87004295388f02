//! What a build holds in file locks (fcntl(2), flock(2)) and in open files.
//!
//! The kernel charges locks to no cgroup (seen on Linux 6.18) and bounds them by nothing: RLIMIT_LOCKS has had
//! no effect since Linux 2.4. Open files it charges, at 192 bytes, so that some gigabytes are enough for all that the
//! machine may have (`fs.file-max`), and whoever is not root gets none then, such as belljard; and not what belongs to
//! those of `/proc`, epoll(7) and timerfd_create(2), up to some 500 bytes each. So both are counted, in
//! the descriptor tables of the build's processes, where a lock is seen as long as it is held: the system call filter
//! refuses the only kind that is not. A file that is mapped stays open without a descriptor; so where the machine has
//! half of its files open, mappings count too, which may find one file several times. That takes time, and
//! `/proc/locks` would take the square of it, so it is done only when the whole machine holds more than one build may,
//! which are numbers to be read. Meanwhile the build is frozen: nobody in it takes further ones, or hands a table on.

use std::cmp::Ordering;
use std::fs::{self, File, ReadDir};
use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use belljar_core::LimitKind;
use belljar_core::bounds::{FILE_LOCKS, LOCK_DESCRIPTORS, OPEN_FILES};
use belljar_sys::{Errno, process};

use crate::cgroup::Group;

/// How many locks the whole machine may hold at the moment, and has held at once: never fewer than there are.
const LOCKS_ON_MACHINE: &str = "/sys/kernel/slab/file_lock_cache/total_objects";
/// How many files are open on the whole machine (proc_sys_fs(5)).
const FILES_ON_MACHINE: &str = "/proc/sys/fs/file-nr";
/// How many may be.
const FILES_AT_MOST: &str = "/proc/sys/fs/file-max";
/// How many more locks are a reason to count anew.
const GROWTH: u64 = FILE_LOCKS / 10;
/// How often it is counted anew at least, as long as the machine holds more than one build may.
const AGAIN: Duration = Duration::from_secs(5);
/// The part of the time for which a build may be frozen where nothing grows: one in so many.
const PART: u32 = 20;
/// More than the line of one lock has in `/proc/PID/fdinfo`, in bytes, by what it has at least.
const LINE_BYTES: u64 = 96;

/// What builds may have of the machine's open files: half of all together, in equal parts, and [`OPEN_FILES`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileShare {
    /// From how many on the machine on mappings count.
    half: u64,
    /// What one build may have.
    pub each: u64,
}

/// The watch over what one build holds.
#[derive(Debug)]
pub struct Watch {
    share: FileShare,
    counting: Option<Counting>,
    counted: Option<Counted>,
}

/// More than a build may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// Of what.
    pub limit: LimitKind,
    /// How many it may hold.
    pub figure: u64,
    /// How many were found.
    pub used: u64,
}

/// What the whole machine holds.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// None where the kernel does not tell it.
    locks: Option<u64>,
    files: u64,
}

/// A count that has ended without finding too many.
#[derive(Debug)]
struct Counted {
    ended: Instant,
    took: Duration,
    /// What the machine held when it began.
    machine: Machine,
}

/// A count under way.
#[derive(Debug)]
struct Counting {
    begun: Instant,
    machine: Machine,
    /// Which of the two is counted.
    due: Due,
    /// Threads that were not looked at yet.
    threads: Vec<u32>,
    /// One thread for each descriptor table that was, in the kernel's order of tables.
    tables: Vec<u32>,
    /// The same for address spaces.
    spaces: Vec<u32>,
    /// The table that is looked at.
    table: Option<ReadDir>,
    /// The address space that is looked at.
    mapped: Option<BufReader<File>>,
    locks: u64,
    files: u64,
}

/// What there is a reason to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    locks: bool,
    files: bool,
    /// Files also where they are mapped.
    mapped: bool,
}

impl FileShare {
    /// What each of so many builds may have at once.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(slots: usize) -> io::Result<Self> {
        Ok(Self::out_of(first_number(FILES_AT_MOST)?, slots))
    }

    fn out_of(most: u64, slots: usize) -> Self {
        let half = most / 2;
        let slots = u64::try_from(slots.max(1)).unwrap_or(u64::MAX);
        Self {
            half,
            each: OPEN_FILES.min(half / slots),
        }
    }
}

impl Watch {
    /// A watch that has seen nothing.
    pub fn new(share: FileShare) -> Self {
        Self {
            share,
            counting: None,
            counted: None,
        }
    }

    /// Looks for a moment. Returns what was found where it is more than a build may hold; it stays frozen then.
    ///
    /// # Errors
    /// When something cannot be read, so that nobody knows how many they are.
    pub fn look(&mut self, group: &Group) -> io::Result<Option<Beyond>> {
        let mut counting = match self.counting.take() {
            Some(counting) => counting,
            None => {
                let machine = Machine::look()?;
                let due = self.due(machine);
                if due == Due::default() {
                    return Ok(None);
                }
                Counting::begin(group, machine, due)?
            }
        };
        let over = counting.go_on(self.share)?;
        if let Some(beyond) = counting.beyond(self.share) {
            return Ok(Some(beyond));
        }
        if over {
            group.freeze(false)?;
            self.counted = Some(counting.end());
        } else {
            self.counting = Some(counting);
        }
        Ok(None)
    }

    /// What has to be counted, by what the machine holds; where that cannot be read, by time alone.
    fn due(&mut self, machine: Machine) -> Due {
        let many = Due {
            locks: machine.locks.is_none_or(|all| all > FILE_LOCKS),
            files: machine.files > self.share.each,
            mapped: machine.files > self.share.half,
        };
        if many == Due::default() {
            self.counted = None;
        }
        let Some(counted) = &self.counted else {
            return many;
        };
        let grown = |now: u64, before: u64, much: u64| now > before.saturating_add(much);
        let locks = machine.locks.zip(counted.machine.locks);
        let more_locks = locks.is_some_and(|(now, before)| grown(now, before, GROWTH));
        let more_files = grown(machine.files, counted.machine.files, self.share.each / 10);
        let time = counted.ended.elapsed() >= AGAIN.max(counted.took * PART);
        Due {
            locks: many.locks && (more_locks || time),
            files: many.files && (more_files || time),
            mapped: many.mapped && (more_files || time),
        }
    }
}

impl Machine {
    fn look() -> io::Result<Self> {
        Ok(Self {
            locks: first_number(LOCKS_ON_MACHINE).ok(),
            files: first_number(FILES_ON_MACHINE)?,
        })
    }
}

impl Counting {
    fn begin(group: &Group, machine: Machine, due: Due) -> io::Result<Self> {
        let begun = Instant::now();
        group.freeze(true)?;
        Ok(Self::of(begun, machine, due, group.threads()?))
    }

    fn of(begun: Instant, machine: Machine, due: Due, threads: Vec<u32>) -> Self {
        Self {
            begun,
            machine,
            due,
            threads,
            tables: Vec::new(),
            spaces: Vec::new(),
            table: None,
            mapped: None,
            locks: 0,
            files: 0,
        }
    }

    fn end(self) -> Counted {
        Counted {
            ended: Instant::now(),
            took: self.begun.elapsed(),
            machine: self.machine,
        }
    }

    /// What there is more of than may be.
    fn beyond(&self, share: FileShare) -> Option<Beyond> {
        let held = [
            (LimitKind::FileLocks, FILE_LOCKS, self.locks),
            (LimitKind::OpenFiles, share.each, self.files),
        ];
        let beyond = held.into_iter().find(|(_, figure, used)| used > figure);
        beyond.map(|(limit, figure, used)| Beyond {
            limit,
            figure,
            used,
        })
    }

    /// Looks at some descriptors or mappings; returns whether that was all, or enough.
    fn go_on(&mut self, share: FileShare) -> io::Result<bool> {
        for _ in 0..LOCK_DESCRIPTORS {
            if self.mapped.is_some() {
                self.look_at_mapping()?;
            } else if self.table.is_some() {
                self.look_at_descriptor()?;
            } else if let Some(thread) = self.threads.pop() {
                self.begin_thread(thread)?;
            } else {
                return Ok(true);
            }
            if self.beyond(share).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens what a thread shares with no thread that was looked at.
    fn begin_thread(&mut self, thread: u32) -> io::Result<()> {
        let is_new_table = is_new(&mut self.tables, thread, process::compare_descriptor_tables)?;
        if is_new_table && self.due.locks {
            self.table = still_there(fs::read_dir(format!("/proc/{thread}/fdinfo")))?;
        }
        if is_new_table && self.due.files {
            // Since Linux 6.2 the size of this directory is how many descriptors are open.
            let table = still_there(fs::metadata(format!("/proc/{thread}/fd")))?;
            self.files += table.map_or(0, |table| table.len());
        }
        if self.due.mapped && is_new(&mut self.spaces, thread, process::compare_address_spaces)? {
            let mapped = still_there(File::open(format!("/proc/{thread}/maps")))?;
            self.mapped = mapped.map(BufReader::new);
        }
        Ok(())
    }

    fn look_at_descriptor(&mut self) -> io::Result<()> {
        let Some(entry) = self.table.as_mut().and_then(Iterator::next) else {
            self.table = None;
            return Ok(());
        };
        let Some(entry) = still_there(entry)? else {
            return Ok(());
        };
        let Some(file) = still_there(File::open(entry.path()))? else {
            return Ok(());
        };
        let mut text = Vec::new();
        let most = (FILE_LOCKS + 1) * LINE_BYTES;
        still_there(file.take(most).read_to_end(&mut text))?;
        self.locks += locks(&text);
        Ok(())
    }

    fn look_at_mapping(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let read = match &mut self.mapped {
            // The kernel writes line breaks in names as `\012`.
            Some(mapped) => still_there(mapped.read_until(b'\n', &mut line))?,
            None => None,
        };
        if read.is_none_or(|length| length == 0) {
            self.mapped = None;
        } else if is_of_a_file(&line) {
            self.files += 1;
        }
        Ok(())
    }
}

/// Whether `thread` shares something with none of those that are `known`, by how two compare; it is known then.
fn is_new(
    known: &mut Vec<u32>,
    thread: u32,
    compare: fn(u32, u32) -> io::Result<Ordering>,
) -> io::Result<bool> {
    let mut failed = None;
    let place = known.binary_search_by(|known| match compare(*known, thread) {
        Ok(order) => order,
        Err(error) => {
            // Gone: at worst something is looked at twice.
            if !is_gone(&error) {
                failed = Some(error);
            }
            Ordering::Less
        }
    });
    match (failed, place) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(false),
        (None, Err(place)) => {
            known.insert(place, thread);
            Ok(true)
        }
    }
}

/// The first number of a file.
fn first_number(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let first = text.split_whitespace().next().unwrap_or_default();
    let unreadable = |_| io::Error::other(format!("{path}: `{first}` is not a number"));
    first.parse().map_err(unreadable)
}

/// Whether a line of `/proc/PID/maps` is about a mapping with an open file: one with an inode.
fn is_of_a_file(line: &[u8]) -> bool {
    let mut fields = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    fields.nth(4).is_some_and(|inode| inode != b"0")
}

/// How many locks are told of one descriptor in `/proc/PID/fdinfo`.
fn locks(text: &[u8]) -> u64 {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter(|line| line.starts_with(b"lock:")).count() as u64
}

/// What was read of a thread, if that is still there.
fn still_there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::SRCH].map(|errno| Some(errno.raw_os_error()));
    gone.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests;
