//! Certificates for servers: good ones, and such as no client should take.

use std::sync::Arc;

use anyhow::{Error, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, date_time_ymd};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Years in which a certificate is valid, both from their first of January.
pub type Years = [i32; 2];

/// Valid whenever the tests are run.
pub const VALID: Years = [2020, 4000];

/// A certificate with its key, and what is offered by ALPN.
#[derive(Clone, Debug)]
pub struct Identity(Arc<ServerConfig>);

impl Identity {
    /// A certificate for these names and addresses, signed by itself. Returns it in PEM as well.
    pub fn self_signed(names: &[&str], years: Years) -> Result<(Self, String)> {
        let key = KeyPair::generate()?;
        let certificate = params(names, years)?.self_signed(&key)?;
        let pem = certificate.pem();
        Ok((Self::new(certificate.der().clone(), &key)?, pem))
    }

    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<Self> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Self(Arc::new(config)))
    }

    /// The same for a server that takes one of these protocols by ALPN.
    #[must_use]
    pub fn with_protocols(&self, protocols: &[&str]) -> Self {
        let mut config = ServerConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// What a TLS server takes.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// An authority of this name.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(&[], VALID)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// A certificate for these names and addresses.
    pub fn sign(&self, names: &[&str], years: Years) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params(names, years)?.signed_by(&key, &self.0)?;
        Identity::new(certificate.der().clone(), &key)
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

fn params(names: &[&str], years: Years) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    Ok(params)
}
