use std::collections::VecDeque;

use belljar_core::RelPath;
use rustix::fs::{Dir, FileType};

use super::root::Root;
use super::{Error, IGNORED, bounded, rel_path};

/// Everything below the source directory but [`IGNORED`] and the output directory: files, links and
/// whatever else stands there, and directories with nothing in them.
pub(super) fn list(root: &Root, output: Option<&RelPath>) -> Result<Vec<RelPath>, Error> {
    let mut found = Vec::new();
    let mut visited = 0;
    let mut waiting: VecDeque<Option<RelPath>> = VecDeque::from([None]);
    while let Some(directory) = waiting.pop_front() {
        let mut empty = true;
        for (name, kind) in names(root, directory.as_ref())? {
            if IGNORED.iter().any(|ignored| ignored.as_bytes() == name) {
                continue;
            }
            let path = match &directory {
                Some(directory) => {
                    rel_path(&[directory.as_str().as_bytes(), b"/", &name].concat())?
                }
                None => rel_path(&name)?,
            };
            if output == Some(&path) {
                continue;
            }
            empty = false;
            visited += 1;
            bounded(visited)?;
            if kind == FileType::Directory {
                waiting.push_back(Some(path));
            } else {
                found.push(path);
            }
        }
        found.extend(directory.filter(|_| empty));
    }
    Ok(found)
}

/// The names in a directory, with what each is.
fn names(root: &Root, directory: Option<&RelPath>) -> Result<Vec<(Vec<u8>, FileType)>, Error> {
    let opened = root.open_directory(directory)?;
    let unreadable = |e: rustix::io::Errno| match directory {
        Some(path) => root.unreadable(path, e.into()),
        None => Error::Read {
            path: ".".into(),
            source: e.into(),
        },
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say (readdir(3), DT_UNKNOWN).
            FileType::Unknown => {
                let stat = rustix::fs::statat(
                    &opened,
                    entry.file_name(),
                    rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(unreadable)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        names.push((name.to_vec(), kind));
        bounded(names.len())?;
    }
    Ok(names)
}
