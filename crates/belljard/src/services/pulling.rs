use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{ImageReference, ObjectId, Platform, bounds, oci};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::internal;
use super::vault::Share;
use crate::fetch::pull::{
    Configuration, Conversation, Descriptor, Document, Manifest, Trouble, Wanted,
};

/// Why an image is not there.
pub(super) enum NotPulled {
    /// It, or the registry.
    Image(Trouble),
    /// This daemon, or who asks.
    Own(Status),
}

impl From<Trouble> for NotPulled {
    fn from(trouble: Trouble) -> Self {
        Self::Image(trouble)
    }
}

impl From<Status> for NotPulled {
    fn from(status: Status) -> Self {
        Self::Own(status)
    }
}

/// One image on its way from a registry to a project. Whatever came belongs to the project, also when the rest does not
/// come: it is not pulled again then.
pub(super) struct Pulling<'a> {
    share: &'a Share,
    conversation: Conversation<'a>,
    platform: Platform,
    /// Entries of indexes that were looked at.
    looked_at: usize,
    /// Indexes and manifests that came. However often one is named, it is pulled once.
    seen: BTreeSet<ObjectId>,
    /// Configurations that came, and whether they are for the platform.
    fitting: BTreeMap<ObjectId, bool>,
    /// Those for the platform, with the layers of the first.
    found: Vec<ObjectId>,
    layers: Vec<Descriptor>,
}

impl<'a> Pulling<'a> {
    pub(super) fn new(
        share: &'a Share,
        conversation: Conversation<'a>,
        platform: Platform,
    ) -> Self {
        Self {
            share,
            conversation,
            platform,
            looked_at: 0,
            seen: BTreeSet::new(),
            fitting: BTreeMap::new(),
            found: Vec::new(),
            layers: Vec::new(),
        }
    }

    /// Bytes that came.
    pub(super) fn came(&self) -> u64 {
        self.conversation.came()
    }

    /// Brings all that the store will look at for the image of this platform: the same documents, and the layers of the
    /// one image that they lead to. Where they lead to none, or several, the store says so.
    pub(super) async fn bring(
        &mut self,
        reference: &ImageReference,
    ) -> Result<ObjectId, NotPulled> {
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Wanted::Image(digest),
            (None, Some(tag)) => Wanted::Tag(tag),
            (None, None) => return Err(Trouble::refused("it has neither tag nor digest").into()),
        };
        let (image, manifest) = self.manifest(wanted).await?;
        match manifest.entries().is_some() {
            true => self.index(manifest).await?,
            false => {
                is_image(&manifest)?;
                self.image(image, manifest).await?;
            }
        }
        if self.found.len() == 1 {
            self.bring_layers().await?;
        }
        Ok(image)
    }

    /// Goes through an index and the indexes in it, the first level first, and one at a time: an index may have any number
    /// of others in it, each as large as the largest.
    async fn index(&mut self, index: Manifest) -> Result<(), NotPulled> {
        let mut level = self.entries(index).await?;
        for _ in 0..bounds::OCI_INDEX_DEPTH {
            let mut next = Vec::new();
            for due in level {
                if let Some(index) = self.named(due).await? {
                    next.extend(self.entries(index).await?);
                }
            }
            level = next;
        }
        // The store says how deep they may be.
        Ok(())
    }

    /// Looks at the images that an index names, and gives the indexes that it names.
    async fn entries(&mut self, index: Manifest) -> Result<Vec<ObjectId>, NotPulled> {
        let mut indexes = Vec::new();
        for descriptor in index.entries().unwrap_or_default() {
            self.looked_at += 1;
            if self.looked_at > bounds::OCI_CANDIDATES {
                let most = bounds::OCI_CANDIDATES;
                let why = format!("it names more than {most} manifests");
                return Err(Trouble::refused(why).into());
            }
            if descriptor.is(&oci::INDEXES) {
                indexes.push(descriptor.object()?);
            } else if descriptor.is(&oci::MANIFESTS) && self.may_fit(descriptor) {
                let due = descriptor.object()?;
                if let Some(manifest) = self.named(due).await? {
                    self.image(due, manifest).await?;
                }
            }
        }
        Ok(indexes)
    }

    fn may_fit(&self, descriptor: &Descriptor) -> bool {
        let runs = descriptor.platform();
        runs.is_none_or(|runs| runs.fits(self.platform))
    }

    /// The index or manifest that an entry of an index names; none if it came before.
    async fn named(&mut self, due: ObjectId) -> Result<Option<Manifest>, NotPulled> {
        if self.seen.contains(&due) {
            return Ok(None);
        }
        let (object, manifest) = self.manifest(Wanted::Image(due.digest)).await?;
        if object != due {
            let (has, size) = (object.size, due.size);
            let why = format!("{} has {has} bytes where {size} are due", due.digest);
            return Err(Trouble::refused(why).into());
        }
        Ok(Some(manifest))
    }

    /// Notes an image that is for the platform. What its own configuration says counts.
    async fn image(&mut self, object: ObjectId, manifest: Manifest) -> Result<(), NotPulled> {
        let due = manifest.config()?.object()?;
        if due.size > bounds::OCI_DOCUMENT_BYTES {
            let why = format!(
                "its configuration has {} bytes, which is too much",
                due.size
            );
            return Err(Trouble::refused(why).into());
        }
        let fits = match self.fitting.get(&due) {
            Some(fits) => *fits,
            None => {
                let document = self.document(Wanted::Configuration(due)).await?.0;
                Configuration::read(&document)?.fits(self.platform)
            }
        };
        self.fitting.insert(due, fits);
        if fits {
            if self.found.is_empty() {
                self.layers = manifest.layers();
            }
            self.found.push(object);
        }
        Ok(())
    }

    async fn bring_layers(&mut self) -> Result<(), NotPulled> {
        let layers = self.layers.iter().map(Descriptor::layer);
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let most = self.conversation.most_bytes();
        if let Some(layer) = layers.iter().find(|layer| layer.size > most) {
            let why = format!("its layer {layer} is larger than {most} bytes, which may be pulled");
            return Err(Trouble::refused(why).into());
        }
        let all = layers
            .iter()
            .fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        if all > bounds::PULL_BYTES {
            let most = bounds::PULL_BYTES;
            let why = format!("its layers have {all} bytes together; {most} may be pulled");
            return Err(Trouble::refused(why).into());
        }
        for layer in layers {
            if !self.has(layer).await? {
                self.conversation.blob(layer).await?;
                self.share.take(&[layer]).await?;
            }
        }
        Ok(())
    }

    async fn manifest(&mut self, wanted: Wanted<'_>) -> Result<(ObjectId, Manifest), NotPulled> {
        let (document, media_type) = self.document(wanted).await?;
        let manifest = Manifest::read(&document, &media_type)?;
        self.seen.insert(document.object);
        Ok((document.object, manifest))
    }

    /// Documents are asked for each time: that the registry gives them says that the project may have the image today.
    async fn document(&mut self, wanted: Wanted<'_>) -> Result<(Document, String), NotPulled> {
        let brought = self.conversation.document(wanted).await?;
        self.share.take(&[brought.0.object]).await?;
        Ok(brought)
    }

    /// Whether the project has it; then it stays for a lease. What only others have is pulled all the same: else the time
    /// would say that they have it.
    async fn has(&self, object: ObjectId) -> Result<bool, Status> {
        let _held = self.share.hold().await;
        let share = self.share.clone();
        let looked = spawn_blocking(move || share.has(&[object])).await;
        let what = "what the project has could not be looked at";
        let looked = looked.map_err(|e| internal(what, &e))?;
        let has = looked.map_err(|e| internal(what, &e))? == [true];
        if has {
            self.share.touch(vec![object.digest]).await?;
        }
        Ok(has)
    }
}

/// Refuses what is something else than an image by its name: registries have all sorts of things.
fn is_image(manifest: &Manifest) -> Result<(), Trouble> {
    let config = manifest.config()?;
    match config.is(&oci::CONFIGURATIONS) {
        true => Ok(()),
        false => Err(Trouble::refused(format!(
            "it is no image: its configuration is of the media type `{}`",
            config.sort()
        ))),
    }
}
