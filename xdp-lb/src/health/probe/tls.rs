//! A TLS handshake succeeds.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
        SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem, pem::PemObject as _},
    },
};

use super::{Stage, Target, grpc::short};
use crate::{
    config::Tls,
    health::{Cause, Kind},
};

/// Shakes hands on a connection. `host` is the name to ask for where `tls` has none, and `protocols` are
/// offered by ALPN.
pub(super) async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    host: Option<&str>,
    protocols: &'static [&'static [u8]],
    target: &Target,
    stage: &Stage,
) -> Result<TlsStream<TcpStream>, Cause> {
    stage.set("shaking hands (TLS)");
    let name = server_name(tls, host, target.asked())?;
    let config = config(tls, protocols).await?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| cause(&error))
}

fn server_name(tls: &Tls, host: Option<&str>, asked: IpAddr) -> Result<ServerName<'static>, Cause> {
    let Some(name) = tls.server_name.as_deref().or(host.map(without_port)) else {
        return Ok(ServerName::IpAddress(asked.into()));
    };
    let name = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    ServerName::try_from(name.clone())
        .map_err(|_| Cause::new(Kind::Local, format!("tls: `{name}` cannot be asked for")))
}

/// A host as the header `Host` has it, without the port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// What a config is made from: whether to verify, whom to trust, and what to offer by ALPN.
type Settings = (bool, Option<PathBuf>, &'static [&'static [u8]]);

/// Configs, made once for all checks that have the same settings.
type Configs = HashMap<Settings, Made>;

struct Made {
    /// When the file with certificates was changed last.
    changed: Option<SystemTime>,
    config: Arc<ClientConfig>,
}

async fn config(
    tls: &Tls,
    protocols: &'static [&'static [u8]],
) -> Result<Arc<ClientConfig>, Cause> {
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    let changed = match tls.ca.as_ref().filter(|_| tls.verify) {
        Some(path) => Some(changed(path)?),
        None => None,
    };
    let key = (tls.verify, tls.ca.clone(), protocols);
    if let Some(config) = made(&key, changed) {
        return Ok(config);
    }
    // Thousands of checks may come here at once, and reading all the system's certificates takes time.
    let _alone = MAKING.lock().await;
    if let Some(config) = made(&key, changed) {
        return Ok(config);
    }
    let of = tls.clone();
    // Kept even if it takes longer than this check has.
    let make_and_keep = move || {
        let config = make(&of, protocols)?;
        let made = Made {
            changed,
            config: Arc::clone(&config),
        };
        configs().insert(key, made);
        Ok(config)
    };
    // Reads files.
    let made = tokio::task::spawn_blocking(make_and_keep).await;
    made.unwrap_or_else(|error| Err(Cause::new(Kind::Local, format!("tls: {error}"))))
}

fn configs() -> MutexGuard<'static, Configs> {
    static CONFIGS: OnceLock<Mutex<Configs>> = OnceLock::new();

    let configs = CONFIGS.get_or_init(Mutex::default);
    configs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was made before, unless the file has changed since.
fn made(key: &Settings, changed: Option<SystemTime>) -> Option<Arc<ClientConfig>> {
    let configs = configs();
    let made = configs.get(key).filter(|made| made.changed == changed);
    made.map(|made| Arc::clone(&made.config))
}

fn changed(path: &Path) -> Result<SystemTime, Cause> {
    let metadata = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    metadata.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> Cause {
    Cause::new(Kind::Local, format!("tls: {}: {reason}", path.display()))
}

fn make(tls: &Tls, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, Cause> {
    let provider = Arc::new(ring::default_provider());
    let local = |error: Error| Cause::new(Kind::Local, format!("tls: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(local)?;
    let mut config = if tls.verify {
        builder.with_root_certificates(roots(tls.ca.as_deref())?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    }
    .with_no_client_auth();
    // Each check is to see the certificate.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates to trust: those of a file, or the system's.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, Cause> {
    let mut roots = RootCertStore::empty();
    let certificates = match ca {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| match error {
                pem::Error::Io(error) => unreadable(path, &error),
                _ => unreadable(path, &"is no whole PEM file"),
            })?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (taken, _) = roots.add_parsable_certificates(certificates);
    match (taken, ca) {
        (0, Some(path)) => Err(unreadable(
            path,
            &"holds no certificate that can be trusted",
        )),
        (0, None) => Err(Cause::new(
            Kind::Local,
            "tls: this host trusts no certificates; install `ca-certificates`, or name a file with `tls.ca`",
        )),
        _ => Ok(roots),
    }
}

/// Says in a few words why a handshake failed.
fn cause(error: &io::Error) -> Cause {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let Some(error) = inner else {
        return Cause::io("tls", error);
    };
    let text = match error {
        Error::InvalidCertificate(reason) => format!("tls: {}", certificate(reason)),
        Error::AlertReceived(alert) => format!("tls: the backend refuses: {alert:?}"),
        Error::InvalidMessage(_) => "tls: the answer is not TLS".into(),
        error => format!("tls: {error}"),
    };
    Cause::new(Kind::Tls, text)
}

fn certificate(reason: &CertificateError) -> String {
    let between = |from: UnixTime, to: UnixTime| {
        age(Duration::from_secs(
            to.as_secs().saturating_sub(from.as_secs()),
        ))
    };
    match reason {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("certificate expired {} ago", between(*not_after, *time))
        }
        CertificateError::Expired => "certificate expired".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "certificate becomes valid in {}",
                between(*time, *not_before)
            )
        }
        CertificateError::UnknownIssuer => "certificate of an issuer that is not trusted".into(),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "certificate is not for {}, but for {}",
            short(&expected.to_str()),
            names(presented)
        ),
        CertificateError::NotValidForName => "certificate is for another name".into(),
        reason => short(&format!("bad certificate: {reason}")),
    }
}

/// The first names of a certificate, without what rustls puts around them: `DnsName("a.example.com")`.
fn names(presented: &[String]) -> String {
    /// A certificate may have hundreds, of any length.
    const SHOWN: usize = 3;

    let plain = |name: &String| {
        let inner = name.split_once('(').map_or(&**name, |(_, inner)| inner);
        short(inner.trim_end_matches(')').trim_matches('"'))
    };
    let shown: Vec<String> = presented.iter().take(SHOWN).map(plain).collect();
    let shown = shown.join(", ");
    match presented.len().saturating_sub(SHOWN) {
        _ if presented.is_empty() => "no name".into(),
        0 => shown,
        1 => format!("{shown} and another"),
        more => format!("{shown} and {more} others"),
    }
}

/// A time in its largest unit.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Takes any certificate, but only from a server that has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_of_a_certificate_are_shown() {
        let all = [
            r#"DnsName("a.b")"#,
            "IpAddress(2001:db8::1)",
            "Odd",
            r#"DnsName("c.d")"#,
            r#"DnsName("e.f")"#,
        ]
        .map(str::to_owned);
        for (count, text) in [
            (0, "no name"),
            (1, "a.b"),
            (3, "a.b, 2001:db8::1, Odd"),
            (4, "a.b, 2001:db8::1, Odd and another"),
            (5, "a.b, 2001:db8::1, Odd and 2 others"),
        ] {
            assert_eq!(names(&all[..count]), text);
        }
    }

    #[test]
    fn a_host_loses_its_port() {
        for (host, name) in [
            ("www.example.com", "www.example.com"),
            ("www.example.com:8443", "www.example.com"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn the_name_is_the_configured_one_or_the_hosts_or_the_address() {
        let asked = [192, 0, 2, 10].into();
        let mut tls = Tls::default();
        let name =
            |tls: &Tls, host| server_name(tls, host, asked).map(|name| name.to_str().into_owned());
        assert_eq!(name(&tls, None), Ok("192.0.2.10".into()));
        assert_eq!(name(&tls, Some("a.b:8443")), Ok("a.b".into()));
        assert_eq!(
            name(&tls, Some("[2001:db8::1]:443")),
            Ok("2001:db8::1".into())
        );
        tls.server_name = Some("c.d".into());
        assert_eq!(name(&tls, Some("a.b")), Ok("c.d".into()));
        tls.server_name = Some("-".into());
        assert!(name(&tls, None).is_err());
    }
}
