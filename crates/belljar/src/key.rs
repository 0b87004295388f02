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
    let key = match target::running(&arguments.ask.whom)? {
        Some(socket) => {
            crate::block_on(async { Ok(told(&Client::connect(&socket, None).await?).await?) })?
        }
        None => {
            let path = embedded::public_key(&arguments.ask.whom.state());
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
    let text = if arguments.ask.json {
        crate::json(&report::PublicKey::new(&pem, &key_id), false)?
    } else {
        pem.trim_end().to_owned()
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

/// The key that a daemon tells. What it says is printed as a key, and kept as one: so it is one, and its id is computed.
async fn told(client: &Client) -> Result<PublicKey, client::Error> {
    let server = client.server_info().await?;
    let key = PublicKey::from_pem(&server.public_key_pem);
    key.map_err(|e| client::Error::answer(READING, e.within("public_key_pem")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Daemon;
    use belljar_wire::v1;

    /// Of a key that nobody has.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwh+sP7DXl8PiVWzX79YSwUKIVgvu\n\
        2hPAtpsUvAS9F2dTr2v2oeBN7yYmzBJowdvarmpATzK0uZiT+W134hJLew==\n\
        -----END PUBLIC KEY-----\n";

    async fn of(pem: &str) -> Result<PublicKey, client::Error> {
        let daemon = Daemon::start().await;
        daemon.state.lock().unwrap().info = Some(v1::ServerInfo {
            public_key_pem: pem.to_owned(),
            key_id: "SHA256:whatever".to_owned(),
            default_limits: Some((&belljar_core::Limits::DEFAULT).into()),
            maximum_limits: Some((&belljar_core::Limits::CEILING).into()),
            ..v1::ServerInfo::default()
        });
        told(&daemon.client).await
    }

    #[tokio::test]
    async fn a_key_is_told_as_it_is_and_named_by_itself() {
        for pem in [PEM.to_owned(), PEM.replace('\n', "\r\n")] {
            let key = of(&pem).await.unwrap();
            assert_eq!(key.to_pem(), PEM);
            assert!(key.key_id().starts_with("SHA256:"), "{}", key.key_id());
            assert_ne!(key.key_id(), "SHA256:whatever");
        }
    }

    #[tokio::test]
    async fn what_a_daemon_tells_is_a_key_or_nothing() {
        let point = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
        let bad = [
            ("nothing", String::new()),
            ("text for a terminal", format!("\u{1b}]0;owned\u{7}{PEM}")),
            ("text behind it", format!("{PEM}\u{9b}2J")),
            ("two keys", PEM.repeat(2)),
            ("a private key", PEM.replace("PUBLIC", "PRIVATE")),
            ("a certificate", PEM.replace("PUBLIC KEY", "CERTIFICATE")),
            ("no base 64", PEM.replace(point, "\u{202e}not a key")),
            ("another curve", PEM.replace("KoZIzj0DAQcD", "KoZIzj0DAQkD")),
            ("no point", PEM.replace("wh+sP7DX", "AAAAAAAA")),
            ("a cut one", PEM.replace("134hJLew==", "")),
        ];
        for (what, pem) in bad {
            let error = of(&pem).await.expect_err(what).to_string();
            assert!(error.contains("public_key_pem"), "{what}: {error}");
        }
    }
}
