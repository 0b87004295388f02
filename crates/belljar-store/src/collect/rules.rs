use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Invalid, Limits as Ceiling, Outputs, RelPath, bounds, evidence};
use belljar_plan::store::Refusal;
use belljar_plan::{OutputEntry, OutputKind};

use super::hands::Hashed;
use crate::failed::Failed;

/// What a collector may send, and in which order: a state machine without I/O. Paths match declared outputs
/// or lie in what does, come once, and inside a declared directory after the directory they lie in; totals
/// stay under the limits; links stay inside the declared directory they lie in. No output takes a name that evidence
/// has where artifacts are brought home: a build that does so has failed, and nobody finds that out later.
#[derive(Debug)]
pub(crate) struct Collection {
    declared: Outputs,
    limits: Limits,
    entries: BTreeMap<RelPath, Entry>,
    /// The outermost of them: what evidence is put beside.
    roots: BTreeSet<RelPath>,
    bytes: u64,
    names: usize,
    open: Option<OpenFile>,
    /// How many files are complete.
    files: usize,
}

/// What came under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// A file: what it is, is told by its number in the end.
    File {
        number: usize,
        executable: bool,
    },
    Symlink {
        target: String,
    },
    Directory,
}

/// The most that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Limits {
    /// Whether a build may have them.
    pub(crate) fn check(self) -> Result<(), Failed> {
        let most = Ceiling::CEILING;
        for (name, asked, most) in [
            ("limit_bytes", self.bytes, most.get().output_bytes),
            ("limit_entries", self.entries, most.get().output_entries),
        ] {
            if asked == 0 || asked > most {
                return Err(Failed::refused(format!(
                    "{name} of {asked}; between 1 and {most} is allowed"
                )));
            }
        }
        Ok(())
    }
}

/// Why nothing of a collection is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// What the build left cannot be an output.
    Outputs(Refusal),
    /// The store could not keep it, or the collector does not follow the order of messages.
    Failed(Failed),
}

#[derive(Debug)]
struct OpenFile {
    path: RelPath,
    executable: bool,
    bytes: u64,
}

impl Collection {
    /// A collection in which nothing has come yet.
    pub(crate) fn new(declared: Outputs, limits: Limits) -> Self {
        Self {
            declared,
            limits,
            entries: BTreeMap::new(),
            roots: BTreeSet::new(),
            bytes: 0,
            names: 0,
            open: None,
            files: 0,
        }
    }

    /// A file begins that seems to have `size` bytes. Nobody reads a sparse one for hours that is too large anyway.
    pub(crate) fn begin_file(
        &mut self,
        path: RelPath,
        executable: bool,
        size: u64,
    ) -> Result<(), Rejected> {
        self.admit(&path)?;
        self.check_size(&path, self.bytes.saturating_add(size), size)?;
        self.open = Some(OpenFile {
            path,
            executable,
            bytes: 0,
        });
        Ok(())
    }

    /// A piece of the file that was begun.
    pub(crate) fn piece(&mut self, length: usize) -> Result<(), Rejected> {
        let Some(open) = &mut self.open else {
            return Err(out_of_order("content came outside a file"));
        };
        self.bytes = self.bytes.saturating_add(length as u64);
        open.bytes = open.bytes.saturating_add(length as u64);
        match &self.open {
            Some(open) => self.check_size(&open.path, self.bytes, open.bytes),
            None => Ok(()),
        }
    }

    /// Whether there may be so many bytes in all, and so many of them in this file.
    fn check_size(&self, path: &RelPath, bytes: u64, of_file: u64) -> Result<(), Rejected> {
        if bytes > self.limits.bytes {
            let path = path.clone();
            return Err(Rejected::Outputs(Refusal::TooManyBytes { bytes, path }));
        }
        if of_file > bounds::BLOB_BYTES {
            return Err(refused(format!(
                "the output `{path}` is larger than the {} bytes that one object may have",
                bounds::BLOB_BYTES
            )));
        }
        Ok(())
    }

    /// The file that was begun is complete. Gives its number, counted from zero.
    pub(crate) fn end_file(&mut self) -> Result<usize, Rejected> {
        let Some(open) = self.open.take() else {
            return Err(out_of_order("a file ended that was not begun"));
        };
        let number = self.files;
        self.files = number.saturating_add(1);
        let executable = open.executable;
        self.entries
            .insert(open.path, Entry::File { number, executable });
        Ok(number)
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: RelPath, target: String) -> Result<(), Rejected> {
        let depth = self.admit(&path)?;
        self.count_name(&target)?;
        if let Err(why) = check_target(&target, depth) {
            return Err(refused(format!(
                "the output `{path}` is a symbolic link that {why}"
            )));
        }
        self.entries.insert(path, Entry::Symlink { target });
        Ok(())
    }

    /// A directory.
    pub(crate) fn directory(&mut self, path: RelPath) -> Result<(), Rejected> {
        self.admit(&path)?;
        self.entries.insert(path, Entry::Directory);
        Ok(())
    }

    /// Whether all came that is due, and how many files.
    pub(crate) fn is_complete(&self) -> Result<usize, Rejected> {
        if self.open.is_some() {
            return Err(out_of_order("the collection ended inside a file"));
        }
        if let Some(why) = self.absent() {
            return Err(refused(why));
        }
        evidence::are_apart(&self.roots).map_err(|e| refused(e.reason))?;
        Ok(self.files)
    }

    /// Every entry, sorted by path; what each file is, by its number.
    pub(crate) fn end(self, files: &[Hashed]) -> Result<Vec<OutputEntry>, Rejected> {
        let entries = self.entries.into_iter().map(|(path, entry)| {
            let kind = match entry {
                Entry::Symlink { target } => OutputKind::Symlink { target },
                Entry::Directory => OutputKind::Directory,
                Entry::File { number, executable } => {
                    let (object, sha512) = *files
                        .get(number)
                        .ok_or_else(|| out_of_order("a file was not kept"))?;
                    OutputKind::File {
                        object,
                        sha512,
                        executable,
                    }
                }
            };
            Ok(OutputEntry { path, kind })
        });
        entries.collect()
    }

    /// What was declared and has not come, in words.
    fn absent(&self) -> Option<String> {
        let mut absent = self.declared.unmatched(self.entries.keys());
        let first = absent.next()?;
        let why = match first.is_literal() {
            true => "is not there",
            false => "matches nothing",
        };
        let more = match absent.count() {
            0 => String::new(),
            n => format!(", and {n} more are not there either"),
        };
        Some(format!("the declared output `{first}` {why}{more}"))
    }

    /// Whether an entry may stand at `path`. Tells how many directories lie between it and the declared
    /// output it belongs to, with that one; zero when it is the declared output itself.
    fn admit(&mut self, path: &RelPath) -> Result<usize, Rejected> {
        if self.open.is_some() {
            return Err(out_of_order("an entry came inside a file"));
        }
        if self.entries.len() as u64 >= self.limits.entries {
            let entries = self.entries.len() as u64 + 1;
            let path = path.clone();
            return Err(Rejected::Outputs(Refusal::TooManyEntries { entries, path }));
        }
        self.count_name(path.as_str())?;
        let Some(output) = self.declared.root_of(path) else {
            return Err(refused(format!("`{path}` lies under no declared output")));
        };
        if self.entries.contains_key(path) {
            return Err(refused(format!("the output `{path}` came twice")));
        }
        let depth = path.components().count() - output.components().count();
        let parent = path
            .as_str()
            .rsplit_once('/')
            .map(|(parent, _)| RelPath::new(parent));
        let parent_is_there = match parent {
            Some(Ok(parent)) => self.entries.get(&parent) == Some(&Entry::Directory),
            _ => false,
        };
        if depth > 0 && !parent_is_there {
            return Err(refused(format!(
                "the output `{path}` lies in what did not come as a directory"
            )));
        }
        if depth == 0 {
            evidence::keeps_clear(&output).map_err(|e| refused(e.reason))?;
            self.roots.insert(output);
        }
        Ok(depth)
    }

    fn count_name(&mut self, name: &str) -> Result<(), Rejected> {
        self.names = self.names.saturating_add(name.len());
        if self.names > bounds::OUTPUT_NAMES_BYTES {
            return Err(refused(format!(
                "the paths and link targets of all outputs together are longer than {} bytes",
                bounds::OUTPUT_NAMES_BYTES
            )));
        }
        Ok(())
    }
}

/// Whether a link `depth` levels below a declared output stays inside it whatever other good links there
/// are. `..` may only lead: its directories are real ones (they came as such), so leading `..` mean what
/// they say. Behind a name, which may be a link itself, `..` could mean anything.
fn check_target(target: &str, depth: usize) -> Result<(), &'static str> {
    if depth == 0 {
        return Err("was declared itself; declare what it points to");
    }
    if target.is_empty() || target.len() > bounds::SYMLINK_BYTES {
        return Err("has an empty or too long target");
    }
    if target.chars().any(char::is_control) {
        return Err("has a control character in its target");
    }
    if target.starts_with('/') {
        return Err("points to an absolute path");
    }
    let mut names = target
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .peekable();
    let mut up = 0;
    while names.next_if_eq(&"..").is_some() {
        up += 1;
    }
    if names.any(|name| name == "..") {
        return Err("has a `..` after a name in its target");
    }
    if up >= depth {
        return Err("leaves the declared output it lies in");
    }
    Ok(())
}

fn refused(why: String) -> Rejected {
    Rejected::Outputs(Refusal::Entry { why })
}

fn out_of_order(why: &str) -> Rejected {
    Rejected::Failed(Failed::refused(why))
}

impl From<Invalid> for Rejected {
    fn from(invalid: Invalid) -> Self {
        Self::Failed(invalid.into())
    }
}

#[cfg(test)]
mod tests;
