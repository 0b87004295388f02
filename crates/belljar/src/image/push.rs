use belljar_core::ImageReference;
use belljar_wire::ImagePush;

use crate::cli;
use crate::client::Client;
use crate::error::Error;
use crate::exit;
use crate::report::Pushed;
use crate::session;
use crate::terminal::{self, Terminal};

/// `belljar image push`: has the daemon push the image that became of a build.
///
/// # Errors
/// Whatever keeps it from that.
pub(crate) fn push(arguments: &cli::Push, terminal: &mut Terminal) -> Result<u8, Error> {
    let reference = arguments.reference.parse::<ImageReference>();
    let reference = reference.map_err(|e| Error::Usage(format!("REFERENCE: {e}")))?;
    let push = ImagePush {
        build: arguments.build.clone(),
        reference,
    };
    let whom = &arguments.ask.whom;
    session::ask(
        whom,
        terminal,
        async |client: &Client, terminal: &mut Terminal| {
            terminal.phase(&format!("pushing to {}", push.reference));
            let pushed = client.push(&push).await?;
            let (reference, image) = (push.reference.repository(), pushed.image.digest);
            if !pushed.listed_by_registry {
                terminal.note(&format!(
                "the registry does not list what refers to an image; the provenance is listed under the tag sha256-{}",
                image.to_hex()
            ));
            }
            let text = match arguments.ask.json {
                true => crate::json(&Pushed::new(&push, &pushed), false)?,
                false => format!(
                    "{reference}@{image}\nprovenance {}",
                    pushed.attestation.digest
                ),
            };
            terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
            Ok(exit::SUCCESS)
        },
    )
}
