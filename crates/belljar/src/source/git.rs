use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use belljar_core::{RelPath, bounds};
use rustix::fs::makedev;
use rustix::process::{Pid, Signal, kill_process};

use super::{Error, bounded, rel_path};

/// Mode of a submodule's entry in the index (gitglossary(7), gitlink).
const GITLINK: &[u8] = b"160000";
/// Longest line of `git ls-files --stage` beside the path: mode, object, stage and separators.
const STAGE_BYTES: usize = 128;
/// Most bytes of git's complaints that are repeated.
const SAID_BYTES: u64 = 1024;

/// Whether `dir` lies in a git work tree.
pub(super) fn is_work_tree(dir: &Path) -> Result<bool, Error> {
    let canonical = dir.canonicalize().map_err(|source| Error::Read {
        path: dir.to_owned(),
        source,
    })?;
    // Looked for without git, so that its absence cannot change what is taken.
    Ok(canonical
        .ancestors()
        .any(|ancestor| ancestor.join(".git").exists()))
}

/// What git tracks, and what is neither tracked nor ignored.
pub(super) fn list(dir: &Path) -> Result<Vec<RelPath>, Error> {
    list_within(dir, Duration::from_secs(bounds::GIT_SECONDS))
}

/// The same, each of git's answers within `patience`.
pub(super) fn list_within(dir: &Path, patience: Duration) -> Result<Vec<RelPath>, Error> {
    look(dir)?;
    let mut paths = BTreeSet::new();
    ask(
        dir,
        patience,
        "ls-files --stage",
        &["ls-files", "-z", "--cached", "--stage"],
        |line| {
            // `<mode> <object> <stage>\t<path>`; an entry in conflict has several stages.
            let tab = line.iter().position(|byte| *byte == b'\t').unwrap_or(0);
            let path = rel_path(&line[(tab + 1).min(line.len())..])?;
            if line.starts_with(GITLINK) {
                return Err(Error::Repository {
                    path,
                    what: "a git submodule",
                });
            }
            paths.insert(path);
            bounded(paths.len())
        },
    )?;
    ask(
        dir,
        patience,
        "ls-files --others",
        &["ls-files", "-z", "--others", "--exclude-standard"],
        |line| {
            if let Some(nested) = line.strip_suffix(b"/") {
                return Err(Error::Repository {
                    path: rel_path(nested)?,
                    what: "another git repository",
                });
            }
            paths.insert(rel_path(line)?);
            bounded(paths.len())
        },
    )?;
    Ok(paths.into_iter().collect())
}

/// Refuses a repository in which there is something else in the place of a file that git would open: a named pipe
/// would have it wait for whoever writes there. What lies deeper, git is not waited for longer than for its patience.
fn look(dir: &Path) -> Result<(), Error> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let canonical = dir.canonicalize().map_err(read(dir))?;
    let found = canonical
        .ancestors()
        .map(|ancestor| ancestor.join(".git"))
        .find(|path| path.exists());
    let Some(repository) = found else {
        return Ok(());
    };
    regular(&repository)?;
    for folder in [repository.clone(), repository.join("info")] {
        // A work tree of another repository has a file there, with the place of its own directory.
        if folder.is_dir() {
            for entry in std::fs::read_dir(&folder).map_err(read(&folder))? {
                regular(&entry.map_err(read(&folder))?.path())?;
            }
        }
    }
    Ok(())
}

/// Whether git would find a file or a directory there, or nothing.
fn regular(path: &Path) -> Result<(), Error> {
    // As git does: by the link, if it is one. A socket does no harm, and its monitor of files has one there.
    let Ok(found) = path.metadata() else {
        return Ok(());
    };
    let kind = found.file_type();
    let kind = match () {
        () if kind.is_fifo() => "a named pipe",
        // Where hooks or ignore rules are to be none, links to it are usual, and it ends at once.
        () if kind.is_char_device() && found.rdev() == makedev(1, 3) => return Ok(()),
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => return Ok(()),
    };
    Err(Error::GitSpecial {
        path: path.to_owned(),
        kind,
    })
}

/// Runs git in `dir` and hands on what it prints, up to each NUL.
fn ask(
    dir: &Path,
    patience: Duration,
    what: &'static str,
    arguments: &[&str],
    take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let no_git = |source| Error::NoGit {
        dir: dir.to_owned(),
        source,
    };
    let mut child = command(dir, arguments).spawn().map_err(no_git)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pid = Pid::from_child(&child);
    let (done, is_done) = mpsc::channel::<()>();
    let (taken, said, late) = std::thread::scope(|scope| {
        let listener = scope.spawn(move || stderr.map(complaint).unwrap_or_default());
        // Nobody waits for the child before this has ended, so the id is still its own.
        let watch = scope.spawn(move || {
            let late = is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        let taken = stdout.map_or(Ok(()), |stdout| lines(dir, stdout, take));
        if taken.is_err() {
            // It would wait for ever for somebody to read the rest. That it has ended already is fine.
            let _ = kill_process(pid, Signal::KILL);
        }
        let said = listener.join().unwrap_or_default();
        drop(done);
        (taken, said, watch.join().unwrap_or_default())
    });
    let ended = child.wait().map_err(no_git)?.success();
    if late {
        return Err(Error::GitSlow {
            what,
            dir: dir.to_owned(),
            seconds: patience.as_secs(),
        });
    }
    taken?;
    if !ended {
        return Err(Error::Git {
            what,
            dir: dir.to_owned(),
            said,
        });
    }
    Ok(())
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        // A repository's own configuration can name programs to run. Listing would run this one.
        .args(["-c", "core.fsmonitor=false"])
        // And these, should it write its index.
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        // And those by which it reaches another repository, for objects that are not in this one (partialClone).
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_NO_LAZY_FETCH", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Set when a hook or alias of git's runs us: they would mean another repository than the one around `dir`.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_PREFIX",
        "GIT_COMMON_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

fn lines(
    dir: &Path,
    stdout: impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = bounds::PATH_BYTES + STAGE_BYTES;
        let read = (&mut reader)
            .take(most as u64)
            .read_until(0, &mut line)
            .map_err(|source| Error::Read {
                path: dir.to_owned(),
                source,
            })?;
        match line.pop() {
            None => return Ok(()),
            Some(0) => take(&line)?,
            Some(_) if read == most => return Err(Error::name(&line, "its path is too long")),
            // git was ended before it was done; its exit status says so.
            Some(_) => return Ok(()),
        }
    }
}

/// The beginning of what a program says on standard error, after everything was read.
fn complaint(mut stderr: impl Read) -> String {
    let mut said = Vec::new();
    let _ = (&mut stderr).take(SAID_BYTES).read_to_end(&mut said);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&said).trim().to_owned()
}
