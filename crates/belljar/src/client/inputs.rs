//! Trees that a daemon makes.

use std::time::Duration;

use belljar_core::{Invalid, Recipe, bounds};
use belljar_wire::{DerivedTree, ImagePull, PulledImage, project_name, v1};
use tonic::Request;

use super::{Client, Error};
use crate::patience::answered;

/// How long a tree may take to be made: the daemon's own bounds are shorter.
const DERIVATION: Duration = Duration::from_secs(2 * bounds::DERIVATION_SECONDS);
/// How long an image may take to be pulled: the daemon's own bound is shorter.
const PULL: Duration = Duration::from_secs(bounds::PULL_SECONDS + 60);

impl Client {
    /// Has a tree made.
    pub(crate) async fn derive(&self, recipe: &Recipe) -> Result<DerivedTree, Error> {
        let doing = "making a tree";
        let asked = v1::DeriveTreeRequest::try_from(recipe);
        let asked = v1::DeriveTreeRequest {
            project: self.project.as_ref().map(project_name).unwrap_or_default(),
            ..asked.map_err(|invalid| Error::answer(doing, invalid))?
        };
        let derived = answered(&self.heard, doing, || {
            let mut request = Request::new(asked.clone());
            request.set_timeout(DERIVATION);
            let mut client = self.inputs.clone();
            async move { client.derive_tree(request).await }
        });
        let derived = derived.await?.try_into();
        derived.map_err(|invalid| Error::answer(doing, invalid))
    }

    /// Has an image pulled. What was pulled before it broke off is not pulled again.
    pub(crate) async fn pull(&self, pull: &ImagePull) -> Result<PulledImage, Error> {
        let doing = "pulling the image";
        let asked = v1::PullImageRequest {
            project: self.project.as_ref().map(project_name).unwrap_or_default(),
            ..pull.into()
        };
        let pulled = answered(&self.heard, doing, || {
            let mut request = Request::new(asked.clone());
            request.set_timeout(PULL);
            let mut client = self.inputs.clone();
            async move { client.pull_image(request).await }
        });
        let pulled: PulledImage = pulled
            .await?
            .try_into()
            .map_err(|invalid| Error::answer(doing, invalid))?;
        let due = pull.reference.digest();
        match due.filter(|due| *due != pulled.image.digest) {
            None => Ok(pulled),
            Some(due) => {
                let why = format!("{} is another image than {due}", pulled.image);
                Err(Error::answer(doing, Invalid::field("image", why)))
            }
        }
    }
}
