//! What earlier builds have left: who has, by which provenance, and what of it there is.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use belljar_attest::Proven;
use belljar_audit::Found;
use belljar_cas::BlobSource;
use belljar_core::{
    ArtifactFetch, ArtifactForm, Digest, Input, ObjectId, Producer, ProjectId, Recipe, RelPath,
    Unpack, bounds,
};
use belljar_engine::directories;
use belljar_engine::life::Evidence;
use belljar_engine::ports::{self, Signer as _};
use belljar_engine::queue::{Queue, QueueError, Record, Wanted};
use belljar_plan::{OutputKind, Receipt};
use tokio::task::spawn_blocking;

use super::{Fetching, Trouble, looked};
use crate::peers::{PublicKey, SignerClient};
use crate::rules::Rules;
use crate::tasks;

/// Where it is looked up.
pub(crate) struct Earlier {
    pub(crate) queue: Queue,
    pub(crate) rules: Rules,
    pub(crate) signer: Arc<SignerClient>,
    pub(crate) objects: Arc<dyn BlobSource>,
}

/// What an earlier build has left, whose provenance holds.
struct Left {
    /// To which project it belongs.
    project: ProjectId,
    proven: Proven,
    recipe: Recipe,
    producer: Producer,
    /// Every object that is read for it.
    objects: BTreeSet<ObjectId>,
}

impl Fetching {
    /// The tree of an artifact, and who has left that. Of the builds that have, and about which the signer's present key has
    /// signed, the project's own come first, then those of each project that lends to it, in the order of their names; of one
    /// project's the one that was accepted first. The first of them counts whose provenance holds and names the artifact, and
    /// of which all is still there.
    pub(super) async fn artifact(
        &self,
        project: &ProjectId,
        fetch: &ArtifactFetch,
    ) -> (Found, Result<Input, Trouble>) {
        let left = match self.left(project, fetch).await {
            Ok(left) => left,
            Err(trouble) => return (Found::Nothing {}, Err(trouble)),
        };
        let made = self.tree(project, left.recipe, &left.objects).await;
        let made = made.and_then(|input| match fetch.form {
            ArtifactForm::Directory if input.tree.digest != fetch.artifact => {
                let why = "what the store made of the directory is another tree";
                Err(Trouble::refused(why))
            }
            _ => Ok(input),
        });
        let found = Found::Left {
            by: left.producer.attempt,
            project: left.project,
            builder: left.proven.builder().to_owned(),
            provenance: left.producer.provenance,
            tree: made.as_ref().ok().map(|input| input.tree),
        };
        (found, made)
    }

    async fn left(&self, project: &ProjectId, fetch: &ArtifactFetch) -> Result<Left, Trouble> {
        let key = self.earlier.signer.public_key().await.map_err(passing)?;
        let lenders = self.earlier.rules.policy().access().lenders(project);
        let owners = || std::iter::once(project.clone()).chain(lenders.clone());
        let (mut first, mut more): (Option<Trouble>, bool) = (None, false);
        // Builds of before the key was changed only say why there is nothing.
        for key_id in [Some(key.key_id.clone()), None] {
            for owner in owners() {
                let wanted = Wanted {
                    project: owner.clone(),
                    artifact: fetch.artifact,
                    build: fetch.build.clone(),
                    key_id: key_id.clone(),
                };
                let records = self.earlier.queue.producers(&wanted).await?;
                more |= records.len() == bounds::PRODUCERS;
                for record in records {
                    match self.left_by(&owner, fetch, &record, &key).await {
                        Ok(left) => return Ok(left),
                        Err(trouble) => {
                            // What may pass is worth another try, whatever else there is.
                            let before = first.take().filter(|first| first.sort >= trouble.sort);
                            first = before.or(Some(trouble));
                        }
                    }
                }
            }
            if let Some(trouble) = first {
                return Err(if more { among_others(trouble) } else { trouble });
            }
        }
        let (digest, whose) = (
            fetch.artifact,
            format!("of the project `{project}`, or of one that lends to it,"),
        );
        Err(Trouble::refused(match &fetch.build {
            Some(build) => {
                format!("builds/{build} is no build that succeeded, {whose} and has left {digest}")
            }
            None => format!("no build that succeeded, {whose} has left {digest}"),
        }))
    }

    /// What one build has left, by its provenance.
    async fn left_by(
        &self,
        owner: &ProjectId,
        fetch: &ArtifactFetch,
        record: &Record,
        key: &PublicKey,
    ) -> Result<Left, Trouble> {
        let id = &record.build.id;
        let of_it = |trouble: Trouble| Trouble {
            why: format!("builds/{id}: {}", trouble.why),
            ..trouble
        };
        let evidence = record.build.evidence.as_ref();
        let evidence = evidence.ok_or_else(|| of_it(Trouble::refused("it has no evidence")))?;
        let proven = self.proven(evidence, key).await.map_err(of_it)?;
        if let Some(due) = &fetch.builder
            && proven.builder() != due.as_str()
        {
            let found = proven.builder();
            let why = format!("it is by the builder {found}, not by {due}");
            return Err(of_it(Trouble::refused(why)));
        }
        let producer = Producer {
            attempt: evidence.attempt.clone(),
            provenance: proven.provenance(),
        };
        let by = (&producer, &proven);
        let found = match &fetch.form {
            ArtifactForm::File(unpack) => self.file(owner, fetch.artifact, unpack, by).await,
            ArtifactForm::Directory => {
                self.directory(owner, fetch.artifact, evidence.receipt, by)
                    .await
            }
        };
        let (recipe, objects) = found.map_err(of_it)?;
        Ok(Left {
            project: owner.clone(),
            proven,
            recipe,
            producer,
            objects,
        })
    }

    async fn file(
        &self,
        owner: &ProjectId,
        artifact: Digest,
        unpack: &Unpack,
        (producer, proven): (&Producer, &Proven),
    ) -> Result<(Recipe, BTreeSet<ObjectId>), Trouble> {
        if !proven.left(artifact) {
            let why =
                "its provenance does not name the file; a directory is had by `directory = true`";
            return Err(Trouble::refused(why));
        }
        let there = self.there(owner, vec![artifact]).await?;
        let content = there.and_then(|objects| objects.first().copied());
        let content = content.ok_or_else(|| gone(artifact))?;
        let recipe = Recipe::Artifact {
            producer: producer.clone(),
            content,
            unpack: unpack.clone(),
        };
        Ok((recipe, BTreeSet::from([content])))
    }

    async fn directory(
        &self,
        owner: &ProjectId,
        artifact: Digest,
        receipt: Option<ObjectId>,
        (producer, proven): (&Producer, &Proven),
    ) -> Result<(Recipe, BTreeSet<ObjectId>), Trouble> {
        let receipt = receipt.filter(|receipt| receipt.digest == proven.receipt());
        let other = || Trouble::refused("its provenance is about another receipt");
        let receipt = receipt.ok_or_else(other)?;
        let (output, objects) = self.listed(receipt, artifact).await?;
        let digests = objects.iter().map(|object| object.digest).collect();
        let there = self.there(owner, digests).await?;
        there.ok_or_else(|| gone(artifact))?;
        let recipe = Recipe::OutputDirectory {
            producer: producer.clone(),
            receipt,
            output,
        };
        Ok((recipe, objects))
    }

    /// What the provenance of a build says, if the signer's own key has signed it.
    async fn proven(&self, evidence: &Evidence, key: &PublicKey) -> Result<Proven, Trouble> {
        let Some(bundle) = &evidence.bundle else {
            return Err(Trouble::refused("it has no provenance"));
        };
        let bytes = self.earlier.signer.bundle(&evidence.attempt);
        let bytes = bytes.await.map_err(passing)?;
        if ObjectId::of(&bytes) != bundle.object {
            return Err(Trouble::refused("its provenance is not what was signed"));
        }
        let pem = key.pem.clone();
        let proven = spawn_blocking(move || Proven::verify(&bytes, &pem)).await;
        looked(proven)?.map_err(|e| Trouble::refused(format!("its provenance does not hold: {e}")))
    }

    /// Which of the directories in a receipt has this tree, and what there is to read for it.
    async fn listed(
        &self,
        receipt: ObjectId,
        tree: Digest,
    ) -> Result<(RelPath, BTreeSet<ObjectId>), Trouble> {
        let objects = self.earlier.objects.clone();
        let reading = spawn_blocking(move || read(&*objects, receipt));
        let found = looked(reading.await)?.map_err(Trouble::passing)?;
        let refused = |why: &str| Trouble::refused(format!("its receipt {why}"));
        let roots = directories(&found).map_err(|e| refused(&e.to_string()))?;
        let mut roots = roots.into_iter();
        let root = roots.find(|(_, built)| built.root.digest == tree);
        let (root, _) = root.ok_or_else(|| {
            refused("does not name the directory; a file is had without `directory = true`")
        })?;
        let files = found.outputs.iter().filter_map(|entry| match entry.kind {
            OutputKind::File { object, .. } if entry.path.starts_with(&root) => Some(object),
            _ => None,
        });
        let objects = files.chain([receipt]).collect();
        Ok((root, objects))
    }
}

/// What is said where there may be more builds than were looked at.
fn among_others(Trouble { sort, why }: Trouble) -> Trouble {
    let most = bounds::PRODUCERS;
    let why = format!(
        "{why}; of the builds of a project that have left it, the first {most} were looked at: name another one by `build`"
    );
    Trouble { sort, why }
}

fn passing(ports::Trouble(why): ports::Trouble) -> Trouble {
    Trouble::passing(why)
}

fn gone(artifact: Digest) -> Trouble {
    Trouble::refused(format!("what it left with {artifact} is no longer kept"))
}

fn read(objects: &dyn BlobSource, receipt: ObjectId) -> Result<Receipt, String> {
    if receipt.size > bounds::RECEIPT_BYTES as u64 {
        return Err("its receipt is too large".to_owned());
    }
    let content = objects.read_verified(receipt);
    let mut content = content.map_err(|e| tasks::chain(&e))?;
    let mut bytes = Vec::new();
    content
        .read_to_end(&mut bytes)
        .map_err(|e| tasks::chain(&e))?;
    Receipt::from_canonical(&bytes).map_err(|e| e.to_string())
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Self {
        Self::passing(tasks::chain(&error))
    }
}
