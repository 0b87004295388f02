use std::fmt::Write as _;
use std::time::Duration;

use belljar_core::{Invalid, bounds};
use belljar_policy::{Identity, SpiffeId, Subject};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::{Certificate, TbsCertificate};

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
/// What the verifier does not look at is looked at here: for what the keys of the chain may be used.
///
/// # Errors
/// Why it is about nobody.
pub(crate) fn holder(chain: &[CertificateDer<'_>]) -> Result<Holder, Invalid> {
    let (own, above) = chain
        .split_first()
        .ok_or_else(|| Invalid::new("there is no client certificate"))?;
    if chain.len() > bounds::CALLER_CERTIFICATES {
        let (found, most) = (chain.len(), bounds::CALLER_CERTIFICATES);
        return Err(Invalid::new(format!(
            "{found} certificates came; {most} are allowed"
        )));
    }
    let certificate = read(own)?;
    if may(&certificate, KeyUsages::DigitalSignature)? == Some(false) {
        let why = "the certificate's key may not be used to prove who one is (key usage)";
        return Err(Invalid::new(why));
    }
    for authority in above {
        if may(&read(authority)?, KeyUsages::KeyCertSign)? == Some(false) {
            let why = "a certificate above it has a key that may not vouch for others (key usage)";
            return Err(Invalid::new(why));
        }
    }
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

fn malformed(error: x509_cert::der::Error) -> Invalid {
    Invalid::new(format!("the certificate cannot be read: {error}"))
}

fn read(certificate: &CertificateDer<'_>) -> Result<TbsCertificate, Invalid> {
    let certificate = Certificate::from_der(certificate).map_err(malformed)?;
    Ok(certificate.tbs_certificate)
}

/// Whether a certificate's key may be used so, if it says (RFC 5280, section 4.2.1.3).
fn may(certificate: &TbsCertificate, so: KeyUsages) -> Result<Option<bool>, Invalid> {
    let usage = certificate.get::<KeyUsage>().map_err(malformed)?;
    Ok(usage.map(|(_, usage)| usage.0.contains(so)))
}
