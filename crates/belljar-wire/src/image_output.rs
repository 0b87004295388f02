use belljar_core::oci::LayerType;
use belljar_core::{
    BaseImage, BuildId, ImageConfig, ImageFields, ImageOutput, ImageReference, Invalid, ObjectId,
    Platform, RelPath,
};

use crate::numbers::{required, signed, unsigned};
use crate::{build_name, parse_build_name, v1};
use v1::image_output::Base;

/// An image that became of outputs, as the API tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageArtifact {
    /// Its manifest.
    pub manifest: ObjectId,
    /// Its configuration.
    pub config: ObjectId,
    /// The index of an image layout with it.
    pub index: ObjectId,
    /// Its layers, the lowest first, with how each is packed.
    pub layers: Vec<(ObjectId, LayerType)>,
    /// Manifest and configuration of what it lies on, if it does on anything.
    pub base: Option<(ObjectId, ObjectId)>,
}

/// An image that shall be pushed: the parsed form of `belljar.v1.PushImageRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePush {
    /// The build whose image it is.
    pub build: BuildId,
    /// Where to.
    pub reference: ImageReference,
}

/// An image that was pushed: the parsed form of `belljar.v1.PushImageResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// Its manifest.
    pub image: ObjectId,
    /// The manifest of the artifact with its provenance.
    pub attestation: ObjectId,
    /// Whether the registry itself lists that as referring to the image.
    pub listed_by_registry: bool,
    /// Bytes that were sent.
    pub pushed_bytes: u64,
}

impl ImageArtifact {
    /// What its manifest names: configuration and layers, the lowest first.
    pub fn content(&self) -> impl Iterator<Item = ObjectId> {
        let layers = self.layers.iter().map(|(object, _)| *object);
        [self.config].into_iter().chain(layers)
    }

    /// Everything that a layout of it has below `blobs/`: with these also what its base is told by, so that whoever has the
    /// layout can compute the image again.
    pub fn in_layout(&self) -> impl Iterator<Item = ObjectId> {
        let base = self.base.into_iter();
        let base = base.flat_map(|(manifest, config)| [manifest, config]);
        [self.manifest]
            .into_iter()
            .chain(self.content())
            .chain(base)
    }
}

impl TryFrom<v1::ImageOutput> for ImageOutput {
    type Error = Invalid;

    fn try_from(output: v1::ImageOutput) -> Result<Self, Invalid> {
        // Destructured, so that a new field cannot be forgotten here.
        let v1::ImageOutput {
            base,
            root,
            entrypoint,
            command,
            env,
            user,
            working_directory,
            labels,
        } = output;
        let base = match required("base", base)? {
            Base::Scratch(platform) => {
                let platform: Platform =
                    platform.parse().map_err(|e: Invalid| e.within("scratch"))?;
                BaseImage::Scratch(platform)
            }
            Base::Image(input) => {
                BaseImage::Image(input.try_into().map_err(|e: Invalid| e.within("image"))?)
            }
        };
        let root = Some(root).filter(|root| !root.is_empty());
        let root = root.map(RelPath::new).transpose();
        let config = ImageConfig::new(ImageFields {
            entrypoint,
            command,
            env,
            user,
            working_directory,
            labels,
        })?;
        Ok(Self {
            base,
            root: root.map_err(|e| e.within("root"))?,
            config,
        })
    }
}

impl From<&ImageOutput> for v1::ImageOutput {
    fn from(output: &ImageOutput) -> Self {
        let fields = output.config.get().clone();
        Self {
            base: Some(match &output.base {
                BaseImage::Scratch(platform) => Base::Scratch(platform.to_string()),
                BaseImage::Image(input) => Base::Image(input.into()),
            }),
            root: output
                .root
                .as_ref()
                .map(RelPath::to_string)
                .unwrap_or_default(),
            entrypoint: fields.entrypoint,
            command: fields.command,
            env: fields.env,
            user: fields.user,
            working_directory: fields.working_directory,
            labels: fields.labels,
        }
    }
}

impl From<&ImageArtifact> for v1::Image {
    fn from(image: &ImageArtifact) -> Self {
        let layers = image
            .layers
            .iter()
            .map(|(object, media_type)| v1::image::Layer {
                digest: Some((*object).into()),
                media_type: media_type.as_str().to_owned(),
            });
        Self {
            manifest: Some(image.manifest.into()),
            config: Some(image.config.into()),
            index: Some(image.index.into()),
            layers: layers.collect(),
            base_manifest: image.base.map(|(manifest, _)| manifest.into()),
            base_config: image.base.map(|(_, config)| config.into()),
        }
    }
}

impl TryFrom<v1::Image> for ImageArtifact {
    type Error = Invalid;

    fn try_from(image: v1::Image) -> Result<Self, Invalid> {
        let object = |field: &str, digest| {
            let object = ObjectId::try_from(required(field, digest)?);
            object.map_err(|e: Invalid| e.within(field))
        };
        let layers = (0_usize..).zip(image.layers).map(|(index, layer)| {
            let place = format!("layers[{index}]");
            let media_type = LayerType::named(&layer.media_type)
                .ok_or_else(|| Invalid::field(format!("{place}.media_type"), "not known"))?;
            let object = object("digest", layer.digest).map_err(|e| e.within(place))?;
            Ok((object, media_type))
        });
        Ok(Self {
            manifest: object("manifest", image.manifest)?,
            config: object("config", image.config)?,
            index: object("index", image.index)?,
            layers: layers.collect::<Result<_, Invalid>>()?,
            base: match image.base_manifest {
                None => None,
                manifest @ Some(_) => Some((
                    object("base_manifest", manifest)?,
                    object("base_config", image.base_config)?,
                )),
            },
        })
    }
}

impl TryFrom<v1::PushImageRequest> for ImagePush {
    type Error = Invalid;

    fn try_from(request: v1::PushImageRequest) -> Result<Self, Invalid> {
        let v1::PushImageRequest { name, reference } = request;
        Ok(Self {
            build: parse_build_name(&name)?,
            reference: reference
                .parse()
                .map_err(|e: Invalid| e.within("reference"))?,
        })
    }
}

impl From<&ImagePush> for v1::PushImageRequest {
    fn from(push: &ImagePush) -> Self {
        Self {
            name: build_name(&push.build),
            reference: push.reference.to_string(),
        }
    }
}

impl From<&PushedImage> for v1::PushImageResponse {
    fn from(pushed: &PushedImage) -> Self {
        Self {
            image: Some(pushed.image.into()),
            attestation: Some(pushed.attestation.into()),
            listed_by_registry: pushed.listed_by_registry,
            pushed_bytes: signed(pushed.pushed_bytes),
        }
    }
}

impl TryFrom<v1::PushImageResponse> for PushedImage {
    type Error = Invalid;

    fn try_from(response: v1::PushImageResponse) -> Result<Self, Invalid> {
        let object = |field: &str, digest| {
            let object = ObjectId::try_from(required(field, digest)?);
            object.map_err(|e: Invalid| e.within(field))
        };
        Ok(Self {
            image: object("image", response.image)?,
            attestation: object("attestation", response.attestation)?,
            listed_by_registry: response.listed_by_registry,
            pushed_bytes: unsigned("pushed_bytes", response.pushed_bytes)?,
        })
    }
}
