//! Artifacts and evidence out of the daemon's store into `--output`, verified while they are written.

mod output;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::ReadRequest;
use belljar_core::{Hasher, Invalid, ObjectId, Outputs, RelPath, bounds, evidence};
use belljar_wire::{Artifact, ArtifactKind};
use tonic::Status;

use crate::client::{self, Client, call, object_id, reapi_digest, sha256};
use crate::patience::{Patience, answered};

pub(crate) use output::{Output, Staged};
use tree::{Laid, Pending, Tree};

const READING: &str = "downloading";
/// Largest blob that is fetched together with others.
const SMALL: u64 = 256 * 1024;

/// Why artifacts could not be brought home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon said no.
    #[error(transparent)]
    Daemon(#[from] client::Error),
    /// The daemon's list of artifacts is not one that a build can have.
    #[error("the daemon's answer cannot be used: artifact `{path}` {why}")]
    Artifact {
        /// The artifact.
        path: RelPath,
        /// What is wrong with it.
        why: String,
    },
    /// What came is not what was asked for.
    #[error("{wanted} was asked for, and something else came")]
    Content {
        /// What was asked for.
        wanted: ObjectId,
    },
    /// The daemon does not give an object.
    #[error("{wanted} cannot be had: {message}")]
    Refused {
        /// Which.
        wanted: ObjectId,
        /// Why.
        message: String,
    },
    /// Something stands in the way in the output directory.
    #[error("{} is in the way: it is not a directory", .0.display())]
    InTheWay(PathBuf),
    /// The output directory does not take it.
    #[error("cannot write below {}", path.display())]
    Write {
        /// The output directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a build's outputs came to: each file or directory that a declared output matches, the outermost.
///
/// # Errors
/// When an artifact belongs to no declared output, a declared one has none, or one of them stands where
/// evidence goes.
pub(crate) fn roots(outputs: &Outputs, artifacts: &[Artifact]) -> Result<BTreeSet<RelPath>, Error> {
    let mut roots = BTreeSet::new();
    for Artifact { path, .. } in artifacts {
        let root = outputs.root_of(path).ok_or_else(|| Error::Artifact {
            path: path.clone(),
            why: "was not declared".to_owned(),
        })?;
        if !roots.contains(&root) {
            evidence::keeps_clear(&root).map_err(|e| Error::Artifact {
                path: root.clone(),
                why: format!("cannot be put there: {}", e.reason),
            })?;
            roots.insert(root);
        }
    }
    let missing = outputs.unmatched(artifacts.iter().map(|a| &a.path)).next();
    let unusable = |why: String| client::Error::answer(READING, Invalid::field("artifacts", why));
    if let Some(missing) = missing {
        return Err(unusable(format!("nothing is listed that `{missing}` matches")).into());
    }
    evidence::are_apart(&roots).map_err(|e| unusable(e.reason))?;
    Ok(roots)
}

/// Fetches everything that a build declared and left, and puts each declared output in its place as a whole,
/// in the place of what stood there before.
///
/// # Errors
/// The first thing that goes wrong; outputs that are in place already stay.
pub(crate) async fn artifacts(
    client: &Client,
    output: &Output,
    declared: impl IntoIterator<Item = &RelPath>,
    artifacts: &[Artifact],
) -> Result<(), Error> {
    let mut parts: BTreeMap<&str, (&RelPath, Vec<&Artifact>)> = declared
        .into_iter()
        .map(|root| (root.as_str(), (root, Vec::new())))
        .collect();
    for artifact in artifacts {
        // Looked up: there may be ten thousand artifacts, each an output by itself.
        let root = artifact.path.prefixes().find(|at| parts.contains_key(at));
        let Some((_, of_root)) = root.and_then(|root| parts.get_mut(root)) else {
            return Err(Error::Artifact {
                path: artifact.path.clone(),
                why: "was not declared".to_owned(),
            });
        };
        of_root.push(artifact);
    }
    let mut trees = Vec::new();
    for (root, of_root) in parts.into_values() {
        trees.push((root, Tree::check(root, &of_root)?, of_root));
    }
    for (root, tree, of_root) in trees {
        let laid = tree.lay(output, &of_root)?;
        contents(client, output, &laid).await?;
        output.place(laid.top, root)?;
        // Whoever waits for signals has a turn, also where nothing had to be waited for.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Makes the files of an output and fills them with the contents of objects.
async fn contents(client: &Client, output: &Output, laid: &Laid) -> Result<(), Error> {
    let mut small: Vec<&Pending> = Vec::new();
    let mut bytes = 0;
    for pending in &laid.files {
        let size = pending.object.size;
        if size > SMALL {
            let mut file = laid
                .create(pending)
                .map_err(|e| output.unwritable(e.into()))?;
            stream(client, pending.object, |piece| {
                file.write_all(piece).map_err(|e| output.unwritable(e))
            })
            .await?;
            continue;
        }
        if bytes + size > bounds::BATCH_BYTES as u64 || small.len() == bounds::BATCH_BLOBS {
            batch(client, output, laid, std::mem::take(&mut small)).await?;
            bytes = 0;
        }
        bytes += size;
        small.push(pending);
    }
    batch(client, output, laid, small).await
}

/// Fetches small objects together.
async fn batch(
    client: &Client,
    output: &Output,
    laid: &Laid,
    mut files: Vec<&Pending>,
) -> Result<(), Error> {
    if files.is_empty() {
        return Ok(());
    }
    // An object may be several files' content: it is asked for once.
    files.sort_unstable_by_key(|pending| pending.object);
    let mut wanted: Vec<ObjectId> = files.iter().map(|pending| pending.object).collect();
    wanted.dedup();
    let request = reapi::BatchReadBlobsRequest {
        digests: wanted.iter().copied().map(reapi_digest).collect(),
        digest_function: sha256(),
        instance_name: client.instance(),
        ..Default::default()
    };
    let answer = answered(&client.heard, READING, || {
        let request = call(request.clone());
        let mut client = client.blobs.clone();
        async move { client.batch_read_blobs(request).await }
    });
    let answer = answer.await?;
    for response in answer.responses {
        let object = object_id(READING, response.digest)?;
        if let Some(status) = response.status.filter(|status| status.code != 0) {
            return Err(Error::Refused {
                wanted: object,
                message: status.message,
            });
        }
        let Ok(at) = wanted.binary_search(&object) else {
            return Err(Error::Content { wanted: object });
        };
        if ObjectId::of(&response.data) != object {
            return Err(Error::Content { wanted: object });
        }
        wanted.remove(at);
        let first = files.partition_point(|pending| pending.object < object);
        for pending in files[first..]
            .iter()
            .take_while(|pending| pending.object == object)
        {
            let mut file = laid
                .create(pending)
                .map_err(|e| output.unwritable(e.into()))?;
            file.write_all(&response.data)
                .map_err(|e| output.unwritable(e))?;
        }
    }
    match wanted.first() {
        Some(object) => Err(Error::Refused {
            wanted: *object,
            message: "the daemon did not answer about it".to_owned(),
        }),
        None => Ok(()),
    }
}

/// Fetches one object piece by piece, and checks that it is the one that was asked for. After a broken connection
/// it goes on with what has not come yet.
async fn stream(
    client: &Client,
    object: ObjectId,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut patience = Patience::new();
    let mut hasher = Hasher::new();
    let mut size = 0_u64;
    loop {
        let begin = size;
        let ended = rest(client, object, begin, |data| {
            size += data.len() as u64;
            if size > object.size {
                return Err(Error::Content { wanted: object });
            }
            hasher.update(data);
            take(data)
        });
        let Err(status) = ended.await? else {
            break;
        };
        if size > begin {
            patience.renew();
        }
        let waited = patience.wait(status).await;
        waited.map_err(|status| client::Error::call(READING, &status))?;
    }
    if size != object.size || hasher.finish() != object.digest {
        return Err(Error::Content { wanted: object });
    }
    Ok(())
}

/// Takes what comes of an object from `offset` on. Gives how that ended.
async fn rest(
    client: &Client,
    object: ObjectId,
    offset: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Result<(), Status>, Error> {
    let request = ReadRequest {
        resource_name: client.resource(&format!(
            "blobs/{}/{}",
            object.digest.to_hex(),
            object.size
        )),
        read_offset: i64::try_from(offset).unwrap_or(i64::MAX),
        ..Default::default()
    };
    let mut stream = match client.streams.clone().read(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => take(&message.data)?,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        }
    }
}

/// Fetches one object into a file below `output`.
///
/// # Errors
/// As [`artifacts`].
pub(crate) async fn into_file(
    client: &Client,
    output: &Output,
    object: ObjectId,
    file: &mut std::fs::File,
) -> Result<(), Error> {
    stream(client, object, |piece| {
        file.write_all(piece).map_err(|e| output.unwritable(e))
    })
    .await
}

/// Fetches one object into memory.
///
/// # Errors
/// As [`artifacts`], and when it is larger than `most` bytes.
pub(crate) async fn object(
    client: &Client,
    object: ObjectId,
    most: usize,
) -> Result<Vec<u8>, Error> {
    if object.size > most as u64 {
        return Err(Error::Refused {
            wanted: object,
            message: format!("it is larger than {most} bytes"),
        });
    }
    let mut bytes = Vec::new();
    stream(client, object, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    Ok(bytes)
}

/// The regular files of a build, with their contents.
pub(crate) fn files(artifacts: &[Artifact]) -> impl Iterator<Item = (&RelPath, ObjectId)> {
    artifacts.iter().filter_map(|artifact| match artifact.kind {
        ArtifactKind::File { object, .. } => Some((&artifact.path, object)),
        ArtifactKind::Symlink { .. } | ArtifactKind::Directory { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{BREAK, Daemon};
    use std::os::unix::fs::PermissionsExt;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    type Contents = Vec<(&'static str, Vec<u8>)>;

    /// A build's artifacts, each file's content under its path.
    fn build() -> (Vec<RelPath>, Vec<Artifact>, Contents) {
        let contents = vec![
            ("app", vec![7; 2 * usize::try_from(SMALL).unwrap()]),
            ("dist/a", b"same".to_vec()),
            ("dist/sub/b", b"same".to_vec()),
            ("dist/sub/empty", Vec::new()),
        ];
        let mut listed: Vec<Artifact> = contents
            .iter()
            .map(|(name, content)| Artifact {
                path: path(name),
                kind: ArtifactKind::File {
                    object: ObjectId::of(content),
                    executable: *name == "app",
                },
            })
            .collect();
        for directory in ["dist", "dist/sub"] {
            listed.push(Artifact {
                path: path(directory),
                kind: ArtifactKind::DIRECTORY,
            });
        }
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        (vec![path("app"), path("dist")], listed, contents)
    }

    #[test]
    fn what_outputs_came_to_is_found_in_what_is_listed() {
        let (_, listed, _) = build();
        let outputs =
            |texts: &[&str]| Outputs::new(texts.iter().map(|text| path(text)).collect()).unwrap();
        let found = |texts: &[&str]| roots(&outputs(texts), &listed);
        let due = |texts: &[&str]| texts.iter().map(|text| path(text)).collect::<BTreeSet<_>>();
        assert_eq!(found(&["app", "dist"]).unwrap(), due(&["app", "dist"]));
        assert_eq!(
            found(&["a*", "dist", "dist/sub/*"]).unwrap(),
            due(&["app", "dist"])
        );
        assert!(found(&["app"]).is_err(), "`dist` was not declared");
        assert!(found(&["app", "dist", "*.whl"]).is_err(), "nothing matches");
        let log = Artifact {
            path: path("build.log"),
            ..listed[0].clone()
        };
        assert!(
            roots(&outputs(&["b*"]), &[log]).is_err(),
            "in the place of evidence"
        );
    }

    #[tokio::test]
    async fn artifacts_come_home_whole() {
        let (declared, listed, contents) = build();
        let daemon = Daemon::start().await;
        let blobs = contents
            .iter()
            .map(|(_, content)| (ObjectId::of(content), content.clone()));
        daemon.state.lock().unwrap().blobs.extend(blobs);
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        artifacts(&daemon.client, &output, &declared, &listed)
            .await
            .unwrap();
        drop(output);
        for (name, content) in &contents {
            assert_eq!(
                std::fs::read(dir.path().join(name)).unwrap(),
                *content,
                "{name}"
            );
        }
        let mode = |name: &str| {
            dir.path()
                .join(name)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o111
        };
        assert!(mode("app") != 0 && mode("dist/a") == 0);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    #[tokio::test]
    async fn other_content_than_was_asked_for_is_refused_and_leaves_nothing() {
        let (declared, listed, contents) = build();
        for (spoilt, content) in &contents[..2] {
            let daemon = Daemon::start().await;
            let blobs = contents
                .iter()
                .map(|(_, content)| (ObjectId::of(content), content.clone()));
            let mut other = content.clone();
            other[0] ^= 1;
            {
                let mut state = daemon.state.lock().unwrap();
                state.blobs.extend(blobs);
                state.blobs.insert(ObjectId::of(content), other);
            }
            let dir = tempfile::tempdir().unwrap();
            let output = Output::open(dir.path()).unwrap();
            let refused = artifacts(&daemon.client, &output, &declared, &listed)
                .await
                .unwrap_err();
            assert!(
                matches!(refused, Error::Content { .. }),
                "{spoilt}: {refused}"
            );
            drop(output);
            assert!(!dir.path().join(spoilt).exists());
        }
    }

    #[tokio::test]
    async fn a_broken_download_goes_on_where_it_broke() {
        let content: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
        let object = ObjectId::of(&content);
        let daemon = Daemon::start().await;
        {
            let mut state = daemon.state.lock().unwrap();
            state.blobs.insert(object, content.clone());
            state.breaks = 3;
        }
        let fetched = super::object(&daemon.client, object, content.len())
            .await
            .unwrap();
        assert_eq!(fetched, content);
        let begun = daemon.state.lock().unwrap().begun.clone();
        assert_eq!(begun, [0, BREAK, 2 * BREAK, 3 * BREAK]);
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let (declared, listed, _) = build();
        let daemon = Daemon::start().await;
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        let refused = artifacts(&daemon.client, &output, &declared, &listed)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("not here"), "{refused}");
    }

    #[tokio::test]
    async fn an_artifact_that_was_not_declared_is_refused() {
        let (_, listed, _) = build();
        let daemon = Daemon::start().await;
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        let refused = artifacts(&daemon.client, &output, &[path("dist")], &listed)
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, Error::Artifact { path, .. } if path.as_str() == "app"),
            "{refused}"
        );
    }
}
