use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

/// An authority, made for one test.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of a certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// For a server on the loopback device.
    pub(crate) fn server(&self, dir: &Path, name: &str) -> Pair {
        let mut params = params(name);
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        params.subject_alt_names.push(SanType::IpAddress(address));
        self.sign(dir, name, &params)
    }

    /// For a caller, by its subject alone.
    pub(crate) fn subject(&self, dir: &Path, name: &str) -> Pair {
        self.sign(dir, name, &params(name))
    }

    /// For a caller, by a SPIFFE id.
    pub(crate) fn spiffe(&self, dir: &Path, name: &str, uri: &str) -> Pair {
        let mut params = params(name);
        let uri = Ia5String::try_from(uri).unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        self.sign(dir, name, &params)
    }

    /// For a caller of another year.
    pub(crate) fn expired(&self, dir: &Path, name: &str) -> Pair {
        let mut params = params(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.sign(dir, name, &params)
    }

    fn sign(&self, dir: &Path, name: &str, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let pair = Pair {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&pair.certificate, certificate).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
