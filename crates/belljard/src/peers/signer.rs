use std::path::{Path, PathBuf};
use std::time::Duration;

use belljar_core::{AttemptId, ObjectId, bounds};
use belljar_engine::life::{Bundle, Collected};
use belljar_engine::ports::{Refusal, Signer, Trouble};
use belljar_plan::ConfinedStep;
use belljar_plan::signer::{Answer, Asserted, Request};
use tokio::time::timeout;

use super::channel::{Buffer, Channel, ChannelError};
use super::files;
use crate::latest::{FAILED, Latest};
use crate::tasks;

/// How long the signer may take; the engine is more patient than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the signer, over a connection for each question.
#[derive(Debug)]
pub(crate) struct SignerClient {
    socket: PathBuf,
    evidence: PathBuf,
    key: Latest<Result<PublicKey, Trouble>>,
}

/// The signer's public key. It does not change while the signer lives; one that is changed under a running
/// belljard needs its restart.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// SubjectPublicKeyInfo in PEM.
    pub(crate) pem: String,
    /// OpenSSH fingerprint.
    pub(crate) key_id: String,
}

impl SignerClient {
    pub(crate) fn new(socket: PathBuf, evidence: PathBuf) -> Self {
        Self {
            socket,
            evidence,
            key: Latest::default(),
        }
    }

    /// Whether the signer answers now.
    pub(crate) async fn answers(&self) -> bool {
        matches!(
            ask(&self.socket, &Request::PublicKey).await,
            Ok(Answer::PublicKey { .. })
        )
    }

    /// How the signer has confined itself.
    pub(crate) async fn confinement(&self) -> Result<Vec<ConfinedStep>, Trouble> {
        match ask(&self.socket, &Request::Confinement).await? {
            Answer::Confinement { steps } => Ok(steps),
            Answer::Refused { reasons, .. } => Err(Trouble(reasons.join("; "))),
            other => Err(Trouble(format!("an answer that does not fit: {other:?}"))),
        }
    }

    /// The public key.
    pub(crate) async fn public_key(&self) -> Result<PublicKey, Trouble> {
        let ask = async {
            match ask(&self.socket, &Request::PublicKey).await {
                Ok(Answer::PublicKey { pem, key_id }) => Ok(PublicKey { pem, key_id }),
                Ok(Answer::Refused { reasons, .. }) => Err(Trouble(reasons.join("; "))),
                Ok(other) => Err(Trouble(format!("an answer that does not fit: {other:?}"))),
                Err(error) => Err(error),
            }
        };
        let counts = |told: &Result<_, _>| if told.is_ok() { Duration::MAX } else { FAILED };
        self.key.get(counts, ask).await
    }
}

impl SignerClient {
    /// Has something signed.
    async fn sign(&self, request: &Request) -> Result<ObjectId, Refusal> {
        match ask(&self.socket, request).await.map_err(trouble)? {
            Answer::Attested { bundle, size } => Ok(ObjectId {
                digest: bundle,
                size,
            }),
            Answer::Refused { retryable, reasons } => Err(Refusal { retryable, reasons }),
            other @ (Answer::PublicKey { .. } | Answer::Confinement { .. }) => Err(Refusal {
                retryable: false,
                reasons: vec![format!(
                    "the signer gave an answer that does not fit: {other:?}"
                )],
            }),
        }
    }
}

fn trouble(Trouble(why): Trouble) -> Refusal {
    Refusal {
        retryable: true,
        reasons: vec![why],
    }
}

async fn ask(socket: &Path, request: &Request) -> Result<Answer, Trouble> {
    let conversation = async {
        let channel = Channel::connect(socket).await?;
        channel.tell(request).await?;
        channel.hear(&mut Buffer::new()).await
    };
    match timeout(PATIENCE, conversation).await {
        Ok(answer) => {
            answer.map_err(|e: ChannelError| Trouble(format!("the signer: {}", tasks::chain(&e))))
        }
        Err(_) => Err(Trouble(format!(
            "the signer has not answered in {} s",
            PATIENCE.as_secs()
        ))),
    }
}

impl Signer for SignerClient {
    async fn attest(
        &self,
        collected: Collected,
        spec: String,
        asserted: Asserted,
    ) -> Result<Bundle, Refusal> {
        let key_id = self.public_key().await.map_err(trouble)?.key_id;
        let request = Request::Attest {
            attempt: collected.attempt().clone(),
            spec,
            asserted,
        };
        let object = self.sign(&request).await?;
        Ok(Bundle { object, key_id })
    }

    async fn sign_receipt(&self, attempt: &AttemptId) -> Result<ObjectId, Refusal> {
        let attempt = attempt.clone();
        self.sign(&Request::SignReceipt { attempt }).await
    }

    async fn receipt_bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        let name = format!("{attempt}.receipt.sigstore.json");
        files::read(&self.evidence, name, bounds::BUNDLE_BYTES).await
    }

    async fn bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        files::read(
            &self.evidence,
            format!("{attempt}.sigstore.json"),
            bounds::BUNDLE_BYTES,
        )
        .await
    }
}
