use belljar_core::{ImageReference, Invalid};
use belljar_manifest::lock::{Origin, Source};
use belljar_wire::ImagePull;

use super::{PLATFORM, described, name, take};
use crate::cli;
use crate::client::Client;
use crate::error::Error;
use crate::manifest;
use crate::terminal::Terminal;

/// `belljar image pull`: has the daemon pull an image, and writes the lock.
///
/// # Errors
/// Whatever keeps it from that; the lock is then as it was.
pub(crate) fn pull(arguments: &cli::Pull, terminal: &mut Terminal) -> Result<u8, Error> {
    let name = name(&arguments.to.name)?;
    let lock = manifest::load_lock(&arguments.to.lock)?;
    let asked = arguments
        .reference
        .as_deref()
        .map(str::parse::<ImageReference>);
    let asked = asked.transpose();
    let asked = asked.map_err(|invalid| Error::Usage(format!("REFERENCE: {invalid}")))?;
    let locked = lock.image(&name).ok().map(|image| &image.source.origin);
    let locked = match locked {
        Some(Origin::Registry(reference)) => Some(reference),
        Some(Origin::File(_)) | None => None,
    };
    let reference = chosen(asked, locked, arguments.update);
    let reference = reference.map_err(|invalid| Error::Usage(invalid.reason))?;
    if let (Some(digest), Some(tag)) = (reference.digest(), reference.tag())
        && locked == Some(&reference)
    {
        terminal.note(&format!(
            "the lock has {digest}; --update looks what `{tag}` means today"
        ));
    }
    let work = async |client: &Client, terminal: &mut Terminal| {
        terminal.phase(&format!("pulling {reference}"));
        let pull = ImagePull {
            reference: reference.clone(),
            platform: PLATFORM,
        };
        let pulled = client.pull(&pull).await?;
        let reference = reference.pinned(pulled.image.digest);
        terminal.phase(&format!("{reference}: {} bytes came", pulled.pulled_bytes));
        terminal.phase(&described(&pulled.derived));
        let source = Source {
            origin: Origin::Registry(reference),
            object: pulled.image,
        };
        Ok((pulled.derived, source))
    };
    take(&arguments.to, name, lock, terminal, work)
}

/// What is pulled: what is asked for, but by the digest that the lock has for it, unless that shall be looked up anew.
fn chosen(
    asked: Option<ImageReference>,
    locked: Option<&ImageReference>,
    update: bool,
) -> Result<ImageReference, Invalid> {
    match (asked, locked) {
        (Some(asked), _) if asked.digest().is_some() && update => Err(Invalid::new(format!(
            "{asked} is one image for ever; leave out --update, or the digest"
        ))),
        (Some(asked), Some(locked)) if !update && locked.unpinned().as_ref() == Some(&asked) => {
            Ok(locked.clone())
        }
        (Some(asked), _) => Ok(asked),
        (None, Some(locked)) if update => locked.unpinned().ok_or_else(|| {
            Invalid::new(format!(
                "the lock has {locked}, which has no tag that could mean another image today; name one"
            ))
        }),
        (None, Some(locked)) => Ok(locked.clone()),
        (None, None) => Err(Invalid::new(
            "the lock has no image of this name that was pulled; name one: belljar image pull REFERENCE --name NAME",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_means_what_the_lock_says_until_that_is_looked_up_anew() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let parsed = |text: &str| text.parse::<ImageReference>().unwrap();
        let tagged = || parsed("r.example/c:1");
        let locked = parsed(&format!("r.example/c:1@{digest}"));
        let bare = parsed(&format!("r.example/c@{digest}"));
        let other = || parsed("r.example/c:2");
        for (asked, lock, update, due) in [
            (Some(tagged()), None, false, Some(tagged())),
            (Some(tagged()), Some(&locked), false, Some(locked.clone())),
            (Some(tagged()), Some(&locked), true, Some(tagged())),
            (Some(other()), Some(&locked), false, Some(other())),
            (Some(tagged()), Some(&bare), false, Some(tagged())),
            (Some(bare.clone()), Some(&locked), false, Some(bare.clone())),
            (Some(bare.clone()), None, true, None),
            (None, Some(&locked), false, Some(locked.clone())),
            (None, Some(&locked), true, Some(tagged())),
            (None, Some(&bare), false, Some(bare.clone())),
            (None, Some(&bare), true, None),
            (None, None, false, None),
        ] {
            let shown = format!("{asked:?} {lock:?} {update}");
            assert_eq!(chosen(asked, lock, update).ok(), due, "{shown}");
        }
    }
}
