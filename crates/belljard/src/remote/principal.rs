use std::fmt::Write as _;
use std::time::Duration;

use belljar_core::Invalid;
use belljar_policy::{Identity, SpiffeId, Subject};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Who a client certificate is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) identity: Identity,
    /// When the certificate expires, since 1970.
    pub(crate) expires: Duration,
}

/// Reads a certificate whose chain was verified. With a URI among its alternative names it must be a
/// SPIFFE id and the only URI (X509-SVID, section 2); without one its subject counts (RFC 4514).
///
/// # Errors
/// Why it is about nobody.
pub(crate) fn holder(certificate: &CertificateDer<'_>) -> Result<Holder, Invalid> {
    let malformed =
        |e: x509_cert::der::Error| Invalid::new(format!("the certificate cannot be read: {e}"));
    let certificate = Certificate::from_der(certificate)
        .map_err(malformed)?
        .tbs_certificate;
    let names = certificate.get::<SubjectAltName>().map_err(malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|(_, names)| &names.0)
        .filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    let identity = match uris[..] {
        [] => {
            let mut subject = String::new();
            write!(subject, "{}", certificate.subject)
                .map_err(|_| Invalid::new("the subject has no text form"))?;
            Identity::Subject(Subject::new(subject)?)
        }
        [uri] => Identity::Spiffe(SpiffeId::new(uri)?),
        _ => {
            return Err(Invalid::new(format!(
                "the certificate has {} URIs; one SPIFFE id is due, or none",
                uris.len()
            )));
        }
    };
    Ok(Holder {
        identity,
        expires: certificate.validity.not_after.to_unix_duration(),
    })
}
