//! Images that became of builds, and that a daemon pushes.

use std::time::Duration;

use belljar_core::{Invalid, bounds};
use belljar_wire::{ImagePush, PushedImage, v1};
use tonic::Request;

use super::{Client, Error};
use crate::patience::answered;

/// How long an image may take to be pushed: the daemon's own bound is shorter.
const PUSH: Duration = Duration::from_secs(bounds::PULL_SECONDS + 60);

impl Client {
    /// Has an image pushed. What was pushed before it broke off is not pushed again.
    pub(crate) async fn push(&self, push: &ImagePush) -> Result<PushedImage, Error> {
        let doing = "pushing the image";
        let asked = v1::PushImageRequest::from(push);
        let pushed = answered(&self.heard, doing, || {
            let mut request = Request::new(asked.clone());
            request.set_timeout(PUSH);
            let mut client = self.images.clone();
            async move { client.push_image(request).await }
        });
        let pushed: PushedImage = pushed
            .await?
            .try_into()
            .map_err(|invalid| Error::answer(doing, invalid))?;
        let due = push.reference.digest();
        match due.filter(|due| *due != pushed.image.digest) {
            None => Ok(pushed),
            Some(due) => {
                let why = format!("{} is another image than {due}", pushed.image);
                Err(Error::answer(doing, Invalid::field("image", why)))
            }
        }
    }
}
