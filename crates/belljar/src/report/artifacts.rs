use std::collections::BTreeMap;

use belljar_core::{ObjectId, RelPath};
use belljar_tree::{Built, Leaf, SymlinkTarget, outermost};
use belljar_wire::{Artifact, ArtifactKind};
use serde::Serialize;

/// One thing that was collected.
#[derive(Debug, Serialize)]
pub(super) struct ArtifactReport<'a> {
    path: &'a str,
    #[serde(flatten)]
    kind: ArtifactKindReport<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ArtifactKindReport<'a> {
    File {
        object: ObjectId,
        executable: bool,
    },
    Symlink {
        target: &'a str,
    },
    Directory {
        /// Of one that lies in no other: its root `Directory` message.
        #[serde(skip_serializing_if = "Option::is_none")]
        tree: Option<ObjectId>,
        /// Likewise: its `Tree` message, if the store has that.
        #[serde(skip_serializing_if = "Option::is_none")]
        tree_digest: Option<ObjectId>,
    },
}

/// The directories that lie in no other, each as the tree by whose digest a later build can have it.
pub(crate) fn directories(artifacts: &[Artifact]) -> BTreeMap<RelPath, Built> {
    let entries = artifacts.iter().map(|artifact| {
        let leaf = match &artifact.kind {
            ArtifactKind::File { object, executable } => Some(Leaf::File {
                object: *object,
                executable: *executable,
            }),
            ArtifactKind::Symlink { target } => Some(Leaf::Symlink {
                target: SymlinkTarget::new(target.as_str())?,
            }),
            ArtifactKind::Directory { .. } => None,
        };
        Ok((artifact.path.clone(), leaf))
    });
    let entries: Result<Vec<_>, belljar_core::Invalid> = entries.collect();
    // What a daemon tells that no build can leave has no tree.
    entries.and_then(outermost).unwrap_or_default()
}

/// All that was collected.
pub(super) fn artifacts(artifacts: &[Artifact]) -> Vec<ArtifactReport<'_>> {
    let trees = directories(artifacts);
    let report = |artifact| ArtifactReport::of(artifact, &trees);
    artifacts.iter().map(report).collect()
}

impl<'a> ArtifactReport<'a> {
    fn of(artifact: &'a Artifact, trees: &BTreeMap<RelPath, Built>) -> Self {
        Self {
            path: artifact.path.as_str(),
            kind: match &artifact.kind {
                ArtifactKind::File { object, executable } => ArtifactKindReport::File {
                    object: *object,
                    executable: *executable,
                },
                ArtifactKind::Symlink { target } => ArtifactKindReport::Symlink { target },
                ArtifactKind::Directory { tree: told, .. } => {
                    let built = trees.get(&artifact.path);
                    // What a daemon tells that is not the message of this directory is not told on.
                    let is = |told: &ObjectId| {
                        built.is_some_and(|built| ObjectId::of(&built.tree()) == *told)
                    };
                    ArtifactKindReport::Directory {
                        tree: built.map(|built| built.root),
                        tree_digest: told.filter(is),
                    }
                }
            },
        }
    }
}
