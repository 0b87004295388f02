use std::io::{self, Read};

use belljar_core::{Hasher, Invalid, ObjectId, RelPath, bounds};

use crate::layer::{self, Entries, Layer, Node};
use crate::tar::{self, BLOCK};

/// Reads a layer that [`Layer::parts`] made, and none that is written in any other way: what it reads has one form only.
#[derive(Debug)]
pub struct LayerReader<R> {
    content: R,
    entries: Entries,
    /// The time of everything in it, once it is known.
    mtime: Option<u64>,
}

impl<R: Read> LayerReader<R> {
    /// Reads from `content`, to its end.
    pub fn new(content: R) -> Self {
        Self {
            content,
            entries: Entries::default(),
            mtime: None,
        }
    }

    /// All of the layer, and the time of everything in it.
    ///
    /// # Errors
    /// `InvalidData` when it is written otherwise, has more than [`bounds::LAYER_ENTRIES`] entries or
    /// [`bounds::LAYER_NAMES_BYTES`] of names; else whatever reading gives.
    pub fn read(mut self) -> io::Result<(Layer, u64)> {
        while self.entry()? {}
        let mut rest = [0; 1];
        if self.content.read(&mut rest)? > 0 {
            return Err(wrong("goes on behind its end"));
        }
        let mtime = self.mtime.unwrap_or(0);
        Ok((self.entries.finish(), mtime))
    }

    /// Reads one entry; false at the end.
    fn entry(&mut self) -> io::Result<bool> {
        let mut blocks = self.block()?.to_vec();
        if blocks.iter().all(|byte| *byte == 0) {
            return match self.block()?.iter().all(|byte| *byte == 0) {
                true => Ok(false),
                false => Err(wrong("has half an end")),
            };
        }
        let mut records = Vec::new();
        if blocks[156] == tar::PAX {
            let size = tar::number(&blocks, 124, 12).map_err(invalid)?;
            if size > 2 * (bounds::PATH_BYTES as u64 + 64) {
                return Err(wrong("has a pax header that is too long"));
            }
            records = self.bytes(size)?;
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len() + tar::padding(size), 0);
            self.filling(size)?;
            blocks.extend_from_slice(&self.block()?);
        }
        let block = &blocks[blocks.len() - BLOCK..];
        let (path, target) = tar::records(&records).map_err(invalid)?;
        let name = path.map_or_else(|| tar::field(block, 0, 100), Ok);
        let target = target.map_or_else(|| tar::field(block, 157, 100), Ok);
        let (name, target) = (name.map_err(invalid)?, target.map_err(invalid)?);
        let size = tar::number(block, 124, 12).map_err(invalid)?;
        let mtime = tar::number(block, 136, 12).map_err(invalid)?;
        let kind = block[156];
        let executable = tar::number(block, 100, 8).map_err(invalid)? & 0o111 != 0;
        let path = RelPath::new(name.strip_suffix('/').unwrap_or(name)).map_err(invalid)?;
        self.admit(&path, mtime)?;
        let mut node = match kind {
            tar::DIRECTORY => Node::Directory,
            tar::SYMLINK => Node::Symlink {
                target: target.to_owned(),
            },
            tar::FILE => Node::File {
                object: ObjectId {
                    digest: Hasher::new().finish(),
                    size,
                },
                executable,
            },
            _ => return Err(wrong("has an entry of a type that no layer of ours has")),
        };
        // So there is one form: what says the same otherwise is another archive.
        if layer::head(&path, &node, mtime) != blocks {
            return Err(wrong(&format!(
                "has a header of `{path}` that is written otherwise"
            )));
        }
        if let Node::File { object, .. } = &mut node {
            *object = self.content(size)?;
        }
        self.entries.put(path, node).map_err(invalid)?;
        Ok(true)
    }

    fn admit(&mut self, path: &RelPath, mtime: u64) -> io::Result<()> {
        if *self.mtime.get_or_insert(mtime) != mtime {
            return Err(wrong("has entries of different times"));
        }
        match self.entries.last() {
            Some(last) if last >= path => Err(wrong("is not sorted, or has a name twice")),
            _ => Ok(()),
        }
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.content.read_exact(&mut block).map_err(cut)?;
        Ok(block)
    }

    fn bytes(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.content.by_ref().take(size).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(wrong("is cut off")),
        }
    }

    fn content(&mut self, size: u64) -> io::Result<ObjectId> {
        let (mut hasher, mut left) = (Hasher::new(), size);
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = self.content.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(wrong("is cut off"));
            }
            hasher.update(&buffer[..read]);
            left -= read as u64;
        }
        self.filling(size)?;
        let digest = hasher.finish();
        Ok(ObjectId { digest, size })
    }

    fn filling(&mut self, size: u64) -> io::Result<()> {
        let mut filling = [0; BLOCK];
        let filling = &mut filling[..tar::padding(size)];
        self.content.read_exact(filling).map_err(cut)?;
        match filling.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(wrong("has something between its entries")),
        }
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the layer {why}"))
}

fn invalid(invalid: Invalid) -> io::Error {
    wrong(&invalid.to_string())
}

fn cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => wrong("is cut off"),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
