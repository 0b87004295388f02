//! `belljar key public`: the key with which provenance can be verified.

use belljar_attest::PublicKey;

use crate::cli;
use crate::client::{self, Client};
use crate::embedded;
use crate::error::Error;
use crate::exit;
use crate::report;
use crate::target;
use crate::terminal;

const READING: &str = "asking for the key";

/// Asks the daemon; without one, reads what the signer of embedded mode has published.
///
/// # Errors
/// When there is neither.
pub(crate) fn public(arguments: &cli::KeyPublic) -> Result<u8, Error> {
    let key = match target::running(&arguments.whom)? {
        Some(socket) => crate::block_on(async {
            let server = Client::connect(&socket, None).await?.server_info().await?;
            // What it says is printed as a key, and kept as one: so it is one, and its id is computed.
            let key = PublicKey::from_pem(&server.public_key_pem);
            Ok(key.map_err(|e| client::Error::answer(READING, e.within("public_key_pem")))?)
        })?,
        None => {
            let path = embedded::public_key(&arguments.whom.state());
            let file = |source| Error::File {
                what: "read the public key",
                path: path.clone(),
                source,
            };
            let pem = std::fs::read_to_string(&path).map_err(file)?;
            PublicKey::from_pem(&pem).map_err(|e| file(std::io::Error::other(e)))?
        }
    };
    let (pem, key_id) = (key.to_pem(), key.key_id());
    let text = if arguments.json {
        crate::json(&report::PublicKey::new(&pem, &key_id), false)?
    } else {
        pem.trim_end().to_owned()
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}
