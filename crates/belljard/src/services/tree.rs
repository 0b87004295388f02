use std::collections::{HashSet, VecDeque};
use std::io::Read as _;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_cas::{BlobSource as _, ReadError};
use belljar_core::{BlobName, Invalid, bounds};
use belljar_tree::{Directory, check_unpacked_size};
use belljar_wire::Problem;
use prost::Message as _;
use tonic::Status;

use super::blobs::{absent, unreadable};
use super::resource::{Function, blob};
use super::taker::{Stop, Taker};
use super::vault::Share;

/// What `GetTree` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    root: BlobName,
    /// By which directories name those below them.
    function: Function,
    /// Most directories in one message.
    page: usize,
    /// So many directories were told before.
    skip: usize,
}

impl Walk {
    pub(super) fn parse(
        request: &reapi::GetTreeRequest,
        function: Function,
    ) -> Result<Self, Problem> {
        let missing = || Invalid::field("root_digest", "missing");
        let root = request.root_digest.as_ref().ok_or_else(missing)?;
        let root = blob(root, function).map_err(|e| e.within("root_digest"))?;
        let page = match usize::try_from(request.page_size) {
            Ok(0) => bounds::TREE_PAGE,
            Ok(size) => size.min(bounds::TREE_PAGE),
            Err(_) => return Err(Invalid::field("page_size", "a negative number").into()),
        };
        let skip = match request.page_token.as_str() {
            "" => 0,
            token => position(token, root)
                .ok_or_else(|| Invalid::field("page_token", "it is not of this tree"))?,
        };
        Ok(Self {
            root,
            function,
            page,
            skip,
        })
    }

    /// The token of what comes after this many directories.
    fn token(&self, position: usize) -> String {
        format!("{}:{position}", self.root.digest)
    }

    /// Tells the directories level by level, each different one once, however often it stands in the tree.
    /// What is missing is left out, but for the root.
    pub(super) fn tell(
        &self,
        share: &Share,
        taker: &Taker<reapi::GetTreeResponse>,
    ) -> Result<(), Stop> {
        let mut seen = HashSet::from([self.root]);
        let mut queue = VecDeque::from([self.root]);
        let mut page = reapi::GetTreeResponse::default();
        let (mut position, mut bytes) = (0, 0);
        while let Some(next) = queue.pop_front() {
            let found = read(share, next)?;
            let there = found.is_some();
            if !there && next == self.root {
                return Err(absent(next).into());
            }
            let directory = found.unwrap_or_default();
            for child in children(&directory, next, self.function)? {
                if seen.insert(child) {
                    queue.push_back(child);
                }
            }
            if seen.len() > bounds::TREE_ENTRIES {
                return Err(too_large().into());
            }
            let size = weight(&directory);
            let full = page.directories.len() == self.page || bytes + size > bounds::BATCH_BYTES;
            if full && !page.directories.is_empty() {
                page.next_page_token = self.token(position);
                taker.give(std::mem::take(&mut page))?;
                bytes = 0;
            }
            if position >= self.skip && there {
                bytes += size;
                page.directories.push(directory);
            }
            position += 1;
        }
        taker.give(page)
    }
}

fn position(token: &str, root: BlobName) -> Option<usize> {
    let (digest, position) = token.rsplit_once(':')?;
    (digest == root.digest.to_string()).then_some(())?;
    position.parse().ok()
}

/// A directory, verified; none when it is missing.
fn read(share: &Share, blob: BlobName) -> Result<Option<reapi::Directory>, Status> {
    if blob.size > bounds::DIRECTORY_BYTES as u64 {
        return Err(not_one(blob, "it is too large"));
    }
    let failed = |error| unreadable(error, blob);
    let meant = share.meant(&[blob]).map_err(failed)?;
    let Some(object) = meant.into_iter().flatten().next() else {
        return Ok(None);
    };
    let mut content = match share.read_verified(object) {
        Ok(content) => content,
        Err(ReadError::Missing(_) | ReadError::Size { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let read = content.read_to_end(&mut bytes);
    read.map_err(|source| failed(ReadError::Io { object, source }))?;
    unpacked(&bytes)
        .map(Some)
        .map_err(|e| not_one(blob, &e.to_string()))
}

/// The directory that these bytes are the one encoding of. Its nodes may have any properties, also such as builds refuse:
/// other clients keep trees here too.
fn unpacked(bytes: &[u8]) -> Result<reapi::Directory, Invalid> {
    // Other encodings than the one of a tree can become forty times as large in memory as they are here.
    check_unpacked_size(bytes)?;
    let malformed = |e| Invalid::new(format!("not a Directory message: {e}"));
    let directory = reapi::Directory::decode(bytes).map_err(malformed)?;
    // Digests by whatever function have one length.
    if properties(&directory).next().is_none() {
        Directory::decode(bytes)?;
        return Ok(directory);
    }
    Directory::decode(&without_properties(directory.clone()).encode_to_vec())?;
    // It goes out as it is encoded again, and has to have the digest that it was asked for by.
    if directory.encode_to_vec() != bytes {
        let why = "the Directory message is not in its canonical encoding";
        return Err(Invalid::new(why));
    }
    Ok(directory)
}

fn properties(directory: &reapi::Directory) -> impl Iterator<Item = &reapi::NodeProperties> {
    let files = directory.files.iter().map(|node| &node.node_properties);
    let links = directory.symlinks.iter().map(|node| &node.node_properties);
    let own = [&directory.node_properties];
    files.chain(links).chain(own).flatten()
}

fn without_properties(mut directory: reapi::Directory) -> reapi::Directory {
    directory.node_properties = None;
    for file in &mut directory.files {
        file.node_properties = None;
    }
    for link in &mut directory.symlinks {
        link.node_properties = None;
    }
    directory
}

/// What a directory takes of a message, and of memory while that is made: many small properties are more there than
/// they are on the wire.
fn weight(directory: &reapi::Directory) -> usize {
    let count: usize = properties(directory).map(|all| all.properties.len()).sum();
    directory.encoded_len() + count * size_of::<reapi::NodeProperty>()
}

fn children(
    directory: &reapi::Directory,
    of: BlobName,
    function: Function,
) -> Result<Vec<BlobName>, Status> {
    let digests = directory
        .directories
        .iter()
        .map(|child| child.digest.clone().unwrap_or_default());
    let children = digests.map(|digest| blob(&digest, function));
    let children: Result<_, Invalid> = children.collect();
    children.map_err(|e| not_one(of, &e.to_string()))
}

fn not_one(blob: BlobName, why: &str) -> Status {
    let reason = format!("{blob} is no `Directory`: {why}");
    Problem::invalid(Invalid::field("root_digest", reason)).into()
}

fn too_large() -> Status {
    let reason = format!(
        "the tree has more than {} different directories",
        bounds::TREE_ENTRIES
    );
    Problem::invalid(Invalid::field("root_digest", reason)).into()
}

#[cfg(test)]
mod tests {
    use belljar_core::ObjectId;

    use super::*;

    fn request(token: &str, page_size: i32) -> reapi::GetTreeRequest {
        let root = ObjectId::of(b"root");
        reapi::GetTreeRequest {
            root_digest: Some(reapi::Digest {
                hash: root.digest.to_hex(),
                size_bytes: 4,
            }),
            page_size,
            page_token: token.to_owned(),
            ..Default::default()
        }
    }

    fn parse(token: &str, page_size: i32) -> Result<Walk, Problem> {
        Walk::parse(&request(token, page_size), Function::Sha256)
    }

    #[test]
    fn pages_and_their_tokens() {
        let walk = parse("", 0).unwrap();
        assert_eq!((walk.page, walk.skip), (bounds::TREE_PAGE, 0));
        let token = walk.token(17);
        let walk = parse(&token, 5).unwrap();
        assert_eq!((walk.page, walk.skip), (5, 17));
        let other = format!("{}:1", ObjectId::of(b"other").digest);
        let by_blake3 = Walk::parse(&request("", 0), Function::Blake3).unwrap();
        for (token, size, field) in [
            (other.as_str(), 0, "page_token"),
            (by_blake3.token(1).as_str(), 0, "page_token"),
            ("17", 0, "page_token"),
            (":", 0, "page_token"),
            ("", -1, "page_size"),
        ] {
            let problem = parse(token, size).unwrap_err();
            assert_eq!(problem.fields[0].field, field, "{token}");
        }
        assert_eq!(parse("", i32::MAX).unwrap().page, bounds::TREE_PAGE);
    }
}
