//! Which root file systems the operator lets builds have, whatever belljard asks for.

use std::collections::BTreeSet;
use std::fmt;

use belljar_core::{Digest, Image, bounds};
use belljar_plan::ImageRule;
use serde::Deserialize;
use serde::de::{Error, SeqAccess, Visitor};

/// `allowed_images` of `spawner.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedImages {
    /// `"any"`: what belljard asks for, as long as the store has it.
    Any,
    /// A list: nothing but what stands in it.
    Listed {
        /// `"host"`: the host's own, of listed paths.
        host: bool,
        /// Trees by the digests of their topmost directories.
        trees: BTreeSet<Digest>,
    },
}

/// How the host's own root file system is named.
const HOST: &str = "host";
/// How it is said that there is no list.
const ANY: &str = "any";

impl AllowedImages {
    /// By which rule a build may have `image`.
    ///
    /// # Errors
    /// When it may not, with what to do about it.
    pub fn admit(&self, image: &Image) -> Result<ImageRule, String> {
        let Self::Listed { host, trees } = self else {
            return Ok(ImageRule::Any);
        };
        let (listed, name) = match image {
            Image::Host => (*host, HOST.to_owned()),
            Image::Tree(input) => (
                trees.contains(&input.tree.digest),
                input.tree.digest.to_string(),
            ),
        };
        if listed {
            return Ok(ImageRule::Listed);
        }
        Err(format!(
            "image: {name} is none of the root file systems that this host's operator allows; hint: add \"{name}\" to \
             allowed_images in spawner.toml, and restart belljar-spawner"
        ))
    }
}

impl<'de> Deserialize<'de> for AllowedImages {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = AllowedImages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", or a list of \"host\" and of trees as \"sha256:…\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AllowedImages, E> {
                match text {
                    ANY => Ok(AllowedImages::Any),
                    _ => Err(E::custom("only \"any\" or a list")),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AllowedImages, A::Error> {
                let (mut host, mut trees) = (false, BTreeSet::new());
                while let Some(entry) = list.next_element::<String>()? {
                    let new = if entry == HOST {
                        !std::mem::replace(&mut host, true)
                    } else {
                        let digest = entry.parse::<Digest>().map_err(A::Error::custom)?;
                        trees.insert(digest)
                    };
                    if !new {
                        return Err(A::Error::custom(format!("`{entry}` stands in it twice")));
                    }
                    if trees.len() > bounds::ALLOWED_IMAGES {
                        let most = bounds::ALLOWED_IMAGES;
                        return Err(A::Error::custom(format!("more than {most} images")));
                    }
                }
                if !host && trees.is_empty() {
                    return Err(A::Error::custom(
                        "the list is empty, so no build could run; name at least \"host\" or one image",
                    ));
                }
                Ok(AllowedImages::Listed { host, trees })
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::{Input, ObjectId};

    #[derive(Debug, Deserialize)]
    struct File {
        allowed_images: AllowedImages,
    }

    fn read(value: &str) -> Result<AllowedImages, String> {
        toml::from_str::<File>(&format!("allowed_images = {value}"))
            .map(|file| file.allowed_images)
            .map_err(|e| e.to_string())
    }

    fn tree(object: ObjectId) -> Image {
        Image::Tree(Input {
            tree: object,
            derivation: None,
        })
    }

    #[test]
    fn what_is_not_listed_is_refused_with_what_to_do() {
        let good = ObjectId::of(b"image");
        let digest = good.digest;
        let both = read(&format!("[\"host\", \"{digest}\"]")).unwrap();
        let images = read(&format!("[\"{digest}\"]")).unwrap();
        let host = read("[\"host\"]").unwrap();
        let any = read("\"any\"").unwrap();
        let (good, host_image) = (tree(good), Image::Host);
        for (list, image, rule) in [
            (&both, &good, ImageRule::Listed),
            (&both, &host_image, ImageRule::Listed),
            (&images, &good, ImageRule::Listed),
            (&host, &host_image, ImageRule::Listed),
            (&any, &good, ImageRule::Any),
            (&any, &host_image, ImageRule::Any),
        ] {
            assert_eq!(list.admit(image), Ok(rule));
        }
        for (list, image, name) in [
            (&images, &host_image, "\"host\"".to_owned()),
            (&host, &good, format!("\"{digest}\"")),
        ] {
            let refused = list.admit(image).unwrap_err();
            assert!(refused.contains(&name), "{refused}");
            assert!(refused.contains("allowed_images"), "{refused}");
        }
        // One bit of it another.
        for byte in 0..32 {
            let mut bytes = *digest.as_bytes();
            bytes[byte] ^= 1;
            let digest = Digest::from_bytes(bytes);
            assert!(images.admit(&tree(ObjectId { digest, size: 5 })).is_err());
        }
    }

    #[test]
    fn a_list_is_good_or_refused_by_what_is_wrong() {
        let digest = Digest::of(b"image");
        let most = (0..=bounds::ALLOWED_IMAGES)
            .map(|number| format!("\"{}\"", Digest::of(number.to_string().as_bytes())))
            .collect::<Vec<_>>();
        for (value, why) in [
            ("\"host\"".to_owned(), "\"any\""),
            ("7".to_owned(), "\"any\""),
            ("[]".to_owned(), "empty"),
            ("[\"any\"]".to_owned(), "sha256"),
            ("[\"debian\"]".to_owned(), "sha256"),
            (format!("[\"{}\"]", digest.to_hex()), "sha256"),
            ("[\"host\", \"host\"]".to_owned(), "twice"),
            (format!("[\"{digest}\", \"{digest}\"]"), "twice"),
            (format!("[{}]", most.join(", ")), "more than"),
        ] {
            let refused = read(&value).unwrap_err();
            assert!(refused.contains(why), "{value}: {refused}");
            assert!(refused.contains("allowed_images"), "{value}: {refused}");
        }
        assert!(read(&format!("[{}]", most[1..].join(", "))).is_ok());
    }
}
