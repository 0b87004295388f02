use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::dsse::{PAYLOAD_TYPE, pae};
use crate::{Bundle, PublicKey, Statement};

/// A private ECDSA P-256 key. It signs statements and nothing else.
pub struct Key {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The bytes are no such key.
    #[error("not an ECDSA P-256 private key in PKCS#8 (DER)")]
    Unreadable,
    /// The cryptographic library could not make a key.
    #[error("no key could be generated")]
    Generate,
    /// The cryptographic library could not sign.
    #[error("the statement could not be signed")]
    Sign,
}

impl Key {
    /// Makes a new key, as PKCS#8 v1 in DER (RFC 5208) with its public half inside.
    ///
    /// # Errors
    /// When the cryptographic library has no randomness.
    pub fn generate_pkcs8() -> Result<Vec<u8>, KeyError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| KeyError::Generate)
    }

    /// Reads PKCS#8 in DER.
    ///
    /// # Errors
    /// When the bytes are anything but a P-256 key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
            .map_err(|_| KeyError::Unreadable)?;
        let public =
            PublicKey::from_point(pair.public_key().as_ref()).map_err(|_| KeyError::Unreadable)?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs, for nobody, bytes of a type that nothing accepts, and checks that the public half agrees. What
    /// the cryptographic library does once per process (seeding its generator takes a tenth of a second) is
    /// done by this too, and not at the first attestation.
    ///
    /// # Errors
    /// When the key cannot sign, or its halves do not belong together.
    pub fn self_test(&self) -> Result<(), KeyError> {
        let message = pae("application/vnd.belljar.self-test", b"");
        let signature = self
            .pair
            .sign(&SystemRandom::new(), &message)
            .map_err(|_| KeyError::Sign)?;
        if !self.public.verifies(&message, signature.as_ref()) {
            return Err(KeyError::Unreadable);
        }
        Ok(())
    }

    /// Signs a statement. Two signatures of one statement differ, since ECDSA is randomised.
    ///
    /// # Errors
    /// When the cryptographic library has no randomness.
    pub fn attest(&self, statement: &Statement) -> Result<Bundle, KeyError> {
        self.sign(statement.payload().to_vec())
    }

    /// Private to this crate so that only what [`Statement`] makes is ever signed.
    pub(crate) fn sign(&self, payload: Vec<u8>) -> Result<Bundle, KeyError> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), &pae(PAYLOAD_TYPE, &payload))
            .map_err(|_| KeyError::Sign)?;
        Ok(Bundle::new(
            payload,
            signature.as_ref().to_vec(),
            self.public.key_id(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_read_back() {
        let bytes = Key::generate_pkcs8().unwrap();
        let (one, same) = (
            Key::from_pkcs8(&bytes).unwrap(),
            Key::from_pkcs8(&bytes).unwrap(),
        );
        assert_eq!(one.public(), same.public());
        assert_eq!(one.self_test(), Ok(()));
        let bundle = one.sign(b"{}".to_vec()).unwrap();
        assert!(
            same.public()
                .verifies(&pae(PAYLOAD_TYPE, b"{}"), bundle.signature())
        );
        assert!(
            !same
                .public()
                .verifies(&pae(PAYLOAD_TYPE, b"{ }"), bundle.signature())
        );
    }

    #[test]
    fn other_bytes_are_no_key() {
        let bytes = Key::generate_pkcs8().unwrap();
        for bad in [&b""[..], b"\x30", &bytes[1..], &bytes[..bytes.len() - 1]] {
            assert_eq!(Key::from_pkcs8(bad).err(), Some(KeyError::Unreadable));
        }
    }
}
