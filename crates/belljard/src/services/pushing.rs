use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use belljar_cas::{BlobSource, ReadError};
use belljar_core::{Invalid, ObjectId, bounds};
use belljar_engine::Engine;
use belljar_oci::is_about_another;
use belljar_policy::{Identity, Right, Way};
use belljar_wire::{ImageArtifact, ImagePush, Problem, PushedImage, Reason, build_name, v1};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use v1::image_service_server::ImageService;

use super::hung_up::HungUp;
use super::vault::Share;
use super::view::evidence;
use super::{Caller, Vault, View, internal};
use crate::fetch::pull::{Puller, Sort, Trouble};
use crate::places::Places;

/// When somebody who was turned away because of others should come again.
const LATER: Duration = Duration::from_secs(10);
/// How long a push may take.
const PUSH: Duration = Duration::from_secs(bounds::PULL_SECONDS);

/// `belljar.v1.ImageService`: pushes images that became of builds, which were signed about.
pub(crate) struct Pusher {
    engine: Engine,
    vault: Vault,
    view: View,
    puller: Arc<Puller>,
    pushes: Places<Identity>,
}

/// An image with all that is pushed.
struct Load {
    image: ImageArtifact,
    bundle: ObjectId,
    manifest: Vec<u8>,
    share: Share,
}

impl Pusher {
    pub(crate) fn new(engine: Engine, vault: Vault, view: View, puller: Arc<Puller>) -> Self {
        let pushes = Places::new(bounds::PULLS, bounds::PULLS_PER_PRINCIPAL);
        Self {
            engine,
            vault,
            view,
            puller,
            pushes,
        }
    }

    /// What a build has left to be pushed. It was signed about: a build without a bundle has no image.
    async fn load(&self, caller: &Caller, push: &ImagePush) -> Result<Load, Status> {
        let found = self.engine.get(&push.build).await;
        let found = found.map_err(|e| internal("the build could not be read", &e))?;
        let name = build_name(&push.build);
        let record = caller.record(Right::Submit, &name, found)?;
        let image = self.view.image(&record).await?;
        let (Some(image), Some(bundle)) = (image, evidence(&record.build).bundle) else {
            let why = "the build has left no image: it did not succeed, or its specification has no `image_output`";
            return Err(Problem::invalid(Invalid::field("name", why)).into());
        };
        let due = image.manifest;
        if push
            .reference
            .digest()
            .is_some_and(|digest| digest != due.digest)
        {
            let why = format!("the image of the build is {}", due.digest);
            return Err(Problem::invalid(Invalid::field("reference", why)).into());
        }
        if push.reference.tag().is_some_and(is_about_another) {
            let why = "a tag that begins so is where registries and cosign look for what is said of the image with this digest; choose another one";
            return Err(Problem::invalid(Invalid::field("reference", why)).into());
        }
        let share = self.vault.of(caller, record.submission.project.clone());
        let (what, from) = ("the image could not be read", share.clone());
        let all: BTreeSet<ObjectId> = image.content().chain([due, bundle]).collect();
        let reading = spawn_blocking(move || {
            // All of it, before anything is sent.
            for object in all {
                if !from.contains(object)? {
                    return Err(ReadError::Missing(object));
                }
            }
            document(&from, due)
        });
        let read = reading.await.map_err(|e| internal(what, &e))?;
        let manifest = read.map_err(|error| match error {
            ReadError::Missing(object) | ReadError::Size { object, .. } => {
                let why = format!(
                    "the image of the build is no longer kept: {object} is gone. Build it again, and pin the build until it is pushed (`belljar store pin`)"
                );
                Status::from(Problem::invalid(Invalid::field("name", why)))
            }
            error @ ReadError::Io { .. } => internal(what, &error),
        })?;
        Ok(Load {
            image,
            bundle,
            manifest,
            share,
        })
    }

    async fn push(&self, load: &Load, push: &ImagePush) -> Result<PushedImage, Status> {
        let reference = &push.reference;
        let said = |why: String| format!("{reference}: {why}");
        let (project, repository) = (load.share.project(), reference.repository());
        let conversation = self.puller.converse(project, repository, Way::Push);
        let mut conversation = conversation.map_err(|why| Problem::denied([said(why).as_str()]))?;
        let pushing = async {
            let source: Arc<dyn BlobSource> = Arc::new(load.share.clone());
            // A layer may be there twice.
            let content: BTreeSet<ObjectId> = load.image.content().collect();
            for object in content {
                conversation.push_blob(object, Arc::clone(&source)).await?;
            }
            conversation.push_manifest(&load.manifest, None).await?;
            let image = load.image.manifest;
            let referrer = conversation.push_referrer(image, load.bundle, source);
            let (attestation, listed_by_registry) = referrer.await?;
            // Last: who finds the image by its tag finds what refers to it.
            if let Some(tag) = reference.tag() {
                conversation
                    .push_manifest(&load.manifest, Some(tag))
                    .await?;
            }
            Ok::<_, Trouble>(PushedImage {
                image,
                attestation,
                listed_by_registry,
                pushed_bytes: conversation.came(),
            })
        };
        pushing.await.map_err(|Trouble { sort, why }| match sort {
            Sort::Passing => Problem::unavailable(said(why)).into(),
            Sort::Refused | Sort::Lasting => Problem::new(Reason::ImageRefused, said(why)).into(),
        })
    }
}

#[tonic::async_trait]
impl ImageService for Pusher {
    async fn push_image(
        &self,
        request: Request<v1::PushImageRequest>,
    ) -> Result<Response<v1::PushImageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let push = ImagePush::try_from(request.into_inner()).map_err(Problem::invalid)?;
        let load = self.load(&caller, &push).await?;
        let place = self.pushes.take(caller.identity().clone());
        let _place = place.map_err(|full| {
            let why = format!("too many images are being pushed already: {full}");
            Problem::exhausted(why, Some(LATER))
        })?;
        let (reference, build) = (&push.reference, &push.build);
        let (identity, project) = (caller.identity(), load.share.project());
        let image = load.image.manifest.digest;
        let hung_up = HungUp::told_by(|| {
            let why = "who asked has hung up before the end, or belljard ends; what the registry had been given by then it has";
            tracing::info!(target: "audit", %identity, %project, build.id = %build, %reference, %image, why, "an image was not pushed to the end");
        });
        let pushed = timeout(PUSH, self.push(&load, &push)).await;
        hung_up.answered();
        let pushed = pushed.unwrap_or_else(|_| {
            let seconds = bounds::PULL_SECONDS;
            let why = format!("{reference}: it took longer than the {seconds} s that a push may");
            Err(Problem::unavailable(why).into())
        });
        match &pushed {
            Ok(PushedImage { attestation, .. }) => {
                tracing::info!(target: "audit", %identity, %project, build.id = %build, %reference, %image, %attestation, "an image was pushed");
            }
            Err(status) => {
                let why = status.message();
                tracing::info!(target: "audit", %identity, %project, build.id = %build, %reference, %image, why, "an image was not pushed");
            }
        }
        Ok(Response::new((&pushed?).into()))
    }
}

/// Reads a document of an image.
fn document(share: &Share, object: ObjectId) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let content = share.read_verified(object)?;
    content
        .take(bounds::OCI_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io { object, source })?;
    Ok(bytes)
}
