//! What a build holds in file locks (fcntl(2), flock(2)).
//!
//! The kernel charges them to no cgroup (seen on Linux 6.18) and bounds them by nothing: RLIMIT_LOCKS has had
//! no effect since Linux 2.4. So they are counted, in the descriptor tables of the build's processes, where a lock is
//! seen as long as it is held: the system call filter refuses the only kind that is not. That takes time, and
//! `/proc/locks` would take the square of it, so it is done only when the whole machine holds more than one build may,
//! which is a number to be read. Meanwhile the build is frozen: nobody in it takes further locks, or hands a table on.

use std::cmp::Ordering;
use std::fs::{self, File, ReadDir};
use std::io::{self, Read};
use std::time::{Duration, Instant};

use belljar_core::bounds::{FILE_LOCKS, LOCK_DESCRIPTORS};
use belljar_sys::{Errno, process};

use crate::cgroup::Group;

/// How many locks the whole machine may hold at the moment, and has held at once: never fewer than there are.
const ON_MACHINE: &str = "/sys/kernel/slab/file_lock_cache/total_objects";
/// How many more of them are a reason to count anew.
const GROWTH: u64 = FILE_LOCKS / 10;
/// How often it is counted anew at least, as long as the machine holds more than one build may.
const AGAIN: Duration = Duration::from_secs(5);
/// The part of the time for which a build may be frozen where nothing grows: one in so many.
const PART: u32 = 20;
/// More than the line of one lock has in `/proc/PID/fdinfo`, in bytes, by what it has at least.
const LINE_BYTES: u64 = 96;

/// The watch over the locks of one build.
#[derive(Debug, Default)]
pub struct Watch {
    counting: Option<Counting>,
    counted: Option<Counted>,
}

/// A count that has ended without finding too many.
#[derive(Debug)]
struct Counted {
    ended: Instant,
    took: Duration,
    /// What the machine held when it began.
    on_machine: u64,
}

/// A count under way.
#[derive(Debug)]
struct Counting {
    begun: Instant,
    on_machine: u64,
    /// Threads that were not looked at yet.
    threads: Vec<u32>,
    /// One thread for each descriptor table that was, in the kernel's order of tables.
    tables: Vec<u32>,
    /// The table that is looked at.
    table: Option<ReadDir>,
    locks: u64,
}

impl Watch {
    /// Looks for a moment. Returns how many locks were found where they are more than a build may hold; it stays
    /// frozen then.
    ///
    /// # Errors
    /// When something cannot be read, so that nobody knows how many they are.
    pub fn look(&mut self, group: &Group) -> io::Result<Option<u64>> {
        let mut counting = match self.counting.take() {
            Some(counting) => counting,
            None => {
                let on_machine = on_machine();
                if !self.is_due(on_machine) {
                    return Ok(None);
                }
                Counting::begin(group, on_machine)?
            }
        };
        let over = counting.go_on()?;
        if counting.locks > FILE_LOCKS {
            return Ok(Some(counting.locks));
        }
        if over {
            group.freeze(false)?;
            self.counted = Some(counting.end());
        } else {
            self.counting = Some(counting);
        }
        Ok(None)
    }

    /// Whether it has to be counted, by what the machine holds; where that cannot be read, by time alone.
    fn is_due(&mut self, on_machine: Option<u64>) -> bool {
        if on_machine.is_some_and(|all| all <= FILE_LOCKS) {
            self.counted = None;
            return false;
        }
        let Some(counted) = &self.counted else {
            return true;
        };
        let grown = on_machine.is_some_and(|all| all > counted.on_machine + GROWTH);
        grown || counted.ended.elapsed() >= AGAIN.max(counted.took * PART)
    }
}

impl Counting {
    fn begin(group: &Group, on_machine: Option<u64>) -> io::Result<Self> {
        let begun = Instant::now();
        group.freeze(true)?;
        Ok(Self {
            begun,
            on_machine: on_machine.unwrap_or(0),
            threads: group.threads()?,
            tables: Vec::new(),
            table: None,
            locks: 0,
        })
    }

    fn end(self) -> Counted {
        Counted {
            ended: Instant::now(),
            took: self.begun.elapsed(),
            on_machine: self.on_machine,
        }
    }

    /// Looks at some descriptors; returns whether that was all, or enough.
    fn go_on(&mut self) -> io::Result<bool> {
        let mut buffer = Vec::new();
        for _ in 0..LOCK_DESCRIPTORS {
            let Some(table) = &mut self.table else {
                let Some(thread) = self.threads.pop() else {
                    return Ok(true);
                };
                if self.is_new(thread)? {
                    self.table = still_there(fs::read_dir(format!("/proc/{thread}/fdinfo")))?;
                }
                continue;
            };
            let Some(entry) = table.next() else {
                self.table = None;
                continue;
            };
            let Some(entry) = still_there(entry)? else {
                continue;
            };
            let Some(file) = still_there(File::open(entry.path()))? else {
                continue;
            };
            buffer.clear();
            let most = (FILE_LOCKS + 1) * LINE_BYTES;
            still_there(file.take(most).read_to_end(&mut buffer))?;
            self.locks += locks(&buffer);
            if self.locks > FILE_LOCKS {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether nobody with the descriptor table of `thread` was looked at.
    fn is_new(&mut self, thread: u32) -> io::Result<bool> {
        let mut failed = None;
        let place = self.tables.binary_search_by(|known| {
            match process::compare_descriptor_tables(*known, thread) {
                Ok(order) => order,
                Err(error) => {
                    // Gone: at worst a table is looked at twice.
                    if !is_gone(&error) {
                        failed = Some(error);
                    }
                    Ordering::Less
                }
            }
        });
        match (failed, place) {
            (Some(error), _) => Err(error),
            (None, Ok(_)) => Ok(false),
            (None, Err(place)) => {
                self.tables.insert(place, thread);
                Ok(true)
            }
        }
    }
}

/// How many locks the whole machine may hold; none where the kernel does not tell it.
fn on_machine() -> Option<u64> {
    let text = fs::read_to_string(ON_MACHINE).ok()?;
    text.split_whitespace().next()?.parse().ok()
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
mod tests {
    use super::*;

    fn counting(threads: Vec<u32>) -> Counting {
        Counting {
            begun: Instant::now(),
            on_machine: 0,
            threads,
            tables: Vec::new(),
            table: None,
            locks: 0,
        }
    }

    #[test]
    fn lines_of_locks_count() {
        let text = b"pos:\t0\nflags:\t02\nlock:\t1: POSIX  ADVISORY  READ 7 00:01:9 2 2\nlock:\t2: FLOCK\n";
        assert_eq!(locks(text), 2);
        assert_eq!(locks(b"pos:\t0\nmnt_id:\t14\nino:\t9\n"), 0);
    }

    #[test]
    fn locks_of_one_table_are_found_once_whoever_shares_it() {
        let files: Vec<_> = (0..10).map(|_| tempfile::tempfile().unwrap()).collect();
        let alone = {
            let mut counting = counting(vec![std::process::id()]);
            assert!(counting.go_on().unwrap());
            counting.locks
        };
        for file in &files {
            file.lock().unwrap();
        }
        // A second thread of this process, which shares its table; and one that is gone.
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || {
            tell.send(own_thread()).unwrap();
            let _ = ended.recv();
        });
        let second_id = told.recv().unwrap();
        let mut counting = counting(vec![u32::MAX >> 2, second_id, std::process::id()]);
        while !counting.go_on().unwrap() {}
        assert_eq!(counting.locks, alone + 10);
        end.send(()).unwrap();
        second.join().unwrap();
    }

    fn own_thread() -> u32 {
        let own = fs::read_link("/proc/thread-self").unwrap();
        let own = own.file_name().unwrap().to_str().unwrap();
        own.parse().unwrap()
    }

    #[test]
    fn it_is_counted_when_the_machine_holds_more_than_one_build_may() {
        let mut watch = Watch::default();
        assert!(!watch.is_due(Some(FILE_LOCKS)));
        assert!(watch.is_due(Some(FILE_LOCKS + 1)));
        assert!(watch.is_due(None));
        let counted = |on_machine, ago| Counted {
            ended: Instant::now().checked_sub(ago).unwrap(),
            took: Duration::from_millis(1),
            on_machine,
        };
        watch.counted = Some(counted(FILE_LOCKS + 1, Duration::ZERO));
        assert!(!watch.is_due(Some(FILE_LOCKS + 1)));
        assert!(!watch.is_due(None));
        assert!(watch.is_due(Some(FILE_LOCKS + 2 + GROWTH)));
        watch.counted = Some(counted(FILE_LOCKS + 1, AGAIN));
        assert!(watch.is_due(Some(FILE_LOCKS + 1)));
        // Once they were few, many of them are something new.
        assert!(!watch.is_due(Some(0)));
        assert!(watch.is_due(Some(FILE_LOCKS + 1)));
    }
}
