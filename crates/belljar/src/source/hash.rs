use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use belljar_core::{Hasher, ObjectId, RelPath, bounds};

use super::fingerprint::Fingerprint;
use super::root::Root;
use super::{Error, SourceFile};

/// Most threads that hash at once.
const THREADS: usize = 8;

/// Hashes the files at `paths`, several at once. The order stays.
pub(super) fn all(root: &Root, paths: Vec<RelPath>) -> Result<Vec<SourceFile>, Error> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else {
                return Ok(done);
            };
            done.push((index, one(root, path)?));
        }
    };
    let mut done: Vec<(usize, SourceFile)> = Vec::with_capacity(paths.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            // A panic in a worker is a panic here: the scope hands it on.
            done.extend(
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            );
        }
        Ok(())
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, file)| file).collect())
}

fn one(root: &Root, path: &RelPath) -> Result<SourceFile, Error> {
    let mut file = root.open(path)?;
    let fingerprint = Fingerprint::of(path, root, &file)?;
    if fingerprint.size > bounds::BLOB_BYTES {
        return Err(Error::TooLarge(format!(
            "`{path}` has {} bytes; {} are allowed in one file",
            fingerprint.size,
            bounds::BLOB_BYTES
        )));
    }
    let mut hasher = Hasher::new();
    // A byte more than is due, to see whether that is all.
    let due = usize::try_from(fingerprint.size).unwrap_or(usize::MAX);
    let mut buffer = vec![0; due.saturating_add(1).min(bounds::CHUNK_BYTES)];
    let mut size = 0_u64;
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(|e| root.unreadable(path, e))?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > fingerprint.size {
            return Err(Error::Changed(path.clone()));
        }
        hasher.update(&buffer[..read]);
    }
    fingerprint.check(path, &file)?;
    if size != fingerprint.size {
        return Err(Error::Changed(path.clone()));
    }
    let object = ObjectId {
        digest: hasher.finish(),
        size,
    };
    Ok(SourceFile {
        path: path.clone(),
        object,
        fingerprint,
        remembered: false,
    })
}
